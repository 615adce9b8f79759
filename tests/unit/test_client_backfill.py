"""`litelens backfill`: counting, estimates, confirmation, start, progress and summary.

S3, CloudWatch and the state machines are moto's, executions are of a fake server. tests/runtime runs real executions.
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
from aws import AWS_TEXT, new_bucket, s3_error, scripted_aws
from fake_api import Request, Response, api_server, sent
from step_functions import ROLE, backfill_definition
from support import ROOT

from litelens_client.__main__ import main
from litelens_client.aws import AwsError, S3Location
from litelens_client.backfill import Count, count_inventory, count_objects, estimate
from litelens_client.state_machine import MAX_COUNTED_BYTES, Backfill, StateMachine, find_state_machine, start

MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:backfill"
EXECUTION = "arn:aws:states:us-east-1:123456789012:execution:backfill:photos-1"
RUN = "arn:aws:states:us-east-1:123456789012:mapRun:backfill/Listing:run-1"
COUNTS = ("pending", "running", "succeeded", "failed", "timedOut", "aborted", "total", "resultsWritten")


@pytest.fixture(autouse=True)
def _environment(moto_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITELENS_BACKFILL", raising=False)
    monkeypatch.setattr("litelens_client.state_machine._POLL_SECONDS", 0)


@pytest.fixture
def photos() -> str:
    return new_bucket()


@pytest.fixture
def machine(photos: str) -> str:
    """Return the ARN of a state machine at moto, which does not execute it."""
    made = boto3.client("stepfunctions").create_state_machine(
        name=f"backfill-{photos}"[:80], definition=backfill_definition(), roleArn=ROLE
    )
    return str(made["stateMachineArn"])


def put(bucket: str, *keys: str, body: bytes = b"-") -> None:
    for key in keys:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body)


def failure_message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return the last line that the failing command prints."""
    assert main(["backfill", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.strip().splitlines()[-1]


@contextmanager
def step_functions(**answers: Any) -> Iterator[list[Request]]:
    """Fake Step Functions: an answer for each action, or a list of answers in turn; yields the requests."""

    def respond(request: Request) -> Response:
        answer = answers[request.headers["x-amz-target"].partition(".")[2]]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        return answer if isinstance(answer, Response) else sent(answer)

    with api_server(respond) as (url, requests), pytest.MonkeyPatch.context() as patched:
        patched.setenv("AWS_ENDPOINT_URL_SFN", url)
        yield requests


def sfn_error(code: str) -> Response:
    return sent({"__type": code, "message": AWS_TEXT}, 400)


def ended(
    status: str, uploads: str = "uploads", run: bool = True, counts: Any = None, **described: str
) -> dict[str, Any]:
    """Return the answers of Step Functions for an execution that is over."""
    return {
        "DescribeExecution": {"status": status, "stateMachineArn": MACHINE, **described},
        "ListMapRuns": {
            "mapRuns": [{"mapRunArn": RUN, "startDate": 2}, {"mapRunArn": f"{RUN}-before", "startDate": 1}]
            if run
            else []
        },
        "DescribeMapRun": {"itemCounts": dict.fromkeys(COUNTS, 0) | (counts or {})},
        "DescribeStateMachineForExecution": {"definition": backfill_definition(UploadBucketName=uploads)},
    }


@pytest.mark.parametrize(
    ("arguments", "sentence"),
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
        (["--follow", MACHINE], "--follow takes the ARN of an execution"),
        (["--follow", EXECUTION, "--tolerate", "1"], "are for starting"),
    ],
)
def test_wrong_arguments_are_rejected(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["backfill", *arguments])
    assert ending.value.code == 2
    assert sentence in capsys.readouterr().err


def test_a_missing_bucket_is_reported(machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure_message(capsys, "s3://no-such-bucket-of-ours", "--yes", "--state-machine", machine)
    assert message == "The bucket no-such-bucket-of-ours does not exist."


def test_a_prefix_without_objects_starts_nothing(photos: str, machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure_message(capsys, f"s3://{photos}/none/", "--yes", "--state-machine", machine)
    assert message == f"There are no objects in s3://{photos}/none/."
    assert boto3.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"] == []


def test_a_missing_state_machine_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    message = failure_message(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert message == f"The state machine {MACHINE} does not exist; the stack's output BackfillArn has the right ARN."


def test_a_state_machine_that_is_not_for_backfills_is_not_started(
    photos: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = boto3.client("stepfunctions").create_state_machine(
        name=f"other-{photos}"[:80],
        definition='{"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}',
        roleArn=ROLE,
    )["stateMachineArn"]
    message = failure_message(capsys, f"s3://{photos}", "--yes", "--state-machine", other)
    assert message.startswith(f"{other} is not a state machine for backfills")


def test_a_missing_permission_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeStateMachine=sfn_error("AccessDeniedException")):
        message = failure_message(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert message.endswith("you need the permission states:DescribeStateMachine.")
    described = {"definition": backfill_definition()}
    with scripted_aws(s3_error(403, "AccessDenied")), step_functions(DescribeStateMachine=described):
        message = failure_message(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert message == "s3://photos/ cannot be listed; you need the permission s3:ListBucket."


def test_error_texts_of_aws_are_not_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeStateMachine=sfn_error("InvalidArn")):
        message = failure_message(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert message == f"The state machine {MACHINE} cannot be read: InvalidArn."


def test_missing_credentials_are_reported(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    message = failure_message(capsys, "s3://photos", "--yes", "--state-machine", MACHINE)
    assert message.startswith("There are no AWS credentials")


def test_a_missing_execution_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    with step_functions(DescribeExecution=sfn_error("ExecutionDoesNotExist")):
        message = failure_message(capsys, "--follow", EXECUTION)
    assert message == f"The execution {EXECUTION} does not exist; AWS deletes executions 90 days after their end."


def test_objects_below_a_prefix_are_counted(photos: str) -> None:
    put(photos, "a/1.jpg", "a/2.jpg", "ab.jpg", "b.jpg")
    assert count_objects(S3Location(photos, "a/")) == Count(2)
    assert count_objects(S3Location(photos, "")) == Count(4)


def test_the_count_of_many_objects_is_at_most_the_metric_of_the_bucket(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litelens_client.backfill._PAGE_SIZE", 2)
    monkeypatch.setattr("litelens_client.backfill._MAX_PAGES", 1)
    put(photos, *(f"a/{number}.jpg" for number in range(3)), "b.jpg")
    assert count_objects(S3Location(photos, "a/")) == Count(4, "at most")


def test_without_the_metric_the_count_of_many_objects_is_a_lower_bound(
    photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("litelens_client.backfill._PAGE_SIZE", 2)
    monkeypatch.setattr("litelens_client.backfill._MAX_PAGES", 1)
    put(photos, *(f"a/{number}.jpg" for number in range(3)))
    with api_server(lambda _: sent({"__type": "AccessDenied"}, 403)) as (url, requests):
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url)
        assert count_objects(S3Location(photos, "a/")) == Count(2, "at least")
    assert requests


def inventory_of(bucket: str, *files: bytes, **changed: Any) -> S3Location:
    """Create an inventory with these files and return where its manifest is."""
    inventories = new_bucket()
    entries = [{"key": f"{number}.csv.gz", "size": len(file)} for number, file in enumerate(files)]
    for entry, file in zip(entries, files, strict=True):
        put(inventories, entry["key"], body=file)
    manifest = {"sourceBucket": bucket, "fileFormat": "CSV", "fileSchema": "Bucket, Key", "files": entries} | changed
    put(inventories, "manifest.json", body=json.dumps(manifest).encode())
    return S3Location(inventories, "manifest.json")


def rows(count: int) -> bytes:
    return gzip.compress(b"".join(b'"photos","%d.jpg"\n' % number for number in range(count)))


def test_the_lines_of_a_small_inventory_are_counted() -> None:
    assert count_inventory(inventory_of("photos", rows(7)), "photos") == Count(7)
    assert count_inventory(inventory_of("photos"), "photos") == Count(0)


def test_the_lines_of_a_large_inventory_are_estimated_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litelens_client.backfill._SAMPLE_BYTES", 20_000)
    count = count_inventory(inventory_of("photos", rows(20_000), rows(20_000)), "photos")
    assert count.bound == "about"
    assert 36_000 < count.objects < 44_000


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"fileFormat": "ORC"}, "is an inventory as ORC; Step Functions reads only CSV."),
        ({"sourceBucket": "scans"}, "is an inventory of the bucket scans, not of photos."),
        ({"files": 7}, "is not the manifest.json of an S3 inventory."),
    ],
)
def test_an_inventory_that_cannot_be_used_is_rejected(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AwsError) as raised:
        count_inventory(inventory_of("photos", rows(1), **changed), "photos")
    assert str(raised.value).endswith(sentence)


def test_a_damaged_inventory_is_rejected() -> None:
    with pytest.raises(AwsError, match="not compressed by gzip"):
        count_inventory(inventory_of("photos", b"hello"), "photos")


def test_a_missing_inventory_is_reported() -> None:
    bucket = new_bucket()
    with pytest.raises(AwsError, match=f"The object s3://{bucket}/manifest.json does not exist."):
        count_inventory(S3Location(bucket, "manifest.json"), "photos")


def test_the_estimate_follows_the_prices() -> None:
    estimated = estimate(100_000_000, 100, 100)
    assert {service: round(dollars) for service, dollars in estimated.dollars.items()} == {
        # 20 million seconds of 1.7275 GB, and a million requests.
        "Lambda": 576,
        # A million transitions for $25, as many requests for $1, and 20 million seconds of 64 MB.
        "Step Functions": 47,
        # A hundred million reads for $40, and a hundred thousand pages.
        "S3": 40,
    }
    assert round(estimated.total) == 663
    # A million batches of twenty seconds, a hundred at a time.
    assert estimated.seconds == pytest.approx(200_000)


def test_the_estimate_of_a_few_images_is_one_batch() -> None:
    assert estimate(3, 100, 100).seconds == pytest.approx(0.6)


def test_the_batch_size_and_concurrency_are_read_from_the_state_machine(machine: str) -> None:
    assert find_state_machine(machine) == StateMachine(machine, 100, 100)


def started(machine: str) -> list[Any]:
    """Return the input and the name of each execution."""
    states = boto3.client("stepfunctions")
    listed = states.list_executions(stateMachineArn=machine)["executions"]
    described = [states.describe_execution(executionArn=made["executionArn"]) for made in listed]
    return [(json.loads(made["input"]), made["name"]) for made in described]


@pytest.mark.parametrize(
    ("backfill", "document"),
    [
        (Backfill(S3Location("photos", "")), {"bucket": "photos", "prefix": ""}),
        (
            Backfill(S3Location("photos", "a/"), tolerate=0),
            {"bucket": "photos", "prefix": "a/", "tolerate": 0},
        ),
        (
            Backfill(S3Location("photos", ""), inventory=S3Location("inventories", "manifest.json")),
            {
                "bucket": "photos",
                "prefix": "",
                "inventory": {"bucket": "inventories", "key": "manifest.json"},
            },
        ),
    ],
)
def test_the_backfill_is_the_input_of_the_execution(machine: str, backfill: Backfill, document: dict[str, Any]) -> None:
    start(find_state_machine(machine), backfill)
    ((given, _),) = started(machine)
    assert given == document


def test_execution_names_are_valid_and_unique_to_a_backfill(machine: str) -> None:
    long = "b" * 63
    for images in (S3Location(long, ""), S3Location(long, "a b/ü")):
        start(find_state_machine(machine), Backfill(images))
    names = [name for _, name in started(machine)]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9.-]{1,80}", name) for name in names)


def test_a_running_backfill_is_not_started_twice(machine: str) -> None:
    found, backfill = find_state_machine(machine), Backfill(S3Location("photos", ""))
    assert start(found, backfill) == start(found, backfill)
    assert len(started(machine)) == 1


def test_a_backfill_that_is_over_can_be_started_again(machine: str) -> None:
    found, backfill = find_state_machine(machine), Backfill(S3Location("photos", ""))
    first = start(found, backfill)
    boto3.client("stepfunctions").stop_execution(executionArn=first)
    assert start(found, backfill) != first
    assert len(started(machine)) == 2


def test_a_running_backfill_is_followed_until_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    over = ended("SUCCEEDED", counts={"total": 5, "succeeded": 5})
    over["DescribeExecution"] = [{"status": "RUNNING"}, {"status": "RUNNING"}, over["DescribeExecution"]]
    # The map run starts a moment after the execution.
    over["ListMapRuns"] = [{"mapRuns": []}, over["ListMapRuns"]]
    with step_functions(**over) as requests:
        assert main(["backfill", "--follow", EXECUTION]) == 0
    polls = [request for request in requests if request.headers["x-amz-target"].endswith("DescribeExecution")]
    assert len(polls) == 4
    assert "5 images: 5 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "described", "cause"),
    [
        (
            "FAILED",
            {"error": "States.ExceedToleratedFailureThreshold", "cause": "The threshold was exceeded."},
            "more images have no result than are tolerated: The threshold was exceeded",
        ),
        ("FAILED", {"error": "States.ItemReaderFailed"}, "the objects or the inventory cannot be read"),
        ("FAILED", {"error": "States.ResultWriterFailed"}, "the results cannot be written"),
        ("FAILED", {"error": "States.Runtime", "cause": "No \x1b[31mkey"}, "States.Runtime: No \\x1b[31mkey"),
        ("TIMED_OUT", {}, "TIMED_OUT"),
        ("ABORTED", {}, "it was stopped"),
    ],
)
def test_a_failed_backfill_says_why_and_how_to_retry(
    status: str, described: dict[str, str], cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with step_functions(**ended(status, run=False, **described)):
        assert main(["backfill", "--follow", EXECUTION]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"The backfill failed: {cause}.",
        f"To retry the others: aws stepfunctions redrive-execution --execution-arn {EXECUTION}",
    ]


def results_in(bucket: str, *lines: dict[str, Any], size: int = 0) -> None:
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    files = {"SUCCEEDED": [{"Key": "backfills/run-1/0.jsonl", "Size": size or len(body)}], "FAILED": [], "PENDING": []}
    put(bucket, "backfills/run-1/0.jsonl", body=body)
    put(bucket, "backfills/run-1/manifest.json", body=json.dumps({"ResultFiles": files}).encode())


DONE, FAILED = {"result": {"status": "done"}}, {"result": {"status": "failed", "problem": {"code": "not_an_image"}}}


def test_the_summary_counts_done_failed_and_unanswered_images(
    capsys: pytest.CaptureFixture[str],
) -> None:
    uploads = new_bucket()
    results_in(uploads, DONE, FAILED, DONE)
    counts = {"total": 9, "succeeded": 3, "failed": 1, "timedOut": 2, "aborted": 3}
    with step_functions(**ended("SUCCEEDED", uploads, counts=counts)):
        assert main(["backfill", "--follow", EXECUTION]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "9 images: 2 done, 1 failed, 6 without a result.",
        f"The results are JSON lines in s3://{uploads}/backfills/run-1/",
    ]


def test_the_summary_can_be_json(capsys: pytest.CaptureFixture[str]) -> None:
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
        results_in(uploads, DONE, size=MAX_COUNTED_BYTES + 1)
    if hidden == "not as AWS documents them":
        results_in(uploads, {"Output": "[]"})
    with step_functions(**ended("SUCCEEDED", uploads, counts={"total": 7, "succeeded": 7})):
        assert main(["backfill", "--follow", EXECUTION]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == "7 images: 7 with a result (failures were not counted), 0 without a result."
    assert second.endswith(f"s3://{uploads}/backfills/run-1/")


def at_a_terminal(answer: str, *arguments: str) -> tuple[int, str]:
    """Return the exit code and the output of the command on a terminal where the user types this answer."""
    terminal, its_end = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": "lambda:client"}
    command = [sys.executable, "-m", "litelens_client", "backfill", *arguments]
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
        # Linux raises this when the other end is closed.
        pass
    return shown.decode()


def test_nothing_is_started_without_a_confirmation(photos: str, machine: str) -> None:
    put(photos, "1.jpg")
    code, shown = at_a_terminal("n", f"s3://{photos}", "--state-machine", machine)
    assert code == 1
    assert f"s3://{photos}/ has 1 object, which should take 1 second and $0.00" in shown
    assert "Start? [y/N]" in shown
    assert "Nothing was started." in shown
    assert started(machine) == []


def test_a_confirmed_backfill_is_started_and_followed(photos: str) -> None:
    put(photos, "1.jpg")
    over = ended("SUCCEEDED", counts={"total": 1, "succeeded": 1})
    asked = {
        "DescribeStateMachine": {"definition": backfill_definition()},
        "StartExecution": {"executionArn": EXECUTION},
    }
    with step_functions(**over, **asked):
        code, shown = at_a_terminal("y", f"s3://{photos}", "--state-machine", MACHINE)
    assert code == 0
    assert f"Started {EXECUTION}" in shown
    assert "Classifying" in shown
    assert "1 image: 1 " in shown
