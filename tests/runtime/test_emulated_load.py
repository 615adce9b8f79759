"""The load test against the deployed handler in Lambda's runtime emulator, and against `make run`."""

import json
import subprocess
import sys
from typing import Any

from servers import API_KEY, serving
from support import ROOT

FEW = ["--rates", "2,4", "--seconds", "1", "--arrivals", "constant", "--json"]


def measured(*arguments: str, **variables: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.load", *FEW, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    steps: list[dict[str, Any]] = json.loads(done.stdout)
    return steps


def test_every_request_to_emulated_functions_is_answered() -> None:
    for step, requests in zip(measured("--workers", "2"), (2, 4), strict=True):
        assert step["requests"] == step["answered"] == requests
        assert step["errors"] == {}
        assert 0 < step["p50"] <= step["most"]


def test_every_request_to_an_api_with_a_key_is_answered() -> None:
    with serving(API_KEY=API_KEY) as port:
        steps = measured("--url", f"http://127.0.0.1:{port}", "--api-key", API_KEY)
    assert [step["answered"] for step in steps] == [2, 4]
