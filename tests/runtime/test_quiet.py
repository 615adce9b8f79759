"""The command and the server print their own lines only, and no log lines of their libraries."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from servers import ENVIRONMENT, serve_command
from support import ROCKET, ROOT, free_port, running


def test_classifying_on_this_machine_prints_only_labels() -> None:
    command = [sys.executable, "-m", "litelens_client", "classify", str(ROCKET)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "%" in done.stdout


def test_serving_prints_nothing_on_standard_error(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        (tmp_path / "stderr").open("wb") as stderr,
        running(serve_command(port), ready=url, cwd=ROOT, env=ENVIRONMENT, stderr=stderr),
    ):
        request = urllib.request.Request(f"{url}/v1/classify", ROCKET.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200
    assert (tmp_path / "stderr").read_text() == ""


def test_serving_logs_a_line_for_each_request_or_json(tmp_path: Path) -> None:
    assert re.fullmatch(r"POST /v1/classify 200 \d+ ms  .+ 0\.\d\d( uncertain)?", served(tmp_path)[-1])
    line = json.loads(served(tmp_path, "--log-json")[-1])
    assert (line["message"], line["level"]) == ("classified", "INFO")


def served(tmp_path: Path, *options: str) -> list[str]:
    """Return the lines that the server prints when it classifies a photo."""
    port = free_port()
    url, log = f"http://127.0.0.1:{port}", tmp_path / "stdout"
    with (
        log.open("wb") as stdout,
        running([*serve_command(port), *options], ready=url, cwd=ROOT, env=ENVIRONMENT, stdout=stdout),
    ):
        request = urllib.request.Request(f"{url}/v1/classify", ROCKET.read_bytes(), {"Content-Type": "image/jpeg"})
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 200
    return log.read_text().splitlines()
