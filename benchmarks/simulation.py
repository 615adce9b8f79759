"""Bursts on Lambda, simulated by AWS's documented rules; each has its page beside it.

Requests come by the API, or uploads by the queue, at random (Poisson) and at their full rate from the first second on,
where nothing ran before. Not simulated: what Lambda takes to fetch an image and to start its machine, which is not
documented, the account's other functions, and the stack's own RateLimit, which must be raised first.
"""

import math
import random
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate, repeat, takewhile

import numpy as np

from benchmarks.cost import Serving, milliseconds_per_image
from benchmarks.scale import ACCOUNT_INVOCATIONS, MESSAGES, dollars_per_image
from client import prices

# A function may begin 1,000 environments every 10 seconds; the rate is refilled continuously and is not saved up:
# https://docs.aws.amazon.com/lambda/latest/dg/scaling-behavior.html
SCALING_RATE, SCALING_BURST = 100, 1000

# The account's requests a second, for each of its concurrent invocations:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
REQUESTS_PER_INVOCATION = 10

# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
GATEWAY_RATE, GATEWAY_BURST = 10_000, 5000

# For how long an idle environment is kept is not documented; that it is kept, is:
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
IDLE_SECONDS = 300

# A client that was refused waits a random time, the longest of which doubles from try to try ("full jitter"):
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_WAIT, LONGEST_WAIT = 0.25, 20.0

# Batches of a queue at a time: five, then 300 more a minute as long as messages wait, 1,250 at the most:
# https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html
FIRST_BATCHES, BATCHES_PER_SECOND, MOST_BATCHES = 5, 5, 1250

# Seconds that a batch waits for more messages, which infra/storage.yaml sets.
BATCH_WINDOW = 1.0

# A burst is over its beginning when of all attempts to come at most this share is cold or throttled.
DISTURBED = 0.01


@dataclass(frozen=True)
class Quotas:
    """An account's invocations at a time, requests a second to its APIs, and how many of these are saved up."""

    invocations: int = ACCOUNT_INVOCATIONS
    gateway_rate: int = GATEWAY_RATE
    gateway_burst: int = GATEWAY_BURST

    def times(self, factor: int) -> "Quotas":
        """So many times as much, for which AWS can be asked."""
        return Quotas(self.invocations * factor, self.gateway_rate * factor, self.gateway_burst * factor)


@dataclass(frozen=True)
class Function:
    """The seconds that a function takes for an image, and how many more if it must begin first, as samples.

    So many seconds of a beginning are not billed, and it costs so many dollars beside its time.
    """

    gigabytes: float
    image: Sequence[float]
    start: Sequence[float]
    unbilled: float = 0.0
    start_dollars: float = 0.0


@dataclass(frozen=True)
class Burst:
    """What became of requests: seconds until the answer, and attempts that were cold or refused, by whom.

    `delayed` requests were refused at least once, `failed` ones always. `mean_concurrency` is over the time in which
    requests come. `steady_after` is in seconds, None when the burst ends before.
    """

    rate: float
    seconds: float
    quotas: Quotas
    requests: int
    answered: int
    failed: int
    delayed: int
    cold_starts: int
    gateway_throttles: int
    lambda_throttles: int
    peak_concurrency: int
    mean_concurrency: float
    p50: float | None
    p95: float | None
    p99: float | None
    steady_after: float | None
    dollars: float


@dataclass(frozen=True)
class Drain:
    """What became of uploads: seconds from their coming to their result, and from the first one to the last result."""

    rate: float
    seconds: float
    concurrency: int
    uploads: int
    batches: int
    cold_starts: int
    peak_concurrency: int
    p50: float | None
    p95: float | None
    p99: float | None
    drained_after: float
    dollars: float


