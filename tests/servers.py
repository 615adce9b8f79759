"""Servers that tests of several kinds talk to."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aws import ENVIRONMENT as FAKE_CREDENTIALS
from bulk import new_settings
from converse import ConverseServer, converse_server
from support import CAT, DEFAULT_BUNDLE, ROOT, free_port, running

from settings import Settings

# Of the server that asks for one.
API_KEY = "key-of-the-tests"

ENVIRONMENT = {**os.environ, "PYTHONPATH": "lambda:.", "LITELENS_BUNDLE": str(DEFAULT_BUNDLE)}


@dataclass(frozen=True)
class Deployment:
    """A running server with all features: a key, s3://photos/cat.jpg, uploads and a language model."""

    port: int
    settings: Settings
    converse: ConverseServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def serve(port: int) -> list[str]:
    """The command behind `make run`."""
    return [sys.executable, "-m", "local.gateway", "--port", str(port)]


@contextmanager
def serving(**variables: str) -> Iterator[int]:
    """The port of `make run` with these variables, until the block ends."""
    port = free_port()
    with running(serve(port), ready=f"http://127.0.0.1:{port}", cwd=ROOT, env={**ENVIRONMENT, **variables}):
        yield port


@contextmanager
def deployed(moto_server: str) -> Iterator[Deployment]:
    """All that there can be, until the block ends."""
    from adapters.objects import s3_client

    settings = new_settings()
    assert settings.upload_bucket
    assert settings.results_table
    s3_client().create_bucket(Bucket="photos")
    s3_client().put_object(Bucket="photos", Key="cat.jpg", Body=CAT.read_bytes())
    with (
        converse_server() as converse,
        serving(
            **{**FAKE_CREDENTIALS, **converse.environment},
            API_KEY=API_KEY,
            AWS_ENDPOINT_URL=moto_server,
            LITELENS_BUCKETS="photos",
            LITELENS_UPLOAD_BUCKET=settings.upload_bucket,
            LITELENS_RESULTS_TABLE=settings.results_table,
            LITELENS_DESCRIBE_MODEL="a-model",
        ) as port,
    ):
        yield Deployment(port, settings, converse)
