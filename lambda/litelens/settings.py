"""Settings from environment variables, validated."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litelens.core.engines import ENGINES
from litelens.core.images import Limits

# The folder in models/ of the default bundle. Makefile, Dockerfile and template.yaml repeat it.
DEFAULT_MODEL = "everyday"
DEFAULT_ENGINE = "litert"
DEFAULT_MAX_UPLOAD_BYTES = 25_000_000
DEFAULT_UPLOAD_FORM_SECONDS = 300
DEFAULT_RESULT_DAYS = 30
DEFAULT_VERIFIED_MILLISECONDS = 1000

# The largest image in a request.
MAX_REQUEST_IMAGE_BYTES = Limits().bytes

# The most images in a request.
MAX_IMAGES = 16


class SettingsError(Exception):
    """An environment variable is missing or invalid; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The settings of a Lambda function, of `litelens serve` or of `litelens classify`.

    `bundle` is the folder of the default model; each bundle in the folder `models` is another model. `engine` is
    one of engines.ENGINES and uses `threads` threads; with more than one, the API decodes ahead. `limits` apply to
    images in a request, `max_upload_bytes` to images in S3. `buckets` are those that requests may name. An upload
    form can be used for `upload_form_seconds`. A feature is off if its setting is missing: other models than the
    default one without `models`, uploads without `upload_bucket` and `results_table`, descriptions without
    `describe_model`, events without `event_bus`, calls from other sites' pages without `cors_origin`. Results
    expire after `result_days`; those of uploads and backfills contain embeddings if `store_embeddings`. With
    `result_objects`, the results of each batch of uploads are also an object in the bucket. With `log_results`, the
    details of each classified image are logged. release.hook tests `verified_function`, a version's ARN, and fails
    it if decoding and inference of a golden image take more than `verified_milliseconds` (median, warm).
    access.authorizer accepts the tokens of `jwt_issuer` for one of `jwt_audience`.
    """

    bundle: Path
    limits: Limits
    threads: int
    max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES
    models: Path | None = None
    buckets: frozenset[str] = frozenset()
    upload_bucket: str | None = None
    upload_form_seconds: int = DEFAULT_UPLOAD_FORM_SECONDS
    results_table: str | None = None
    result_days: int = DEFAULT_RESULT_DAYS
    store_embeddings: bool = False
    result_objects: bool = False
    log_results: bool = True
    event_bus: str | None = None
    describe_model: str | None = None
    cors_origin: str | None = None
    engine: str = DEFAULT_ENGINE
    verified_function: str | None = None
    verified_milliseconds: int = DEFAULT_VERIFIED_MILLISECONDS
    jwt_issuer: str | None = None
    jwt_audience: frozenset[str] = frozenset()


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the variables LITELENS_..., of which LITELENS_BUNDLE is required; raises SettingsError."""
    if not environment.get("LITELENS_BUNDLE"):
        raise SettingsError(
            f"LITELENS_BUNDLE is not set; set it to the folder of a bundle, such as models/{DEFAULT_MODEL}"
        )
    defaults = Limits()
    return Settings(
        bundle=Path(environment["LITELENS_BUNDLE"]),
        limits=Limits(
            bytes=_positive_integer(environment, "LITELENS_MAX_BYTES", defaults.bytes),
            pixels=_positive_integer(environment, "LITELENS_MAX_PIXELS", defaults.pixels),
        ),
        threads=_positive_integer(environment, "LITELENS_THREADS", _cores(environment)),
        models=_path(environment, "LITELENS_MODELS"),
        engine=_engine(environment),
        max_upload_bytes=_positive_integer(environment, "LITELENS_MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
        buckets=frozenset(_names(environment.get("LITELENS_BUCKETS", ""))),
        upload_bucket=environment.get("LITELENS_UPLOAD_BUCKET") or None,
        upload_form_seconds=_positive_integer(environment, "LITELENS_UPLOAD_FORM_SECONDS", DEFAULT_UPLOAD_FORM_SECONDS),
        results_table=environment.get("LITELENS_RESULTS_TABLE") or None,
        result_days=_positive_integer(environment, "LITELENS_RESULT_DAYS", DEFAULT_RESULT_DAYS),
        store_embeddings=_boolean(environment, "LITELENS_STORE_EMBEDDINGS", default=False),
        result_objects=_boolean(environment, "LITELENS_RESULT_OBJECTS", default=False),
        log_results=_boolean(environment, "LITELENS_LOG_RESULTS", default=True),
        event_bus=environment.get("LITELENS_EVENT_BUS") or None,
        describe_model=environment.get("LITELENS_DESCRIBE_MODEL") or None,
        cors_origin=_origin(environment, "LITELENS_CORS_ORIGIN"),
        verified_function=environment.get("LITELENS_VERIFIED_FUNCTION") or None,
        verified_milliseconds=_positive_integer(
            environment, "LITELENS_VERIFIED_MILLISECONDS", DEFAULT_VERIFIED_MILLISECONDS
        ),
        jwt_issuer=_issuer(environment, "LITELENS_JWT_ISSUER"),
        jwt_audience=frozenset(_names(environment.get("LITELENS_JWT_AUDIENCE", ""))),
    )


def required(settings: Settings, field: str) -> str:
    """Return an optional setting that the caller needs; raises SettingsError if it is missing."""
    value: str | None = getattr(settings, field)
    if value is None:
        raise SettingsError(f"LITELENS_{field.upper()} is not set; the stack's template sets it")
    return value


def _cores(environment: Mapping[str, str]) -> int:
    """Return the number of cores; in Lambda, the share that comes with the function's memory, because Linux shows more.

    1,769 MB are one core: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
    """
    megabytes = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return max(1, int(megabytes) // 1769) if megabytes.isdecimal() else os.cpu_count() or 1


def _engine(environment: Mapping[str, str]) -> str:
    name = environment.get("LITELENS_ENGINE") or DEFAULT_ENGINE
    if name not in ENGINES:
        raise SettingsError(f"LITELENS_ENGINE must be one of {', '.join(ENGINES)}, not '{name}'")
    return name


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    text = environment.get(name)
    return Path(text) if text else None


def _positive_integer(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
        raise SettingsError(f"{name} must be a whole number above 0, not '{text}'")
    return int(text)


def _boolean(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environment.get(name)
    if not text:
        return default
    if text not in ("true", "false"):
        raise SettingsError(f"{name} must be true or false, not '{text}'")
    return text == "true"


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _origin(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name)
    if text and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?", text):
        raise SettingsError(f"{name} must be an origin such as https://example.com, not '{text}'")
    return text or None


def _issuer(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name)
    # Whoever can change unencrypted traffic could replace the issuer's keys.
    pattern = r"(https://[^\s/?#@]+|http://(127\.0\.0\.1|localhost)(:[0-9]+)?)(/[^\s?#]*)?"
    if text and not re.fullmatch(pattern, text):
        raise SettingsError(f"{name} must be the https:// URL of a token issuer, not '{text}'")
    return text or None