class _Bucket:
    """A token bucket: so many tokens a second, as many saved up, and all of them there in the beginning."""

    def __init__(self, rate: float, size: float) -> None:
        self._rate = rate
        self._size = size
        self._tokens = size
        self._then = 0.0

    def take(self, now: float) -> bool:
        self._tokens = min(self._size, self._tokens + (now - self._then) * self._rate)
        self._then = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Environments:
    """A function's environments, which take an event at a time. Times must not go back."""

    def __init__(self, function: Function, concurrency: int, chance: random.Random) -> None:
        self.begun = 0
        self.peak = 0
        self.busy_seconds = 0.0
        self.billed_seconds = 0.0
        self._function = function
        self._concurrency = concurrency
        self._chance = chance
        self._scaling = _Bucket(SCALING_RATE, SCALING_BURST)
        self._ends: list[float] = []
        self._idle_since: deque[float] = deque()
        self._then = 0.0

    def advance(self, now: float) -> None:
        """Let the time pass until now."""
        ends, idle = self._ends, self._idle_since
        while ends and ends[0] <= now:
            self._count(ends[0])
            idle.append(heappop(ends))
        self._count(now)
        while idle and idle[0] < now - IDLE_SECONDS:
            idle.popleft()

    def take(self, now: float, images: int = 1) -> float | None:
        """The seconds until these images are answered, or None where Lambda refuses them."""
        billed = unbilled = 0.0
        if self._idle_since:
            # Which one is taken is not documented; that the last to become idle is, leaves the others to end.
            self._idle_since.pop()
        elif len(self._ends) < self._concurrency and self._scaling.take(now):
            self.begun += 1
            unbilled = self._function.unbilled
            billed = self._chance.choice(self._function.start) - unbilled
        else:
            return None
        billed += sum(self._chance.choices(self._function.image, k=images))
        self.billed_seconds += math.ceil(billed * 1000) / 1000
        heappush(self._ends, now + unbilled + billed)
        self.peak = max(self.peak, len(self._ends))
        return unbilled + billed

    def _count(self, now: float) -> None:
        self.busy_seconds += (now - self._then) * len(self._ends)
        self._then = now


class _Api:
    """API Gateway with the function behind it, and how often each of these refused a request."""

    def __init__(self, environments: _Environments, quotas: Quotas) -> None:
        self.gateway_throttles = 0
        self.lambda_throttles = 0
        self._environments = environments
        self._gateway = _Bucket(quotas.gateway_rate, quotas.gateway_burst)
        # How much of it is saved up is not documented; here it is a second's.
        account_rate = REQUESTS_PER_INVOCATION * quotas.invocations
        self._account = _Bucket(account_rate, account_rate)

    def ask(self, now: float) -> float | None:
        """The seconds until the answer, or None for a refusal."""
        if not self._gateway.take(now):
            self.gateway_throttles += 1
            return None
        seconds = self._environments.take(now) if self._account.take(now) else None
        if seconds is None:
            self.lambda_throttles += 1
        return seconds


def simulate_requests(
    function: Function, rate: float, seconds: float, quotas: Quotas, *, retries: int, seed: int
) -> Burst:
    """What becomes of requests at this rate for so many seconds.

    A request that is refused is sent again, at most `retries` times.
    """
    chance = random.Random(seed)
    environments = _Environments(function, quotas.invocations, chance)
    api = _Api(environments, quotas)
    arrivals = _arrivals(rate, seconds, chance)
    waiting: list[tuple[float, float, int]] = []
    latencies: list[float] = []
    attempts, disturbed = [0] * math.ceil(seconds), [0] * math.ceil(seconds)
    delayed = failed = 0
    mean_concurrency = 0.0
    for now, came, tries in _attempts(arrivals, waiting):
        environments.advance(now)
        begun = environments.begun
        answered_in = api.ask(now)
        if answered_in is not None:
            latencies.append(now + answered_in - came)
        elif tries < retries:
            wait = chance.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2**tries))
            heappush(waiting, (now + wait, came, tries + 1))
        else:
            failed += 1
        delayed += tries == 0 and answered_in is None
        if now < seconds:
            attempts[int(now)] += 1
            disturbed[int(now)] += answered_in is None or environments.begun > begun
            mean_concurrency = environments.busy_seconds / now
    costs = dollars_per_image("api", environments.billed_seconds / max(len(latencies), 1), function.gigabytes)
    p50, p95, p99 = _percentiles(latencies)
    return Burst(
        rate=rate,
        seconds=seconds,
        quotas=quotas,
        requests=len(arrivals),
        answered=len(latencies),
        failed=failed,
        delayed=delayed,
        cold_starts=environments.begun,
        gateway_throttles=api.gateway_throttles,
        lambda_throttles=api.lambda_throttles,
        peak_concurrency=environments.peak,
        mean_concurrency=mean_concurrency,
        p50=p50,
        p95=p95,
        p99=p99,
        steady_after=_steady_after(attempts, disturbed),
        # API Gateway does not charge for what it throttles itself, but for what Lambda refuses:
        # https://repost.aws/questions/QUm1jSF1ieSQ25Ol1RzFLysA/does-aws-charge-for-throttled-requests
        dollars=len(latencies) * sum(costs.values())
        + environments.begun * function.start_dollars
        + api.lambda_throttles * prices.API_REQUEST,
    )


