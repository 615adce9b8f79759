"""`make local`: the commands that it prints work, and it leaves no process behind."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from local_stack import wait_until
from support import CAT, ROOT, free_port, post_json

from local.aws import client_at

# What users may have for their own AWS, which must not matter.
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name != "LITELENS_BUNDLE"},
    "AWS_PROFILE": "of-the-user",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    "LITELENS_EVENT_BUS": "of-the-user",
}


class Local:
    """A running `make local`, and the instructions that it printed."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        assert process.stdout
        self.process = process
        self.port = port
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("The logs are in "):
                break
        self.greeting = "".join(lines)

    @property
    def exports(self) -> dict[str, str]:
        """The environment variables in the instructions."""
        words = [word for line in re.findall(r"^  export (.*)$", self.greeting, re.MULTILINE) for word in line.split()]
        return dict(word.split("=", 1) for word in words)

    @property
    def logs(self) -> Path:
        return Path(self.greeting.splitlines()[-1].split()[4])

    def command(self, pattern: str) -> str:
        """Return the only command in the instructions that matches the pattern."""
        (found,) = re.findall(rf"^  ({pattern})$", self.greeting, re.MULTILINE)
        return str(found)

    def run_litelens(self, pattern: str) -> str:
        """Run a command of `litelens` from the instructions and return its output."""
        program, arguments = self.command(rf"\S*/litelens {pattern}").split(maxsplit=1)
        assert Path(program).name == "litelens"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        done = subprocess.run(
            [sys.executable, "-m", "litelens_client", *shlex.split(arguments)],
            cwd=ROOT,
            env=inherited | self.exports,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "local", *arguments]


@contextmanager
def running_local(*arguments: str) -> Iterator[Local]:
    port = free_port()
    with subprocess.Popen(
        command("--port", str(port), *arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Local(process, port)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    with running_local() as local:
        yield local


def test_the_printed_commands_upload_a_photo_and_list_its_result(local: Local) -> None:
    assert "Egyptian cat" in local.run_litelens("upload .*")
    assert "Egyptian cat" in local.run_litelens("results")


def test_the_printed_aws_command_names_the_upload_bucket(local: Local) -> None:
    line = local.command(r"aws s3 cp \S+ s3://\S+/uploads/ --endpoint-url \S+")
    _, _, _, source, target, _, endpoint = line.split()
    assert ROOT / source == CAT
    s3, bucket = client_at(endpoint, "s3"), target.split("/")[2]
    s3.upload_file(str(CAT), bucket, "uploads/by-the-cli.jpg")
    wait_until(lambda: "uploads/by-the-cli.jpg" in local.run_litelens("results"))


def test_the_api_has_the_results_of_uploads(local: Local) -> None:
    assert f"listening on http://127.0.0.1:{local.port}," in local.greeting
    upload: dict[str, Any] = post_json(f"http://127.0.0.1:{local.port}/v1/uploads", {"content_type": "image/jpeg"})
    assert local.exports["LITELENS_UPLOAD_BUCKET"] in upload["url"]


def test_requests_may_name_the_sample_photo_in_s3(local: Local) -> None:
    (uri,) = re.findall(r"s3://photos/\S+\.jpg", local.greeting)
    answer: dict[str, Any] = post_json(f"http://127.0.0.1:{local.port}/v1/classify", {"s3_uri": uri})
    assert answer["predictions"][0]["label"] == "Egyptian cat"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_quietly_with_all_its_processes(sign: signal.Signals) -> None:
    with running_local("--workers", "2") as local:
        started = descendants(local.process.pid)
        # The API, and two workers, each with the function in it.
        assert len(started) == 5
        assert local.process.stdout
        assert local.process.stderr
        local.process.send_signal(sign)
        assert local.process.wait(timeout=60) == 0
        assert local.process.stderr.read() == ""
    wait_until(lambda: not parents().keys() & started)
    assert not local.logs.exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", local.port)) != 0


def parents() -> dict[int, int]:
    """Return the parent of each running process."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The second field is a name in brackets, and may be anything.
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(path.parent.name)] = int(parent)
    return found


def descendants(pid: int) -> set[int]:
    children = {child for child, parent in parents().items() if parent == pid}
    return children.union(*[descendants(child) for child in children])


def refused(*arguments: str, **variables: str) -> str:
    """Return the error message for these arguments."""
    done = subprocess.run(
        command(*arguments), cwd=ROOT, env=ENVIRONMENT | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_reported() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert re.match(rf"Port {port} cannot be used \(.*\); choose another", refused("--port", str(port)))


def test_a_missing_bundle_is_reported() -> None:
    assert refused(LITELENS_BUNDLE="models/nothing").startswith("The function did not start: ")


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_an_invalid_number_of_workers_is_reported(count: str) -> None:
    assert "must be a whole number above 0" in refused(f"--workers={count}")
