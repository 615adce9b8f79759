"""The contest as Markdown: speed with accuracy beside it, starts and memory."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.report import milliseconds, share, short, table

_RULES = (
    "Each is a Lambda handler in a process of its own, with as many cores as threads, and all take turns in one run. "
    "The peers are in `benchmarks/peers`, as one would write them today; litelens is the handler that is deployed, on "
    "a model with weights of seven bits. `invoke` is the model alone, from its input to the scores; `answer` goes from "
    "API Gateway's event, with a JPEG of 500x375 pixels in base64, to the response. The ratio is invoke to ONNX "
    "Runtime's in the same round, the median of all rounds; of its two int8 models the better one counts."
)

_FP32 = (
    "There are no float weights of the bundle: fp32 has its int8 weights times their scales. To quantize these "
    "again rounds them less than the weights of a network as it was trained, so that int8 models are nearer to fp32 "
    "here than they would be to that."
)

_STARTS = (
    "With one thread, the files being in the system's cache; one start each. litelens imports its engine while it "
    "loads, and has run once when it has loaded. Memory is the peak of a process that has answered all the images "
    "above, one by one."
)


def render(results: Mapping[str, Any]) -> str:
    """Tables of speed with accuracy beside it, and of starts and memory."""
    contest = results["contest"]
    parts = ["## Against what else there is", _RULES, _FP32, *contest["left_out"], _introduced(contest["network"])]
    for threads in dict.fromkeys(timing["threads"] for timing in contest["timings"]):
        timings = [each for each in contest["timings"] if each["threads"] == threads]
        parts += [f"{_threads(threads)}, {contest['rounds']} rounds:", _speeds(timings, contest["accuracies"])]
    parts += ["### Start and memory", _STARTS, _starts(contest)]
    return "\n\n".join(parts)


def render_bundle(results: Mapping[str, Any]) -> str:
    """The bundled model with each engine, as Markdown: speed, start and memory."""
    bundle = results["bundle"]
    return "\n\n".join(
        [
            "## The bundled model",
            f"{bundle['name']}, of {bundle['side']} pixels, by each engine of litelens with one thread, as above: "
            f"{bundle['rounds']} rounds; agreement with LiteRT on {bundle['count']} {bundle['images']}.",
            table(
                ["", "agrees with LiteRT", "invoke, ms", "answer, ms", "ratio"],
                [
                    [
                        timing["contestant"],
                        share(accuracy["agreement"]),
                        milliseconds(timing["invoke"]),
                        milliseconds(timing["answer"]),
                        f"{timing['ratio']:.2f}",
                    ]
                    for timing, accuracy in zip(bundle["timings"], bundle["accuracies"], strict=True)
                ],
            ),
            _starts(bundle),
        ]
    )


def _introduced(network: Mapping[str, Any]) -> str:
    measured = f"on {network['count']} {network['images']}"
    if not network["labelled"]:
        measured = f"agreement {measured}; top-1 is not measured, for want of labelled images"
    fitted = f" and a head fitted anew to {network['fitted']} photos" if network["fitted"] else ""
    return (
        f"### {network['side']} pixels\n\nThe network of the bundle cifar100-resnet50, with pooling after the stem as "
        f"in ResNet-50{fitted}: {network['multiply_adds'] / 1e9:.2f} billion products to add up for an image. "
        f"Quantized with {network['calibration']} images; {measured}."
    )


def _speeds(timings: Sequence[Mapping[str, Any]], accuracies: Sequence[Mapping[str, Any]]) -> str:
    right = {each["contestant"]: each for each in accuracies}
    return table(
        ["", "top-1", "agrees with fp32", "invoke, ms", "answer, ms", "ratio"],
        [
            [
                each["contestant"],
                share(right[each["contestant"]]["top1"]),
                share(right[each["contestant"]]["agreement"]),
                milliseconds(each["invoke"]),
                milliseconds(each["answer"]),
                f"{each['ratio']:.2f}",
            ]
            for each in timings
        ],
    )


def _starts(measured: Mapping[str, Any]) -> str:
    memory = {each["contestant"]: each["peak_megabytes"] for each in measured["accuracies"]}
    return table(
        ["", "import, ms", "load, ms", "first answer, ms", "together, ms", "peak memory, MB"],
        [
            [
                each["contestant"],
                *(short(each[name]) for name in ("import_ms", "load_ms", "first_ms")),
                short(each["import_ms"] + each["load_ms"] + each["first_ms"]),
                _megabytes(memory[each["contestant"]]),
            ]
            for each in measured["timings"]
            if each["threads"] == 1
        ],
    )


def _megabytes(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.0f}"


def _threads(count: int) -> str:
    return "One thread" if count == 1 else f"{count} threads"
