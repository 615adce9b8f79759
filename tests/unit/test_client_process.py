"""The command as a process: help, imports, signals, pipes, terminals and file names that are not UTF-8."""

import contextlib
import itertools
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
from argparse import ArgumentParser, _SubParsersAction
from datetime import datetime, tzinfo
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from aws import s3_error, scripted_aws
from fake_api import Request, Response, api_server, classification, each_image, in_turn, labelled
from support import ROCKET, ROOT

from litelens.core.classifier import DEFAULT_TOP_K
from litelens.settings import MAX_IMAGES, MAX_REQUEST_IMAGE_BYTES
from litelens_client import __version__
from litelens_client.__main__ import create_parser, main
from litelens_client.api import TIMEOUT_SECONDS

COMMAND = [sys.executable, "-m", "litelens_client", "classify"]

# Every image is a cat.
ALL_CATS = each_image(lambda _: {"status": "done", **classification("cat")})


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the variables that configure the command of the person who runs the tests."""
    monkeypatch.delenv("LITELENS_URL", raising=False)
    monkeypatch.delenv("LITELENS_API_KEY", raising=False)


@pytest.mark.parametrize("command", ["classify", "serve", "upload", "results", "backfill"])
def test_the_help_shows_no_key_and_imports_nothing_slow(command: str) -> None:
    code = """
import sys
from litelens_client.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"boto3", "litelens", "msgspec", "numpy", "rich", "starlette", "urllib3"} & set(sys.modules)))
"""
    environment = {**os.environ, "LITELENS_API_KEY": "key-of-the-tests", "API_KEY": "key-of-the-tests"}
    arguments = [sys.executable, "-c", code, command, "--help"]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: litelens {command} ")
    assert done.stdout.endswith("[]\n")
    assert "key-of-the-tests" not in done.stdout


def test_classifying_a_file_imports_neither_boto3_nor_the_event_handler() -> None:
    code = """
import sys
from litelens_client.__main__ import main
code = main(["classify", sys.argv[1]])
print(code, sorted({name.partition(".")[0] for name in sys.modules} & {"aws_lambda_powertools", "boto3", "botocore"}))
"""
    done = subprocess.run([sys.executable, "-c", code, ROCKET], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("\n0 []\n")


def test_classifying_a_file_starts_no_threads_of_numpy() -> None:
    code = """
