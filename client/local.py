"""Classification on this machine, by the bundle that LITELENS_BUNDLE names. Photos in S3 need AWS credentials."""

import dataclasses

import msgspec

from adapters.deadline import Deadline
from adapters.errors import ObjectError
from adapters.objects import Objects
from client.results import Answer, ClassifyError
from handlers.answers import Model, classification_of
from handlers.problems import KINDS, RequestError
from handlers.requests import parse_s3_uri
from litelens.bundle import load_bundle
from litelens.classifier import DEFAULT_TOP_K, Classifier, Options
from litelens.errors import InputError
from settings import Settings

_READ_SECONDS = 60.0


class LocalClassifier:
    """A bundle made ready to answer as the API does. Not safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the bundle cannot be used."""
        # Nothing here travels inside a request, so that the larger limit, that of uploads, is the one that holds.
        self._max_bytes = max(settings.limits.bytes, settings.max_upload_bytes)
        limits = dataclasses.replace(settings.limits, bytes=self._max_bytes)
        bundle = load_bundle(settings.bundle)
        self._classifier = Classifier(bundle, limits, settings.threads)
        self._model = Model(bundle.name, bundle.version)

    def classify(self, image: bytes | str, *, top_k: int | None = None, threshold: float | None = None) -> Answer:
        """What an image shows: the bytes of its file, or an S3 URI; the options are those of the API.

        Raises ClassifyError with the API's codes.
        """
        options = Options(DEFAULT_TOP_K if top_k is None else top_k, threshold)
        try:
            data = self._read(image) if isinstance(image, str) else image
            found = classification_of(self._classifier.classify(data, options))
            return Answer(model=self._model, **msgspec.structs.asdict(found))
        except (InputError, ObjectError, RequestError) as error:
            raise ClassifyError(KINDS[type(error)].code, _sentence(error)) from error

    def _read(self, uri: str) -> bytes:
        location = parse_s3_uri(uri)
        # Whoever runs the command names the bucket: there is nobody to protect it from.
        return Objects([location.bucket], self._max_bytes).read(location, Deadline.after(_READ_SECONDS))


def _sentence(error: Exception) -> str:
    from botocore.exceptions import NoCredentialsError

    # An API's operator knows where its credentials come from; here it is up to the reader.
    if isinstance(error.__cause__, NoCredentialsError):
        return "There are no AWS credentials on this machine; `aws configure` makes them."
    return str(error)
