"""schemathesis on a running server: it answers valid and invalid requests as the OpenAPI document says."""

import os
import subprocess
import sys
from pathlib import Path

from servers import API_KEY, Deployment
from support import ROOT

PROGRAM = str(Path(sys.executable).parent / "schemathesis")


def test_schemathesis_finds_no_failure(deployment: Deployment, tmp_path: Path) -> None:
    command = [
        *(PROGRAM, "run", f"{deployment.url}/openapi.json", f"--url={deployment.url}"),
        *(f"--header=x-api-key: {API_KEY}", "--seed=1", "--max-examples=60", "--no-color"),
        # TRACE never reaches a handler: API Gateway answers it with 403, and so does its stand-in.
        "--exclude-checks=unsupported_method",
    ]
    path = f"{ROOT / 'lambda'}:{ROOT / 'tests'}"
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "runtime.schemathesis_hooks", "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Tested: 8" in done.stdout
