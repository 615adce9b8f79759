"""`litelens results`, with moto's DynamoDB and with a fake one."""

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from aws import Answer, aws_at, dynamodb_error, fake_clock, no_response, ok, s3_error, scripted_aws
from bulk import new_table
from fake_api import MODEL, classification, problem
from support import free_port

from litelens.aws.clients import Deadline
from litelens.aws.results_table import ResultId, ResultsTable
from litelens_client.__main__ import main
from litelens_client.results import COLUMNS, ResultsReader

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

Save = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables of the person who runs the tests."""
    monkeypatch.delenv("LITELENS_UPLOAD_BUCKET", raising=False)
    monkeypatch.delenv("LITELENS_RESULTS_TABLE", raising=False)


@pytest.fixture
def table(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create an empty table and return its name, which is also in the environment."""
    name = new_table("ResultsTable")
    monkeypatch.setenv("LITELENS_RESULTS_TABLE", name)
    return name


@pytest.fixture
def save(table: str) -> Save:
    """Return a function that saves a result of some age and returns its document."""

    def save(key: str, *, age: timedelta = HOUR, bucket: str = "photos", **result: Any) -> dict[str, Any]:
        at = datetime.now(UTC) - age
        document = document_of(key, at, bucket, result or done("cat"))
        result_id = ResultId(bucket, key, "etag", "pets/1.0.0")
        ResultsTable(table).save(result_id, json.dumps(document).encode(), at, 30, Deadline.after(20))
        return document

    return save


def document_of(key: str, at: datetime, bucket: str, result: dict[str, Any]) -> dict[str, Any]:
    head = {"bucket": bucket, "key": key, "revision": "etag", "model": MODEL, "time": at.isoformat()}
    return {**head, "result": result}


def done(label: str, *, confidence: float = 0.9, uncertain: bool = False, **more: Any) -> dict[str, Any]:
    return {"status": "done", **classification(label, confidence=confidence), "uncertain": uncertain, **more}


def failed(detail: str = "It is no image.") -> dict[str, Any]:
    return {"status": "failed", "problem": problem(415, "not_an_image", detail)}


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """Return the keys that the command lists."""
    assert main(["results", "--json", *options]) == 0
    return [json.loads(line)["key"] for line in capsys.readouterr().out.splitlines()]


