"""Servers for tests: `litelens serve`, without AWS or with all features."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from aws import ENVIRONMENT as FAKE_CREDENTIALS
from bulk import new_settings
from converse import ConverseServer, converse_server
from support import CAT, DEFAULT_BUNDLE, ROOT, free_port, running

from litelens.settings import Settings

# The key of the server with all features.
API_KEY = "key-of-the-tests"

ENVIRONMENT = {**os.environ, "PYTHONPATH": "lambda:client:.", "LITELENS_BUNDLE": str(DEFAULT_BUNDLE)}


@dataclass(frozen=True)
class Deployment:
    """A running server with all features: a key, s3://photos/cat.jpg, uploads and a language model."""

    port: int
    settings: Settings
    converse: ConverseServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def serve_command(port: int) -> list[str]:
    """Return the command of `make run`."""
    return [sys.executable, "-m", "litelens_client", "serve", "--port", str(port)]


@contextmanager
def run_server(**variables: str) -> Iterator[int]:
    """Run `litelens serve` with these environment variables until the block ends; yields its port."""
    port = free_port()
    with running(serve_command(port), ready=f"http://127.0.0.1:{port}", cwd=ROOT, env={**ENVIRONMENT, **variables}):
        yield port


@contextmanager
def run_deployment(moto_server: str) -> Iterator[Deployment]:
    """Run a server with all features until the block ends."""
    from litelens.aws.s3 import s3_client

    settings = new_settings()
    assert settings.upload_bucket
    assert settings.results_table
    s3_client().create_bucket(Bucket="photos")
    s3_client().put_object(Bucket="photos", Key="cat.jpg", Body=CAT.read_bytes())
    with (
        converse_server() as converse,
        run_server(
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
