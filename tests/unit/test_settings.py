from pathlib import Path

import pytest

from litelens.core.images import Limits
from litelens.settings import SettingsError, read_settings


def test_only_the_bundle_is_required() -> None:
    settings = read_settings({"LITELENS_BUNDLE": "models/mine"})
    assert settings.bundle == Path("models/mine")
    assert settings.limits == Limits()
    assert settings.threads >= 1


def test_there_is_only_the_default_model_unless_a_folder_has_others() -> None:
    assert read_settings({"LITELENS_BUNDLE": "b"}).models is None
    assert read_settings({"LITELENS_BUNDLE": "b", "LITELENS_MODELS": "models"}).models == Path("models")


def test_limits_and_threads_can_be_set() -> None:
    environment = {"LITELENS_MAX_BYTES": "10", "LITELENS_MAX_PIXELS": "20", "LITELENS_THREADS": "3"}
    settings = read_settings({"LITELENS_BUNDLE": "b", **environment})
    assert settings.limits == Limits(bytes=10, pixels=20)
    assert settings.threads == 3


@pytest.mark.parametrize(("megabytes", "threads"), [("512", 1), ("1769", 1), ("3537", 1), ("3538", 2), ("10240", 5)])
def test_the_number_of_threads_follows_the_functions_memory(megabytes: str, threads: int) -> None:
    settings = read_settings({"LITELENS_BUNDLE": "b", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": megabytes})
    assert settings.threads == threads


def test_the_engine_can_be_set() -> None:
    assert read_settings({"LITELENS_BUNDLE": "b"}).engine == "litert"
    assert read_settings({"LITELENS_BUNDLE": "b", "LITELENS_ENGINE": "openvino"}).engine == "openvino"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(SettingsError, match="LITELENS_ENGINE"):
        read_settings({"LITELENS_BUNDLE": "b", "LITELENS_ENGINE": "onnx"})


def test_features_that_need_aws_are_off_by_default() -> None:
    settings = read_settings({"LITELENS_BUNDLE": "b"})
    assert settings.buckets == frozenset()
    assert settings.upload_bucket is None
    assert settings.describe_model is None
    assert settings.cors_origin is None
    assert settings.max_upload_bytes == 25_000_000


def test_features_that_need_aws_can_be_configured() -> None:
    settings = read_settings(
        {
            "LITELENS_BUNDLE": "b",
            "LITELENS_BUCKETS": "photos, scans,,",
            "LITELENS_UPLOAD_BUCKET": "uploads",
            "LITELENS_MAX_UPLOAD_BYTES": "30",
            "LITELENS_DESCRIBE_MODEL": "eu.amazon.nova-lite-v1:0",
            "LITELENS_CORS_ORIGIN": "https://example.com",
        }
    )
    assert settings.buckets == {"photos", "scans"}
    assert settings.upload_bucket == "uploads"
    assert settings.max_upload_bytes == 30
    assert settings.describe_model == "eu.amazon.nova-lite-v1:0"
    assert settings.cors_origin == "https://example.com"


@pytest.mark.parametrize(("text", "stores"), [(None, False), ("", False), ("false", False), ("true", True)])
def test_embeddings_are_stored_only_if_that_is_set(text: str | None, stores: bool) -> None:
    variables = {} if text is None else {"LITELENS_STORE_EMBEDDINGS": text}
    assert read_settings({"LITELENS_BUNDLE": "b", **variables}).store_embeddings is stores


@pytest.mark.parametrize("text", ["True", "yes", "1", "0", " true", "off"])
def test_another_value_than_true_or_false_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="LITELENS_STORE_EMBEDDINGS"):
        read_settings({"LITELENS_BUNDLE": "b", "LITELENS_STORE_EMBEDDINGS": text})


def test_the_release_hook_can_be_configured() -> None:
    assert read_settings({"LITELENS_BUNDLE": "b"}).verified_function is None
    assert read_settings({"LITELENS_BUNDLE": "b"}).verified_milliseconds == 1000
    variables = {"LITELENS_VERIFIED_FUNCTION": "arn:api:7", "LITELENS_VERIFIED_MILLISECONDS": "250"}
    settings = read_settings({"LITELENS_BUNDLE": "b", **variables})
    assert (settings.verified_function, settings.verified_milliseconds) == ("arn:api:7", 250)


def test_an_empty_variable_counts_as_unset() -> None:
    names = (
        "MODELS",
        "MAX_BYTES",
        "MAX_UPLOAD_BYTES",
        "BUCKETS",
        "UPLOAD_BUCKET",
        "DESCRIBE_MODEL",
        "CORS_ORIGIN",
        "VERIFIED_FUNCTION",
    )
    empty = {f"LITELENS_{name}": "" for name in names}
    assert read_settings({"LITELENS_BUNDLE": "b", **empty}) == read_settings({"LITELENS_BUNDLE": "b"})


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://photos.example.com", "http://127.0.0.1"])
def test_a_valid_origin_is_accepted(origin: str) -> None:
    assert read_settings({"LITELENS_BUNDLE": "b", "LITELENS_CORS_ORIGIN": origin}).cors_origin == origin


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "example.com", "https://example.com/", "https://a.com,https://b.com", "https://a.com\n", "ftp://a"],
)
def test_an_invalid_origin_is_refused(origin: str) -> None:
    with pytest.raises(SettingsError, match="LITELENS_CORS_ORIGIN"):
        read_settings({"LITELENS_BUNDLE": "b", "LITELENS_CORS_ORIGIN": origin})


@pytest.mark.parametrize("environment", [{}, {"LITELENS_BUNDLE": ""}])
def test_a_missing_bundle_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="LITELENS_BUNDLE"):
        read_settings(environment)


@pytest.mark.parametrize(
    "name",
    [
        "LITELENS_MAX_BYTES",
        "LITELENS_MAX_PIXELS",
        "LITELENS_THREADS",
        "LITELENS_MAX_UPLOAD_BYTES",
        "LITELENS_VERIFIED_MILLISECONDS",
    ],
)
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", " 7", "²", "9" * 16])
def test_an_invalid_number_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({"LITELENS_BUNDLE": "b", name: value})
