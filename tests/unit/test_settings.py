from pathlib import Path

import pytest

from litelens.images import Limits
from settings import SettingsError, read_settings


def test_only_the_bundle_is_required() -> None:
    settings = read_settings({"LITELENS_BUNDLE": "models/mine"})
    assert settings.bundle == Path("models/mine")
    assert settings.limits == Limits(bytes=6_000_000, pixels=50_000_000)
    assert settings.threads >= 1


def test_limits_and_threads_can_be_set() -> None:
    environment = {"LITELENS_MAX_BYTES": "10", "LITELENS_MAX_PIXELS": "20", "LITELENS_THREADS": "3"}
    settings = read_settings({"LITELENS_BUNDLE": "b", **environment})
    assert settings.limits == Limits(bytes=10, pixels=20)
    assert settings.threads == 3


@pytest.mark.parametrize("environment", [{}, {"LITELENS_BUNDLE": ""}])
def test_a_missing_bundle_is_named(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="LITELENS_BUNDLE is not set"):
        read_settings(environment)


@pytest.mark.parametrize("name", ["LITELENS_MAX_BYTES", "LITELENS_MAX_PIXELS", "LITELENS_THREADS"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", " 7", "²", "9" * 16])
def test_a_value_that_cannot_be_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} must be a whole number above 0, not '{value}'"):
        read_settings({"LITELENS_BUNDLE": "b", name: value})
