"""Lambda's execution environment on this machine: AWS's runtime interface emulator with the runtime client in it."""

import contextlib
import http.client
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_HOST = "127.0.0.1"
_INVOCATIONS = "/2015-03-31/functions/function/invocations"

# A backfill's, of nothing.
_EMPTY_BATCH: dict[str, Any] = {"Items": []}

# Seconds. Lambda gives a function ten to begin; machines that do much else at the same time may need more.
_START_SECONDS = 60


class EmulatorError(Exception):
    """The emulator cannot be had or the function in it cannot begin; the message says why."""


class InvocationFailed(Exception):
    """The function gave no answer: it raised, ran out of time, or ended."""


def runtime_command(handler: str) -> list[str]:
    """The command that has Lambda's runtime client call this handler, a function by its module."""
    return [sys.executable, "-m", "awslambdaric", handler]


def install_emulator(folder: Path) -> Path:
    """The emulator's program, which ships inside aws-sam-cli, copied to where it may be run; raises EmulatorError."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    samcli = importlib.util.find_spec("samcli")
    if sys.platform != "linux" or machine is None or samcli is None or samcli.origin is None:
        raise EmulatorError("The runtime interface emulator runs on Linux only, on x86_64 or arm64; use one of these.")
    program = Path(shutil.copy(Path(samcli.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}", folder))
    program.chmod(0o755)
    return program


class ExecutionEnvironment:
    """A function in a process of its own, which takes one event at a time, and begins anew after it has ended.

    Only one thread may invoke it; any may end it.
    """

    def __init__(
        self,
        emulator: Path,
        command: Sequence[str],
        variables: Mapping[str, str],
        *,
        folder: Path,
        timeout: int,
        log: Path,
    ) -> None:
        """`command` runs in `folder`; an event may take it `timeout` seconds. What it prints is added to `log`."""
        self._emulator = emulator
        self._command = command
        self._variables = dict(variables)
        self._folder = folder
        self._timeout = timeout
        self._log = log
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_outdated = False
        self._is_closed = False

    def start(self) -> None:
        """Have the function begun, if it is not running; raises EmulatorError when it cannot."""
        with self._lock:
            if self._is_closed:
                raise EmulatorError("The function is not to run any more.")
            if self._process is not None and self._process.poll() is None and not self._is_outdated:
                return
            self._end()
            self._is_outdated = False
            self._process = process = self._spawn()
        try:
            self._begin(process)
        except EmulatorError:
            self.kill()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.kill()
            raise EmulatorError(f"The function ended before it began; its log is {self._log}.") from error

    def invoke(self, event: Any) -> Any:
        """What the function returns; raises InvocationFailed."""
        try:
            self.start()
            answer = self._post(event, self._timeout + _START_SECONDS)
        except EmulatorError as error:
            raise InvocationFailed(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # Either it ended, or it was out of time, which Lambda makes its end.
            self.kill()
            raise InvocationFailed("The function ended, or had no time left.") from error
        if _is_error(answer):
            raise InvocationFailed(f"The function failed with {answer['errorType']}.")
        return answer

    def deploy(self, variables: Mapping[str, str]) -> None:
        """Have the function begin anew with these variables too, once the event in hand is done."""
        with self._lock:
            self._variables = {**self._variables, **variables}
            self._is_outdated = True

    def kill(self) -> None:
        """End it at once, as if the machine under it had failed."""
        with self._lock:
            self._end()

    def close(self) -> None:
        """End it for good."""
        with self._lock:
            self._is_closed = True
            self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        # The emulator keeps the function in a process group of its own.
        for pid in _members(self._process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process = None

    def _spawn(self) -> "subprocess.Popen[bytes]":
        self._port, runtime_port = _free_port(), _free_port()
        command = [
            *(str(self._emulator), "--log-level", "error"),
            *("--runtime-interface-emulator-address", f"{_HOST}:{self._port}"),
            *("--runtime-api-address", f"{_HOST}:{runtime_port}"),
            *self._command,
        ]
        variables = {**self._variables, "AWS_LAMBDA_FUNCTION_TIMEOUT": str(self._timeout)}
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603
                command, cwd=self._folder, env=variables, stdout=log, stderr=log, start_new_session=True
            )

    def _begin(self, process: "subprocess.Popen[bytes]") -> None:
        """Lambda begins a function before its time for an event runs, the emulator only with the first event."""
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(self._port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EmulatorError(f"The runtime interface emulator did not start; its log is {self._log}.")
            time.sleep(0.02)
        answer = self._post(_EMPTY_BATCH, _START_SECONDS)
        if _is_error(answer):
            raise EmulatorError(f"The function did not begin: {answer['errorMessage']}")

    def _post(self, event: Any, timeout: float) -> Any:
        """The JSON that is answered; raises OSError, HTTPException, or ValueError where it is none."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("POST", _INVOCATIONS, json.dumps(event))
            return json.loads(connection.getresponse().read())


def _is_error(answer: Any) -> bool:
    """Whether this is an exception of the function's; the emulator does not say so in a header, as Lambda does."""
    return isinstance(answer, dict) and {"errorType", "errorMessage"} <= answer.keys()


def _members(session: int) -> list[int]:
    """The processes of this session."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(path.name)) == session:
                found.append(int(path.name))
    return found


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((_HOST, port)) == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
