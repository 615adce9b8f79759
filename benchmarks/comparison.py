"""Compare litelens with the alternatives on one network, and litelens' engines on the published bundle.

Each peer is a Lambda handler in its own process. They take turns in one run, so that noise affects all of them equally.
The results are the accuracy, the time of inference alone (invoke), the time from API Gateway's event to the response
(answer), the start-up time and the peak memory.
"""

import importlib.util
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import models, photos, report
from benchmarks.events import json_request
from benchmarks.models import Models
from benchmarks.peers.process import (
    KERAS,
    LIMITED_OPENVINO,
    LITELENS_LITERT,
    LITELENS_OPENVINO,
    MINIMAL_PEER,
    ONNX_INT8,
    ONNX_INT8_REDUCED,
    PEERS,
    Peer,
    PeerProcess,
    available_peers,
    running,
)
from benchmarks.photos import BUNDLE, Images
from benchmarks.report import Options, in_brackets, percent, ratio, short, spread, table
from litelens.core.bundle import load_bundle

# The number of images that accuracy is measured on.
_IMAGES = 200

# The calls of a peer in each turn: enough to fill the caches, and few enough for noise to affect all peers.
_CALLS, _BUNDLE_CALLS = 3, 20

# The classes of instructions that OpenVINO is limited to on CPUs that have more.
_LOWER_CLASSES: Mapping[str, Sequence[str]] = {"AMX": ("VNNI", "AVX2"), "VNNI": ("AVX2",)}

# Engines that differ by at most this share are equally fast; the one with less memory is then recommended.
_NEAR = 0.05

_PACKAGES = ("keras", "onnx", "onnxruntime", "openvino", "tensorflow", "tf2onnx")

# The threads of some engines keep a core busy for a while after their work.
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Accuracy:
    """The share of images with the right label (None if the classes are unknown) and with the reference's label.

    `peak_megabytes` is the peak memory of the process, None on systems without /proc.
    """

    peer: str
    top1: float | None
    agreement: float
    peak_megabytes: float | None


@dataclass(frozen=True)
class Timing:
    """Milliseconds. `ratio` is the time of invoke divided by that of the reference in the same round."""

    peer: str
    import_ms: float
    load_ms: float
    first_ms: float
    invoke: Mapping[str, float]
    answer: Mapping[str, float]
    ratio: float


def measure(options: Options) -> dict[str, Any]:
    """Measure all peers with one thread."""
    peers, left_out = available_peers()
    network, dataset = models.resnet50(options.data, _IMAGES, options.cache)
    accuracies = measure_accuracy(peers, network, dataset.test, reference=KERAS)
    timings = measure_time(peers, network, options.rounds, _CALLS, reference=better_int8(accuracies))
    return {
        "network": {
            "side": models.SIDE,
            "images": dataset.name,
            "count": len(dataset.test),
            "calibration": len(dataset.calibration),
            "training": len(dataset.training or ()),
        },
        "rounds": options.rounds,
        "left_out": left_out,
        "rows": _rows(accuracies, timings),
    }


def measure_bundle(options: Options, bundle: Path = BUNDLE) -> dict[str, Any]:
    """Measure a published bundle with each engine of litelens and one thread; return the results by the CPU's name.

    A minimal handler with LiteRT is measured too. On a CPU with AMX or VNNI, OpenVINO is also measured limited to older
    instructions.
    """
    about = report.about()
    instructions = report.instruction_class(about)
    limited = [LIMITED_OPENVINO[each] for each in _LOWER_CLASSES.get(instructions, ())]
    peers = [*(peer for peer in PEERS if peer.model == "bundle"), *limited, MINIMAL_PEER]
    network = models.published(bundle, options.cache)
    dataset = photos.cats_and_dogs(options.data, _IMAGES)
    # The classes of these photos are not the bundle's.
    unlabelled = Images(dataset.test.files, None)
    accuracies = measure_accuracy(peers, network, unlabelled, reference=LITELENS_LITERT)
    timings = measure_time(peers, network, options.rounds, _BUNDLE_CALLS, reference=LITELENS_LITERT)
    measured = {
        "name": bundle.name,
        "side": load_bundle(bundle).preprocessing.width,
        "images": dataset.name,
        "count": len(unlabelled),
        "rounds": options.rounds,
        "rows": _rows(accuracies, timings),
        "instructions": instructions,
        "date": about["date"],
    }
    return {f"{about['cpu']} with {instructions}": measured}


def merge_bundles(earlier: Mapping[str, Any] | None, measured: Mapping[str, Any]) -> dict[str, Any]:
    """Keep earlier results of other CPUs, if they are of the same bundle."""
    names = {each["name"] for each in measured.values()}
    kept = {cpu: each for cpu, each in (earlier or {}).items() if each["name"] in names}
    return kept | dict(measured)


