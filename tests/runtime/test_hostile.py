"""Hostile files against the real handler in its own process: at most 2 seconds and 512 MB each, and none ends it."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostile
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import DATA, DEFAULT_BUNDLE, ROCKET, ROOT, classify_bytes, classify_json, require

Handle = Callable[[dict[str, Any]], dict[str, Any]]

MOST_MB = 512
MOST_SECONDS = 2

# Answers each path in its input with a line, like Lambda one after the other. boto3, which photos in a bucket need, is
# part of what a function's memory has to hold. Writing 5 makes Linux forget the peak of memory so far.
DRIVER = """
import json, re, sys, time
from pathlib import Path

answers, sys.stdout = sys.stdout, sys.stderr
import boto3
from litelens.api.handler import handler
from support import LambdaContext, answer_of, classify_bytes

boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
for path in sys.stdin:
    event = classify_bytes(Path(path.strip()).read_bytes())
    Path("/proc/self/clear_refs").write_text("5")
    started = time.process_time()
    response = handler(event, LambdaContext())
    seconds = time.process_time() - started
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
    answer = {"status": response["statusCode"], "seconds": seconds, "mb": peak, "body": answer_of(response)}
    print(json.dumps(answer), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Answer:
    """The outcome of a file: the status, CPU seconds, and the peak memory of the process in MB."""

    status: int
    seconds: float
    mb: float
    body: dict[str, Any]

    @property
    def faults(self) -> list[str]:
        """Return the faults of an answer to any file."""
        faults = []
        if self.status != 200 and not 400 <= self.status < 500:
            faults.append(f"status {self.status}")
        if self.seconds > MOST_SECONDS:
            faults.append(f"{self.seconds:.2f} s of CPU")
        if self.mb > MOST_MB:
            faults.append(f"{self.mb:.0f} MB")
        return faults


class Function:
    """The handler in a process that has to live through all files."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._good = self.send(ROCKET)
        assert self._good.status == 200

    def send(self, path: Path) -> Answer:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process did not live through {path.name}"
        return Answer(**json.loads(line))

    def faults_of(self, path: Path, status: int | None = None) -> list[str]:
        """Return the faults of the answer to this file, and of the answer to a good photo after it."""
        answer = self.send(path)
        faults = answer.faults
        if status not in (None, answer.status):
            faults.append(f"status {answer.status} instead of {status}")
        if self.send(ROCKET).body["predictions"] != self._good.body["predictions"]:
            faults.append("the good photo got another answer after it")
        return faults


def expected_status(name: str) -> int | None:
    """Return the expected status of a file that is just within or just beyond a limit."""
    if re.search("too (large|many|high|wide)", name):
        return 413
    return 200 if re.search("largest|most", name) else None


@contextmanager
def running_function() -> Iterator[Function]:
    environment = {**os.environ, "PYTHONPATH": "lambda:tests", "LITELENS_BUNDLE": str(DEFAULT_BUNDLE)}
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Function(process)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def function() -> Iterator[Function]:
    require(sys.platform == "linux", "only Linux tells a process's own peak of memory")
    with running_function() as function:
        yield function


@pytest.mark.parametrize("name", hostile.MAKERS)
def test_a_generated_file_is_answered_within_time_and_memory(name: str, function: Function, tmp_path: Path) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(hostile.MAKERS[name]())
    assert path.stat().st_size < 6_000_000
    assert function.faults_of(path, expected_status(name)) == []


def test_every_collected_file_is_answered_within_time_and_memory(function: Function) -> None:
    paths = sorted(path for path in (DATA / "hostile").rglob("*") if path.is_file())
    require(paths, f"there are no hostile files at {DATA}")
    assert len(paths) >= 383
    faults = {str(path.relative_to(DATA)): function.faults_of(path) for path in paths}
    assert {name: faulty for name, faulty in faults.items() if faulty} == {}


SMALL_FILES = [hostile.small(image_format) for image_format in ("JPEG", "PNG", "WEBP", "GIF", "BMP")]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    file=st.sampled_from(SMALL_FILES),
    patches=st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=8)), max_size=6),
    kept=st.integers(1, 5000),
    as_json=st.booleans(),
)
def test_any_event_with_a_damaged_image_is_classified_or_refused(
    handle: Handle, file: bytes, patches: list[tuple[int, bytes]], kept: int, as_json: bool
) -> None:
    image = bytearray(file[:kept])
    for position, patch in patches:
        position %= len(image)
        image[position : position + len(patch)] = patch
    encoded = base64.b64encode(image).decode()
    answer = handle(classify_json({"image": encoded}) if as_json else classify_bytes(bytes(image)))
    assert answer["statusCode"] == 200 or 400 <= answer["statusCode"] < 500
