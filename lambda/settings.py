"""The environment, read once into one validated object."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litelens.engines import ENGINES
from litelens.images import Limits

# The bundle in models/ that is served by default; Makefile, Dockerfile and template name it too.
DEFAULT_MODEL = "everyday"
DEFAULT_ENGINE = "litert"
DEFAULT_MAX_UPLOAD_BYTES = 25_000_000
DEFAULT_RESULT_DAYS = 30
DEFAULT_VERIFIED_MILLISECONDS = 1000


class SettingsError(Exception):
    """An environment variable is missing or has a value that cannot be; the message names it."""


@dataclass(frozen=True)
class Settings:
    """What is served, by which of engines.ENGINES, to whom, and within which limits.

    `limits` holds for images inside a request, `max_upload_bytes` for those that lie in S3. Without `buckets`, an
    `upload_bucket` and its `results_table`, a `describe_model` or an `event_bus`, what needs them is off; without a
    `cors_origin` no other site's page may call the API. Results are kept for `result_days`.
    `verified_function` is the ARN of the version that handlers.verify tries before it gets traffic, and
    `verified_milliseconds` the longest that decoding and inference may take it for a golden image, once it is warm.
    """

    bundle: Path
    limits: Limits
    threads: int
    max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES
    buckets: frozenset[str] = frozenset()
    upload_bucket: str | None = None
    results_table: str | None = None
    result_days: int = DEFAULT_RESULT_DAYS
    idempotency_table: str | None = None
    event_bus: str | None = None
    describe_model: str | None = None
    cors_origin: str | None = None
    engine: str = DEFAULT_ENGINE
    verified_function: str | None = None
    verified_milliseconds: int = DEFAULT_VERIFIED_MILLISECONDS


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in the variables LITELENS_..., of which LITELENS_BUNDLE is required; raises SettingsError."""
    if not environment.get("LITELENS_BUNDLE"):
        raise SettingsError(f"LITELENS_BUNDLE is not set; give the folder of a bundle, such as models/{DEFAULT_MODEL}")
    defaults = Limits()
    return Settings(
        bundle=Path(environment["LITELENS_BUNDLE"]),
        limits=Limits(
            bytes=_positive(environment, "LITELENS_MAX_BYTES", defaults.bytes),
            pixels=_positive(environment, "LITELENS_MAX_PIXELS", defaults.pixels),
        ),
        threads=_positive(environment, "LITELENS_THREADS", _cores(environment)),
        engine=_engine(environment),
        max_upload_bytes=_positive(environment, "LITELENS_MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
        buckets=frozenset(_names(environment.get("LITELENS_BUCKETS", ""))),
        upload_bucket=environment.get("LITELENS_UPLOAD_BUCKET") or None,
        results_table=environment.get("LITELENS_RESULTS_TABLE") or None,
        result_days=_positive(environment, "LITELENS_RESULT_DAYS", DEFAULT_RESULT_DAYS),
        idempotency_table=environment.get("LITELENS_IDEMPOTENCY_TABLE") or None,
        event_bus=environment.get("LITELENS_EVENT_BUS") or None,
        describe_model=environment.get("LITELENS_DESCRIBE_MODEL") or None,
        cors_origin=_origin(environment, "LITELENS_CORS_ORIGIN"),
        verified_function=environment.get("LITELENS_VERIFIED_FUNCTION") or None,
        verified_milliseconds=_positive(environment, "LITELENS_VERIFIED_MILLISECONDS", DEFAULT_VERIFIED_MILLISECONDS),
    )


def required(settings: Settings, field: str) -> str:
    """A setting that what is about to start cannot do without; raises SettingsError."""
    value: str | None = getattr(settings, field)
    if value is None:
        raise SettingsError(f"LITELENS_{field.upper()} is not set; the stack's template sets it")
    return value


def _cores(environment: Mapping[str, str]) -> int:
    """In Lambda, the whole cores that go with the memory, as the processor shows more than a function may use.

    1,769 MB are one: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
    """
    megabytes = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return max(1, int(megabytes) // 1769) if megabytes.isdecimal() else os.cpu_count() or 1


def _engine(environment: Mapping[str, str]) -> str:
    name = environment.get("LITELENS_ENGINE") or DEFAULT_ENGINE
    if name not in ENGINES:
        raise SettingsError(f"LITELENS_ENGINE must be one of {', '.join(ENGINES)}, not '{name}'")
    return name


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
        raise SettingsError(f"{name} must be a whole number above 0, not '{text}'")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _origin(environment: Mapping[str, str], name: str) -> str | None:
    text = environment.get(name)
    if text and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?", text):
        raise SettingsError(f"{name} must be an origin such as https://example.com, not '{text}'")
    return text or None
