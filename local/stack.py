"""The stack of `make local`: it classifies uploads, and its API returns their results.

moto stands in for AWS, with the bucket, the queues and the tables of infra/storage.yaml. The function runs in Lambda's
runtime interface emulator. All data is deleted when the stack ends.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from litelens_client.settings import models_folder
from local.aws import Middleware, client_at, isolated_environment, serve_aws
from local.emulator import ExecutionEnvironment, install_emulator, runtime_command
from local.queue_poller import QueuePoller
from local.storage import ROOT, Storage, create_storage

_DEFAULTS: Mapping[str, str] = MappingProxyType({})

# Seconds until the API must be ready; enough for a busy machine.
_API_START = 60


class LocalError(Exception):
    """The stack cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Timeouts:
    """The function's timeout and the queue's visibility timeout, in seconds."""

    function: int
    visibility: int


@dataclass(frozen=True)
class Stack:
    """A running stack: the URL of its AWS, its resources, and one execution environment per worker."""

    endpoint: str
    storage: Storage
    workers: Sequence[ExecutionEnvironment]
    # The environment variables of the function.
    variables: Mapping[str, str]
    logs: Path

    def client(self, service: str) -> Any:
        """Return a boto3 client of the stack's AWS."""
        return client_at(self.endpoint, service)

    @contextlib.contextmanager
    def poll_queue(self) -> Iterator[threading.Event]:
        """Poll the queue and invoke the workers until the block ends; the yielded event is set if polling fails."""
        stop = threading.Event()
        poller = QueuePoller(self.client("sqs"), self.storage.source, [worker.invoke for worker in self.workers])
        with ThreadPoolExecutor(1) as thread:
            polling = thread.submit(poller.run, stop)
            try:
                yield stop
            finally:
                stop.set()
                polling.result()

    @contextlib.contextmanager
    def serve_api(self, port: int) -> Iterator[str]:
        """Serve the API on a port until the block ends; yields its base URL. Raises LocalError."""
        url, log = f"http://127.0.0.1:{port}", self.logs / "api.log"
        command = [sys.executable, "-m", "litelens_client", "serve", "--port", str(port)]
        with (
            log.open("wb") as file,
            subprocess.Popen(  # noqa: S603
                command, cwd=ROOT, env=dict(self.variables), stdout=file, stderr=file, start_new_session=True
            ) as process,
        ):
            try:
                _wait_for(url, process, log)
                yield url
            finally:
                process.kill()


@contextlib.contextmanager
def run_stack(
    bundle: Path,
    *,
    workers: int = 1,
    parameters: Mapping[str, str] = _DEFAULTS,
    timeouts: Timeouts | None = None,
    middleware: Middleware = lambda application: application,
) -> Iterator[Stack]:
    """Run a stack with started workers until the block ends; raises LocalError or EmulatorError.

    Parameters and timeouts have the template's defaults. Timeouts may be shorter than the template allows. `middleware`
    is WSGI middleware around the stack's AWS.
    """
    with (
        tempfile.TemporaryDirectory(prefix="litelens-") as temporary,
        serve_aws(middleware=middleware) as endpoint,
        contextlib.ExitStack() as cleanup,
    ):
        folder = Path(temporary)
        storage = create_storage(endpoint, f"litelens-{uuid.uuid4().hex[:8]}", parameters)
        if timeouts:
            storage = _with_timeouts(endpoint, storage, timeouts)
        function = storage.function
        variables = _variables(endpoint, function.variables, bundle)
        emulator = install_emulator(folder)
        environments = [
            ExecutionEnvironment(
                emulator,
                runtime_command(function.handler),
                variables,
                folder=ROOT / "lambda",
                timeout=function.timeout,
                log=folder / f"worker-{number}.log",
            )
            for number in range(1, workers + 1)
        ]
        for environment in environments:
            cleanup.callback(environment.close)
            environment.start()
        yield Stack(endpoint, storage, environments, variables, folder)


def _with_timeouts(endpoint: str, storage: Storage, timeouts: Timeouts) -> Storage:
    client_at(endpoint, "sqs").set_queue_attributes(
        QueueUrl=storage.source.queue_url, Attributes={"VisibilityTimeout": str(timeouts.visibility)}
    )
    return replace(storage, function=replace(storage.function, timeout=timeouts.function))


def _variables(endpoint: str, declared: Mapping[str, str], bundle: Path) -> dict[str, str]:
    return {
        **isolated_environment(),
        **declared,
        "AWS_ENDPOINT_URL": endpoint,
        "LITELENS_BUNDLE": str(bundle.resolve()),
        "LITELENS_MODELS": str(models_folder().resolve()),
        # A function with the template's default memory has one core.
        "LITELENS_THREADS": "1",
        # As in the container image.
        "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in (".", "lambda", "client")),
    }


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _API_START
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/v1/health", timeout=_API_START).close()  # noqa: S310
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    lines = log.read_text(errors="replace").strip().splitlines() or ["Its log is empty."]
    raise LocalError(f"The API did not start. {lines[-1]}")
