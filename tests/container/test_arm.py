"""The image on machines that hide their CPUs, as Lambda on Arm does; built for this machine, and for Arm if it can."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from container.conftest import BASE_IMAGE, EXTRA_CA, build_image
from support import DEFAULT_BUNDLE, ROOT, require

import cpu_lists
from litelens.core.bundle import IMAGE, load_bundle
from litelens.core.engines import load_engine

# A base image for arm64, if this machine can run it, natively or by emulation.
ARM_BASE_IMAGE = os.environ.get("LITELENS_ARM_BASE_IMAGE", "")

# QEMU must emulate a Graviton2. Its default CPU has SME, with which LiteRT's answers differ.
CPU = "--env=QEMU_CPU=neoverse-n1"

# Prints LiteRT's outputs for rising pixel values, the CPU lists in the image that it opened, and LiteRT's own log,
# which litelens hides. An inotify event here is four numbers of four bytes, the first of which identifies the watched
# file; 0x20 is IN_OPEN.
SCRIPT = """
import ctypes, json, os
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from litelens.core import bundle, engines

loaded = bundle.load_bundle(Path("model"))
libc = ctypes.CDLL(None)
notices = libc.inotify_init1(os.O_NONBLOCK)
names = {libc.inotify_add_watch(notices, f"cpu/{name}".encode(), 0x20): name for name in ("possible", "present")}
levels = np.resize(np.arange(-128, 128, dtype=np.int8), loaded.tensors[bundle.IMAGE].shape)
Interpreter(model_path=str(loaded.model), num_threads=1).allocate_tensors()
outputs = engines.load_engine("litert", loaded, 1).run(levels)
opened = {names[watch] for watch in np.frombuffer(os.read(notices, 4096), np.int32)[::4].tolist()}
print(json.dumps({"opened": sorted(opened), "outputs": {name: value.tolist() for name, value in outputs.items()}}))
"""


def build(docker: str, **arguments: str) -> subprocess.CompletedProcess[str]:
    """Build the image litelens-test-arm from lambda/Dockerfile; returns the finished command with its output."""
    options = [f"--build-arg={key}={value}" for key, value in {"EXTRA_CA": EXTRA_CA, **arguments}.items()]
    command = [docker, "build", "--network=host", "--file=lambda/Dockerfile", "--tag=litelens-test-arm", *options, "."]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def arm(docker: str) -> dict[str, str]:
    """Build arguments for Arm."""
    # Not a failure in CI: emulating Arm takes a quarter of an hour, and not every machine can get the base image.
    if not ARM_BASE_IMAGE:
        pytest.skip("LITELENS_ARM_BASE_IMAGE does not name a base image for arm64")
    return {"BASE_IMAGE": ARM_BASE_IMAGE}


@pytest.fixture(scope="module", params=["this machine", "arm"])
def ran(docker: str, request: pytest.FixtureRequest) -> subprocess.CompletedProcess[str]:
    """The output of SCRIPT in the image on a machine that hides its CPUs."""
    this_machine = {"BASE_IMAGE": BASE_IMAGE, "CPUS_HIDDEN_ON": platform.machine()}
    arguments = request.getfixturevalue("arm") if request.param == "arm" else this_machine
    done = build(docker, ENGINE="litert", **arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    command = [
        *(docker, "run", "--rm", "--network=none", "--user=993:990", "--read-only", CPU),
        *("--tmpfs=/sys/devices/system/cpu", "--entrypoint=python3", "litelens-test-arm", "-c", SCRIPT),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)


def test_with_hidden_cpus_litert_reads_the_lists_in_the_image(ran: subprocess.CompletedProcess[str]) -> None:
    assert json.loads(ran.stdout)["opened"] == ["possible", "present"]
    assert "Error in cpuinfo" not in ran.stderr


def test_with_hidden_cpus_the_fast_code_gives_the_same_answer(ran: subprocess.CompletedProcess[str]) -> None:
    assert "XNNPACK delegate" in ran.stderr
    bundle = load_bundle(DEFAULT_BUNDLE)
    levels = np.resize(np.arange(-128, 128, dtype=np.int8), bundle.tensors[IMAGE].shape)
    expected = {name: value.tolist() for name, value in load_engine("litert", bundle, 1).run(levels).items()}
    assert json.loads(ran.stdout)["outputs"] == expected


def test_an_image_for_a_machine_that_lists_its_cpus_has_no_lists(docker: str) -> None:
    require(platform.machine() == "x86_64", "Lambda hides the CPUs of this kind of machine")
    command = [docker, "run", "--rm", "--entrypoint=ls", build_image(docker, "litert")]
    assert "cpu" not in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_a_build_with_openvino_for_arm_is_refused_with_the_alternatives(docker: str, arm: dict[str, str]) -> None:
    done = build(docker, ENGINE="openvino", **arm)
    assert done.returncode != 0
    assert "Choose the engine litert, or the architecture x86_64." in done.stdout + done.stderr


@pytest.mark.parametrize(("engine", "found"), [("litert", True), ("openvino", False)])
def test_the_locked_packages_of_litert_fit_lambda_on_arm_and_those_of_openvino_do_not(
    engine: str, found: bool, tmp_path: Path
) -> None:
    """Lambda's base images are Amazon Linux 2023, which has glibc 2.34."""
    command = [
        *(Path(sys.executable).parent / "uv", "pip", "install", "--no-config", "--dry-run", f"--target={tmp_path}"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.13"),
        *("--python-platform=aarch64-manylinux_2_34", f"--requirements=requirements/image-{engine}.txt"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == found, done.stderr
    assert found or re.search(r"openvino.* no wheels with a matching platform tag", done.stderr)


def test_libraries_that_do_not_read_the_lists_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "libLiteRt.so").write_bytes(b"/proc/cpuinfo\0")
    with pytest.raises(SystemExit, match="check whether Lambda on Arm still needs this script"):
        cpu_lists.put_lists(tmp_path, "/var/task")


def test_a_path_that_is_too_long_for_the_libraries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it may have 19 characters"):
        cpu_lists.put_lists(tmp_path, "/a/path/of/too/many/characters")
