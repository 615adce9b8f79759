"""Compare litelens with the alternatives on the same network, and litelens' engines on the bundled model.

All take turns in one run, so that noise affects them alike.

Each contestant is a Lambda handler in its own process. Measured are its accuracy, the time of the model alone (invoke),
the time from API Gateway's event to the answer, its start, and its memory.
"""

import base64
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import models, photos
from benchmarks.contestants import (
    FIELD,
    KERAS,
    LITERT,
    ONNX_INT8,
    ONNX_INT8_REDUCED,
    Contestant,
    Worker,
    contestants,
    working,
)
from benchmarks.models import Models
from benchmarks.photos import BUNDLE, Dataset, Images
from benchmarks.report import Options, spread
from training.progress import progress

# Images that accuracy is measured on.
_IMAGES = 200

# A turn is long enough for the caches to be the contestant's own, and short enough for noise to hit all alike.
_CALLS, _BUNDLE_CALLS = 3, 10

# Threads of some engines spin for a while after their work, in case that there is more.
_SETTLING_SECONDS = 0.1


@dataclass(frozen=True)
class Accuracy:
    """Shares of the images: labelled correctly (None if the classes are unknown), and labelled like the reference.

    `peak_megabytes` is the most memory that the process ever had; None where the system does not tell.
    """

    side: int
    contestant: str
    images: int
    top1: float | None
    agreement: float
    peak_megabytes: float | None


@dataclass(frozen=True)
class Timing:
    """Milliseconds. `ratio` is to the reference: the median over the rounds of the medians of the two in a round."""

    side: int
    threads: int
    contestant: str
    import_ms: float
    load_ms: float
    first_ms: float
    invoke: Mapping[str, float]
    answer: Mapping[str, float]
    ratio: float


@dataclass(frozen=True)
class Turns:
    """A contestant's start, and the milliseconds of each call in each round."""

    started: Mapping[str, float]
    first: float
    invoke: list[list[float]]
    answer: list[list[float]]


def measure(options: Options) -> dict[str, Any]:
    """Measure all contestants with one thread and with two, as JSON values."""
    field, left_out = contestants(options.cache)
    made, dataset = models.resnet50(options.data, _IMAGES, options.cache)
    accuracies = measure_accuracy(field, made, dataset)
    timings: list[Timing] = []
    for threads in (1, 2):
        if threads <= (os.cpu_count() or 1):
            timings += measure_time(
                field, made, threads, rounds=options.rounds, calls=_CALLS, compared=reference(accuracies)
            )
    return {
        "network": {
            "side": made.facts.side,
            "multiply_adds": made.facts.multiply_adds,
            "images": dataset.name,
            "count": len(dataset.test),
            "calibration": len(dataset.calibration),
            "fitted": len(dataset.fitting) if dataset.fitting else 0,
            "labelled": dataset.test.classes is not None,
        },
        "accuracies": [asdict(each) for each in accuracies],
        "timings": [asdict(each) for each in timings],
        "rounds": options.rounds,
        "left_out": left_out,
    }


def measure_bundle(options: Options, bundle: Path = BUNDLE) -> dict[str, Any]:
    """Measure a published bundle with each engine of litelens and one thread, as JSON values."""
    field = [contestant for contestant in FIELD if contestant.model == "bundle"]
    made = models.published(bundle, options.cache)
    dataset = photos.cats_and_dogs(options.data, _IMAGES)
    # The classes of these photos are not the bundle's.
    unknown = replace(dataset, test=Images(dataset.test.files, None))
    accuracies = measure_accuracy(field, made, unknown, compared=LITERT)
    timings = measure_time(field, made, 1, rounds=options.rounds, calls=_BUNDLE_CALLS, compared=LITERT)
    return {
        "name": bundle.name,
        "side": made.facts.side,
        "images": dataset.name,
        "count": len(dataset.test),
        "accuracies": [asdict(each) for each in accuracies],
        "timings": [asdict(each) for each in timings],
        "rounds": options.rounds,
    }


