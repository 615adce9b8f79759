"""What the container image is and does as Lambda would run it, once with each engine: its size, its cold start and what
that is made of, and the handler's time and memory for each size of a function.

The container runs under Lambda's runtime interface emulator as an unknown user on a read-only file system, with the
share of a CPU that Lambda gives to so much memory. LITELENS_BASE_IMAGE and LITELENS_EXTRA_CA are for where AWS's base
image cannot be pulled, or a proxy signs certificates.
"""

import base64
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decoding import photo
from benchmarks.models import resnet50
from benchmarks.photos import BUNDLE, ROOT
from benchmarks.report import Options, milliseconds, short, spread, table
from litelens.bundle import load_bundle
from litelens.engines import ENGINES
from local.emulator import install_emulator

BASE_IMAGE = os.environ.get("LITELENS_BASE_IMAGE", "public.ecr.aws/lambda/python:3.13")
EXTRA_CA = os.environ.get("LITELENS_EXTRA_CA", "")

# A function with so many MB has one CPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
CPU_MEGABYTES = 1769
MEMORIES = (512, 1024, CPU_MEGABYTES, 2 * CPU_MEGABYTES)

# The photo of most requests, and a camera's.
USUAL, CAMERA = (500, 375), (4000, 3000)

# The name of the contest's network in the tables.
RESNET50 = "ResNet-50"

_STARTS, _REQUESTS = 3, 10
_MODEL = "/var/task/model"

# Imports in the order in which handlers.api first comes to them, then what it does once: each adds to those before it.
_STEPS = """
import json, sys, time
from pathlib import Path
steps = {}
started = time.perf_counter()
def step(name):
    global started
    steps[name] = (time.perf_counter() - started) * 1000
    started = time.perf_counter()
import msgspec; step("import msgspec")
import aws_lambda_powertools.event_handler; step("import Powertools' event handler")
import numpy; step("import NumPy")
import PIL.Image, PIL.JpegImagePlugin; step("import Pillow")
if ENGINE == "openvino":
    import openvino
else:
    import ai_edge_litert.interpreter
step("import the engine")
import settings, handlers.operations, handlers.records; step("import litelens' own")
from litelens.bundle import load_bundle
bundle = load_bundle(Path("MODEL")); step("read and verify the bundle")
from litelens.classifier import Classifier
from litelens.images import Limits
classifier = Classifier(bundle, Limits(), 1, ENGINE); step("load the model")
classifier.warm_up(); step("the first inference")
assert "boto3" not in sys.modules
print(json.dumps(steps))
"""


class ContainerError(Exception):
    """Docker did not do what it was asked; the message has its last words."""


@dataclass(frozen=True)
class Answered:
    """A container's start and its requests: milliseconds, and the most memory that its process had, in MB."""

    cold: float
    init: float
    requests: list[float]
    peak_megabytes: float


def measure(options: Options) -> dict[str, Any]:
    """Sizes, starts and requests of both images; raises ContainerError where there is no Docker."""
    models, _ = resnet50(options.data, 1, options.cache)
    images = {engine: build(engine) for engine in ENGINES}
    bundles = {BUNDLE.name: BUNDLE, RESNET50: models.bundle}
    with tempfile.TemporaryDirectory() as folder:
        emulator = install_emulator(Path(folder))
        # Their files come from the disk the first time.
        for image in images.values():
            run(image, emulator, BUNDLE, CPU_MEGABYTES, [photo(*USUAL)])
        return {
            "model": BUNDLE.name,
            "sizes": {engine: layer_bytes(image) for engine, image in images.items()},
            "steps": {
                engine: {name: steps(images[engine], engine, bundle) for name, bundle in bundles.items()}
                for engine in images
            },
            "serving": [
                serving
                for name, bundle in bundles.items()
                for memory in (MEMORIES if bundle == BUNDLE else (CPU_MEGABYTES,))
                for serving in served(images, emulator, name, bundle, memory)
            ],
            "camera": {
                engine: run(image, emulator, BUNDLE, CPU_MEGABYTES, [photo(*CAMERA)]).peak_megabytes
                for engine, image in images.items()
            },
        }


