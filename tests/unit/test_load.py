"""Tests of the load test: it sends at a fixed rate, and its times include waiting."""

import contextlib
import itertools
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from support import ROCKET, ROOT, free_port

from benchmarks import load
from benchmarks.load import Outcome, arrivals, send_all, sender, summarize

PATIENCE = 30


def test_arrivals_are_random_at_the_rate_and_the_same_for_the_same_seed() -> None:
    times = arrivals(100, 100, seed=1)
    assert times == arrivals(100, 100, seed=1) != arrivals(100, 100, seed=2)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert times == sorted(times)
    assert times[-1] < 100
    # In a Poisson process, one gap in e is longer than the mean.
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert sum(gap > 0.01 for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.02)


def test_requests_are_sent_before_earlier_ones_are_answered() -> None:
    # The barrier opens when all requests have been sent.
    together = threading.Barrier(20, timeout=PATIENCE)

    def send() -> str:
        together.wait()
        return "200"

    assert [each.status for each in send_all([0.0] * 20, send)] == ["200"] * 20


def test_times_count_from_when_a_request_was_due() -> None:
    now = 100.0

    def oversleep(seconds: float) -> None:
        nonlocal now
        now += seconds + 0.5

    def send() -> str:
        nonlocal now
        now += 0.25
        return "200"

    (outcome,) = send_all([2.0], send, clock=lambda: now, sleep=oversleep)
    assert outcome == Outcome(due=2.0, ended=2.75, status="200")
    assert summarize(1, [outcome]).p50 == pytest.approx(750)


def test_only_good_answers_have_times_and_errors_are_counted() -> None:
    good = [Outcome(number / 10, number / 10 + number / 1000, "200") for number in range(1, 101)]
    bad = [Outcome(1.0, 99.0, load.NO_ANSWER), Outcome(1.0, 1.0, "429"), Outcome(2.0, 20.2, "429")]
    step = summarize(10, good + bad)
    assert (step.requests, step.answered) == (103, 100)
    assert step.errors == {"429": 2, "no answer": 1}
    assert (step.p50, step.p99, step.longest) == pytest.approx((50.5, 99.01, 100))
    assert step.answered_per_second == pytest.approx(100 / 99)


def test_the_table_has_a_row_per_rate_even_without_answers() -> None:
    steps = [summarize(5, [Outcome(0, 0.04, "200")]), summarize(10, [Outcome(0, 1, "503")]), summarize(20, [])]
    assert load.steps_table(steps).splitlines()[2:] == [
        "| 5 | 1 | 25.0 | 40 ms | 40 ms | 40 ms | 40 ms | none |",
        "| 10 | 1 | 0.0 |  |  |  |  | 503: 1 |",
        "| 20 | 0 | 0.0 |  |  |  |  | none |",
    ]


class Api(BaseHTTPRequestHandler):
    """An API that keeps the requests it receives."""

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
    with listening() as (url, api):
        assert sender(url, "secret")() == "200"
    ((path, headers, body),) = api.received
    assert path == "/live/v1/classify"
    assert (headers["x-api-key"], headers["Content-Type"], body) == ("secret", "image/jpeg", ROCKET.read_bytes())


def test_a_throttled_request_is_not_sent_again() -> None:
    with listening() as (url, api):
        assert sender(url, None)() == "429"
    assert len(api.received) == 1


def test_an_unreachable_url_gives_no_answer() -> None:
    assert sender(f"http://127.0.0.1:{free_port()}", None)() == load.NO_ANSWER


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(["--rates", "fast"], "give whole numbers above 0"), (["--seconds", "0"], "--seconds must be above 0")],
)
def test_wrong_arguments_are_reported(arguments: list[str], sentence: str) -> None:
    done = run_load(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_wrong_url_is_reported_before_the_test_starts() -> None:
    done = run_load("--url", f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "give the API's URL, without /v1/classify" in done.stderr


@pytest.mark.parametrize("text", ["", "0", "10,", "-1", "ten", "1.5"])
def test_rates_are_whole_numbers_above_0(text: str) -> None:
    assert load.whole_numbers("10,1000") == [10, 1000]
    with pytest.raises(ArgumentTypeError, match="give whole numbers above 0, separated by commas"):
        load.whole_numbers(text)


def run_load(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.load", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
