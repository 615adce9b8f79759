"""What each route does, from the call to the answer. Errors are those that problems.KINDS lists."""

import dataclasses

import msgspec
from msgspec import UNSET

from adapters.describer import USUAL_QUESTION, Describer, Turn, to_jpeg
from adapters.objects import ObjectLocation, Objects
from adapters.results import Results
from adapters.uploads import Uploads, image_key, is_upload_id
from handlers import answers
from handlers.outcomes import classify, failure
from handlers.problems import KINDS, NotConfigured, OutOfTime, RequestTooLarge, UnknownPath, UnknownResult
from handlers.records import record_description
from handlers.requests import Call, Image, parse_classify, parse_describe, parse_upload, source_of
from litelens.bundle import METRICS, REPORT, load_bundle
from litelens.classifier import Classifier, Options
from settings import Settings

REPORT_PATH = "/v1/model/report"
UPLOADS_PATH = "/v1/uploads"
DESCRIBE_PATH = "/v1/describe"

_OPERATOR = "whoever runs the service (docs/deploy.md tells how)"


class Operations:
    """The model, loaded and tried, and the adapters that this deployment has."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the bundle cannot be served."""
        largest = max(settings.limits.bytes, settings.max_upload_bytes)
        self._limits = settings.limits
        self._max_upload_bytes = settings.max_upload_bytes
        self._bundle = load_bundle(settings.bundle)
        self._classifier = Classifier(
            self._bundle, dataclasses.replace(settings.limits, bytes=largest), settings.threads, settings.engine
        )
        self._warm_up_ms = self._classifier.warm_up()
        self._objects = Objects(settings.buckets, settings.max_upload_bytes)
        self._uploads = Uploads(settings.upload_bucket, settings.max_upload_bytes) if settings.upload_bucket else None
        self._results = Results(settings.results_table) if settings.results_table else None
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
        uploads, _ = self._configured_uploads()
        upload = uploads.create(parse_upload(call.event).content_type)
        return answers.UploadAnswer(
            upload.id, upload.url, dict(upload.fields), upload.expires_in, upload.max_bytes, call.id
        )

    def tell_result(self, upload_id: str, call: Call) -> answers.ResultAnswer:
        """What became of an upload; pending while it has not come, or has not been classified yet."""
        uploads, results = self._configured_uploads()
        if not is_upload_id(upload_id):
            raise UnknownResult("This is not an id that POST /v1/uploads gave.")
        saved = results.of_object(uploads.bucket, image_key(upload_id), call.deadline)
        if saved:
            decoded = [msgspec.json.decode(document, type=answers.BulkResult) for document in saved]
            found = next((result for result in decoded if not result.is_superseded), decoded[0])
            return answers.ResultAnswer(upload_id, found.model, found.result, call.id)
        if not uploads.is_open(upload_id) and not uploads.is_there(upload_id, call.deadline):
            raise UnknownResult("No image came under this id in time, or it was deleted since; ask for a new upload.")
        return answers.ResultAnswer(upload_id, self.model, answers.Pending(), call.id)

    def describe(self, call: Call) -> answers.DescribeAnswer:
        if self._describer is None:
            raise NotConfigured(f"No language model is configured here; {_OPERATOR} can choose one.")
        request = parse_describe(call.event)
        data = self._fetch(request.image, call)
        prediction = self._classifier.classify(data)
        # The language model sees more of it than the classifier takes.
        image = self._classifier.decode(data)
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
            links=answers.Links(
                report=REPORT_PATH if has_report else UNSET,
                uploads=UPLOADS_PATH if self._has_uploads() else UNSET,
                describe=DESCRIBE_PATH if self._describer else UNSET,
            ),
            limits=answers.ImageLimits(
                request_bytes=self._limits.bytes,
                pixels=self._limits.pixels,
                upload_bytes=self._max_upload_bytes if self._has_uploads() else UNSET,
            ),
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
            return failure(error, call.id)

    def _classify(self, data: bytes, options: Options, call: Call) -> answers.Classification:
        return classify(self._classifier, data, options, call.id)

    def _fetch(self, image: Image, call: Call) -> bytes:
        source = source_of(image)
        if isinstance(source, ObjectLocation):
            return self._objects.read(source, call.deadline)
        if len(source) > self._limits.bytes:
            detail = f"The image has {len(source):,} bytes; at most {self._limits.bytes:,} are accepted in a request."
            raise RequestTooLarge(f"{detail} Send it by POST /v1/uploads." if self._uploads else detail)
        return source

    def _has_uploads(self) -> bool:
        return self._uploads is not None and self._results is not None

    def _configured_uploads(self) -> tuple[Uploads, Results]:
        if self._uploads is None or self._results is None:
            raise NotConfigured(f"Uploads have no bucket here; {_OPERATOR} can give them one.")
        return self._uploads, self._results
