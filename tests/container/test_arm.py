"""The image where Lambda hides the CPUs, as it does on Arm: built so for this machine, and for Arm where that runs."""

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
from litelens.bundle import IMAGE, load_bundle
from litelens.engines import load_engine

# Names a base image for arm64 on a machine that can run it, by emulation too.
ARM_BASE_IMAGE = os.environ.get("LITELENS_ARM_BASE_IMAGE", "")

# Where QEMU emulates Arm, it is to be a Graviton2: its default CPU has SME, with which LiteRT answers otherwise there.
CPU = "--env=QEMU_CPU=neoverse-n1"

# Prints LiteRT's outputs for rising pixel values, the CPU lists in the image that it opened, and LiteRT's own log,
# which litelens hides. An inotify event here is four numbers of four bytes, the first of which identifies the watched
# file; 0x20 is IN_OPEN.
SCRIPT = """
import ctypes, json, os
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from litelens import bundle, engines

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
    """What Docker said as it built the image litelens-test-arm from lambda/Dockerfile."""
    options = [f"--build-arg={key}={value}" for key, value in {"EXTRA_CA": EXTRA_CA, **arguments}.items()]
    command = [docker, "build", "--network=host", "--file=lambda/Dockerfile", "--tag=litelens-test-arm", *options, "."]
    environment = {**os.environ, "DOCKER_BUILDKIT": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def arm(docker: str) -> dict[str, str]:
    """The arguments of a build for Arm."""
    # Not a failure in CI: emulating Arm takes a quarter of an hour, and a base image that not every machine can have.
    if not ARM_BASE_IMAGE:
        pytest.skip("LITELENS_ARM_BASE_IMAGE does not name a base image for arm64")
    return {"BASE_IMAGE": ARM_BASE_IMAGE}


@pytest.fixture(scope="module", params=["this machine", "arm"])
def ran(docker: str, request: pytest.FixtureRequest) -> subprocess.CompletedProcess[str]:
    """What the image printed where Lambda hides the CPUs."""
    this_machine = {"BASE_IMAGE": BASE_IMAGE, "CPUS_HIDDEN_ON": platform.machine()}
    arguments = request.getfixturevalue("arm") if request.param == "arm" else this_machine
    done = build(docker, ENGINE="litert", **arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    command = [
        *(docker, "run", "--rm", "--network=none", "--user=993:990", "--read-only", CPU),
        *("--tmpfs=/sys/devices/system/cpu", "--entrypoint=python3", "litelens-test-arm", "-c", SCRIPT),
    ]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)


def test_with_the_cpus_hidden_litert_reads_the_lists_in_the_image(ran: subprocess.CompletedProcess[str]) -> None:
    assert json.loads(ran.stdout)["opened"] == ["possible", "present"]
    assert "Error in cpuinfo" not in ran.stderr


def test_with_the_cpus_hidden_the_fast_code_gives_the_same_answer(ran: subprocess.CompletedProcess[str]) -> None:
    assert "XNNPACK delegate" in ran.stderr
    bundle = load_bundle(DEFAULT_BUNDLE)
    levels = np.resize(np.arange(-128, 128, dtype=np.int8), bundle.tensors[IMAGE].shape)
    expected = {name: value.tolist() for name, value in load_engine("litert", bundle, 1).run(levels).items()}
    assert json.loads(ran.stdout)["outputs"] == expected


def test_an_image_for_a_machine_that_shows_its_cpus_has_no_lists_of_its_own(docker: str) -> None:
    require(platform.machine() == "x86_64", "Lambda hides the CPUs on this kind of machine")
    command = [docker, "run", "--rm", "--entrypoint=ls", build_image(docker, "litert")]
    assert "cpu" not in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def test_openvino_for_arm_is_refused_with_what_to_choose(docker: str, arm: dict[str, str]) -> None:
    done = build(docker, ENGINE="openvino", **arm)
    assert done.returncode != 0
    assert "Choose the engine litert, or the architecture x86_64." in done.stdout + done.stderr


@pytest.mark.parametrize(("engine", "found"), [("litert", True), ("openvino", False)])
def test_the_locked_packages_that_fit_lambda_on_arm_are_those_of_litert(
    engine: str, found: bool, tmp_path: Path
) -> None:
    """Amazon Linux 2023, which Lambda's base images are made of, has glibc 2.34."""
    command = [
        *(Path(sys.executable).parent / "uv", "pip", "install", "--no-config", "--dry-run", f"--target={tmp_path}"),
        *("--no-deps", "--require-hashes", "--only-binary=:all:", "--python-version=3.13"),
        *("--python-platform=aarch64-manylinux_2_34", f"--requirements=lambda/requirements-{engine}.txt"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == found, done.stderr
    assert found or re.search(r"openvino.* no wheels with a matching platform tag", done.stderr)


def test_libraries_that_read_no_lists_are_not_passed_over_in_silence(tmp_path: Path) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "libLiteRt.so").write_bytes(b"/proc/cpuinfo\0")
    with pytest.raises(SystemExit, match="look whether Lambda on Arm still needs this"):
        cpu_lists.put_lists(tmp_path, "/var/task")


def test_a_path_that_does_not_fit_into_the_libraries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="it may have 19 characters"):
        cpu_lists.put_lists(tmp_path, "/a/path/of/too/many/characters")