def simulate_uploads(function: Function, rate: float, seconds: float, *, concurrency: int, seed: int) -> Drain:
    """What becomes of uploads at this rate for so many seconds, with so many batches at a time at the most."""
    chance = random.Random(seed)
    environments = _Environments(function, concurrency, chance)
    arrivals = _arrivals(rate, seconds, chance)
    latencies: list[float] = []
    # When each of those that hand on a batch at a time has done so.
    free = [0.0] * min(FIRST_BATCHES, concurrency)
    grown = drained = 0.0
    taken = batches = 0
    while taken < len(arrivals):
        grows = max(grown + 1 / BATCHES_PER_SECOND, arrivals[taken])
        if len(free) < min(concurrency, MOST_BATCHES) and free[0] > grows:
            heappush(free, grows)
            grown = grows
        ready, count = _next_batch(arrivals, taken, max(heappop(free), arrivals[taken]))
        environments.advance(ready)
        answered_in = environments.take(ready, count)
        assert answered_in is not None, "batches come more slowly than environments may begin"
        heappush(free, ready + answered_in)
        drained = max(drained, ready + answered_in)
        latencies += [ready + answered_in - came for came in arrivals[taken : taken + count]]
        taken += count
        batches += 1
    costs = dollars_per_image("bulk", environments.billed_seconds / max(taken, 1), function.gigabytes)
    p50, p95, p99 = _percentiles(latencies)
    return Drain(
        rate=rate,
        seconds=seconds,
        concurrency=concurrency,
        uploads=taken,
        batches=batches,
        cold_starts=environments.begun,
        peak_concurrency=environments.peak,
        p50=p50,
        p95=p95,
        p99=p99,
        drained_after=drained,
        dollars=taken * sum(costs.values()) + environments.begun * function.start_dollars,
    )


def function_of(serving: Serving, path: str, extra: Mapping[str, float], restore_ms: float | None = None) -> Function:
    """The function as it was measured; with `restore_ms`, what SnapStart takes to restore an environment."""
    usual = serving.handler_ms.median
    more = milliseconds_per_image(path, serving, extra) - usual
    image = [(sample + more) / 1000 for sample in serving.handler_ms.samples]
    start = [max(sample - usual, 0.0) / 1000 for sample in serving.cold_ms.samples]
    if restore_ms is None:
        return Function(serving.gigabytes, image, start)
    unbilled, init = restore_ms / 1000, serving.init_ms / 1000
    return Function(
        serving.gigabytes,
        image,
        [unbilled + max(seconds - init, 0.0) for seconds in start],
        unbilled,
        serving.gigabytes * prices.SNAPSTART_RESTORE_GB,
    )


def _arrivals(rate: float, seconds: float, chance: random.Random) -> list[float]:
    times = accumulate(chance.expovariate(each) for each in repeat(rate))
    return list(takewhile(lambda time: time < seconds, times))


def _attempts(arrivals: Sequence[float], waiting: list[tuple[float, float, int]]) -> Iterator[tuple[float, float, int]]:
    """When something is tried, when it came, and how often it was tried before: what comes, and the heap `waiting`."""
    for came in arrivals:
        while waiting and waiting[0][0] <= came:
            yield heappop(waiting)
        yield came, came, 0
    while waiting:
        yield heappop(waiting)


def _next_batch(arrivals: Sequence[float], taken: int, begins: float) -> tuple[float, int]:
    """When the batch that begins then is handed on, and with how many uploads."""
    last, ends = taken + MESSAGES - 1, begins + BATCH_WINDOW
    if last < len(arrivals) and arrivals[last] <= ends:
        return max(begins, arrivals[last]), MESSAGES
    return ends, bisect_right(arrivals, ends) - taken


def _steady_after(attempts: Sequence[int], disturbed: Sequence[int]) -> float | None:
    """The first second from which on hardly anything is cold or refused."""
    found, all_attempts, all_disturbed = None, 0, 0
    for second in reversed(range(len(attempts))):
        all_attempts += attempts[second]
        all_disturbed += disturbed[second]
        if all_disturbed <= DISTURBED * all_attempts:
            found = float(second)
    return found


def _percentiles(seconds: Sequence[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    if not seconds:
        return None, None, None
    p50, p95, p99 = np.percentile(seconds, [50, 95, 99])
    return float(p50), float(p95), float(p99)