import sys
from litelens_client.__main__ import main
code = main(["classify", sys.argv[1]])
from threadpoolctl import threadpool_info
print(code, {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
"""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-c", code, ROCKET], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.stdout.endswith("\n0 {1}\n")


def test_the_help_states_the_limits_of_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["classify", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert f"default: {DEFAULT_TOP_K}" in shown
    assert f"for an image above {MAX_REQUEST_IMAGE_BYTES / 1e6:g} MB" in shown


class FixedClock(datetime):
    """A clock that stands still in the time of the examples."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "FixedClock":
        return cls(2026, 11, 30, tzinfo=tz)


def subcommands() -> dict[str, ArgumentParser]:
    """Return the parser of each subcommand."""
    (action,) = (each for each in create_parser()._actions if isinstance(each, _SubParsersAction))
    return dict(action.choices)


def examples(command: str) -> list[str]:
    """Return the examples in the help of a subcommand."""
    return re.findall(r"^  (litelens .+)$", subcommands()[command].format_help(), re.MULTILINE)


@pytest.mark.parametrize("command", subcommands())
def test_each_help_has_examples_and_the_exit_codes(command: str) -> None:
    assert len(examples(command)) >= 2
    shown = subcommands()[command].format_help().partition("exit codes:\n")[2]
    assert [line.split()[0] for line in shown.splitlines()] == ["0", "1", "2", "130"]


@pytest.mark.parametrize("example", [example for command in subcommands() for example in examples(command)])
def test_the_examples_in_the_help_are_valid(example: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    for name in ("LITELENS_UPLOAD_BUCKET", "LITELENS_RESULTS_TABLE"):
        monkeypatch.setenv(name, name.lower())
    monkeypatch.setenv("LITELENS_BACKFILL", "arn:aws:states:eu-west-1:123456789012:stateMachine:backfill")
    monkeypatch.setattr("litelens_client.__main__.datetime", FixedClock)
    command = example.partition(" > ")[0]
    parsed = create_parser().parse_args(shlex.split(command)[1:])
    if parsed.check:
        parsed.check(parsed)
    assert f"litelens {parsed.command}" in command


def test_the_option_version_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"litelens {__version__}\n"


def test_an_interrupted_upload_says_how_much_was_sent_and_how_to_continue(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.jpg").write_bytes(b"%d" % number)
    numbers, test_is_over = itertools.count(), threading.Event()

    def accept_one(handler: BaseHTTPRequestHandler) -> None:
        if next(numbers):
            test_is_over.wait()
        handler.send_response(200)
        handler.send_header("ETag", '"0"')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (accept_one if handler.command == "PUT" else s3_error(403, "AccessDenied"))(handler)

    options = ["--bucket", "photos", "--parallel", "1", "--json"]
    command = [sys.executable, "-m", "litelens_client", "upload", str(tmp_path), *options]
    with scripted_aws(answer):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert json.loads(process.stdout.readline())["status"] == "sent"
            process.send_signal(signal.SIGINT)
            out, message = process.communicate(timeout=60)
        test_is_over.set()
    assert (process.returncode, out) == (130, b"")
    assert message.decode() == (
        "Interrupted: 1 of 30 sent, 0 were there already, 0 failed; run the same command again to continue.\n"
    )


def test_file_names_that_are_not_utf8_are_printed(tmp_path: Path) -> None:
    for name in (b"caf\xe9.jpg", b"two\nlines.jpg"):
        (tmp_path / os.fsdecode(name)).symlink_to(ROCKET)
    for form, shown in (("--csv", b"caf\\udce9.jpg"), ("--json", b"caf\\udce9.jpg"), ("--top-k=5", b"caf\\udce9.jpg")):
        done = subprocess.run([*COMMAND, tmp_path, form], cwd=ROOT, capture_output=True)
        assert done.returncode == 0
        assert shown in done.stdout


def test_ctrl_c_ends_the_command_at_once() -> None:
    received, test_is_over = threading.Event(), threading.Event()

    def wait(_: Request) -> None:
        received.set()
        test_is_over.wait()

    with api_server(wait) as (url, _):
        command = [*COMMAND, str(ROCKET), str(ROCKET), "--url", url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert received.wait(60)
            process.send_signal(signal.SIGINT)
            # The timeouts of all attempts together are longer.
            out, error = process.communicate(timeout=2 * TIMEOUT_SECONDS)
        test_is_over.set()
    assert (process.returncode, out, error) == (130, b"", b"Interrupted after 0 of 2 photos.\n")


def test_a_closed_pipe_ends_the_command_silently() -> None:
    reader_is_gone = threading.Event()

    def first_at_once(request: Request) -> Response:
        if len(requests) > 1:
            assert reader_is_gone.wait(60)
        return ALL_CATS(request)

    with api_server(first_at_once) as (url, requests):
        images = [str(ROCKET)] * (2 * MAX_IMAGES)
        command = [*COMMAND, *images, "--url", url, "--parallel", "1", "--json"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert process.stderr
            assert json.loads(process.stdout.readline())["status"] == "done"
            process.stdout.close()
            reader_is_gone.set()
            error = process.stderr.read()
    assert (process.returncode, error) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_reported() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, _), Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, str(ROCKET), "--url", url], cwd=ROOT, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"The output cannot be written: No space left on device.\n")


def test_progress_is_shown_on_a_terminal_beside_the_output() -> None:
    terminal, its_end = pty.openpty()
    with api_server(ALL_CATS) as (url, _):
        command = [*COMMAND, str(ROCKET), str(ROCKET), "--url", url, "--json"]
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=its_end) as process:
            os.close(its_end)
            shown = read_all(terminal)
            out, _ = process.communicate()
    assert process.returncode == 0
    assert b"Classifying" in shown
    assert b"2/2" in shown
    assert [json.loads(line)["status"] for line in out.splitlines()] == ["done", "done"]


def read_all(terminal: int) -> bytes:
    """Return what is written to a terminal until all processes have closed it, which Linux reports as an error."""
    shown = b""
    with os.fdopen(terminal, "rb", buffering=0) as file, contextlib.suppress(OSError):
        while some := file.read(4096):
            shown += some
    return shown


@pytest.mark.parametrize(("images", "form"), [(1, "--json"), (2, "--csv")])
def test_without_a_terminal_no_progress_is_shown(images: int, form: str) -> None:
    with api_server(ALL_CATS) as (url, _):
        done = subprocess.run([*COMMAND, *[str(ROCKET)] * images, "--url", url, form], cwd=ROOT, capture_output=True)
    assert done.returncode == 0
    # The summary of several images is the only line.
    assert len(done.stderr.splitlines()) == (0 if images == 1 else 1)
    assert b"\x1b" not in done.stdout + done.stderr