def measure_accuracy(
    field: Sequence[Contestant], made: Models, dataset: Dataset, *, compared: str = KERAS
) -> list[Accuracy]:
    """Each contestant on all of the images, by its whole path from event to answer."""
    side, count = made.facts.side, len(dataset.test)
    what = f"Classifying {count} {dataset.name} at {side} pixels, contestants"
    with ThreadPoolExecutor(os.cpu_count() or 1) as at_once:
        answers = at_once.map(lambda contestant: _labels(contestant, made, dataset.test), field)
        found = list(progress(answers, len(field), what))
    labels = {contestant.name: given for contestant, (given, _) in zip(field, found, strict=True)}
    return [
        Accuracy(
            side=side,
            contestant=contestant.name,
            images=count,
            top1=_top1(given, dataset.test, made.facts.labels),
            agreement=_share(given, labels[compared]),
            peak_megabytes=megabytes,
        )
        for contestant, (given, megabytes) in zip(field, found, strict=True)
    ]


def measure_time(
    field: Sequence[Contestant], made: Models, threads: int, *, rounds: int, calls: int, compared: str
) -> list[Timing]:
    """All contestants in turn, with so many calls a turn, each round in another order; ratios are to `compared`."""
    side = made.facts.side
    print(f"Starting all at {side} pixels, threads: {threads} ...", file=sys.stderr)
    photo = photos.sample(500, 375)
    with _workers(field, made, threads) as workers:
        turns = {name: _first_turn(worker, photo) for name, worker in workers.items()}
        for names in progress(_orders(list(workers), rounds), rounds, "Taking turns, rounds"):
            for name in names:
                _take_turn(workers[name], turns[name], photo, calls)
    return [
        Timing(
            side=side,
            threads=threads,
            contestant=name,
            import_ms=taken.started["import"],
            load_ms=taken.started["load"],
            first_ms=taken.first,
            invoke=spread(taken.invoke),
            answer=spread(taken.answer),
            ratio=ratio(taken.invoke, turns[compared].invoke),
        )
        for name, taken in turns.items()
    ]


def ratio(rounds: Sequence[Sequence[float]], compared: Sequence[Sequence[float]]) -> float:
    """The median over the rounds of the ratio of two contestants' medians in a round."""
    return statistics.median(
        statistics.median(own) / statistics.median(other) for own, other in zip(rounds, compared, strict=True)
    )


def reference(accuracies: Sequence[Accuracy]) -> str:
    """Which of ONNX Runtime's int8 models the others are compared with: the one that is nearer to fp32."""
    candidates = [each for each in accuracies if each.contestant in (ONNX_INT8, ONNX_INT8_REDUCED)]
    return max(candidates, key=lambda each: each.agreement).contestant


def event_of(photo: bytes) -> dict[str, Any]:
    """API Gateway's event for a request with the photo in base64 in JSON."""
    return {
        "path": "/v1/classify",
        "httpMethod": "POST",
        "headers": {"Content-Type": "application/json"},
        "multiValueHeaders": {"Content-Type": ["application/json"]},
        "requestContext": {"requestId": "benchmark"},
        "body": json.dumps({"image": base64.b64encode(photo).decode()}),
        "isBase64Encoded": False,
    }


def _labels(contestant: Contestant, made: Models, images: Images) -> tuple[list[str], float | None]:
    with working(contestant, made, threads=1, pinned=False) as worker:
        labels = [worker.handle(event_of(file), times=1)[1] for file in images.files]
        return labels, worker.peak_megabytes()


def _top1(given: Sequence[str], images: Images, labels: Sequence[str]) -> float | None:
    if images.classes is None:
        return None
    return _share(given, [labels[index] for index in images.classes])


def _share(given: Sequence[str], expected: Sequence[str]) -> float:
    return float(np.mean([own == other for own, other in zip(given, expected, strict=True)]))


@contextmanager
def _workers(field: Sequence[Contestant], made: Models, threads: int) -> Iterator[dict[str, Worker]]:
    with ExitStack() as stack:
        started = (stack.enter_context(working(each, made, threads, pinned=True)) for each in field)
        yield {contestant.name: worker for contestant, worker in zip(field, started, strict=True)}


def _orders(names: list[str], rounds: int) -> Iterator[list[str]]:
    """Who comes when, each round another one first."""
    for number in range(rounds):
        first = number % len(names)
        yield names[first:] + names[:first]


def _first_turn(worker: Worker, photo: bytes) -> Turns:
    (first,), _ = worker.handle(event_of(photo), times=1)
    worker.invoke(photo, times=1)
    return Turns(worker.started, first, [], [])


def _take_turn(worker: Worker, turns: Turns, photo: bytes, calls: int) -> None:
    time.sleep(_SETTLING_SECONDS)
    turns.invoke.append(worker.invoke(photo, calls))
    turns.answer.append(worker.handle(event_of(photo), calls)[0])
