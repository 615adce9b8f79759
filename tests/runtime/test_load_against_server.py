"""The load test against the local server."""

import json
import subprocess
import sys

from servers import API_KEY, run_server
from support import ROOT

from benchmarks.load import arrivals


def test_every_request_to_an_api_with_a_key_is_answered() -> None:
    with run_server(API_KEY=API_KEY) as port:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.load", "--rates", "2,4", "--seconds", "1", "--json"),
                *("--url", f"http://127.0.0.1:{port}", "--api-key", API_KEY),
            ],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
    steps = json.loads(done.stdout)
    assert [step["answered"] for step in steps] == [len(arrivals(rate, 1)) for rate in (2, 4)]
    assert all(0 < step["p50"] <= step["longest"] for step in steps)
