import os
import shutil
import subprocess

import pytest
from support import ROOT, require

BASE_IMAGE = os.environ.get("LITELENS_BASE_IMAGE", "public.ecr.aws/lambda/python:3.13")
EXTRA_CA = os.environ.get("LITELENS_EXTRA_CA", "")


@pytest.fixture(scope="session")
def docker() -> str:
    """The path of the docker command, with a running engine."""
    program = shutil.which("docker")
    answers = program and subprocess.run([program, "info"], capture_output=True).returncode == 0
    require(answers, "no Docker engine answers on this machine")
    assert program
    return program


def build_image(docker: str, engine: str) -> str:
    """Build lambda/Dockerfile with an engine and the default model, and return the image's name."""
    name = f"litelens-test-{engine}"
    arguments = {"BASE_IMAGE": BASE_IMAGE, "EXTRA_CA": EXTRA_CA, "ENGINE": engine}
    options = [f"--build-arg={key}={value}" for key, value in arguments.items()]
    # sam uses the classic builder and then finds these layers in its cache.
    subprocess.run(
        [docker, "build", "--network=host", "--file=lambda/Dockerfile", f"--tag={name}", *options, "."],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0"},
        check=True,
    )
    return name
