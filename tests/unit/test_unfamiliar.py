"""Unfamiliar photos wherever a prediction is shown: the API, logs and metrics, the command line, bulk results."""

import base64
import csv
import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bulk import Context, batch, new_settings, notification, put, record, results_of
from bundles import add_bundle, add_familiarity, change_manifest
from captured_logs import CapturedLogs, capture_logs
from class_folders import BASE
from fake_api import MODEL, api_server, classification, in_turn, sent
from support import CAT, LambdaContext, answer_of, classify_bytes, classify_json

from litelens.api.handler import create_handler
from litelens.api.response_schemas import BulkResult, Classification
from litelens.bulk import batches
from litelens.core.images import Limits
from litelens.settings import Settings
from litelens_client import results
from litelens_client.__main__ import main
from litelens_client.results import StoredResult

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = CAT.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}

# The models of these tests, and what they say of every photo; None if they cannot tell.
ANSWERS = {"strange": True, "known": False, "plain": None}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models of ANSWERS, none of which is uncertain because of its confidence."""
    folder = tmp_path_factory.mktemp("models")
    for name, unfamiliar in ANSWERS.items():
        bundle = add_bundle(folder, name, BASE)
        change_manifest(bundle, threshold=0)
        if unfamiliar is not None:
            add_familiarity(bundle, unfamiliar=unfamiliar)
    return folder


@pytest.fixture(scope="module")
def handle(models: Path) -> Handle:
    handler = create_handler(Settings(models / "plain", Limits(), threads=1, models=models))
    return lambda event: handler(event, LambdaContext())


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    monkeypatch.delenv("LITELENS_URL", raising=False)


def doubts_of(answer: dict[str, Any]) -> tuple[bool | None, bool]:
    return answer.get("unfamiliar"), answer["uncertain"]


# The API.


@pytest.mark.parametrize(("model", "unfamiliar"), ANSWERS.items())
def test_an_answer_says_whether_the_photo_is_unfamiliar_if_the_model_can_tell(
    model: str, unfamiliar: bool | None, handle: Handle
) -> None:
    answer = answer_of(handle(classify_bytes(PHOTO, model=model)))
    assert ("unfamiliar" in answer) is (unfamiliar is not None)
    assert doubts_of(answer) == (unfamiliar, unfamiliar is True)


@pytest.mark.parametrize("threshold", [0, 0.5, 1])
def test_an_unfamiliar_answer_is_uncertain_at_every_threshold(threshold: float, handle: Handle) -> None:
    for request in (
        classify_bytes(PHOTO, model="strange", threshold=str(threshold)),
        classify_json(PHOTO_JSON | {"model": "strange", "threshold": threshold}),
    ):
        assert doubts_of(answer_of(handle(request))) == (True, True)


def test_a_familiar_answer_is_uncertain_below_the_threshold(handle: Handle) -> None:
    for threshold, uncertain in (("0", False), ("1", True)):
        answer = answer_of(handle(classify_bytes(PHOTO, model="known", threshold=threshold)))
        assert doubts_of(answer) == (False, uncertain)


def test_each_image_of_a_list_says_whether_it_is_unfamiliar(handle: Handle) -> None:
    request = classify_json({"images": [PHOTO_JSON, PHOTO_JSON], "model": "strange"})
    assert [doubts_of(result) for result in answer_of(handle(request))["results"]] == [(True, True)] * 2


# Logs and metrics.


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> CapturedLogs:
    return capture_logs(monkeypatch)


@pytest.mark.parametrize(("model", "unfamiliar"), ANSWERS.items())
def test_unfamiliar_photos_are_logged_and_counted_if_the_model_can_tell(
    model: str, unfamiliar: bool | None, handle: Handle, logs: CapturedLogs
) -> None:
    handle(classify_bytes(PHOTO, model=model))
    (line,) = logs.classified()
    assert ("unfamiliar" in line) is (unfamiliar is not None)
    assert doubts_of(line) == (unfamiliar, unfamiliar is True)
    assert logs.metric_values("Unfamiliar") == ([] if unfamiliar is None else [float(unfamiliar)])
    assert logs.metric_values("Uncertain") == [float(unfamiliar is True)]


def test_an_unfamiliar_photo_counts_as_uncertain_whatever_the_request_asks_for(
    handle: Handle, logs: CapturedLogs
) -> None:
    handle(classify_bytes(PHOTO, model="strange", threshold="0"))
    assert logs.metric_values("Unfamiliar") == logs.metric_values("Uncertain") == [1.0]


# The command line.


def printed(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["classify", *map(str, arguments)]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(("model", "unfamiliar"), ANSWERS.items())
def test_every_format_of_the_command_says_whether_a_photo_is_unfamiliar(
    model: str, unfamiliar: bool | None, models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model", models / model, "--threshold", "0")
    assert doubts_of(json.loads(printed(capsys, CAT, *options, "--json"))) == (unfamiliar, unfamiliar is True)
    (row,) = csv.DictReader(StringIO(printed(capsys, CAT, *options, "--csv")))
    assert row["unfamiliar"] == {True: "true", False: "false", None: ""}[unfamiliar]
    assert row["uncertain"] == str(unfamiliar is True).lower()
    labels = printed(capsys, CAT, *options)
    assert ("unfamiliar" in labels.lower()) is (unfamiliar is True)
    assert "uncertain" not in labels.lower()
    first, second = printed(capsys, CAT, CAT, *options).splitlines()[1:]
    assert first == second
    assert (first.split()[-1] == "unfamiliar") is (unfamiliar is True)


def test_an_uncertain_photo_that_is_not_unfamiliar_is_called_uncertain(
    models: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for model in ("known", "plain"):
        text = printed(capsys, CAT, "--model", models / model, "--threshold", "1")
        assert "Uncertain" in text
        assert "nfamiliar" not in text


@pytest.mark.parametrize("unfamiliar", [True, False, None])
def test_what_an_api_says_is_printed(unfamiliar: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    more = {} if unfamiliar is None else {"unfamiliar": unfamiliar}
    answer = {"model": MODEL, **classification("cat"), **more, "request_id": "request-1"}
    with api_server(in_turn(sent(answer))) as (url, _):
        (row,) = csv.DictReader(StringIO(printed(capsys, CAT, "--url", url, "--csv")))
    assert row["unfamiliar"] == {True: "true", False: "false", None: ""}[unfamiliar]


# Uploads and backfills.


@pytest.mark.parametrize(("model", "unfamiliar"), ANSWERS.items())
def test_the_result_of_an_upload_says_whether_the_photo_is_unfamiliar(
    model: str, unfamiliar: bool | None, models: Path, moto_server: str
) -> None:
    settings = dataclasses.replace(new_settings(), bundle=models / model)
    photo = put(settings, "uploads/cat.jpg", PHOTO)
    batches.create_handler(settings)(batch(notification(record(photo))), Context())
    (result,) = results_of(settings, "uploads/cat.jpg")
    assert isinstance(result.result, Classification)
    document = msgspec.to_builtins(result.result)
    assert ("unfamiliar" in document) is (unfamiliar is not None)
    assert doubts_of(document) == (unfamiliar, unfamiliar is True)


def stored(unfamiliar: bool | None) -> StoredResult:
    """Return the stored result of a photo."""
    more = {} if unfamiliar is None else {"unfamiliar": unfamiliar}
    result = {"status": "done", **classification("cat"), **more, "uncertain": unfamiliar is True}
    head = {"bucket": "photos", "key": "uploads/cat.jpg", "revision": "etag", "model": MODEL}
    document = msgspec.json.encode({**head, "time": datetime.now(UTC).isoformat(), "result": result})
    return StoredResult(document, msgspec.json.decode(document, type=BulkResult))


def test_listed_results_say_which_photos_are_unfamiliar() -> None:
    listed = [stored(unfamiliar) for unfamiliar in ANSWERS.values()]
    rows = list(csv.DictReader("".join(results.csv_rows(listed)).splitlines()))
    assert [row["unfamiliar"] for row in rows] == ["true", "false", ""]
    assert [row["uncertain"] for row in rows] == ["true", "false", "false"]
    _, strange, *others = results.text_rows(listed)
    assert "unfamiliar" in strange
    assert not any("unfamiliar" in row or "uncertain" in row for row in others)
