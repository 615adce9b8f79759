"""The whole of litelens on a laptop: what is uploaded is classified as it is in AWS, and the API tells the results.

`make local` runs it. moto stands in for AWS, with the bucket, the queues and the tables of infra/storage.yaml; the
function runs in Lambda's runtime interface emulator. All that was uploaded is gone when it ends.
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

from local.aws import Middleware, client_at, isolated_environment, serving_aws
from local.emulator import ExecutionEnvironment, install_emulator, runtime_command
from local.queue_poller import QueuePoller
from local.storage import ROOT, Storage, create_storage

_DEFAULTS: Mapping[str, str] = MappingProxyType({})

# Seconds, for a machine that does much else at the same time.
_API_START = 60


class LocalError(Exception):
    """The stack cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Timeouts:
    """Seconds that the function may take, and that messages are hidden while it does."""

    function: int
    visibility: int


@dataclass(frozen=True)
class Stack:
    """A running stack: where its AWS is, what is in that, and the function, in an environment for each worker."""

    endpoint: str
    storage: Storage
    workers: Sequence[ExecutionEnvironment]
    # What the function's processes have.
    variables: Mapping[str, str]
    logs: Path

    def client(self, service: str) -> Any:
        """A client of boto3 for one of its AWS's services."""
        return client_at(self.endpoint, service)

    @contextlib.contextmanager
    def polling(self) -> Iterator[threading.Event]:
        """Messages are handed to the workers while the block runs; the event is set when that ends by itself."""
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
    def serving_api(self, port: int) -> Iterator[str]:
        """The API's base URL while the block runs, at this port; raises LocalError."""
        url, log = f"http://127.0.0.1:{port}", self.logs / "api.log"
        command = [sys.executable, "-m", "local.gateway", "--port", str(port)]
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
def local_stack(
    bundle: Path,
    *,
    workers: int = 1,
    parameters: Mapping[str, str] = _DEFAULTS,
    timeouts: Timeouts | None = None,
    middleware: Middleware = lambda application: application,
) -> Iterator[Stack]:
    """A stack until the block ends, its workers begun; raises LocalError or EmulatorError.

    The template's parameters have their defaults unless they are given, and so have the timeouts, which may be shorter
    here than the template allows. The stack's AWS is behind `middleware`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="litelens-") as temporary,
        serving_aws(middleware=middleware) as endpoint,
        contextlib.ExitStack() as started,
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
            started.callback(environment.close)
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
        # With the template's memory a function has one core.
        "LITELENS_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "lambda")]),
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
    said = log.read_text(errors="replace").strip().splitlines() or ["It said nothing."]
    raise LocalError(f"The API did not start. {said[-1]}")
