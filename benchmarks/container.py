"""Measure the container image with each engine: its size, cold starts, request times and memory.

The container runs under Lambda's runtime interface emulator, as an unprivileged user on a read-only file system, with
the share of a CPU that Lambda gives to its memory. LITELENS_BASE_IMAGE replaces AWS's base image where it cannot be
pulled, and LITELENS_EXTRA_CA adds a proxy's certificate.
"""

import http.client
import json
import os
import re
import shutil
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

from benchmarks.events import form_request, json_request
from benchmarks.photos import BUNDLE, ROOT, sample
from benchmarks.report import BenchmarkError, Options, in_brackets, short, spread, table
from litelens.core.bundle import load_bundle
from litelens.core.engines import ENGINES
from litelens.settings import MAX_IMAGES
from local.emulator import EmulatorError, install_emulator

BASE_IMAGE = os.environ.get("LITELENS_BASE_IMAGE", "public.ecr.aws/lambda/python:3.13")
EXTRA_CA = os.environ.get("LITELENS_EXTRA_CA", "")

# A function with this memory has one CPU: https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
CPU_MEGABYTES = 1769
MEMORIES = (512, 1024, CPU_MEGABYTES, 2 * CPU_MEGABYTES)

# Width and height of a typical request's photo, and of a camera's. With the noise, the latter has 3 MB.
USUAL, CAMERA = (500, 375), (4000, 3000)
_NOISE = 8

# Starts of each function; after each, requests with one photo, then requests with as many as are allowed.
_STARTS, _REQUESTS, _BATCHES = 3, 10, 3


class ContainerError(BenchmarkError):
    """Docker or the function failed; the message has its last output."""


@dataclass(frozen=True)
class Run:
    """The milliseconds of a container's start and of its later events, and the peak memory of its process in MB."""

    cold: float
    init: float
    events: list[float]
    peak_megabytes: float


def missing() -> str:
    """Return what to do so that the image can be built and run, or an empty string; pulls the base image."""
    if not (ROOT / "models" / BUNDLE.name).is_dir():
        return f"To measure the container, copy {BUNDLE} to models/, from where Docker takes it."
    if shutil.which("docker") is None:
        return "To measure the container, install Docker: https://docs.docker.com/engine/install/"
    try:
        with tempfile.TemporaryDirectory() as folder:
            install_emulator(Path(folder))
        docker("info")
    except EmulatorError as error:
        return f"The container cannot be measured here. {error}"
    except ContainerError as error:
        return f"To measure the container, start Docker. {error}"
    try:
        if not docker("images", "--quiet", BASE_IMAGE).strip():
            print(f"Pulling {BASE_IMAGE} ...", file=sys.stderr)
            docker("pull", "--quiet", BASE_IMAGE)
    except ContainerError as error:
        return f"To measure the container, set LITELENS_BASE_IMAGE to a base image that can be pulled. {error}"
    return ""


def measure(options: Options) -> dict[str, Any]:
    """Measure the image of each engine; raises ContainerError if Docker fails."""
    images = {engine: build(engine) for engine in ENGINES}
    usual, camera = (sample(*size, noise=_NOISE) for size in (USUAL, CAMERA))
    with tempfile.TemporaryDirectory() as folder:
        emulator = install_emulator(Path(folder))
        # The first run reads the image's files from the disk.
        for image in images.values():
            run(image, emulator, CPU_MEGABYTES, [json_request(usual)])
        return {
            "model": BUNDLE.name,
            "input": load_bundle(BUNDLE).preprocessing.width,
            "layer_bytes": {engine: layer_bytes(image) for engine, image in images.items()},
            "camera": {
                engine: run(image, emulator, CPU_MEGABYTES, [json_request(camera)]).peak_megabytes
                for engine, image in images.items()
            },
            "serving": [serving for memory in MEMORIES for serving in measure_serving(images, emulator, memory, usual)],
        }


def render(results: Mapping[str, Any]) -> str:
    """Render sizes, starts, requests and memory as Markdown."""
    part = results["container"]
    sizes = [
        [engine, f"{layer / 1e6:,.0f} MB", f"{part['camera'][engine]:,.0f} MB"]
        for engine, layer in part["layer_bytes"].items()
    ]
    serving = [
        [
            each["engine"],
            f"{each['memory_mb']:,} MB",
            short(each["cpus"]),
            in_brackets(each["cold_ms"]),
            f"{each['init_ms']:.0f}",
            in_brackets(each["handler_ms"]),
            in_brackets(each["batch_ms"]) if "batch_ms" in each else "not measured",
            f"{each['peak_rss_mb']:,.0f} MB",
        ]
        for each in part["serving"]
    ]
    return "\n\n".join(
        [
            "## Container",
            f"The image with the bundle {part['model']} ({part['input']} pixels) under the runtime interface emulator, "
            "read-only, with the share of a CPU that Lambda gives to the memory, and its files in the system's cache. "
            "The layer is the image without its base image.",
            table(["engine", "layer", "peak memory with a JPEG of 12 megapixels"], sizes),
            "A cold start is from the start of the environment to the first answer; init is the part before the "
            f"request. A request has a JPEG of {USUAL[0]}x{USUAL[1]} pixels in base64, or a form with {MAX_IMAGES} of "
            "them, and takes the time that Lambda bills.",
            table(
                [
                    *("engine", "memory", "CPUs", "cold, ms", "init, ms", "request, ms"),
                    *(f"request with {MAX_IMAGES} photos, ms", "peak memory"),
                ],
                serving,
            ),
        ]
    )


