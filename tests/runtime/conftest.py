import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from aws import ENVIRONMENT as FAKE_CREDENTIALS
from bulk import new_settings
from converse import ConverseServer, converse_server
from support import BUNDLE, ROCKET, ROOT, free_port, running

from settings import Settings

# Of the server that asks for one.
API_KEY = "key-of-the-tests"

ENVIRONMENT = {**os.environ, "PYTHONPATH": "lambda:.", "LITELENS_BUNDLE": str(BUNDLE)}


@dataclass(frozen=True)
class Deployment:
    """A running server with a key, s3://photos/rocket.jpg, uploads and a language model: all that there can be."""

    port: int
    settings: Settings
    converse: ConverseServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def serve(port: int) -> list[str]:
    """The command behind `make run`."""
    return [sys.executable, "-m", "local.gateway", "--port", str(port)]


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """Where a running server listens that has nothing but the bundle."""
    port = free_port()
    with running(serve(port), ready=f"http://127.0.0.1:{port}", cwd=ROOT, env=ENVIRONMENT):
        yield port


@pytest.fixture(scope="session")
def deployment(moto_server: str) -> Iterator[Deployment]:
    from adapters.objects import s3_client

    settings, port = new_settings(), free_port()
    assert settings.upload_bucket
    assert settings.results_table
    s3_client().create_bucket(Bucket="photos")
    s3_client().put_object(Bucket="photos", Key="rocket.jpg", Body=ROCKET.read_bytes())
    with converse_server() as converse:
        environment = {
            **ENVIRONMENT,
            **FAKE_CREDENTIALS,
            **converse.environment,
            "AWS_ENDPOINT_URL": moto_server,
            "LITELENS_BUCKETS": "photos",
            "LITELENS_UPLOAD_BUCKET": settings.upload_bucket,
            "LITELENS_RESULTS_TABLE": settings.results_table,
            "LITELENS_DESCRIBE_MODEL": "a-model",
        }
        command = [*serve(port), f"--api-key={API_KEY}"]
        with running(command, ready=f"http://127.0.0.1:{port}", cwd=ROOT, env=environment):
            yield Deployment(port, settings, converse)
