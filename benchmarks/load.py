"""How the API answers at a rate: a load test over HTTP whose requests come whether or not earlier ones are answered.

Times count from when a request was to be sent, so that neither a slow answer nor a busy client hides that others had to
wait. Without --url the API is the deployed handler in Lambda's runtime interface emulator, in as many execution
environments as there are workers; these, what hands them requests and the client share the machine.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import numpy as np
import urllib3
import uvicorn
from urllib3.exceptions import HTTPError

from benchmarks.bursts import numbers
from benchmarks.photos import BUNDLE, ROOT, SAMPLE
from client.api import TIMEOUT_SECONDS
from client.inputs import content_type
from litelens.engines import ENGINES
from local.aws import isolated_environment
from local.emulator import EmulatorError, ExecutionEnvironment, install_emulator, runtime_command
from local.gateway import TIMEOUT_MS, Application, Message, Receive, Send, create_app, listen
from settings import DEFAULT_ENGINE

# Requests that may be without an answer; later ones wait for these, and their time runs.
OUTSTANDING = 1000

NO_ANSWER = "no answer"

# Sends a request; the answer's HTTP status, or NO_ANSWER.
Ask = Callable[[], str]


@dataclass(frozen=True)
class Outcome:
    """When a request was to be sent, when it was answered, in seconds from the start, and with which status."""

    intended: float
    ended: float
    status: str


@dataclass(frozen=True)
class Step:
    """What came of requests at one rate; the times are those of answers with status 200, in milliseconds."""

    rate: float
    requests: int
    answered: int
    answered_per_second: float
    errors: Mapping[str, int]
    p50: float | None
    p90: float | None
    p95: float | None
    p99: float | None
    most: float | None


def arrivals(rate: float, seconds: float, seed: int | None = None) -> list[float]:
    """The seconds after which requests come: at random with this seed (Poisson), else one as long after the other."""
    if seed is None:
        return [number / rate for number in range(round(rate * seconds))]
    chance = random.Random(seed)
    times = itertools.accumulate(chance.expovariate(each) for each in itertools.repeat(rate))
    return list(itertools.takewhile(lambda time: time < seconds, times))


def offer(
    intended: Sequence[float],
    ask: Ask,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Outcome]:
    """Send a request after each of these seconds, whatever became of the others."""
    started = clock()

    def send(at: float) -> Outcome:
        status = ask()
        return Outcome(at, clock() - started, status)

    threads = ThreadPoolExecutor(OUTSTANDING)
    try:
        sent = []
        for at in intended:
            sleep(max(0.0, started + at - clock()))
            sent.append(threads.submit(send, at))
        return [each.result() for each in sent]
    finally:
        # Whoever interrupts this does not want to wait for answers.
        threads.shutdown(wait=False, cancel_futures=True)


def summarized(rate: float, outcomes: Sequence[Outcome]) -> Step:
    """What came of them; the achieved rate is that of good answers until the last answer of all."""
    good = [each for each in outcomes if each.status == str(HTTPStatus.OK.value)]
    errors = Counter(each.status for each in outcomes if each not in good)
    ended = max((each.ended for each in outcomes), default=0.0)
    times = [1000 * (each.ended - each.intended) for each in good]
    percentiles = np.percentile(times, [50, 90, 95, 99, 100]).tolist() if times else [None] * 5
    per_second = len(good) / ended if ended else 0.0
    return Step(rate, len(outcomes), len(good), per_second, dict(sorted(errors.items())), *percentiles)


def asker(url: str, api_key: str | None, photo: bytes) -> Ask:
    """Sends this photo to the API at the URL, and never a second time; for many threads at once."""
    http = urllib3.PoolManager(maxsize=OUTSTANDING, retries=False, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": content_type(photo), "User-Agent": "litelens-load"}
    if api_key:
        headers["x-api-key"] = api_key

    def ask() -> str:
        try:
            return str(http.request("POST", f"{url.rstrip('/')}/v1/classify", body=photo, headers=headers).status)
        except HTTPError:
            return NO_ANSWER

    return ask


class Front:
    """An ASGI application that hands each request to one of others that is free, as Lambda does with environments.

    While none is, requests wait in turn as long as API Gateway does, which Lambda's do not: with `refuses` they are
    answered with 429, which Lambda says where the limit on concurrency is reached, and of which a deployed API makes a
    500: https://docs.aws.amazon.com/lambda/latest/dg/services-apigateway-errors.html
    """

    def __init__(self, applications: Sequence[Application], *, refuses: bool) -> None:
        self._free: asyncio.LifoQueue[Application] = asyncio.LifoQueue()
        for application in applications:
            self._free.put_nowait(application)
        self._refuses = refuses
        self._busy = _always(HTTPStatus.TOO_MANY_REQUESTS)
        self._late = _always(HTTPStatus.GATEWAY_TIMEOUT)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            application = self._free.get_nowait()
        except asyncio.QueueEmpty:
            if self._refuses:
                await self._busy(scope, receive, send)
                return
            try:
                application = await asyncio.wait_for(self._free.get(), TIMEOUT_MS / 1000)
            except TimeoutError:
                await self._late(scope, receive, send)
                return
        try:
            await application(scope, receive, send)
        finally:
            self._free.put_nowait(application)


def _always(status: HTTPStatus) -> Application:
    return create_app(lambda event, context: {"statusCode": status.value})


@contextlib.contextmanager
def emulated_api(workers: int, bundle: Path, engine: str, *, refuses: bool) -> Iterator[str]:
    """The URL of an API in front of so many execution environments, which have begun; raises EmulatorError."""
    variables = {
        **isolated_environment(),
        "LITELENS_BUNDLE": str(bundle.resolve()),
        "LITELENS_ENGINE": engine,
        # With the template's memory a function has one core.
        "LITELENS_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "lambda")]),
    }
    with tempfile.TemporaryDirectory(prefix="litelens-") as temporary, contextlib.ExitStack() as started:
        folder = Path(temporary)
        emulator = install_emulator(folder)
        applications = []
        for number in range(1, workers + 1):
            environment = ExecutionEnvironment(
                emulator,
                runtime_command("handlers.api.handler"),
                variables,
                folder=ROOT / "lambda",
                timeout=TIMEOUT_MS // 1000,
                log=folder / f"worker-{number}.log",
            )
            started.callback(environment.close)
            environment.start()
            applications.append(_application(environment))
        yield started.enter_context(serving(Front(applications, refuses=refuses)))


def _application(environment: ExecutionEnvironment) -> Application:
    return create_app(lambda event, context: environment.invoke(event))


@contextlib.contextmanager
def serving(application: Application) -> Iterator[str]:
    """The URL of a server with this application, in a thread of its own until the block ends."""
    listener = listen(0)
    config = uvicorn.Config(application, lifespan="off", log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def table(steps: Sequence[Step]) -> str:
    """What came of each rate, as Markdown."""
    lines = [
        "| requests/s | sent | answered/s | p50 | p90 | p95 | p99 | longest | errors |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for step in steps:
        times = [
            "" if each is None else f"{each:,.0f} ms" for each in (step.p50, step.p90, step.p95, step.p99, step.most)
        ]
        errors = ", ".join(f"{status}: {count:,}" for status, count in step.errors.items()) or "none"
        lines.append(
            f"| {step.rate:g} | {step.requests:,} | {step.answered_per_second:.1f} | {' | '.join(times)} | {errors} |"
        )
    return "\n".join(lines)


def _measure(url: str, given: argparse.Namespace) -> list[Step]:
    ask = asker(url, given.api_key, given.photo.read_bytes())
    status = ask()
    if status == NO_ANSWER:
        sys.exit(f"Nothing answers at {url}; is that the API's URL, without /v1/classify?")
    if status != str(HTTPStatus.OK.value):
        sys.exit(f"The API answers the first request with {status}; are the URL, the key and the photo right?")
    steps = []
    for rate in given.rates:
        print(f"Sending {rate} requests a second for {given.seconds:g} seconds ...", file=sys.stderr)
        times = arrivals(rate, given.seconds, given.seed if given.arrivals == "poisson" else None)
        steps.append(summarized(rate, offer(times, ask)))
    return steps


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", type=numbers, default=[10], help="requests a second, one after the other: 5,10,20")
    parser.add_argument("--seconds", type=float, default=30, help="that each rate lasts (default: 30)")
    parser.add_argument("--arrivals", choices=["poisson", "constant"], default="poisson", help="(default: poisson)")
    parser.add_argument("--seed", type=int, default=0, help="of arrivals at random (default: 0)")
    parser.add_argument("--photo", type=Path, default=SAMPLE, help="that is sent (default: the sample)")
    parser.add_argument("--workers", type=int, help="execution environments (default: one for each core)")
    parser.add_argument("--engine", choices=ENGINES, default=DEFAULT_ENGINE, help=f"(default: {DEFAULT_ENGINE})")
    parser.add_argument("--refuse", action="store_true", help="answer 429 while all workers are busy")
    parser.add_argument("--url", help="of an API that is running, such as a deployed one")
    parser.add_argument("--api-key", default=os.environ.get("API_KEY"), help="its key (default: API_KEY)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    if given.url and (given.workers or given.refuse):
        parser.error("--workers and --refuse are for an API without --url")
    if given.workers is not None and given.workers < 1:
        parser.error("--workers must be above 0")
    if not given.seconds > 0:
        parser.error("--seconds must be above 0")
    if not given.photo.is_file():
        parser.error(f"there is no photo {given.photo}")
    return given


def main() -> None:
    given = _arguments()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, signal.default_int_handler)
    try:
        if given.url:
            steps = _measure(given.url, given)
        else:
            workers = given.workers or os.cpu_count() or 1
            print(f"Starting {workers} execution environments ...", file=sys.stderr)
            with emulated_api(workers, BUNDLE, given.engine, refuses=given.refuse) as url:
                steps = _measure(url, given)
    except EmulatorError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps([asdict(step) for step in steps], indent=1) if given.json else table(steps))


if __name__ == "__main__":
    main()
