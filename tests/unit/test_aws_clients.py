"""Retries until a deadline, on a clock that only their pauses advance."""

from collections.abc import Callable

import pytest
from aws import Clock, fake_clock
from botocore import exceptions as boto
from urllib3 import exceptions as http

from litelens.aws.clients import Deadline, is_timeout, is_transient, retry


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


def failing_first(times: int) -> Callable[[], str]:
    """Return a function that fails this many times, then answers."""
    failures = iter([ConnectionError(f"failure {n}") for n in range(1, times + 1)])

    def attempt() -> str:
        for failure in failures:
            raise failure
        return "answer"

    return attempt


def is_connection_error(error: Exception) -> bool:
    return isinstance(error, ConnectionError)


def client_error(status: int, code: str) -> boto.ClientError:
    return boto.ClientError(
        {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},
        "GetObject",
    )


def test_a_successful_call_is_made_once(clock: Clock) -> None:
    assert retry(failing_first(0), is_connection_error, Deadline.after(10)) == "answer"
    assert clock.pauses == []


def test_a_transient_error_is_retried(clock: Clock) -> None:
    assert retry(failing_first(2), is_connection_error, Deadline.after(10)) == "answer"
    assert len(clock.pauses) == 2


def test_a_permanent_error_is_not_retried(clock: Clock) -> None:
    with pytest.raises(ConnectionError, match="failure 1"):
        retry(failing_first(2), lambda _: False, Deadline.after(10))
    assert clock.pauses == []


def test_the_longest_pause_doubles(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litelens.aws.clients._random.uniform", lambda least, most: most)
    assert retry(failing_first(5), is_connection_error, Deadline.after(10)) == "answer"
    assert clock.pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6])


def test_pauses_are_random_up_to_the_longest(clock: Clock) -> None:
    for _ in range(100):
        retry(failing_first(1), is_connection_error, Deadline.after(10))
    assert 0 <= min(clock.pauses) < 0.05 < max(clock.pauses) <= 0.1


def test_the_last_error_is_raised_when_time_runs_out(clock: Clock) -> None:
    start = clock.now
    with pytest.raises(ConnectionError) as caught:
        retry(failing_first(1000), is_connection_error, Deadline.after(10))
    assert str(caught.value) == f"failure {len(clock.pauses) + 1}"
    assert len(clock.pauses) >= 3
    assert clock.now <= start + 10


def test_no_attempt_starts_that_could_not_end_in_time(clock: Clock) -> None:
    deadline, remaining = Deadline.after(10), []

    def attempt() -> None:
        remaining.append(deadline.remaining())
        clock.now += 3
        raise ConnectionError

    with pytest.raises(ConnectionError):
        retry(attempt, is_connection_error, deadline, attempt_seconds=3)
    assert len(remaining) >= 2
    assert min(remaining) >= 3


def test_without_time_for_one_attempt_none_starts(clock: Clock) -> None:
    with pytest.raises(TimeoutError):
        retry(failing_first(0), is_connection_error, Deadline.after(2.9), attempt_seconds=3)
    with pytest.raises(TimeoutError):
        retry(failing_first(0), is_connection_error, Deadline.after(-1))


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
def test_errors_that_a_retry_may_avoid_are_transient(error: Exception) -> None:
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
def test_errors_that_would_recur_are_not_transient(error: Exception) -> None:
    assert not is_transient(error)


def test_timeouts_are_distinguished_from_other_errors() -> None:
    for slow in (boto.ConnectTimeoutError(endpoint_url=URL), boto.ReadTimeoutError(endpoint_url=URL), TimeoutError()):
        assert is_timeout(slow)
    for failed in (boto.ConnectionClosedError(endpoint_url=URL), client_error(503, "SlowDown")):
        assert not is_timeout(failed)
