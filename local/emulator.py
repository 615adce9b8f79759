"""Lambda execution environments on this machine, in AWS's runtime interface emulator."""

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

# A backfill's batch without objects, for which the handler does nothing.
_EMPTY_BATCH: dict[str, Any] = {"Items": []}

# Seconds. Lambda allows ten for the initialization; a busy machine may need more.
_START_SECONDS = 60


class EmulatorError(Exception):
    """The emulator or the function cannot start; the message says why."""


class InvocationFailed(Exception):
    """The function raised an error, timed out or exited."""


def runtime_command(handler: str) -> list[str]:
    """Return the command that runs a handler, such as "module.handler", in Lambda's runtime client."""
    return [sys.executable, "-m", "awslambdaric", handler]


def install_emulator(folder: Path) -> Path:
    """Copy the emulator from aws-sam-cli into a folder and make it executable; raises EmulatorError."""
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}.get(platform.machine())
    samcli = importlib.util.find_spec("samcli")
    if sys.platform != "linux" or machine is None or samcli is None or samcli.origin is None:
        raise EmulatorError("The runtime interface emulator needs Linux on x86_64 or arm64; use such a machine.")
    program = Path(shutil.copy(Path(samcli.origin).parent / "local" / "rapid" / f"aws-lambda-rie-{machine}", folder))
    program.chmod(0o755)
    return program


class ExecutionEnvironment:
    """A function in its own process, which takes one event at a time and restarts after it has exited.

    Only one thread may call `invoke`; any thread may call `kill` and `close`.
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
        """Prepare an environment that runs `command` in `folder`, `timeout` seconds per event, and appends to `log`."""
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
        """Start the function unless it is running; raises EmulatorError."""
        with self._lock:
            if self._is_closed:
                raise EmulatorError("The function was closed.")
            if self._process is not None and self._process.poll() is None and not self._is_outdated:
                return
            self._kill()
            self._is_outdated = False
            self._process = process = self._spawn()
        try:
            self._initialize(process)
        except EmulatorError:
            self.kill()
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.kill()
            raise EmulatorError(f"The function exited during initialization; its log is {self._log}.") from error

    def invoke(self, event: Any) -> Any:
        """Invoke the function and return its response; raises InvocationFailed."""
        try:
            self.start()
            answer = self._post(event, self._timeout + _START_SECONDS)
        except EmulatorError as error:
            raise InvocationFailed(str(error)) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            # The function exited or timed out. Lambda kills a function that times out.
            self.kill()
            raise InvocationFailed("The function exited or timed out.") from error
        if _is_error(answer):
            raise InvocationFailed(f"The function raised {answer['errorType']}.")
        return answer

    def deploy(self, variables: Mapping[str, str]) -> None:
        """Add variables, and restart the function before its next event."""
        with self._lock:
            self._variables = {**self._variables, **variables}
            self._is_outdated = True

    def kill(self) -> None:
        """Kill the function at once, as if its machine had failed."""
        with self._lock:
            self._kill()

    def close(self) -> None:
        """Kill the function permanently."""
        with self._lock:
            self._is_closed = True
            self._kill()

    def _kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        # The emulator runs the function in another process group of the same session.
        for pid in _session_processes(self._process.pid):
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

    def _initialize(self, process: "subprocess.Popen[bytes]") -> None:
        """Initialize the function with an empty event. Lambda does so before the first event, the emulator with it."""
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(self._port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise EmulatorError(f"The runtime interface emulator did not start; its log is {self._log}.")
            time.sleep(0.02)
        answer = self._post(_EMPTY_BATCH, _START_SECONDS)
        if _is_error(answer):
            raise EmulatorError(f"The function did not start: {answer['errorMessage']}")

    def _post(self, event: Any, timeout: float) -> Any:
        """Return the JSON of the response; raises OSError, HTTPException, or ValueError if it is not JSON."""
        connection = http.client.HTTPConnection(_HOST, self._port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("POST", _INVOCATIONS, json.dumps(event))
            return json.loads(connection.getresponse().read())


def _is_error(answer: Any) -> bool:
    """Return whether the response is the function's exception. Unlike Lambda, the emulator sends no header for that."""
    return isinstance(answer, dict) and {"errorType", "errorMessage"} <= answer.keys()


def _session_processes(session: int) -> list[int]:
    """Return the ids of the processes in a session."""
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