def missing() -> str:
    """Return an instruction to install the packages of the peers, or an empty string."""
    packages = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if not packages:
        return ""
    return f"To compare with the alternatives, run make bench, which installs {', '.join(packages)} into .venv-train."


def left_out() -> Sequence[str]:
    """Return instructions for peers that are left out."""
    return available_peers()[1]


def measure_accuracy(peers: Sequence[Peer], network: Models, images: Images, *, reference: str) -> list[Accuracy]:
    """Classify the images with the handler of each peer."""
    print(f"Classifying {len(images)} images with each of {len(peers)} peers ...", file=sys.stderr)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        found = list(pool.map(lambda peer: _classify(peer, network, images), peers))
    labels = {peer.name: given for peer, (given, _) in zip(peers, found, strict=True)}
    right = None if images.classes is None else [network.labels[index] for index in images.classes]
    return [
        Accuracy(
            peer.name,
            top1=None if right is None else _share(given, right),
            agreement=_share(given, labels[reference]),
            peak_megabytes=megabytes,
        )
        for peer, (given, megabytes) in zip(peers, found, strict=True)
    ]


def measure_time(peers: Sequence[Peer], network: Models, rounds: int, calls: int, *, reference: str) -> list[Timing]:
    """Time all peers in turn, with one thread each; every round begins with a different peer."""
    photo = photos.sample(500, 375)
    invoke: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    answer: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    names = list(invoke)
    with ExitStack() as stack:
        processes = {peer.name: stack.enter_context(running(peer, network, 1, pinned=True)) for peer in peers}
        first = {name: _first_answer(process, photo) for name, process in processes.items()}
        for number in range(rounds):
            print(f"Timing round {number + 1} of {rounds} ...", file=sys.stderr)
            start = number % len(names)
            for name in names[start:] + names[:start]:
                time.sleep(_PAUSE_SECONDS)
                invoke[name].append(processes[name].invoke(photo, calls))
                answer[name].append(processes[name].handle(json_request(photo), calls)[0])
    return [
        Timing(
            peer=name,
            import_ms=process.started["import"],
            load_ms=process.started["load"],
            first_ms=first[name],
            invoke=spread(invoke[name]),
            answer=spread(answer[name]),
            ratio=ratio(invoke[name], invoke[reference]),
        )
        for name, process in processes.items()
    ]


def better_int8(accuracies: Sequence[Accuracy]) -> str:
    """Return the name of ONNX Runtime's int8 model that agrees with fp32 more often, the reference for time."""
    candidates = [each for each in accuracies if each.peer in (ONNX_INT8, ONNX_INT8_REDUCED)]
    return max(candidates, key=lambda each: each.agreement).peer


