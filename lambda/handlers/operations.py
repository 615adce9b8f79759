"""What each route does, from a parsed request to an answer. Errors are those that problems.KINDS lists."""

import dataclasses

import msgspec
from msgspec import UNSET

from adapters.deadline import Deadline
from adapters.describer import USUAL_QUESTION, Describer, to_jpeg
from adapters.describer import Turn as AskedTurn
from adapters.objects import ObjectLocation, Objects
from adapters.uploads import Uploads, is_upload_id
from handlers import answers
from handlers.problems import KINDS, NotConfigured, OutOfTime, RequestTooLarge, UnknownPath, UnknownResult, document
from handlers.records import record_description, record_prediction, record_refusal
from handlers.requests import ClassifyRequest, DescribeRequest, ImageInput, UploadBody, source_of
from litelens.bundle import METRICS, REPORT, load_bundle
from litelens.classifier import Classifier, Options
from litelens.errors import InputError
from litelens.images import DecodedImage
from settings import Settings

REPORT_PATH = "/v1/model/report"


class Operations:
    """The model, loaded and tried, and the adapters that this deployment has."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the bundle cannot be served."""
        largest = max(settings.limits.bytes, settings.max_upload_bytes)
        self._body_limit = settings.limits.bytes
        self._bundle = load_bundle(settings.bundle)
        self._classifier = Classifier(
            self._bundle, dataclasses.replace(settings.limits, bytes=largest), settings.threads
        )
        self._warm_up_ms = self._classifier.warm_up()
        self._objects = Objects(settings.buckets, settings.max_upload_bytes)
        self._uploads = Uploads(settings.upload_bucket, settings.max_upload_bytes) if settings.upload_bucket else None
        self._describer = Describer(settings.describe_model) if settings.describe_model else None
        self.model = answers.Model(self._bundle.name, self._bundle.version)

    def classify(
        self, request: ClassifyRequest, deadline: Deadline, request_id: str
    ) -> answers.ClassifyAnswer | answers.ClassifyManyAnswer:
        self._classifier.check(request.options)
        if request.are_many:
            results = [self._result(image, request.options, deadline, request_id) for image in request.images]
            return answers.ClassifyManyAnswer(self.model, results, request_id)
        (image,) = request.images
        found = self._classify(image, request.options, deadline, request_id)
        return answers.ClassifyAnswer(model=self.model, request_id=request_id, **msgspec.structs.asdict(found))

    def create_upload(self, body: UploadBody, request_id: str) -> answers.UploadAnswer:
        upload = self._upload_road().create(body.content_type)
        return answers.UploadAnswer(
            upload.id, upload.url, dict(upload.fields), upload.expires_in, upload.max_bytes, request_id
        )

    def tell_result(self, upload_id: str, deadline: Deadline, request_id: str) -> answers.ResultAnswer:
        """The saved result; without one, the upload is classified now, and the result saved."""
        uploads = self._upload_road()
        if not is_upload_id(upload_id):
            raise UnknownResult("This is not an id that POST /v1/uploads gave.")
        saved = uploads.result(upload_id, deadline)
        if saved is not None:
            found = msgspec.json.decode(saved, type=answers.ResultAnswer)
            return msgspec.structs.replace(found, request_id=request_id)
        result = self._lasting_result(uploads, upload_id, deadline, request_id)
        answer = answers.ResultAnswer(upload_id, self.model, result, request_id)
        if not isinstance(result, answers.Pending):
            uploads.save_result(upload_id, msgspec.json.encode(answer), deadline)
        return answer

    def describe(self, request: DescribeRequest, deadline: Deadline, request_id: str) -> answers.DescribeAnswer:
        if self._describer is None:
            raise NotConfigured("No language model is configured here; the operator can set DescribeModel.")
        image = self._decode(request.image, deadline)
        prediction = self._classifier.predict(image)
        found = [(candidate.label, candidate.confidence) for candidate in prediction.candidates]
        question = request.question or USUAL_QUESTION
        turns = [AskedTurn(turn.question, turn.answer) for turn in request.turns]
        description = self._describer.describe(to_jpeg(image.rgb), found, question, turns, deadline)
        record_description(self._describer.model_id, description.input_tokens, description.output_tokens, request_id)
        return answers.DescribeAnswer(
            model=self.model,
            describe_model=self._describer.model_id,
            answer=description.answer,
            turns=[*request.turns, answers.Turn(question, description.answer)][-answers.MAX_TURNS :],
            predictions=answers.labels_of(prediction),
            uncertain=prediction.uncertain,
            input_tokens=description.input_tokens,
            output_tokens=description.output_tokens,
            request_id=request_id,
        )

    def tell_model(self) -> answers.ModelAnswer:
        metrics = self._bundle.folder / METRICS
        has_report = (self._bundle.folder / REPORT).is_file()
        return answers.ModelAnswer(
            manifest=dict(self._bundle.manifest),
            links=answers.Links(report=REPORT_PATH if has_report else UNSET),
            metrics=msgspec.json.decode(metrics.read_bytes()) if metrics.is_file() else UNSET,
        )

    def show_report(self) -> str:
        report = self._bundle.folder / REPORT
        if not report.is_file():
            raise UnknownPath("This model has no report.")
        return report.read_text("utf-8")

    def tell_health(self) -> answers.HealthAnswer:
        return answers.HealthAnswer("ok", self.model, self._warm_up_ms)

    def _result(
        self, image: bytes | ImageInput, options: Options, deadline: Deadline, request_id: str
    ) -> answers.Classification | answers.Failure:
        try:
            if deadline.remaining() <= 0:
                raise OutOfTime("The images before this one took all the time; send it again in a smaller request.")
            return self._classify(image, options, deadline, request_id)
        except tuple(KINDS) as error:
            return _failure(error, request_id)

    def _lasting_result(
        self, uploads: Uploads, upload_id: str, deadline: Deadline, request_id: str
    ) -> answers.Classification | answers.Failure | answers.Pending:
        """What an upload shows, or why nothing will ever be told of it; other errors, which may pass, are raised."""
        try:
            image = uploads.image(upload_id, deadline)
            if image is None and uploads.has_expired(upload_id):
                raise UnknownResult("Nothing was uploaded under this id in time; ask for another at POST /v1/uploads.")
            return answers.Pending() if image is None else self._classification(image, Options(), request_id)
        except InputError as error:
            return _failure(error, request_id)

    def _classify(
        self, image: bytes | ImageInput, options: Options, deadline: Deadline, request_id: str
    ) -> answers.Classification:
        return self._classification(self._fetch(image, deadline), options, request_id)

    def _classification(self, data: bytes, options: Options, request_id: str) -> answers.Classification:
        prediction = self._classifier.classify(data, options)
        record_prediction(prediction, len(data), request_id)
        return answers.classification_of(prediction)

    def _decode(self, image: bytes | ImageInput, deadline: Deadline) -> DecodedImage:
        return self._classifier.decode(self._fetch(image, deadline))

    def _fetch(self, image: bytes | ImageInput, deadline: Deadline) -> bytes:
        source = source_of(image)
        if isinstance(source, ObjectLocation):
            return self._objects.read(source, deadline)
        if len(source) > self._body_limit:
            detail = f"The image has {len(source):,} bytes; at most {self._body_limit:,} are accepted in a request."
            raise RequestTooLarge(f"{detail} Send it by POST /v1/uploads." if self._uploads else detail)
        return source

    def _upload_road(self) -> Uploads:
        if self._uploads is None:
            raise NotConfigured("No upload bucket is configured here; the operator can set LITELENS_UPLOAD_BUCKET.")
        return self._uploads


def _failure(error: Exception, request_id: str) -> answers.Failure:
    kind = KINDS[type(error)]
    record_refusal(kind, request_id)
    return answers.Failure(document(kind, str(error), request_id))