def render(results: Mapping[str, Any]) -> str:
    part = results["container"]
    sizes = [
        [engine, f"{size['layer'] / 1e6:,.0f} MB", f"{part['camera'][engine]:,.0f} MB"]
        for engine, size in part["sizes"].items()
    ]
    serving = [
        [
            each["model"],
            each["engine"],
            str(each["input"]),
            f"{each['memory_mb']:,} MB",
            short(each["cpus"]),
            milliseconds(each["cold_ms"]),
            f"{each['init_ms']:.0f}",
            milliseconds(each["handler_ms"]),
            f"{each['peak_rss_mb']:,.0f} MB",
        ]
        for each in part["serving"]
    ]
    engines = list(part["steps"])
    models = list(part["steps"][engines[0]])
    columns = [(engine, model) for engine in engines for model in models]
    names = list(part["steps"][engines[0]][models[0]])
    steps = [[name, *(f"{part['steps'][engine][model][name]:.0f}" for engine, model in columns)] for name in names]
    totals = ["together", *(f"{sum(part['steps'][engine][model].values()):.0f}" for engine, model in columns)]
    return "\n\n".join(
        [
            "## Container",
            "The image as Lambda runs it: under the runtime interface emulator, read-only, with the CPU that goes with "
            "the memory, its files being in the system's cache. The layer is what lies above the base image; the peak "
            "is that of the process.",
            table(["engine", "layer", "peak with a JPEG of 12 megapixels"], sizes),
            "Cold is from the start of the environment to the first answer, of which init is over before the request; "
            f"a request has a JPEG of {USUAL[0]}x{USUAL[1]} in base64, and its time is what Lambda bills.",
            table(
                ["model", "engine", "input", "memory", "CPUs", "cold, ms", "init, ms", "request, ms", "peak"], serving
            ),
            "Where a cold start goes, in milliseconds, with one CPU: medians of each step in fresh processes.",
            table(["step", *(f"{engine}, {model}" for engine, model in columns)], [*steps, totals]),
        ]
    )


def build(engine: str) -> str:
    """The image with this engine; raises ContainerError."""
    name = f"litelens-bench-{engine}"
    arguments = {"BASE_IMAGE": BASE_IMAGE, "EXTRA_CA": EXTRA_CA, "ENGINE": engine, "MODEL": BUNDLE.name}
    print(f"Building the image with {engine} ...", file=sys.stderr)
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    docker("build", "--network=host", "--file=lambda/Dockerfile", f"--tag={name}", *options, ".")
    return name


def layer_bytes(image: str) -> dict[str, int]:
    """The bytes of the base image and of what lies above it."""
    sizes = [int(docker("image", "inspect", "--format={{.Size}}", name)) for name in (BASE_IMAGE, image)]
    return {"base": sizes[0], "layer": sizes[1] - sizes[0]}


def steps(image: str, engine: str, bundle: Path) -> dict[str, float]:
    """The median milliseconds of each step of a cold start, in fresh processes with one CPU."""
    script = _STEPS.replace("ENGINE", repr(engine)).replace("MODEL", _MODEL)
    command = [
        *("run", "--rm", "--cpus=1", f"--memory={CPU_MEGABYTES}m", "--network=none", "--read-only"),
        *(*_mounted(bundle), "--entrypoint=python3", image, "-c", script),
    ]
    runs = [json.loads(docker(*command)) for _ in range(_STARTS)]
    return {name: spread([[run[name] for run in runs]])["median"] for name in runs[0]}


