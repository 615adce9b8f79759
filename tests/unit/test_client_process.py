"""The command as a process: signals, pipes, terminals and names that are no text."""

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import sysconfig
import threading
import tomllib
import venv
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from aws import error, failing_aws
from fake_api import Request, Response, answering, in_turn, labelled
from support import ROCKET, ROOT

from client.__main__ import main
from client.api import LARGEST_BODY, TIMEOUT_SECONDS
from litelens.classifier import DEFAULT_TOP_K

COMMAND = [sys.executable, "-m", "client", "classify"]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process needs that is started in the repository, and nothing from whoever runs the tests."""
    monkeypatch.setenv("PYTHONPATH", "lambda:.")
    monkeypatch.delenv("LITELENS_URL", raising=False)
    monkeypatch.delenv("LITELENS_API_KEY", raising=False)


@pytest.mark.parametrize("command", ["classify", "upload", "results"])
def test_the_help_tells_no_key_and_loads_nothing_slow(command: str) -> None:
    code = """
import sys
from client.__main__ import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"boto3", "litelens", "msgspec", "numpy", "rich", "urllib3"} & set(sys.modules)))
"""
    environment = {**os.environ, "LITELENS_API_KEY": "key-of-the-tests"}
    arguments = [sys.executable, "-c", code, command, "--help"]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: litelens {command} ")
    assert done.stdout.endswith("[]\n")
    assert "key-of-the-tests" not in done.stdout


def test_the_help_tells_how_many_labels_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["classify", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"default: {DEFAULT_TOP_K}, which is also the most" in told
    assert f"above {LARGEST_BODY / 1e6:g} MB" in told


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"litelens {project['version']}\n"


def test_the_launcher_works_from_anywhere_and_in_a_folder_of_any_name(tmp_path: Path) -> None:
    project, elsewhere = tmp_path / "Anna's $HOME folder", tmp_path / "elsewhere"
    # Python would take these for litelens' own if it looked for modules where it is started.
    for name in ("client.py", "settings.py", "photos/a.heic"):
        (elsewhere / name).parent.mkdir(parents=True, exist_ok=True)
        (elsewhere / name).write_text("raise AssertionError")
    venv.create(project / ".venv", symlinks=True)
    for name in ("client", "lambda"):
        (project / name).symlink_to(ROOT / name)
    recipe = (ROOT / "Makefile").read_text().partition("define create_environment\n")[2].partition("endef")[0]
    after_installation = recipe[recipe.index("$(1)/bin/python -c") :]
    makefile = f"define finish\n{after_installation}endef\nall:\n\t@$(call finish,.venv)\n"
    (project / "Makefile").write_text(makefile)
    subprocess.run(["make", "--silent"], cwd=project, check=True)

    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}
    command = [project / ".venv/bin/litelens", "upload", "photos", "--bucket", "b"]
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("1 other file was skipped (.heic).\nphotos has no images in it;")


def test_an_interrupted_upload_tells_how_much_was_sent_and_how_to_go_on(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number}.jpg").write_bytes(b"%d" % number)
    numbers, test_is_over = itertools.count(), threading.Event()

    def take_one(handler: BaseHTTPRequestHandler) -> None:
        if next(numbers):
            test_is_over.wait()
        handler.send_response(200)
        handler.send_header("ETag", '"0"')
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (take_one if handler.command == "PUT" else error(403, "AccessDenied"))(handler)

    options = ["--bucket", "photos", "--parallel", "1", "--json"]
    command = [sys.executable, "-m", "client", "upload", str(tmp_path), *options]
    with failing_aws(answer):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout
            assert json.loads(process.stdout.readline())["status"] == "sent"
            process.send_signal(signal.SIGINT)
            out, told = process.communicate(timeout=60)
        test_is_over.set()
    assert (process.returncode, out) == (130, b"")
    assert told.decode() == (
        "Interrupted: 1 of 30 sent, 0 were there already, 0 failed; the same command goes on from there.\n"
    )


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
