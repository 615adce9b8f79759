"""An API with several models: the choice of one in a request, the list of all, and what says which one answered."""

import base64
import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from bundles import add_bundle, change_manifest
from converse import answer as reply
from converse import converse_server
from support import CAT, DEFAULT_BUNDLE, LambdaContext, answer_of, classify_bytes, classify_json, event
from test_request_forms import FORM_TYPE, form

from litelens import telemetry
from litelens.api.handler import create_handler
from litelens.core.bundle import MANIFEST, REPORT
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = CAT.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}
EVERYDAY = json.loads((DEFAULT_BUNDLE / MANIFEST).read_text())

COVERED_CODES = frozenset({"model_not_found", "model_unusable"})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundles `cifar` and `broken`."""
    folder = tmp_path_factory.mktemp("models")
    add_bundle(folder, "cifar")
    (add_bundle(folder, "broken") / MANIFEST).write_text("{")
    return folder


@pytest.fixture(scope="module")
def handle(models: Path) -> Handle:
    """A handler with the default model `everyday` and the models in the folder."""
    return handle_with(models)


def handle_with(models: Path, **settings: Any) -> Handle:
    handler = create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads=1, models=models, **settings))
    return lambda event: handler(event, LambdaContext())


def classify_form(*fields: tuple[str, bytes | str], **query: str) -> dict[str, Any]:
    return event("POST", "/v1/classify", form(("image", PHOTO), *fields), FORM_TYPE, query or None)


def json_with_query(document: Any, **query: str) -> dict[str, Any]:
    return event("POST", "/v1/classify", json.dumps(document), "application/json", query)


def get(handle: Handle, path: str, **query: str) -> dict[str, Any]:
    return handle(event("GET", path, query=query or None))


def model_of(response: dict[str, Any]) -> str:
    """Return the name of the model that answered, which the answer and a header must agree on."""
    assert response["statusCode"] == 200, response["body"]
    model = answer_of(response)["model"]
    assert response["multiValueHeaders"]["Litelens-Model"] == [f"{model['name']}/{model['version']}"]
    return str(model["name"])


def code_of(response: dict[str, Any]) -> tuple[int, str]:
    return response["statusCode"], answer_of(response)["code"]


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (classify_bytes(PHOTO), "everyday"),
        (classify_bytes(PHOTO, model="everyday"), "everyday"),
        (classify_bytes(PHOTO, model="cifar"), "cifar"),
        (classify_form(("model", "cifar")), "cifar"),
        (classify_form(model="cifar"), "cifar"),
        (classify_form(("model", "everyday"), model="cifar"), "everyday"),
        (classify_json(PHOTO_JSON | {"model": "cifar"}), "cifar"),
        (json_with_query(PHOTO_JSON, model="cifar"), "cifar"),
        (json_with_query(PHOTO_JSON | {"model": "everyday"}, model="cifar"), "everyday"),
        (classify_json({"images": [PHOTO_JSON, PHOTO_JSON], "model": "cifar"}), "cifar"),
    ],
)
def test_a_request_chooses_the_model_in_the_query_the_form_or_the_json(
    handle: Handle, request_: dict[str, Any], name: str
) -> None:
    assert model_of(handle(request_)) == name


def test_each_model_answers_with_its_own_labels(handle: Handle, models: Path) -> None:
    labels = json.loads((models / "cifar" / MANIFEST).read_text())["labels"]
    predictions = answer_of(handle(classify_bytes(PHOTO, model="cifar", top_k="100")))["predictions"]
    assert {prediction["label"] for prediction in predictions} == set(labels)


@pytest.mark.parametrize(
    "request_",
    [
        classify_bytes(PHOTO, model="nothing"),
        classify_bytes(PHOTO, model="../everyday"),
        classify_bytes(PHOTO, model="models/cifar"),
        classify_form(("model", "nothing")),
        classify_json(PHOTO_JSON | {"model": "nothing"}),
        event("POST", "/v1/classify", None, "image/jpeg", {"model": "nothing"}),
        event("GET", "/v1/model", query={"model": "nothing"}),
        event("GET", "/v1/model/report", query={"model": "nothing"}),
    ],
)
def test_an_unknown_model_is_not_found_and_the_available_ones_are_named(
    handle: Handle, request_: dict[str, Any]
) -> None:
    response = handle(request_)
    assert code_of(response) == (404, "model_not_found")
    assert "everyday, broken, cifar" in answer_of(response)["detail"]


@pytest.mark.parametrize("model", [7, None, []])
def test_a_model_in_json_must_be_text(handle: Handle, model: Any) -> None:
    assert code_of(handle(classify_json(PHOTO_JSON | {"model": model}))) == (400, "invalid_request")


def test_a_broken_bundle_gets_an_error_without_paths_and_other_models_answer(handle: Handle) -> None:
    response = handle(classify_bytes(PHOTO, model="broken"))
    assert code_of(response) == (500, "model_unusable")
    assert "broken" in answer_of(response)["detail"]
    assert "/" not in answer_of(response)["detail"]
    assert model_of(handle(classify_bytes(PHOTO))) == "everyday"
    assert model_of(handle(classify_bytes(PHOTO, model="cifar"))) == "cifar"


def test_the_options_are_checked_against_the_chosen_model(handle: Handle) -> None:
    only_everyday = {"heatmap_label": "Egyptian cat"}
    assert handle(classify_bytes(PHOTO, **only_everyday))["statusCode"] == 200
    assert code_of(handle(classify_bytes(PHOTO, model="cifar", **only_everyday))) == (400, "invalid_option")
    everything = answer_of(handle(classify_bytes(PHOTO, model="cifar", top_k="1000")))
    assert len(everything["predictions"]) == 100


def test_a_problem_names_the_chosen_model_in_the_header(handle: Handle) -> None:
    response = handle(classify_bytes(b"hello", model="cifar"))
    assert code_of(response) == (415, "not_an_image")
    assert response["multiValueHeaders"]["Litelens-Model"][0].startswith("cifar/")


def test_a_request_without_a_model_does_not_inherit_that_of_the_request_before(handle: Handle) -> None:
    handle(classify_bytes(PHOTO, model="cifar"))
    assert handle(event("GET", "/v1/nothing"))["multiValueHeaders"]["Litelens-Model"][0].startswith("everyday/")


def test_the_list_has_the_default_model_first_and_broken_ones_with_their_error(handle: Handle) -> None:
    answer = answer_of(get(handle, "/v1/models"))
    assert answer["default"] == "everyday"
    everyday, broken, cifar = answer["models"]
    assert everyday == {
        "name": "everyday",
        "version": EVERYDAY["version"],
        "description": EVERYDAY["description"],
        "label_count": 1000,
        "links": {"model": "/v1/model?model=everyday", "report": "/v1/model/report?model=everyday"},
    }
    assert (cifar["name"], cifar["label_count"]) == ("cifar", 100)
    assert broken.keys() == {"name", "error"}
    assert "/" not in broken["error"]


def test_a_description_that_is_not_text_is_left_out(tmp_path: Path) -> None:
    change_manifest(add_bundle(tmp_path, "pets"), description=["text"])
    _, pets = answer_of(get(handle_with(tmp_path), "/v1/models"))["models"]
    assert "description" not in pets


def test_the_links_of_a_model_with_an_unusual_name_lead_to_it(tmp_path: Path) -> None:
    add_bundle(tmp_path, "my pets & more")
    handle = handle_with(tmp_path)
    _, pets = answer_of(get(handle, "/v1/models"))["models"]
    path, _, query = pets["links"]["model"].partition("?model=")
    assert (path, query) == ("/v1/model", "my%20pets%20%26%20more")
    response = get(handle, path, model=pets["name"])
    assert response["multiValueHeaders"]["Litelens-Model"][0].startswith("my%20pets")


def test_the_manifest_and_the_report_are_those_of_the_model_in_the_query(handle: Handle, models: Path) -> None:
    answer = answer_of(get(handle, "/v1/model", model="cifar"))
    assert answer["manifest"] == json.loads((models / "cifar" / MANIFEST).read_text())
    assert answer["links"]["report"] == "/v1/model/report?model=cifar"
    report = get(handle, "/v1/model/report", model="cifar")
    assert report["body"] == (models / "cifar" / REPORT).read_text()
    assert answer_of(get(handle, "/v1/model"))["manifest"] == EVERYDAY


def test_the_model_links_to_the_list_only_if_there_are_several(handle: Handle, tmp_path: Path) -> None:
    assert answer_of(get(handle, "/v1/model", model="cifar"))["links"]["models"] == "/v1/models"
    assert "models" not in answer_of(get(handle_with(tmp_path), "/v1/model"))["links"]


def test_a_bundle_that_was_just_written_is_listed_and_answers(tmp_path: Path) -> None:
    handle = handle_with(tmp_path)
    assert [model["name"] for model in answer_of(get(handle, "/v1/models"))["models"]] == ["everyday"]
    bundle = add_bundle(tmp_path, "pets")
    assert [model["name"] for model in answer_of(get(handle, "/v1/models"))["models"]] == ["everyday", "pets"]
    assert model_of(handle(classify_bytes(PHOTO, model="pets"))) == "pets"
    change_manifest(bundle, version="9.9.9")
    assert answer_of(handle(classify_bytes(PHOTO, model="pets")))["model"]["version"] == "9.9.9"


def test_the_documents_of_a_model_are_always_revalidated_because_its_bundle_can_change(handle: Handle) -> None:
    for path in ("/v1/model", "/v1/model/report"):
        response = get(handle, path, model="cifar")
        assert response["multiValueHeaders"]["Cache-Control"] == ["private, no-cache"]
        assert response["multiValueHeaders"]["ETag"]


def test_health_is_that_of_the_default_model(tmp_path: Path) -> None:
    default = add_bundle(tmp_path, "pets")
    handler = create_handler(Settings(default, Limits(), threads=1, models=tmp_path))
    assert model_of(handler(event("GET", "/v1/health"), LambdaContext())) == "pets"
    (default / MANIFEST).unlink()
    assert model_of(handler(event("GET", "/v1/health"), LambdaContext())) == "pets"


@pytest.mark.parametrize("way", ["json", "query", "form"])
def test_a_description_comes_with_the_predictions_of_the_chosen_model(
    models: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    requests = {
        "json": event("POST", "/v1/describe", json.dumps(PHOTO_JSON | {"model": "cifar"}), "application/json"),
        "query": event("POST", "/v1/describe", PHOTO, "image/jpeg", {"model": "cifar"}),
        "form": event("POST", "/v1/describe", form(("image", PHOTO), ("model", "cifar")), FORM_TYPE),
    }
    with converse_server() as bedrock:
        for name, value in bedrock.environment.items():
            monkeypatch.setenv(name, value)
        bedrock.script(reply("A cat."))
        assert model_of(handle_with(models, describe_model="a-model")(requests[way])) == "cifar"


def test_log_lines_and_metrics_name_the_model_that_answered(handle: Handle, monkeypatch: pytest.MonkeyPatch) -> None:
    log = StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", log)
    with monkeypatch.context() as printing:
        printing.setattr("sys.stdout", log)
        handle(classify_bytes(PHOTO, model="cifar"))
        handle(event("GET", "/v1/nothing"))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line.get("model", "").partition("/")[0] for line in lines] == ["cifar", "", ""]
    assert all("model" not in key for line in lines if "_aws" in line for key in dimensions(line))


def dimensions(line: dict[str, Any]) -> list[str]:
    return [name for each in line["_aws"]["CloudWatchMetrics"] for names in each["Dimensions"] for name in names]
