import os
import sys
from collections.abc import Iterator

import pytest
from support import BUNDLE, ROOT, free_port, running

ENVIRONMENT = {**os.environ, "PYTHONPATH": "lambda:.", "LITELENS_BUNDLE": str(BUNDLE)}


def serve(port: int) -> list[str]:
    """The command behind `make run`."""
    return [sys.executable, "-m", "local.gateway", "--port", str(port)]


@pytest.fixture(scope="session")
def port() -> Iterator[int]:
    """Where a running server listens."""
    port = free_port()
    with running(serve(port), ready=f"http://127.0.0.1:{port}", cwd=ROOT, env=ENVIRONMENT):
        yield port
