"""The load test sends at a rate whatever becomes of it, and hides no waiting."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support import ROCKET, ROOT, free_port

from benchmarks import load
from benchmarks.load import Front, Outcome, arrivals, asker, offer, summarized

PATIENCE = 30


def test_constant_arrivals_are_one_as_long_after_the_other() -> None:
    assert arrivals(4, 1.5) == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_arrivals_at_random_come_at_the_rate_and_again_with_the_same_seed() -> None:
    times = arrivals(100, 100, seed=1)
    assert times == arrivals(100, 100, seed=1) != arrivals(100, 100, seed=2)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 100
    # As many gaps are longer than the mean as chance has it: one in e.
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_requests_are_sent_before_earlier_ones_are_answered() -> None:
    # Nobody passes before all have come.
    together = threading.Barrier(20, timeout=PATIENCE)

    def ask() -> str:
        together.wait()
        return "200"

    assert [each.status for each in offer([0.0] * 20, ask)] == ["200"] * 20


def test_time_runs_from_when_a_request_was_to_be_sent() -> None:
    now = 100.0

    def oversleep(seconds: float) -> None:
        nonlocal now
        now += seconds + 0.5

    def ask() -> str:
        nonlocal now
        now += 0.25
        return "200"

    (outcome,) = offer([2.0], ask, clock=lambda: now, sleep=oversleep)
    assert outcome == Outcome(intended=2.0, ended=2.75, status="200")
    assert summarized(1, [outcome]).p50 == pytest.approx(750)


def test_only_good_answers_have_times_and_others_are_counted() -> None:
    good = [Outcome(number / 10, number / 10 + number / 1000, "200") for number in range(1, 101)]
    bad = [Outcome(1.0, 99.0, load.NO_ANSWER), Outcome(1.0, 1.0, "429"), Outcome(2.0, 20.2, "429")]
    step = summarized(10, good + bad)
    assert (step.requests, step.answered) == (103, 100)
    assert step.errors == {"429": 2, "no answer": 1}
    assert (step.p50, step.p99, step.most) == pytest.approx((50.5, 99.01, 100))
    assert step.answered_per_second == pytest.approx(100 / 99)


def test_a_table_has_a_row_for_each_rate_even_without_answers() -> None:
    steps = [summarized(5, [Outcome(0, 0.04, "200")]), summarized(10, [Outcome(0, 1, "503")]), summarized(20, [])]
    assert load.table(steps).splitlines()[2:] == [
        "| 5 | 1 | 25.0 | 40 ms | 40 ms | 40 ms | 40 ms | 40 ms | none |",
        "| 10 | 1 | 0.0 |  |  |  |  |  | 503: 1 |",
        "| 20 | 0 | 0.0 |  |  |  |  |  | none |",
    ]


class Api(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    received: list[tuple[str, dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append((self.path, dict(self.headers), body))
        self.send_response(429 if "x-api-key" not in self.headers else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, type[Api]]]:
    kind = type("OneApi", (Api,), {"received": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/live/", kind
        finally:
            server.shutdown()
            thread.join()


def test_the_photo_is_sent_with_the_key() -> None:
    photo = ROCKET.read_bytes()
    with listening() as (url, api):
        assert asker(url, "secret", photo)() == "200"
    ((path, headers, body),) = api.received
    assert path == "/live/v1/classify"
    assert (headers["x-api-key"], headers["Content-Type"], body) == ("secret", "image/jpeg", photo)


def test_a_request_that_is_refused_is_not_sent_again() -> None:
    with listening() as (url, api):
        assert asker(url, None, ROCKET.read_bytes())() == "429"
    assert len(api.received) == 1


def test_what_cannot_be_reached_gives_no_answer() -> None:
    assert asker(f"http://127.0.0.1:{free_port()}", None, ROCKET.read_bytes())() == load.NO_ANSWER


class Worker:
    """An application that answers once it is let."""

    def __init__(self, may_answer: asyncio.Event) -> None:
        self.busy = self.most_at_a_time = 0
        self._may_answer = may_answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.busy += 1
        self.most_at_a_time = max(self.most_at_a_time, self.busy)
        await self._may_answer.wait()
        self.busy -= 1
        await send({"type": "http.response.start", "status": 200, "headers": []})


async def status_of_a_request(front: Front) -> int:
    statuses = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": "/", "query_string": b"", "headers": []}
    await front({**scope, "client": ("127.0.0.1", 1)}, receive, send)
    (status,) = statuses
    return status


def test_a_worker_has_one_request_at_a_time_and_the_others_wait() -> None:
    async def run() -> None:
        may_answer = asyncio.Event()
        workers = [Worker(may_answer), Worker(may_answer)]
        front = Front(workers, refuses=False)
        requests = [asyncio.create_task(status_of_a_request(front)) for _ in range(5)]
        while not all(worker.busy for worker in workers):
            await asyncio.sleep(0)
        assert not any(request.done() for request in requests)
        may_answer.set()
        assert await asyncio.gather(*requests) == [200] * 5
        assert [worker.most_at_a_time for worker in workers] == [1, 1]

    asyncio.run(run())


def test_what_no_worker_is_free_for_may_be_refused_at_once() -> None:
    async def run() -> None:
        may_answer = asyncio.Event()
        front = Front([Worker(may_answer), Worker(may_answer)], refuses=True)
        requests = [asyncio.create_task(status_of_a_request(front)) for _ in range(5)]
        assert await asyncio.gather(*requests[2:]) == [429] * 3
        may_answer.set()
        assert await asyncio.gather(*requests[:2]) == [200] * 2
        assert await status_of_a_request(front) == 200

    asyncio.run(run())


def test_who_waits_for_a_worker_longer_than_the_gateway_does_gets_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TIMEOUT_MS", 1)

    async def run() -> None:
        may_answer = asyncio.Event()
        worker = Worker(may_answer)
        front = Front([worker], refuses=False)
        first = asyncio.create_task(status_of_a_request(front))
        while not worker.busy:
            await asyncio.sleep(0)
        assert await status_of_a_request(front) == 504
        may_answer.set()
        assert await first == 200
        assert await status_of_a_request(front) == 200

    asyncio.run(run())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--url", "http://127.0.0.1:1", "--workers", "2"], "--workers and --refuse are for an API without --url"),
        (["--workers", "0"], "--workers must be above 0"),
        (["--photo", "missing.jpg"], "there is no photo missing.jpg"),
        (["--rates", "fast"], "give whole numbers above 0"),
        (["--seconds", "0"], "--seconds must be above 0"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], sentence: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_wrong_url_is_said_before_anything_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.load", "--url", f"http://127.0.0.1:{free_port()}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "is that the API's URL, without /v1/classify?" in done.stderr
