"""A backfill from the command to its JSON lines: the stack's state machine on moto, the function in the emulator.

tests/step_functions.py implements the features that moto lacks.
"""

import gzip
import json
import os
import sys
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote_plus

import boto3
import numpy as np
import pytest
from aws import new_bucket
from bulk import new_settings
from PIL import Image
from step_functions import ROLE, FunctionError, Throttled, backfill_definition, run_step_functions
from support import DEFAULT_BUNDLE, ROCKET, ROOT, encoded, free_port, post_json, running

from litelens_client.__main__ import main
from litelens_client.classify import LocalClassifier
from litelens_client.settings import local_settings

BATCH_SIZE = 2


@dataclass
class Bulk:
    """The function in the runtime interface emulator, called with one event at a time, and its buckets.

    The next calls raise the errors in `failures`, one each.
    """

    url: str
    photos: str
    uploads: str
    failures: list[Exception] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)
    _one_at_a_time: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, event: dict[str, Any]) -> Any:
        assert self.may_answer.wait(60)
        with self._one_at_a_time:
            if self.failures:
                raise self.failures.pop(0)
            self.batches.append([item["Key"] for item in event["Items"]])
            answer = post_json(self.url, event)
        if "errorType" in answer:
            raise FunctionError(answer["errorType"])
        return answer


@pytest.fixture(scope="module")
def emulated(emulator: Path, moto_server: str) -> Iterator[Bulk]:
    photos, settings = new_bucket(), new_settings()
    port, runtime_port = free_port(), free_port()
    variables = {
        "AWS_LAMBDA_FUNCTION_TIMEOUT": "60",
        "LITELENS_BUNDLE": str(DEFAULT_BUNDLE),
        "LITELENS_BUCKETS": photos,
        "LITELENS_UPLOAD_BUCKET": str(settings.upload_bucket),
        "LITELENS_RESULTS_TABLE": str(settings.results_table),
        "PYTHONPATH": "",
    }
    command = [
        str(emulator),
        *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
        *("--runtime-api-address", f"127.0.0.1:{runtime_port}"),
        *(sys.executable, "-m", "awslambdaric", "litelens.bulk.handler.handler"),
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, ready=url, cwd=ROOT / "lambda", env={**os.environ, **variables}):
        yield Bulk(f"{url}/2015-03-31/functions/function/invocations", photos, str(settings.upload_bucket))


@pytest.fixture
def bulk(emulated: Bulk) -> Iterator[Bulk]:
    emulated.batches.clear()
    emulated.failures.clear()
    emulated.may_answer.set()
    with run_step_functions(emulated):
        yield emulated
    assert not emulated.failures


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litelens_client.state_machine._POLL_SECONDS", 0.05)


