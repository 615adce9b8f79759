"""The command as a process: signals, pipes, terminals and names that are no text."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from fake_api import Request, Response, answering, in_turn, labelled
from support import ROCKET, ROOT

from client.api import TIMEOUT_SECONDS
from litelens.classifier import DEFAULT_TOP_K

COMMAND = [sys.executable, "-m", "client", "classify"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process needs that is started in the repository, and nothing from whoever runs the tests."""
    monkeypatch.setenv("PYTHONPATH", "lambda:.")
    monkeypatch.delenv("LITELENS_URL", raising=False)
    monkeypatch.delenv("LITELENS_API_KEY", raising=False)


def test_the_help_tells_no_key_and_loads_nothing_slow() -> None:
    code = """
import sys
from client.__main__ import main
try:
    main(["classify", "--help"])
finally:
    print(sorted({"boto3", "litelens", "msgspec", "numpy", "rich", "urllib3"} & set(sys.modules)))
"""
    environment = {**os.environ, "LITELENS_API_KEY": "key-of-the-tests"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert "usage: litelens classify" in done.stdout
    assert f"default: {DEFAULT_TOP_K}" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert "key-of-the-tests" not in done.stdout


def test_names_that_are_no_text_are_printed(tmp_path: Path) -> None:
    for name in (b"caf\xe9.jpg", b"two\nlines.jpg"):
        (tmp_path / os.fsdecode(name)).symlink_to(ROCKET)
    for form, shown in (("--csv", b"caf\\udce9.jpg"), ("--json", b"caf\\udce9.jpg"), ("--top-k=5", b"caf\\udce9.jpg")):
        done = subprocess.run([*COMMAND, tmp_path, form], cwd=ROOT, capture_output=True)
        assert done.returncode == 0
        assert shown in done.stdout


def test_an_interrupted_command_does_not_wait_for_answers_and_ends_quietly() -> None:
    asked, test_is_over = threading.Event(), threading.Event()

    def say_nothing(_: Request) -> None:
        asked.set()
        test_is_over.wait()

    with answering(say_nothing) as (url, _):
        command = [*COMMAND, str(ROCKET), str(ROCKET), "--url", url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            # All attempts of a request that is not answered take longer.
            out, error = process.communicate(timeout=2 * TIMEOUT_SECONDS)
        test_is_over.set()
    assert (process.returncode, out, error) == (130, b"", b"")


def test_a_reader_who_goes_away_is_no_error_to_speak_of() -> None:
    reader_is_gone = threading.Event()

    def first_at_once(_: Request) -> Response:
        if len(requests) > 1:
            assert reader_is_gone.wait(60)
        return labelled("cat")

    with answering(first_at_once) as (url, requests):
        command = [*COMMAND, str(ROCKET), str(ROCKET), "--url", url, "--parallel", "1", "--json"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert json.loads(process.stdout.readline())["status"] == "done"
            process.stdout.close()
            reader_is_gone.set()
            error = process.stderr.read()
    assert (process.returncode, error) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_a_sentence() -> None:
    with answering(in_turn(labelled("cat"))) as (url, _), Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, str(ROCKET), "--url", url], cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"The output cannot be written: No space left on device.\n")


def test_progress_is_shown_on_a_terminal_beside_the_output() -> None:
    terminal, its_end = pty.openpty()
    with answering(in_turn(labelled("cat"))) as (url, _):
        command = [*COMMAND, str(ROCKET), str(ROCKET), "--url", url, "--json"]
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=its_end) as process:
            os.close(its_end)
            shown = read_all(terminal)
            out, _ = process.communicate()
    assert process.returncode == 0
    assert b"Classifying" in shown
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["done", "done"]


def read_all(terminal: int) -> bytes:
    """What is written to a terminal until nobody has it open, which Linux tells by an error."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while some := file.read(4096):
            shown += some
    return shown


@pytest.mark.parametrize(("images", "form"), [(1, "--json"), (2, "--csv")])
def test_without_a_terminal_nothing_is_said_of_progress(images: int, form: str) -> None:
    with answering(in_turn(labelled("cat"))) as (url, _):
        done = subprocess.run([*COMMAND, *[str(ROCKET)] * images, "--url", url, form], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\x1b" not in done.stdout