def _rows(accuracies: Sequence[Accuracy], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    return [asdict(accuracy) | asdict(timing) for accuracy, timing in zip(accuracies, timings, strict=True)]


def _classify(peer: Peer, network: Models, images: Images) -> tuple[list[str], float | None]:
    with running(peer, network, 1, pinned=False) as process:
        labels = [process.handle(json_request(file), times=1)[1] for file in images.files]
        return labels, process.peak_megabytes()


def _share(labels: Sequence[str], expected: Sequence[str]) -> float:
    return statistics.fmean(label == other for label, other in zip(labels, expected, strict=True))


def _first_answer(process: PeerProcess, photo: bytes) -> float:
    """Return the milliseconds of the first answer; also runs the model once, so that both calls are warm."""
    (first,), _ = process.handle(json_request(photo), times=1)
    process.invoke(photo, times=1)
    return first


_METHOD = (
    "Each peer is a Lambda handler in its own process with one core and one thread; all take turns. The peers are in "
    "`benchmarks/peers`; litelens is the handler that is deployed, with a model of 7-bit weights. `invoke` is the time "
    "of inference alone, from the model's input to the scores. `answer` is the time from API Gateway's event, with a "
    "JPEG of 500x375 pixels in base64, to the response. `overhead` is answer minus invoke. `ratio` is invoke divided "
    "by that of the better int8 model of ONNX Runtime: the median over all rounds."
)

_FP32 = (
    "The bundle has no float weights, so fp32 uses its dequantized int8 weights. Quantizing these again loses less "
    "than quantizing the trained network would. The int8 models therefore agree with fp32 more than they would with "
    "the trained network."
)

_BUNDLE_METHOD = (
    "The bundle with each engine of litelens and in a minimal handler (`benchmarks/peers/litert.py`), measured as "
    "above, but `ratio` is relative to litelens with LiteRT."
)

_STARTS = (
    "One start each, with the files in the system's cache. For litelens, `load` includes the import of the engine and "
    "one inference. The memory is the peak of a process that has classified all images above, one after the other."
)


def render(results: Mapping[str, Any]) -> str:
    """Render accuracy, speed, start and memory of all peers as Markdown."""
    peers = results["peers"]
    network, has_classes = peers["network"], peers["rows"][0]["top1"] is not None
    head = f" and a new head fitted to {network['training']} photos" if network["training"] else ""
    return "\n\n".join(
        [
            "## Against the alternatives",
            _METHOD,
            _FP32,
            *peers["left_out"],
            f"The network is that of the bundle cifar100-resnet50 at {network['side']} pixels, with pooling after the "
            f"stem as in ResNet-50{head}. It is quantized with {network['calibration']} images and tested on "
            f"{network['count']} {network['images']}{'' if has_classes else ', whose classes are unknown'}. "
            f"{peers['rounds']} rounds:",
            _speed_table(peers["rows"], "fp32", has_classes=True),
            "### Start and memory",
            _STARTS,
            _start_table(peers["rows"]),
        ]
    )


def render_bundle(results: Mapping[str, Any]) -> str:
    """Render the results of the bundle on each CPU, and the recommended engines, as Markdown."""
    parts = ["## The bundled model", _BUNDLE_METHOD]
    for cpu, bundle in results["bundle"].items():
        parts += [
            f"### {cpu}",
            f"The bundle {bundle['name']} at {bundle['side']} pixels: {bundle['rounds']} rounds, agreement on "
            f"{bundle['count']} {bundle['images']}, {bundle['date']}.",
            _speed_table(bundle["rows"], "LiteRT", has_classes=False),
            _start_table(bundle["rows"]),
        ]
    heads = ["CPU", "LiteRT, answer in ms", "OpenVINO, answer in ms", "recommended"]
    return "\n\n".join([*parts, "### Which engine", table(heads, _engine_rows(results["bundle"]))])


def _engine_rows(bundles: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of the recommended engines.

    A class of instructions that was not measured gets a row with the time of OpenVINO limited to that class. LiteRT
    cannot be limited; on such a CPU it is slower than on one with more instructions.
    """
    rows = []
    measured = {bundle["instructions"] for bundle in bundles.values()}
    for cpu, bundle in bundles.items():
        by_peer = {row["peer"]: row for row in bundle["rows"]}
        litert, openvino = by_peer[LITELENS_LITERT], by_peer[LITELENS_OPENVINO]
        cells = [short(row["answer"]["median"]) for row in (litert, openvino)]
        rows.append([cpu, *cells, recommended_engine(litert, openvino)])
        for lower in _LOWER_CLASSES.get(bundle["instructions"], ()):
            limited = by_peer.get(LIMITED_OPENVINO[lower].name)
            if limited and lower not in measured:
                faster = limited["answer"]["median"] < litert["answer"]["median"]
                verdict = "OpenVINO" if faster else f"unknown; measure on a CPU with {lower} only"
                answer = short(limited["answer"]["median"])
                rows.append([f"{cpu}, limited to {lower}", f"more than {cells[0]}", answer, verdict])
    return rows


def recommended_engine(litert: Mapping[str, Any], openvino: Mapping[str, Any]) -> str:
    """Return the engine that answers sooner; of two that are equally fast, the one with less memory."""
    times = {"LiteRT": litert["answer"]["median"], "OpenVINO": openvino["answer"]["median"]}
    if max(times.values()) > (1 + _NEAR) * min(times.values()):
        return min(times, key=times.__getitem__)
    megabytes = {"LiteRT": litert["peak_megabytes"] or 0, "OpenVINO": openvino["peak_megabytes"] or 0}
    return min(megabytes, key=megabytes.__getitem__)


def _speed_table(rows: Sequence[Mapping[str, Any]], reference: str, *, has_classes: bool) -> str:
    return table(
        [
            "",
            *(["top-1"] if has_classes else []),
            f"agrees with {reference}",
            "invoke, ms",
            "answer, ms",
            "overhead, ms",
            "ratio",
        ],
        [
            [
                row["peer"],
                *([percent(row["top1"])] if has_classes else []),
                percent(row["agreement"]),
                in_brackets(row["invoke"]),
                in_brackets(row["answer"]),
                short(row["answer"]["median"] - row["invoke"]["median"]),
                f"{row['ratio']:.2f}",
            ]
            for row in rows
        ],
    )


def _start_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return table(
        ["", "import, ms", "load, ms", "first answer, ms", "total, ms", "peak memory, MB"],
        [
            [
                row["peer"],
                *(short(row[name]) for name in ("import_ms", "load_ms", "first_ms")),
                short(row["import_ms"] + row["load_ms"] + row["first_ms"]),
                "not measured" if row["peak_megabytes"] is None else f"{row['peak_megabytes']:.0f}",
            ]
            for row in rows
        ],
    )
