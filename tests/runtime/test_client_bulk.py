"""`litelens upload` and `litelens results` with the stack of `make local`: bucket, queue, function and table."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from aws import aws_at
from PIL import Image
from support import DEFAULT_BUNDLE, ROCKET, ROOT, SAMPLES, encoded, require

from litelens_client.__main__ import main
from litelens_client.classify import LocalClassifier
from litelens_client.settings import local_settings
from local.stack import Stack, run_stack

PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/bulk.md")}


@dataclass
class Gate:
    """Lets `left` photos into the bucket, and the others once it is opened."""

    left: int = 1_000_000
    opened: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, application: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["REQUEST_METHOD"] == "PUT" and "/uploads/" in environ["PATH_INFO"]:
                with self.lock:
                    self.left -= 1
                    is_let_in = self.left >= 0
                if not is_let_in:
                    self.opened.wait(60)
            return application(environ, start_response)

        return guarded


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def stack(gate: Gate) -> Iterator[Stack]:
    """A running stack that boto3 uses as AWS."""
    require(sys.platform == "linux", "the runtime interface emulator runs on Linux only")
    with run_stack(DEFAULT_BUNDLE, middleware=gate.around) as stack, stack.poll_queue(), aws_at(stack.endpoint):
        yield stack


@pytest.fixture(autouse=True)
def _environment(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_UPLOAD_BUCKET", stack.storage.bucket)
    monkeypatch.setenv("LITELENS_RESULTS_TABLE", stack.storage.results_table)
    monkeypatch.setenv("PYTHONPATH", "lambda:client")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_folder_is_uploaded_classified_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = ROCKET.read_bytes()
    (tmp_path / "day 1").mkdir()
    (tmp_path / "day 1" / "rocket ü+.jpg").write_bytes(photo)
    (tmp_path / "day 1" / "text.jpg").write_text("hello")
    (tmp_path / "red.png").write_bytes(encoded(Image.new("RGB", (64, 64), "red"), "PNG"))

    assert main(["upload", str(tmp_path), "--prefix", "trip", "--wait", "--json"]) == 1
    told = {line["source"].removeprefix(f"{tmp_path}/"): line for line in lines(capsys)}
    assert {name: line["status"] for name, line in told.items()} == {
        "day 1/rocket ü+.jpg": "done",
        "day 1/text.jpg": "failed",
        "red.png": "done",
    }
    directly = LocalClassifier(local_settings()).classify(photo)
    assert told["day 1/rocket ü+.jpg"]["predictions"][0]["label"] == directly.predictions[0].label
    assert told["day 1/text.jpg"]["problem"]["code"] == "not_an_image"

    assert main(["results", "--prefix", "trip", "--csv"]) == 0
    rows = {row["key"]: row for row in csv.DictReader(StringIO(capsys.readouterr().out))}
    assert {key: row["status"] for key, row in rows.items()} == {
        "uploads/trip/day 1/rocket ü+.jpg": "done",
        "uploads/trip/day 1/text.jpg": "failed",
        "uploads/trip/red.png": "done",
    }
    assert rows["uploads/trip/day 1/rocket ü+.jpg"]["label"] == directly.predictions[0].label

    assert main(["results", "--prefix", "trip", "--failed", "--json"]) == 0
    (document,) = lines(capsys)
    assert document["key"] == "uploads/trip/day 1/text.jpg"


def test_an_interrupted_upload_continues_with_what_is_missing(
    tmp_path: Path, gate: Gate, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(40):
        colour = (number * 6, 255 - number * 6, 128)
        (tmp_path / f"{number}.png").write_bytes(encoded(Image.new("RGB", (16, 16), colour), "PNG"))
    arguments = ["upload", str(tmp_path), "--prefix", "interrupted"]
    gate.left = 25
    command = [sys.executable, "-m", "litelens_client", *arguments, "--json"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        first = [json.loads(process.stdout.readline())["status"] for _ in range(20)]
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    gate.opened.set()
    assert first == ["sent"] * 20
    assert process.returncode == 130
    assert re.fullmatch(rb"Interrupted: 2\d of 40 sent, .* run the same command again to continue\.\n", told)

    assert main([*arguments, "--wait", "--json"]) == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 40
    sent, there = map(int, re.findall(r"(\d+) of 40 sent, (\d+) were there already", captured.err)[0])
    assert there >= 20
    assert sent + there == 40
    assert main(["results", "--prefix", "interrupted", "--json"]) == 0
    assert len({document["key"] for document in lines(capsys)}) == 40


@pytest.mark.parametrize("page", PAGES)
def test_the_documented_commands_upload_photos_and_list_their_results(page: str, tmp_path: Path) -> None:
    shutil.copytree(SAMPLES, tmp_path / "web" / "samples")
    shutil.copytree(SAMPLES, tmp_path / "photos")
    commands = re.findall(r"^(?:\.venv/bin/)?litelens ((?:upload|results) .*)$", PAGES[page], re.MULTILINE)
    upload, results = (
        subprocess.run(
            f"{sys.executable} -m litelens_client {command}",
            shell=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'lambda'}:{ROOT / 'client'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for command in commands
    )
    assert "Egyptian cat" in upload
    assert [row["label"] for row in csv.DictReader(StringIO(results)) if "cat.jpg" in row["key"]] == ["Egyptian cat"]