def error_of(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    assert main(["results", *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_json_documents_are_printed_as_they_are_stored(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    saved = save("uploads/a ü.jpg", **done("cat"), more_than_is_known="kept")
    assert main(["results", "--json"]) == 0
    assert capsys.readouterr().out == json.dumps(saved) + "\n"


def test_the_newest_day_comes_first(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    for age in (2, 0, 1):
        save(f"uploads/{age}.jpg", age=age * DAY)
    assert listed(capsys, "--since", "9d") == [f"uploads/{age}.jpg" for age in (0, 1, 2)]


def test_the_default_is_the_last_day(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    save("uploads/new.jpg", age=23 * HOUR)
    save("uploads/old.jpg", age=25 * HOUR)
    assert listed(capsys) == ["uploads/new.jpg"]


@pytest.mark.parametrize("since", ["2h", "150m"])
def test_since_can_be_an_age(since: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    save("uploads/new.jpg", age=HOUR)
    save("uploads/old.jpg", age=3 * HOUR)
    assert listed(capsys, "--since", since) == ["uploads/new.jpg"]


def test_since_and_until_can_be_whole_days(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) - 2 * DAY
    for name, at in (("before", -1), ("first", 0), ("last", 24 * 3600 - 1), ("after", 24 * 3600)):
        save(f"uploads/{name}.jpg", age=now - midnight - timedelta(seconds=at + 0.5))
    day = f"{midnight:%Y-%m-%d}"
    assert sorted(listed(capsys, "--since", day, "--until", day)) == ["uploads/first.jpg", "uploads/last.jpg"]


@pytest.mark.parametrize("zone", ["", "Z", "+05:30", "-08:00"])
def test_since_and_until_can_be_times_in_any_zone(zone: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    for hours in (30, 40, 50):
        save(f"uploads/{hours}.jpg", age=hours * HOUR)
    now = datetime.now(datetime.fromisoformat(f"2026-11-20T00:00{zone or 'Z'}").tzinfo)
    since, until = (f"{now - hours * HOUR:%Y-%m-%dT%H:%M:%S}{zone}" for hours in (45, 35))
    assert listed(capsys, "--since", since, "--until", until) == ["uploads/40.jpg"]


@pytest.mark.parametrize("prefix", ["trip/", "uploads/trip/", "trip/a"])
def test_a_prefix_is_below_uploads(prefix: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("uploads/trip/a.jpg", "uploads/other.jpg", "trip/a.jpg"):
        save(key)
    assert listed(capsys, "--prefix", prefix) == ["uploads/trip/a.jpg"]


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], ["cat", "dog", "fox", "none"]),
        (["--label", "cat"], ["cat"]),
        (["--label", "ca"], []),
        (["--uncertain"], ["dog", "fox"]),
        (["--uncertain", "--label", "fox"], ["fox"]),
        (["--failed"], ["none"]),
    ],
)
def test_results_are_filtered_by_their_outcome(
    options: list[str], names: list[str], save: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    save("uploads/cat", **done("cat"))
    save("uploads/dog", **done("dog", uncertain=True))
    save("uploads/fox", **done("fox", uncertain=True))
    save("uploads/none", **failed())
    assert sorted(listed(capsys, *options)) == [f"uploads/{name}" for name in names]


def test_results_can_be_limited_to_one_bucket(
    save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save("uploads/a.jpg", bucket="photos")
    save("uploads/b.jpg", bucket="scans")
    assert len(listed(capsys)) == 2
    assert listed(capsys, "--bucket", "scans") == ["uploads/b.jpg"]
    monkeypatch.setenv("LITELENS_UPLOAD_BUCKET", "photos")
    assert listed(capsys) == ["uploads/a.jpg"]


def test_csv_has_a_row_for_each_result(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    group = {"label": "pets", "confidence": 0.95}
    cat = save("uploads/cat, asleep.jpg", age=DAY, **done("cat", uncertain=True, group=group))
    none = save("uploads/none.jpg", age=2 * DAY, **failed())
    assert main(["results", "--csv", "--since", "4d"]) == 0
    first, second = csv.DictReader(StringIO(capsys.readouterr().out))
    assert tuple(first) == COLUMNS
    head = ("uploads/cat, asleep.jpg", "etag", "pets/1.0.0", cat["time"])
    assert tuple(first.values()) == (*head, "done", "cat", "0.9", "true", "", "pets", "", "")
    head = ("uploads/none.jpg", "etag", "pets/1.0.0", none["time"])
    assert tuple(second.values()) == (*head, "failed", "", "", "", "", "", "not_an_image", "It is no image.")


def test_no_csv_cell_of_a_result_is_a_formula(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    save("uploads/a.jpg", age=DAY, **done("=1+1", group={"label": "@SUM(A1)", "confidence": 0.5}))
    save("uploads/b.jpg", age=2 * DAY, **failed("+1"))
    assert main(["results", "--csv", "--since", "4d"]) == 0
    first, second = csv.DictReader(StringIO(capsys.readouterr().out))
    assert (first["label"], first["group"], second["detail"]) == ("'=1+1", "'@SUM(A1)", "'+1")


def test_the_text_has_a_row_for_each_result(save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    cat = save("uploads/a cat.jpg", age=DAY, **done("cat", uncertain=True))
    save("uploads/none.jpg", age=2 * DAY, **failed())
    assert main(["results", "--since", "4d"]) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == ["time", "label", "confidence", "doubt", "key"]
    assert first.split() == [*cat["time"][:19].split("T"), "cat", "90.0%", "uncertain", "uploads/a", "cat.jpg"]
    assert second.split()[2:] == ["failed:", "not_an_image", "uploads/none.jpg"]
    assert first.index("uploads/") == second.index("uploads/") == header.index("key")


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\x1b[31mb.jpg", "a\u202egpj.exe"])
def test_keys_cannot_move_the_cursor(name: str, save: Save, capsys: pytest.CaptureFixture[str]) -> None:
    save(f"uploads/{name}", **done(name))
    assert main(["results"]) == 0
    out = capsys.readouterr().out
    assert not {"\x1b", "\u202e"} & set(out)
    assert len(out.splitlines()) == 2


def test_results_are_printed_as_they_arrive(table: str, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    save("uploads/new.jpg")
    save("uploads/old.jpg", age=2 * DAY)
    printed: list[str] = []
    between = ResultsReader.between

    def watched(*arguments: Any) -> Iterator[Any]:
        for number, saved in enumerate(between(*arguments)):
            assert len("".join(printed).splitlines()) == number
            yield saved

    monkeypatch.setattr(ResultsReader, "between", watched)
    monkeypatch.setattr("builtins.print", lambda text, **_: printed.append(text))
    assert main(["results", "--json", "--since", "4d"]) == 0
    assert len(printed) == 2


def test_after_ctrl_c_the_number_of_printed_results_is_said(
    save: Save, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save("uploads/new.jpg")
    save("uploads/old.jpg", age=2 * DAY)
    between = ResultsReader.between

    def interrupted(*arguments: Any) -> Iterator[Any]:
        yield next(between(*arguments))
        raise KeyboardInterrupt

    monkeypatch.setattr(ResultsReader, "between", interrupted)
    assert main(["results", "--json", "--since", "4d"]) == 130
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert "1 result" in captured.err


@pytest.mark.parametrize("options", [["--json"], []])
def test_a_listing_without_results_says_so(table: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["results", *options]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "No results match.\n")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "set --table or LITELENS_RESULTS_TABLE to the stack's output"),
        (["--table", "t", "--since", "yesterday"], "must be like 90m, 2h, 3d, 2026-11-20 or 2026-11-20T14:30"),
        (["--table", "t", "--since", "2026-13-20"], "must be like 90m, 2h, 3d"),
        (["--table", "t", "--since", "9999999999d"], "must be like 90m, 2h, 3d"),
        (["--table", "t", "--since", "999d"], "--since may be at most 400 days ago"),
        (["--table", "t", "--until", "2000-01-01"], "--until must not be before --since"),
        (["--table", "t", "--failed", "--label", "cat"], "failures have no label"),
        (["--table", "t", "--json", "--csv"], "not allowed with"),
    ],
)
def test_wrong_arguments_are_rejected(options: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["results", *options])
    message = capsys.readouterr().err
    assert raised.value.code == 2
    assert message.startswith("usage: litelens results ")
    assert sentence in message


def test_a_missing_table_is_reported(moto_server: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error_of(capsys, "--table", "none") == "The table none does not exist, or not in this region.\n"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            dynamodb_error("AccessDeniedException"),
            "The table results cannot be read; you need the permission dynamodb:Query.",
        ),
        (
            dynamodb_error("UnrecognizedClientException"),
            "The table results cannot be read: AWS rejects the credentials; they are wrong or have expired.",
        ),
        (dynamodb_error("ValidationException"), "results is not a results table of litelens."),
        (
            ok(b'{"Items": [{"key": {"S": "k"}, "expires_at": {"N": "9999999999"}, "document": {"S": "{}"}}]}'),
            "results is not a results table of litelens.",
        ),
    ],
)
def test_a_table_that_cannot_be_read_is_reported(
    answer: Answer, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_aws(answer):
        assert error_of(capsys, "--table", "results", "--csv") == f"{sentence}\n"


@pytest.mark.parametrize("answer", [s3_error(503, "ServiceUnavailable"), no_response])
def test_a_table_that_does_not_answer_is_reported(
    answer: Answer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_clock(monkeypatch)
    monkeypatch.setattr("litelens.aws.clients.READ_SECONDS", 0.05)
    with scripted_aws(answer) as requests:
        assert "The table results cannot be read: " in error_of(capsys, "--table", "results")
    assert len(requests) > 3


def test_a_missing_network_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_clock(monkeypatch)
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        assert "AWS cannot be reached" in error_of(capsys, "--table", "results")


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        (["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"], "There are no AWS credentials;"),
        (["AWS_DEFAULT_REGION"], "There is no AWS region;"),
    ],
)
def test_missing_credentials_or_region_are_reported(
    variables: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with aws_at(f"http://127.0.0.1:{free_port()}"):
        for variable in variables:
            monkeypatch.delenv(variable)
        assert error_of(capsys, "--table", "results").startswith(sentence)


def test_the_timeout_applies_to_each_page_of_a_listing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock, pages = fake_clock(monkeypatch), 30
    now = datetime.now(UTC)
    documents = [json.dumps(document_of(f"uploads/{n}", now, "photos", done("cat"))) for n in range(pages)]
    last_key = {"image": {"S": "i"}, "revision": {"S": "r"}, "day": {"S": "d"}, "key": {"S": "k"}}
    answers = [
        {
            "Items": [{"key": {"S": "k"}, "expires_at": {"N": "9999999999"}, "document": {"S": text}}],
            "LastEvaluatedKey": last_key,
        }
        for text in documents
    ]
    left = itertools.chain(answers, itertools.repeat({"Items": []}))

    def slowly(handler: Any) -> None:
        # All pages together take longer than the timeout.
        clock.now += 3
        ok(json.dumps(next(left)).encode())(handler)

    with scripted_aws(slowly):
        assert len(listed(capsys, "--table", "results")) == pages
