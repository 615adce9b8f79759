"""Classification on this machine, by the bundle that LITELENS_BUNDLE names. Photos in S3 need AWS credentials."""

import dataclasses
import os
from pathlib import Path

import msgspec

from adapters.deadline import Deadline
from adapters.errors import StorageError
from adapters.objects import Objects
from client.aws import NO_CREDENTIALS
from client.inputs import read_file
from client.results import Answer, ClassifyError
from handlers.answers import Model, classification_of
from handlers.problems import KINDS, RequestError
from handlers.requests import parse_s3_uri
from litelens.bundle import load_bundle
from litelens.classifier import DEFAULT_TOP_K, Classifier, Options
from litelens.errors import InputError
from settings import DEFAULT_MODEL, Settings, read_settings

_BUNDLED = Path(__file__).parent.parent / "models" / DEFAULT_MODEL

_READ_SECONDS = 60.0


def local_settings() -> Settings:
    """This machine's settings, with the default model unless another is set; raises SettingsError."""
    return read_settings({"LITELENS_BUNDLE": str(_BUNDLED), **os.environ})


class LocalClassifier:
    """A bundle made ready to answer as the API does. Not safe for concurrent use."""

    def __init__(self, settings: Settings) -> None:
        """Raises BundleError when the bundle cannot be used."""
        # Nothing here travels inside a request, so that the larger limit, that of uploads, is the one that holds.
        self._max_bytes = max(settings.limits.bytes, settings.max_upload_bytes)
        limits = dataclasses.replace(settings.limits, bytes=self._max_bytes)
        bundle = load_bundle(settings.bundle)
        self._classifier = Classifier(bundle, limits, settings.threads, settings.engine)
        self._model = Model(bundle.name, bundle.version)

    def classify(
        self, image: bytes | Path | str, *, top_k: int | None = None, threshold: float | None = None
    ) -> Answer:
        """What an image shows: the bytes of its file, its path, or an S3 URI; the options are those of the API.

        Raises ClassifyError with the API's codes, and OSError when a file cannot be read.
        """
        options = Options(DEFAULT_TOP_K if top_k is None else top_k, threshold)
        try:
            found = classification_of(self._classifier.classify(self._data(image), options))
            return Answer(model=self._model, **msgspec.structs.asdict(found))
        except (InputError, StorageError, RequestError) as error:
            raise ClassifyError(KINDS[type(error)].code, _sentence(error)) from error

    def _data(self, image: bytes | Path | str) -> bytes:
        if isinstance(image, bytes):
            return image
        return read_file(image, self._max_bytes) if isinstance(image, Path) else self._read(image)

    def _read(self, uri: str) -> bytes:
        location = parse_s3_uri(uri)
        # Whoever runs the command names the bucket: there is nobody to protect it from.
        return Objects([location.bucket], self._max_bytes).read(location, Deadline.after(_READ_SECONDS))


def _sentence(error: Exception) -> str:
    from botocore.exceptions import NoCredentialsError

    # An API's operator knows where its credentials come from; here it is up to the reader.
    return NO_CREDENTIALS if isinstance(error.__cause__, NoCredentialsError) else str(error)
