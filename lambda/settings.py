"""The environment, read once into one validated object."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from litelens.images import Limits


class SettingsError(Exception):
    """An environment variable is missing or has a value that cannot be; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Where the bundle lies, what is accepted, and how many threads inference uses."""

    bundle: Path
    limits: Limits
    threads: int


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings in LITELENS_BUNDLE (required), LITELENS_MAX_BYTES, LITELENS_MAX_PIXELS and LITELENS_THREADS.

    Raises SettingsError.
    """
    if not environment.get("LITELENS_BUNDLE"):
        raise SettingsError("LITELENS_BUNDLE is not set; give the folder of a bundle, such as models/cifar100-resnet50")
    defaults = Limits()
    return Settings(
        bundle=Path(environment["LITELENS_BUNDLE"]),
        limits=Limits(
            bytes=_positive(environment, "LITELENS_MAX_BYTES", defaults.bytes),
            pixels=_positive(environment, "LITELENS_MAX_PIXELS", defaults.pixels),
        ),
        threads=_positive(environment, "LITELENS_THREADS", os.cpu_count() or 1),
    )


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,15}", text) or int(text) < 1:
        raise SettingsError(f"{name} must be a whole number above 0, not '{text}'")
    return int(text)