def served(images: Mapping[str, str], emulator: Path, name: str, bundle: Path, memory: int) -> Iterator[dict[str, Any]]:
    """Each engine's starts and requests with so much memory, engines taking turns."""
    print(f"Starting functions of {memory:,} MB with {name} ...", file=sys.stderr)
    usual = [photo(*USUAL)] * _REQUESTS
    runs: dict[str, list[Answered]] = {engine: [] for engine in images}
    for _ in range(_STARTS):
        for engine, image in images.items():
            runs[engine].append(run(image, emulator, bundle, memory, usual))
    for engine, answered in runs.items():
        yield {
            "model": name,
            "engine": engine,
            "input": load_bundle(bundle).preprocessing.width,
            "memory_mb": memory,
            "cpus": round(memory / CPU_MEGABYTES, 2),
            "threads": _threads(memory),
            "handler_ms": _with_samples([each.requests for each in answered]),
            "cold_ms": _with_samples([[each.cold for each in answered]]),
            "init_ms": spread([[each.init for each in answered]])["median"],
            "peak_rss_mb": max(each.peak_megabytes for each in answered),
        }


def run(image: str, emulator: Path, bundle: Path, memory: int, photos: Sequence[bytes]) -> Answered:
    """A fresh container that is given these photos one after the other; raises ContainerError."""
    with _container(image, emulator, bundle, memory) as (name, port):
        for file in photos:
            _post(port, _event(file))
        # As the emulator's log has it: what it took until the function had begun, and for each event.
        log = docker("logs", name)
        (init,) = re.findall(r"INIT REPORT\(durationMs: ([\d.]+)\)", log)
        requests = [float(each) for each in re.findall(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)", log)]
        if len(requests) != len(photos):
            raise ContainerError(f"The function did not answer every request: {log.strip()[-500:]}")
        peaks = docker("exec", "--user=0", name, "sh", "-c", "cat /proc/[0-9]*/status")
        peak = max(int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s+(\d+) kB", peaks))
    first, *later = requests
    return Answered(float(init) + first, float(init), later, peak / 1000)


def docker(*arguments: str) -> str:
    """What docker prints; raises ContainerError."""
    try:
        # The plain builder keeps its layers where `sam build` finds them too.
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(["docker", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ContainerError("There is no Docker here; install it, or measure other parts with --only.") from error
    if done.returncode:
        raise ContainerError(f"docker {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    # Containers log on both.
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


@contextmanager
def _container(image: str, emulator: Path, bundle: Path, memory: int) -> Iterator[tuple[str, int]]:
    """A container's name and port, under the emulator, which begins the function with the first event."""
    command = [
        *("run", "--detach", "--publish=127.0.0.1::8080", "--user=993:990", "--read-only", "--tmpfs=/tmp"),
        *(f"--cpus={memory / CPU_MEGABYTES:.2f}", f"--memory={memory}m", "--cap-drop=ALL"),
        *(f"--env=LITELENS_THREADS={_threads(memory)}", *_mounted(bundle)),
        *(f"--volume={emulator}:/emulator:ro", "--entrypoint=/emulator", image),
        *("python3", "-m", "awslambdaric", "handlers.api.handler"),
    ]
    name = docker(*command).strip()
    try:
        port = int(docker("port", name, "8080").strip().rpartition(":")[2])
        _wait_for(port)
        yield name, port
    finally:
        docker("rm", "--force", name)


def _mounted(bundle: Path) -> list[str]:
    """The bundled model is in the image already, with what the engine made of it."""
    return [] if bundle == BUNDLE else [f"--volume={bundle}:{_MODEL}:ro"]


def _threads(memory: int) -> int:
    return max(1, memory // CPU_MEGABYTES)


def _event(file: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((ROOT / "tests" / "events" / "classify_json.json").read_text())
    return event | {"body": json.dumps({"image": base64.b64encode(file).decode()}), "isBase64Encoded": False}


def _wait_for(port: int) -> None:
    """Until the emulator listens, which takes it a moment."""
    for _ in range(500):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
        try:
            connection.request("GET", "/")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
        else:
            return
        finally:
            connection.close()
    raise ContainerError("The runtime interface emulator did not begin in the container.")


def _post(port: int, event: Mapping[str, Any]) -> None:
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    with urllib.request.urlopen(url, json.dumps(event).encode(), timeout=60) as response:
        answer = json.load(response)
    if answer.get("statusCode") != 200:
        raise ContainerError(f"The function answered: {json.dumps(answer)[:500]}")


def _with_samples(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {**spread(rounds), "samples": [value for values in rounds for value in values]}
