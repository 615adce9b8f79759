import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import botocore.loaders
import botocore.session
import hypothesis
import numpy as np
import pytest
from aws import aws_at
from servers import Deployment, run_deployment, run_server
from support import DATA, DEFAULT_BUNDLE, LambdaContext, require

from local.aws import serve_aws
from local.emulator import install_emulator

os.environ["LITELENS_BUNDLE"] = str(DEFAULT_BUNDLE)

# On a busy machine, generating inputs is slow.
hypothesis.settings.register_profile("patient", suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")

# Treat SIGTERM like Ctrl-C, so that fixtures stop their servers.
signal.signal(signal.SIGTERM, signal.default_int_handler)
# A shell's background job ignores SIGINT, and its children inherit that; tests send them SIGINT.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Otherwise every boto3 session parses AWS's service descriptions again: a third of the unit tests' time.
botocore.session.create_loader = functools.cache(botocore.loaders.create_loader)

Handle = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session")
def handle() -> Handle:
    """The deployed handler, invoked with a Lambda context."""
    from litelens.api.handler import handler

    return lambda event: handler(event, LambdaContext())


@pytest.fixture(scope="session")
def cifar100(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of CIFAR-100 in Keras' npz layout."""
    require((DATA / "cifar100").is_dir(), f"CIFAR-100 is not at {DATA}; LITELENS_DATA names another folder")
    path = tmp_path_factory.mktemp("cifar100") / "cifar100.npz"
    subprocess.run([sys.executable, DATA / "to_npz.py", path], check=True, capture_output=True)
    return path


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the emulator, which ships inside aws-sam-cli."""
    require(sys.platform == "linux", "the runtime interface emulator runs on Linux only")
    return install_emulator(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[str]:
    """The base URL of a moto server; boto3 uses it until the session ends."""
    with serve_aws() as url, aws_at(url):
        yield url


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """The port of a running server without AWS."""
    with run_server() as port:
        yield port


@pytest.fixture(scope="session")
def deployment(moto_server: str) -> Iterator[Deployment]:
    with run_deployment(moto_server) as deployment:
        yield deployment


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(7)