def build(engine: str) -> str:
    """Build the image with this engine and return its name; raises ContainerError."""
    name = f"litelens-bench-{engine}"
    arguments = {"BASE_IMAGE": BASE_IMAGE, "EXTRA_CA": EXTRA_CA, "ENGINE": engine, "MODEL": BUNDLE.name}
    print(f"Building the image with {engine} ...", file=sys.stderr)
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    docker("build", "--network=host", "--file=lambda/Dockerfile", f"--tag={name}", *options, ".")
    return name


def layer_bytes(image: str) -> int:
    """Return the bytes that the image adds to its base image."""
    base, whole = (int(docker("image", "inspect", "--format={{.Size}}", name)) for name in (BASE_IMAGE, image))
    return whole - base


def measure_serving(images: Mapping[str, str], emulator: Path, memory: int, photo: bytes) -> Iterator[dict[str, Any]]:
    """Measure starts and requests of each engine with this memory, the engines in turn."""
    print(f"Starting functions of {memory:,} MB ...", file=sys.stderr)
    runs: dict[str, list[Run]] = {engine: [] for engine in images}
    events = [json_request(photo)] * _REQUESTS + [form_request([photo] * MAX_IMAGES)] * _BATCHES
    for _ in range(_STARTS):
        for engine, image in images.items():
            runs[engine].append(run(image, emulator, memory, events))
    for engine, measured in runs.items():
        yield {
            "engine": engine,
            "memory_mb": memory,
            "cpus": round(memory / CPU_MEGABYTES, 2),
            "handler_ms": _with_samples([each.events[:-_BATCHES] for each in measured]),
            "batch_ms": _with_samples([each.events[-_BATCHES:] for each in measured]),
            "cold_ms": spread([[each.cold for each in measured]]),
            "init_ms": spread([[each.init for each in measured]])["median"],
            "peak_rss_mb": max(each.peak_megabytes for each in measured),
        }


def run(image: str, emulator: Path, memory: int, events: Sequence[Mapping[str, Any]]) -> Run:
    """Start a container and send it events, one after the other; raises ContainerError."""
    with _container(image, emulator, memory) as (name, port):
        for event in events:
            _post(port, event)
        # The emulator logs the time until the function had started, and the time of each event.
        log = docker("logs", name)
        (init,) = re.findall(r"INIT REPORT\(durationMs: ([\d.]+)\)", log)
        times = [float(each) for each in re.findall(r"INVOKE RTDONE\(.*duration: ([\d.]+)ms\)", log)]
        if len(times) != len(events):
            raise ContainerError(f"The function did not answer every request: {log.strip()[-500:]}")
        peaks = docker("exec", "--user=0", name, "sh", "-c", "cat /proc/[0-9]*/status")
        peak = max(int(kilobytes) for kilobytes in re.findall(r"VmHWM:\s+(\d+) kB", peaks))
    first, *later = times
    return Run(float(init) + first, float(init), later, peak / 1000)


def docker(*arguments: str) -> str:
    """Run docker and return its output; raises ContainerError."""
    try:
        # The classic builder shares its cached layers with `sam build`.
        environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
        done = subprocess.run(["docker", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise ContainerError("Docker is not installed.") from error
    if done.returncode:
        raise ContainerError(f"docker {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    # Containers log to both streams.
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


@contextmanager
def _container(image: str, emulator: Path, memory: int) -> Iterator[tuple[str, int]]:
    """Run a container under the emulator, which starts the function with the first event; yield its name and port."""
    command = [
        *("run", "--detach", "--publish=127.0.0.1::8080", "--user=993:990", "--read-only", "--tmpfs=/tmp"),
        *(f"--cpus={memory / CPU_MEGABYTES:.2f}", f"--memory={memory}m", "--cap-drop=ALL"),
        *(f"--env=LITELENS_THREADS={max(1, memory // CPU_MEGABYTES)}", f"--volume={emulator}:/emulator:ro"),
        *("--entrypoint=/emulator", image, "python3", "-m", "awslambdaric", "litelens.api.handler.handler"),
    ]
    name = docker(*command).strip()
    try:
        port = int(docker("port", name, "8080").strip().rpartition(":")[2])
        _wait_for(port)
        yield name, port
    finally:
        docker("rm", "--force", name)


def _wait_for(port: int) -> None:
    """Wait until the emulator listens."""
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
    raise ContainerError("The runtime interface emulator did not start in the container.")


def _post(port: int, event: Mapping[str, Any]) -> None:
    url = f"http://127.0.0.1:{port}/2015-03-31/functions/function/invocations"
    with urllib.request.urlopen(url, json.dumps(event).encode(), timeout=60) as response:
        answer = json.load(response)
    if answer.get("statusCode") != 200:
        raise ContainerError(f"The function answered: {json.dumps(answer)[:500]}")


def _with_samples(rounds: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {**spread(rounds), "samples": [value for values in rounds for value in values]}
