"""Retries on a clock that goes on only by their pauses."""

from collections.abc import Callable

import pytest
from aws import Clock, still_clock
from botocore import exceptions as boto
from urllib3 import exceptions as http

from adapters.deadline import Deadline
from adapters.retries import is_timeout, is_transient, retry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return still_clock(monkeypatch)


def failing(times: int) -> Callable[[], str]:
    """Fails so often, then answers."""
    failures = iter([ConnectionError(f"failure {n}") for n in range(1, times + 1)])

    def attempt() -> str:
        for failure in failures:
            raise failure
        return "answer"

    return attempt


def passes(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def client_error(status: int, code: str) -> boto.ClientError:
    return boto.ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "GetObject",
    )


def test_what_succeeds_is_asked_once(clock: Clock) -> None:
    assert retry(failing(0), passes, Deadline.after(10)) == "answer"
    assert clock.pauses == []


def test_what_fails_in_passing_is_asked_again(clock: Clock) -> None:
    assert retry(failing(2), passes, Deadline.after(10)) == "answer"
    assert len(clock.pauses) == 2


def test_what_fails_for_good_is_asked_once(clock: Clock) -> None:
    with pytest.raises(ConnectionError, match="failure 1"):
        retry(failing(2), lambda _: False, Deadline.after(10))
    assert clock.pauses == []


def test_the_longest_pause_doubles(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapters.retries._random.uniform", lambda least, most: most)
    assert retry(failing(5), passes, Deadline.after(10)) == "answer"
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])


def test_pauses_are_anything_up_to_the_longest(clock: Clock) -> None:
    for _ in range(100):
        retry(failing(1), passes, Deadline.after(10))
    assert 0 <= min(clock.pauses) < 0.05 < max(clock.pauses) <= 0.1


def test_the_last_error_is_raised_when_time_runs_out(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(ConnectionError) as caught:
        retry(failing(1000), passes, Deadline.after(10))
    assert str(caught.value) == f"failure {len(clock.pauses) + 1}"
    assert len(clock.pauses) >= 3
    assert clock.now <= began + 10


def test_no_attempt_is_begun_that_could_not_end_in_time(clock: Clock) -> None:
    deadline, begun = Deadline.after(10), []

    def attempt() -> None:
        begun.append(deadline.remaining())
        clock.now += 3
        raise ConnectionError

    with pytest.raises(ConnectionError):
        retry(attempt, passes, deadline, attempt_seconds=3)
    assert len(begun) >= 2
    assert min(begun) >= 3


def test_without_time_for_one_attempt_none_is_begun(clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        retry(failing(0), passes, Deadline.after(2.9), attempt_seconds=3)
    with pytest.raises(TimeoutError):
        retry(failing(0), passes, Deadline.after(-1))


URL = "http://127.0.0.1"


@pytest.mark.parametrize(
    "error",
    [
        client_error(500, "InternalError"),
        client_error(503, "SlowDown"),
        client_error(429, "TooManyRequestsException"),
        client_error(400, "RequestTimeout"),
        client_error(400, "ThrottlingException"),
        boto.ConnectTimeoutError(endpoint_url=URL),
        boto.ReadTimeoutError(endpoint_url=URL),
        boto.EndpointConnectionError(endpoint_url=URL),
        boto.ConnectionClosedError(endpoint_url=URL),
        boto.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        http.ProtocolError("broken"),
        http.ReadTimeoutError(None, URL, "slow"),
    ],
    ids=repr,
)
def test_what_may_be_over_the_next_time_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        client_error(403, "AccessDenied"),
        client_error(404, "NoSuchKey"),
        client_error(400, "InvalidArgument"),
        boto.NoCredentialsError(),
        boto.ParamValidationError(report="a key"),
        TimeoutError(),
        ValueError(),
    ],
    ids=repr,
)
def test_what_would_fail_again_is_not_transient(error: Exception) -> None:
    assert not is_transient(error)


def test_timeouts_are_told_from_other_failures() -> None:
    for slow in (boto.ConnectTimeoutError(endpoint_url=URL), boto.ReadTimeoutError(endpoint_url=URL), TimeoutError()):
        assert is_timeout(slow)
    for failed in (boto.ConnectionClosedError(endpoint_url=URL), client_error(503, "SlowDown")):
        assert not is_timeout(failed)
