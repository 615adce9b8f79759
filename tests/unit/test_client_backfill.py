"""`litelens backfill`: what it counts, estimates, asks, starts, follows and says.

S3, CloudWatch and the state machines are moto's. A server tells how executions go; tests/runtime has them run.
"""

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
import pytest
from aws import AWS_TEXT, error, failing_aws, new_bucket
from fake_api import Request, Response, answering, sent
from states import ROLE, definition
from support import ROOT

from client.__main__ import main
from client.aws import AwsError
from client.estimate import Count, Location, count_inventoried, count_listed, estimate
from client.executions import LARGEST_COUNTED, Backfill, StateMachine, find_state_machine, start

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:backfill"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:backfill:photos-1"
RUN = "arn:aws:states:us-east-1:123456789012:mapRun:backfill/Listing:run-1"
COUNTS = ("pending", "running", "succeeded", "failed", "timedOut", "aborted", "total", "resultsWritten")


@pytest.fixture(autouse=True)
def _environment(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELENS_BACKFILL", raising=False)
    monkeypatch.setattr("client.executions._PAUSE", 0)


@pytest.fixture
def photos() -> str:
    return new_bucket()


@pytest.fixture
def machine(photos: str) -> str:
    """The ARN of a state machine that moto keeps, but does not execute."""
    made = boto3.client("stepfunctions").create_state_machine(
        name=f"backfill-{photos}"[:80], definition=definition(), roleArn=ROLE
    )
    return str(made["stateMachineArn"])


def put(bucket: str, *keys: str, body: bytes = b"-") -> None:
    for key in keys:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says that fails with these arguments."""
    assert main(["backfill", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.strip().splitlines()[-1]


@contextmanager
def step_functions(**answers: Any) -> Iterator[list[Request]]:
    """Step Functions gives these answers, each for the action of its name; in a list, one after the other."""

    def respond(request: Request) -> Response:
        answer = answers[request.headers["x-amz-target"].partition(".")[2]]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer if isinstance(answer, Response) else sent(answer)

    with answering(respond) as (url, requests), pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL_SFN", url)
        yield requests


def refusal(code: str) -> Response:
    return sent({"__type": code, "message": AWS_TEXT}, 400)


def ended(
    status: str, uploads: str = "uploads", run: bool = True, counts: Any = None, **described: str
) -> dict[str, Any]:
    """What Step Functions tells of an execution that is over."""
    return {
        "DescribeExecution": {"status": status, "stateMachineArn": MACHINE, **described},
        "ListMapRuns": {
            "mapRuns": [{"mapRunArn": RUN, "startDate": 2}, {"mapRunArn": f"{RUN}-before", "startDate": 1}]
            if run
            else []
        },
        "DescribeMapRun": {"itemCounts": dict.fromkeys(COUNTS, 0) | (counts or {})},
        "DescribeStateMachineForExecution": {"definition": definition(UploadBucketName=uploads)},
    }


@pytest.mark.parametrize(
    ("arguments", "about"),
    [
        ([], "S3 --follow"),
        (["photos"], "s3://bucket"),
        (["s3://"], "s3://bucket"),
        (["s3:///key"], "s3://bucket"),
        (["s3://photos"], "LITELENS_BACKFILL"),
        (["s3://photos", "--state-machine", "backfill"], "--state-machine takes an ARN"),
        (["s3://photos", "--state-machine", EXECUTION], "--state-machine takes an ARN"),
        (["s3://photos", "--state-machine", MACHINE], "--yes"),
        (["s3://photos", "--state-machine", MACHINE, "--tolerate", "101%"], "from 0 to 100, such as 1%"),
        (["s3://photos", "--state-machine", MACHINE, "--tolerate", "1.5"], "from 0 to 100, such as 1%"),
        (["s3://photos", "--state-machine", MACHINE, "--tolerate", "-1"], "--tolerate"),
        (["s3://photos", "--inventory", "s3://inventories/"], "manifest.json"),
        (["s3://photos/a", "--yes", "--state-machine", MACHINE, "--inventory", "s3://b/manifest.json"], "whole bucket"),
        (["s3://photos", "--follow", EXECUTION], "not allowed with"),
        (["--follow", MACHINE], "--follow takes an execution's ARN"),
        (["--follow", EXECUTION, "--tolerate", "1"], "are for starting"),
    ],
)
def test_a_wrong_command_is_refused_before_anything_is_asked(
    arguments: list[str], about: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["backfill", *arguments])
    assert ending.value.code == 2
    assert about in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_named(machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "s3://no-such-bucket-of-ours", "--yes", "--state-machine", machine)
    assert said == "There is no bucket no-such-bucket-of-ours."


def test_a_prefix_without_objects_is_told(photos: str, machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, f"s3://{photos}/none/", "--yes", "--state-machine", machine)
    assert said == f"There are no objects in s3://{photos}/none/."
    assert boto3.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"] == []


def test_a_state_machine_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    said = complaint(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert said == f"There is no state machine {MACHINE}; the stack's output BackfillArn names the one that there is."


def test_another_state_machine_is_not_started(photos: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = boto3.client("stepfunctions").create_state_machine(
        name=f"other-{photos}"[:80],
        definition='{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}',
        roleArn=ROLE,
    )["stateMachineArn"]
    said = complaint(capsys, f"s3://{photos}", "--yes", "--state-machine", other)
    assert said.startswith(f"{other} is not a state machine for backfills")


def test_a_missing_permission_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeStateMachine=refusal("AccessDeniedException")):
        said = complaint(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert said.endswith("you need the permission states:DescribeStateMachine.")
    described = {"definition": definition()}
    with failing_aws(error(403, "AccessDenied")), step_functions(DescribeStateMachine=described):
        said = complaint(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert said == "s3://photos/ cannot be listed; you need the permission s3:ListBucket."


def test_what_aws_says_is_not_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeStateMachine=refusal("InvalidArn")):
        said = complaint(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert said == f"The state machine {MACHINE} cannot be looked up: InvalidArn."


def test_missing_credentials_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    said = complaint(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert said.startswith("There are no AWS credentials")


def test_an_execution_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeExecution=refusal("ExecutionDoesNotExist")):
        said = complaint(capsys, "--follow", EXECUTION)
    assert said == f"There is no execution {EXECUTION}; AWS forgets them 90 days after their end."


def test_objects_below_a_prefix_are_counted(photos: str) -> None:
    put(photos, "a/1.jpg", "a/2.jpg", "ab.jpg", "b.jpg")
    assert count_listed(Location(photos, "a/")) == Count(2)
    assert count_listed(Location(photos, "")) == Count(4)


def test_of_many_objects_the_buckets_metric_is_the_most(photos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.estimate._PAGE", 2)
    monkeypatch.setattr("client.estimate._COUNTED_PAGES", 1)
    put(photos, *(f"a/{number}.jpg" for number in range(3)), "b.jpg")
    assert count_listed(Location(photos, "a/")) == Count(4, "at most")


def test_where_metrics_may_not_be_read_what_was_counted_is_the_least(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.estimate._PAGE", 2)
    monkeypatch.setattr("client.estimate._COUNTED_PAGES", 1)
    put(photos, *(f"a/{number}.jpg" for number in range(3)))
    with answering(lambda _: sent({"__type": "AccessDenied"}, 403)) as (url, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url)
        assert count_listed(Location(photos, "a/")) == Count(2, "at least")
    assert requests


def inventory_of(bucket: str, *files: bytes, **changed: Any) -> Location:
    """The manifest of an inventory with these files."""
    inventories = new_bucket()
    entries = [{"key": f"{number}.csv.gz", "size": len(file)} for number, file in enumerate(files)]
    for entry, file in zip(entries, files, strict=True):
        put(inventories, entry["key"], body=file)
    manifest = {"sourceBucket": bucket, "fileFormat": "CSV", "fileSchema": "Bucket, Key", "files": entries} | changed
    put(inventories, "manifest.json", body=json.dumps(manifest).encode())
    return Location(inventories, "manifest.json")


def rows(count: int) -> bytes:
    return gzip.compress(b"".join(b'"photos","%d.jpg"\n' % number for number in range(count)))


def test_the_lines_of_a_small_inventory_are_counted() -> None:
    assert count_inventoried(inventory_of("photos", rows(7)), "photos") == Count(7)
    assert count_inventoried(inventory_of("photos"), "photos") == Count(0)


def test_the_lines_of_a_large_inventory_are_estimated_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.estimate._SAMPLE", 20_000)
    count = count_inventoried(inventory_of("photos", rows(20_000), rows(20_000)), "photos")
    assert count.bound == "about"
    assert 36_000 < count.objects < 44_000


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"fileFormat": "ORC"}, "is of an inventory as ORC; Step Functions reads CSV only."),
        ({"sourceBucket": "scans"}, "is an inventory of the bucket scans, not of photos."),
        ({"files": 7}, "is no manifest of an S3 inventory; name its manifest.json."),
    ],
)
def test_an_inventory_that_cannot_be_used_is_refused(changed: dict[str, Any], about: str) -> None:
    with pytest.raises(AwsError) as raised:
        count_inventoried(inventory_of("photos", rows(1), **changed), "photos")
    assert str(raised.value).endswith(about)


def test_a_damaged_inventory_is_refused() -> None:
    with pytest.raises(AwsError, match="not compressed by gzip"):
        count_inventoried(inventory_of("photos", b"hello"), "photos")


def test_an_inventory_that_is_not_there_is_named() -> None:
    bucket = new_bucket()
    with pytest.raises(AwsError, match=f"There is no s3://{bucket}/manifest.json."):
        count_inventoried(Location(bucket, "manifest.json"), "photos")


def test_a_hundred_million_images_take_what_the_prices_say() -> None:
    made = estimate(100_000_000, 100, 100)
    assert {service: round(dollars) for service, dollars in made.dollars.items()} == {
        # 20 million seconds of 1.7275 GB, and a million requests.
        "Lambda": 576,
        # A million transitions for $25, as many requests for $1, and 20 million seconds of 64 MB.
        "Step Functions": 47,
        # A hundred million reads for $40, and a hundred thousand pages.
        "S3": 40,
    }
    assert round(made.total) == 663
    # A million batches of twenty seconds, a hundred at a time.
    assert made.seconds == pytest.approx(200_000)


def test_a_few_images_are_one_batch() -> None:
    assert estimate(3, 100, 100).seconds == pytest.approx(0.6)


def test_the_batches_are_those_of_the_state_machine(machine: str) -> None:
    assert find_state_machine(machine) == StateMachine(machine, 100, 100)


def started(machine: str) -> list[Any]:
    """The input and the name of each execution."""
    states = boto3.client("stepfunctions")
    listed = states.list_executions(stateMachineArn=machine)["executions"]
    described = [states.describe_execution(executionArn=made["executionArn"]) for made in listed]
    return [(json.loads(made["input"]), made["name"]) for made in described]


@pytest.mark.parametrize(
    ("backfill", "document"),
    [
        (Backfill(Location("photos", "")), {"bucket": "photos", "prefix": ""}),
        (
            Backfill(Location("photos", "a/"), tolerate=0),
            {"bucket": "photos", "prefix": "a/", "tolerate": 0},
        ),
        (
            Backfill(Location("photos", ""), inventory=Location("inventories", "manifest.json")),
            {
                "bucket": "photos",
                "prefix": "",
                "inventory": {"bucket": "inventories", "key": "manifest.json"},
            },
        ),
    ],
)
def test_a_backfill_is_the_executions_input(machine: str, backfill: Backfill, document: dict[str, Any]) -> None:
    start(find_state_machine(machine), backfill)
    ((given, _),) = started(machine)
    assert given == document


def test_a_name_is_one_that_aws_takes_and_belongs_to_one_backfill(machine: str) -> None:
    long = "b" * 63
    for images in (Location(long, ""), Location(long, "a b/ü")):
        start(find_state_machine(machine), Backfill(images))
    names = [name for _, name in started(machine)]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9.-]{1,80}", name) for name in names)


def test_while_it_runs_the_same_backfill_is_not_started_again(machine: str) -> None:
    found, backfill = find_state_machine(machine), Backfill(Location("photos", ""))
    assert start(found, backfill) == start(found, backfill)
    assert len(started(machine)) == 1


def test_when_it_is_over_the_same_backfill_may_be_started_again(machine: str) -> None:
    found, backfill = find_state_machine(machine), Backfill(Location("photos", ""))
    first = start(found, backfill)
    boto3.client("stepfunctions").stop_execution(executionArn=first)
    assert start(found, backfill) != first
    assert len(started(machine)) == 2


def test_a_running_backfill_is_followed_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    over = ended("SUCCEEDED", counts={"total": 5, "succeeded": 5})
    over["DescribeExecution"] = [{"status": "RUNNING"}, {"status": "RUNNING"}, over["DescribeExecution"]]
    # It takes a moment until the map has begun.
    over["ListMapRuns"] = [{"mapRuns": []}, over["ListMapRuns"]]
    with step_functions(**over) as requests:
        assert main(["backfill", "--follow", EXECUTION]) == 0
    looks = [request for request in requests if request.headers["x-amz-target"].endswith("DescribeExecution")]
    assert len(looks) == 4
    assert "5 images: 5 answered" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "described", "cause"),
    [
        (
            "FAILED",
            {"error": "States.ExceedToleratedFailureThreshold", "cause": "The threshold was exceeded."},
            "more images got no answer than are tolerated: The threshold was exceeded",
        ),
        ("FAILED", {"error": "States.ItemReaderFailed"}, "the objects or the inventory cannot be read"),
        ("FAILED", {"error": "States.ResultWriterFailed"}, "the results cannot be written"),
        ("FAILED", {"error": "States.Runtime", "cause": "No \x1b[31mkey"}, "States.Runtime: No \\x1b[31mkey"),
        ("TIMED_OUT", {}, "TIMED_OUT"),
        ("ABORTED", {}, "it was stopped"),
    ],
)
def test_a_backfill_that_failed_tells_why_and_how_to_go_on(
    status: str, described: dict[str, str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with step_functions(**ended(status, run=False, **described)):
        assert main(["backfill", "--follow", EXECUTION]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"The backfill failed: {cause}.",
        f"To go on with what is left: aws stepfunctions redrive-execution --execution-arn {EXECUTION}",
    ]


def results_in(bucket: str, *lines: dict[str, Any], size: int = 0) -> None:
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = {"SUCCEEDED": [{"Key": "backfills/run-1/0.jsonl", "Size": size or len(body)}], "FAILED": [], "PENDING": []}
    put(bucket, "backfills/run-1/0.jsonl", body=body)
    put(bucket, "backfills/run-1/manifest.json", body=json.dumps({"ResultFiles": files}).encode())


DONE, FAILED = {"result": {"status": "done"}}, {"result": {"status": "failed", "problem": {"code": "not_an_image"}}}


def test_the_summary_counts_what_was_classified_what_could_not_be_and_what_got_no_answer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    uploads = new_bucket()
    results_in(uploads, DONE, FAILED, DONE)
    counts = {"total": 9, "succeeded": 3, "failed": 1, "timedOut": 2, "aborted": 3}
    with step_functions(**ended("SUCCEEDED", uploads, counts=counts)):
        assert main(["backfill", "--follow", EXECUTION]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "9 images: 2 done, 1 failed, 6 without an answer.",
        f"The results are JSON lines in s3://{uploads}/backfills/run-1/",
    ]


def test_the_summary_may_be_json(capsys: pytest.CaptureFixture[str]) -> None:
    uploads = new_bucket()
    results_in(uploads, DONE, FAILED)
    with step_functions(**ended("SUCCEEDED", uploads, counts={"total": 2, "succeeded": 2})):
        assert main(["backfill", "--follow", EXECUTION, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "execution": EXECUTION,
        "status": "SUCCEEDED",
        "images": 2,
        "done": 1,
        "failed": 1,
        "unanswered": 0,
        "results": f"s3://{uploads}/backfills/run-1/",
        "cause": None,
    }


@pytest.mark.parametrize("hidden", ["too many", "not there", "not as AWS documents them"])
def test_results_that_cannot_be_read_are_not_counted(hidden: str, capsys: pytest.CaptureFixture[str]) -> None:
    uploads = new_bucket()
    if hidden == "too many":
        results_in(uploads, DONE, size=LARGEST_COUNTED + 1)
    if hidden == "not as AWS documents them":
        results_in(uploads, {"Output": "[]"})
    with step_functions(**ended("SUCCEEDED", uploads, counts={"total": 7, "succeeded": 7})):
        assert main(["backfill", "--follow", EXECUTION]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "7 images: 7 answered, of which those that failed were not counted, 0 without an answer."
    assert second.endswith(f"s3://{uploads}/backfills/run-1/")


def at_a_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """The exit code, and what the command shows, that is answered like this when it asks."""
    terminal, its_end = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": "lambda:."}
    command = [sys.executable, "-m", "client", "backfill", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdin=its_end, stdout=its_end, stderr=its_end) as process:
        os.close(its_end)
        os.write(terminal, f"{answer}\n".encode())
        shown = _all_of(lambda: os.read(terminal, 65536))
    os.close(terminal)
    return process.returncode, shown


def _all_of(read: Callable[[], bytes]) -> str:
    shown = b""
    try:
        while piece := read():
            shown += piece
    except OSError:
        # So says Linux that the other end is closed.
        pass
    return shown.decode()


def test_nothing_is_started_that_is_not_wanted(photos: str, machine: str) -> None:
    put(photos, "1.jpg")
    code, shown = at_a_terminal("n", f"s3://{photos}", "--state-machine", machine)
    assert code == 1
    assert f"s3://{photos}/ has 1 object, which should take 1 second and $0.00" in shown
    assert "Start? [y/N]" in shown
    assert "Nothing was started." in shown
    assert started(machine) == []


def test_what_is_wanted_is_started_and_shown_on_a_terminal(photos: str) -> None:
    put(photos, "1.jpg")
    over = ended("SUCCEEDED", counts={"total": 1, "succeeded": 1})
    asked = {"DescribeStateMachine": {"definition": definition()}, "StartExecution": {"executionArn": EXECUTION}}
    with step_functions(**over, **asked):
        code, shown = at_a_terminal("y", f"s3://{photos}", "--state-machine", MACHINE)
    assert code == 0
    assert f"Started {EXECUTION}" in shown
    assert "Classifying" in shown
    assert "1 image: 1 answered" in shown
