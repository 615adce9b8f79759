"""What each route does, from the call to the answer. Errors are those that problems.KINDS lists."""

import dataclasses

import msgspec
from msgspec import UNSET

from adapters.describer import USUAL_QUESTION, Describer, Turn, to_jpeg
from adapters.errors import ObjectError
from adapters.objects import ObjectLocation, Objects
from adapters.uploads import Uploads, is_upload_id
from handlers import answers
from handlers.problems import KINDS, NotConfigured, OutOfTime, RequestTooLarge, UnknownPath, UnknownResult, document
from handlers.records import record_description, record_prediction, record_problem
from handlers.requests import Call, Image, parse_classify, parse_describe, parse_upload, source_of
from litelens.bundle import METRICS, REPORT, load_bundle
from litelens.classifier import Classifier, Options
from litelens.errors import InputError
from settings import Settings

REPORT_PATH = "/v1/model/report"

_OPERATOR = "whoever runs the service (docs/deploy.md tells how)"


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

    def classify(self, call: Call) -> answers.ClassifyAnswer | answers.ClassifyManyAnswer:
        request = parse_classify(call.event)
        self._classifier.check(request.options)
        if request.are_many:
            results = [self._item_outcome(image, request.options, call) for image in request.images]
            return answers.ClassifyManyAnswer(self.model, results, call.id)
        (image,) = request.images
        shown = self._classify(self._fetch(image, call), request.options, call)
        return answers.ClassifyAnswer(model=self.model, request_id=call.id, **msgspec.structs.asdict(shown))

    def create_upload(self, call: Call) -> answers.UploadAnswer:
        uploads = self._configured_uploads()
        upload = uploads.create(parse_upload(call.event).content_type)
        return answers.UploadAnswer(
            upload.id, upload.url, dict(upload.fields), upload.expires_in, upload.max_bytes, call.id
        )

    def tell_result(self, upload_id: str, call: Call) -> answers.ResultAnswer:
        """The saved result; without one, the upload is classified now, and the result saved."""
        uploads = self._configured_uploads()
        if not is_upload_id(upload_id):
            raise UnknownResult("This is not an id that POST /v1/uploads gave.")
        saved = _decoded(uploads.result(upload_id, call.deadline))
        if saved is not None:
            return msgspec.structs.replace(saved, request_id=call.id)
        outcome = self._upload_outcome(uploads, upload_id, call)
        answer = answers.ResultAnswer(upload_id, self.model, outcome, call.id)
        if not isinstance(outcome, answers.Pending):
            try:
                uploads.save_result(upload_id, msgspec.json.encode(answer), call.deadline)
            except ObjectError as error:
                # The next to ask will have it classified again.
                record_problem(error, call.id)
        return answer

    def describe(self, call: Call) -> answers.DescribeAnswer:
        if self._describer is None:
            raise NotConfigured(f"No language model is configured here; {_OPERATOR} can choose one.")
        request = parse_describe(call.event)
        image = self._classifier.decode(self._fetch(request.image, call))
        prediction = self._classifier.predict(image)
        found = [(candidate.label, candidate.confidence) for candidate in prediction.candidates]
        question = request.question or USUAL_QUESTION
        description = self._describer.describe(to_jpeg(image.rgb), found, question, request.turns, call.deadline)
        record_description(self._describer.model_id, description.input_tokens, description.output_tokens, call.id)
        return answers.DescribeAnswer(
            model=self.model,
            describe_model=self._describer.model_id,
            answer=description.answer,
            turns=[*request.turns, Turn(question, description.answer)][-answers.MAX_TURNS :],
            predictions=answers.labels_of(prediction),
            uncertain=prediction.uncertain,
            input_tokens=description.input_tokens,
            output_tokens=description.output_tokens,
            request_id=call.id,
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

    def _item_outcome(self, image: Image, options: Options, call: Call) -> answers.Classification | answers.Failure:
        try:
            if call.deadline.remaining() <= 0:
                raise OutOfTime("The images before this one took all the time; send it again in a smaller request.")
            return self._classify(self._fetch(image, call), options, call)
        except tuple(KINDS) as error:
            return _failure(error, call.id)

    def _upload_outcome(
        self, uploads: Uploads, upload_id: str, call: Call
    ) -> answers.Classification | answers.Failure | answers.Pending:
        """What an upload shows, or why nothing will ever be told of it; other errors, which may pass, are raised."""
        image = uploads.image(upload_id, call.deadline)
        if image is None and not uploads.is_open(upload_id):
            raise UnknownResult("No image came under this id in time, or it was deleted since; ask for a new upload.")
        try:
            return answers.Pending() if image is None else self._classify(image, Options(), call)
        except InputError as error:
            return _failure(error, call.id)

    def _classify(self, data: bytes, options: Options, call: Call) -> answers.Classification:
        prediction = self._classifier.classify(data, options)
        record_prediction(prediction, len(data), call.id)
        return answers.classification_of(prediction)

    def _fetch(self, image: Image, call: Call) -> bytes:
        source = source_of(image)
        if isinstance(source, ObjectLocation):
            return self._objects.read(source, call.deadline)
        if len(source) > self._body_limit:
            detail = f"The image has {len(source):,} bytes; at most {self._body_limit:,} are accepted in a request."
            raise RequestTooLarge(f"{detail} Send it by POST /v1/uploads." if self._uploads else detail)
        return source

    def _configured_uploads(self) -> Uploads:
        if self._uploads is None:
            raise NotConfigured(f"Uploads have no bucket here; {_OPERATOR} can give them one.")
        return self._uploads


def _decoded(saved: bytes | None) -> answers.ResultAnswer | None:
    """The saved result; None when there is none, or an older version wrote it in another form."""
    try:
        return None if saved is None else msgspec.json.decode(saved, type=answers.ResultAnswer)
    except msgspec.DecodeError:
        return None


def _failure(error: Exception, request_id: str) -> answers.Failure:
    record_problem(error, request_id)
    return answers.Failure(document(KINDS[type(error)], str(error), request_id))