@pytest.fixture
def state_machine(bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ARN of the state machine, which the command reads from the environment."""
    made = boto3.client("stepfunctions").create_state_machine(
        name=f"backfill-{uuid.uuid4()}",
        definition=backfill_definition(UploadBucketName=bulk.uploads, BatchSize=str(BATCH_SIZE), MaxConcurrency="4"),
        roleArn=ROLE,
    )
    monkeypatch.setenv("LITELENS_BACKFILL", made["stateMachineArn"])
    return str(made["stateMachineArn"])


def put(bucket: str, *keys: str, body: bytes | None = None) -> None:
    for key in keys:
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body or ROCKET.read_bytes())


def noise() -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(7).integers(0, 256, (90, 120, 3), np.uint8)), "PNG")


def summary(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return dict(json.loads(capsys.readouterr().out))


def lines(folder: str, status: str) -> list[dict[str, Any]]:
    """Return the results in this folder, of the batches with this status."""
    bucket, _, prefix = folder.removeprefix("s3://").partition("/")
    s3 = boto3.client("s3")
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}manifest.json")["Body"].read())
    bodies = [s3.get_object(Bucket=bucket, Key=file["Key"])["Body"].read() for file in manifest["ResultFiles"][status]]
    return [json.loads(line) for body in bodies for line in body.splitlines()]


def test_every_object_with_the_prefix_gets_a_line_in_the_results(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bulk.photos, "holiday/a b+ü.jpg", "holiday/rocket.jpg", "holiday-not.jpg")
    put(bulk.photos, "holiday/noise.png", body=noise())
    put(bulk.photos, "holiday/broken.jpg", body=ROCKET.read_bytes()[:5000])
    put(bulk.photos, "holiday/note.txt", body=b"hello")
    assert main(["backfill", f"s3://{bulk.photos}/holiday/", "--yes", "--json"]) == 0
    report = summary(capsys)
    assert report["status"] == "SUCCEEDED"
    assert {name: report[name] for name in ("images", "done", "failed", "unanswered", "cause")} == {
        "images": 5,
        "done": 3,
        "failed": 2,
        "unanswered": 0,
        "cause": None,
    }
    assert report["results"].startswith(f"s3://{bulk.uploads}/backfills/")
    results = {line["key"]: line for line in lines(report["results"], "SUCCEEDED")}
    assert sorted(len(batch) for batch in bulk.batches) == [1, 2, 2]
    assert results.keys() == {key for batch in bulk.batches for key in batch}
    problems = {key: line["result"]["problem"]["code"] for key, line in results.items() if "problem" in line["result"]}
    assert problems == {"holiday/broken.jpg": "corrupt_image", "holiday/note.txt": "not_an_image"}
    listed = boto3.client("s3").list_objects_v2(Bucket=bulk.photos, Prefix="holiday/")["Contents"]
    assert {key: line["revision"] for key, line in results.items()} == {
        found["Key"]: found["ETag"].strip('"') for found in listed
    }


def test_a_backfill_gives_the_same_predictions_as_this_machine(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bulk.photos, "same/rocket.jpg")
    put(bulk.photos, "same/noise.png", body=noise())
    assert main(["backfill", f"s3://{bulk.photos}/same/", "--yes", "--json"]) == 0
    results = {line["key"]: line for line in lines(summary(capsys)["results"], "SUCCEEDED")}
    here = LocalClassifier(local_settings())
    for key, image in {"same/rocket.jpg": ROCKET.read_bytes(), "same/noise.png": noise()}.items():
        answer = here.classify(image)
        predicted = [(made["label"], made["confidence"]) for made in results[key]["result"]["predictions"]]
        assert predicted == [(made.label, made.confidence) for made in answer.predictions]
        assert results[key]["model"] == {"name": answer.model.name, "version": answer.model.version}


def test_an_inventory_replaces_listing_the_bucket(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = ["inventoried/a b+ü%.jpg", "inventoried/rocket.jpg", "inventoried/gone.jpg"]
    put(bulk.photos, *keys[:2])
    inventories = new_bucket()
    rows = "".join(f'"{bulk.photos}","{quote_plus(key, safe="/")}","5","2026-11-21T00:00:00.000Z"\n' for key in keys)
    put(inventories, "data/1.csv.gz", body=gzip.compress(rows.encode()))
    manifest = {
        "sourceBucket": bulk.photos,
        "destinationBucket": f"arn:aws:s3:::{inventories}",
        "fileFormat": "CSV",
        "fileSchema": "Bucket, Key, Size, LastModifiedDate",
        "files": [{"key": "data/1.csv.gz", "size": len(gzip.compress(rows.encode())), "MD5checksum": "-"}],
    }
    put(inventories, "manifest.json", body=json.dumps(manifest).encode())
    arguments = [
        "backfill",
        f"s3://{bulk.photos}",
        "--inventory",
        f"s3://{inventories}/manifest.json",
        "--yes",
        "--json",
    ]
    assert main(arguments) == 0
    report = summary(capsys)
    assert (report["images"], report["done"], report["failed"], report["unanswered"]) == (3, 2, 1, 0)
    results = {line["key"]: line["result"] for line in lines(report["results"], "SUCCEEDED")}
    assert [results[key]["status"] for key in keys] == ["done", "done", "failed"]
    assert results[keys[2]]["problem"]["code"] == "object_not_found"


def test_transient_failures_are_retried(bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]) -> None:
    put(bulk.photos, "again/1.jpg", "again/2.jpg", "again/3.jpg")
    bulk.failures += [Throttled(), FunctionError("StorageTimeout"), Throttled(), FunctionError("Sandbox.Timedout")]
    assert main(["backfill", f"s3://{bulk.photos}/again/", "--yes", "--tolerate", "0%", "--json"]) == 0
    report = summary(capsys)
    assert (report["images"], report["done"], report["failed"], report["unanswered"]) == (3, 3, 0, 0)


def test_a_batch_that_keeps_failing_stays_unanswered_if_that_is_tolerated(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(bulk.photos, "one/1.jpg")
    bulk.failures += [FunctionError("StorageTimeout")] * 4
    assert main(["backfill", f"s3://{bulk.photos}/one/", "--yes", "--tolerate", "100%", "--json"]) == 0
    report = summary(capsys)
    assert (report["images"], report["done"], report["failed"], report["unanswered"]) == (1, 0, 0, 1)
    (left,) = lines(report["results"], "FAILED")
    assert [item["Key"] for item in json.loads(left["Input"])["Items"]] == ["one/1.jpg"]


def test_each_image_of_a_forbidden_bucket_fails_with_its_own_result(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(secret := new_bucket(), "1.jpg")
    assert main(["backfill", f"s3://{secret}", "--yes", "--json"]) == 0
    report = summary(capsys)
    assert (report["images"], report["done"], report["failed"], report["unanswered"]) == (1, 0, 1, 0)


def test_the_same_backfill_runs_only_once_at_a_time_and_may_be_repeated_later(
    bulk: Bulk, state_machine: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bulk.photos, "once/1.jpg")
    bulk.may_answer.clear()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted:
        interrupted.setattr("litelens_client.state_machine.time", SimpleNamespace(sleep=interrupt))
        for _ in range(2):
            assert main(["backfill", f"s3://{bulk.photos}/once/", "--yes"]) == 130
    printed = capsys.readouterr().err.splitlines()
    executions = [line.rpartition(" ")[2] for line in printed if "litelens backfill --follow arn:aws:states:" in line]
    assert len(executions) == 2
    assert len(set(executions)) == 1
    bulk.may_answer.set()
    assert main(["backfill", "--follow", executions[0], "--json"]) == 0
    assert summary(capsys)["done"] == 1
    assert main(["backfill", f"s3://{bulk.photos}/once/", "--yes", "--json"]) == 0
    assert summary(capsys)["execution"] != executions[0]
    assert len(boto3.client("stepfunctions").list_executions(stateMachineArn=state_machine)["executions"]) == 2
