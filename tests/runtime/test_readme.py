"""The calls of the API in the README, run against a server with all features."""

import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from bulk import classify_uploads
from servers import API_KEY, Deployment
from support import ROOT, require

from litelens.settings import DEFAULT_MODEL

README = (ROOT / "README.md").read_text()
# The blocks with calls.
CALLS = [block for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL) if "$API/" in block]
(ANSWER,) = re.findall(r"^```json\n([^`]*)\n```", README, re.MULTILINE)


def commands(block: str) -> list[str]:
    """Return the commands of a block; lines that end with a pipe or a backslash continue on the next line."""
    return re.findall(r"(?:^.+[|\\\\]\n)*^.+$", block, re.MULTILINE)


def run(command: str, deployment: Deployment) -> str:
    for program in ("curl", "jq"):
        require(shutil.which(program), f"{program} is not installed")
    environment = {**os.environ, "API": deployment.url, "KEY": API_KEY}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def answer_to(command: str, deployment: Deployment) -> Any:
    return json.loads(run(command, deployment))


@pytest.mark.parametrize("command", commands(CALLS[0]))
def test_each_call_with_an_image_gets_the_answer_in_the_readme(command: str, deployment: Deployment) -> None:
    answer, shown = answer_to(command, deployment), json.loads(ANSWER)
    assert list(answer) == list(shown)
    assert answer["model"] == shown["model"]
    assert answer["uncertain"] == shown["uncertain"]
    # Kernels for other CPUs may round differently.
    confidences = {p["label"]: (p["confidence"], p["group"]) for p in answer["predictions"]}
    for prediction in shown["predictions"][:2]:
        assert confidences[prediction["label"]] == (
            pytest.approx(prediction["confidence"], abs=0.1),
            prediction["group"],
        )


def test_the_calls_with_options_and_several_images_work(deployment: Deployment) -> None:
    with_model, with_map, several = (answer_to(command, deployment) for command in commands(CALLS[1]))
    assert with_model["model"]["name"] == DEFAULT_MODEL
    assert with_map["heatmap"]["label"] == "lynx"
    assert len(with_map["predictions"]) == 1
    assert [result["status"] for result in several["results"]] == ["done", "failed"]
    assert several["results"][1]["problem"]["code"] == "object_not_found"


def test_the_calls_for_an_upload_lead_to_a_result(deployment: Deployment) -> None:
    ask, upload, fetch = commands(CALLS[2])
    run(ask, deployment)
    assert answer_to(fetch, deployment)["result"] == {"status": "pending"}
    assert run(upload, deployment) == ""
    classify_uploads(deployment.settings)
    assert answer_to(fetch, deployment)["result"]["status"] == "done"


def test_the_calls_of_the_other_endpoints_work(deployment: Deployment) -> None:
    describe, models, model, report, health, document = commands(CALLS[3])
    assert answer_to(models, deployment)["default"] == DEFAULT_MODEL
    assert answer_to(describe, deployment)["answer"] == "A rocket beside its tower."
    assert answer_to(model, deployment)["manifest"]["name"] == DEFAULT_MODEL
    assert run(report, deployment).startswith("<!doctype html>")
    assert answer_to(health, deployment)["status"] == "ok"
    assert answer_to(document, deployment)["openapi"] == "3.1.0"


def test_there_is_a_test_for_each_block_of_calls() -> None:
    assert len(CALLS) == 4


def test_the_call_of_the_command_prints_the_answer_in_the_readme(deployment: Deployment) -> None:
    (block,) = re.findall(r"^```sh\n(\S*litelens classify .*?)^```", README, re.MULTILINE | re.DOTALL)
    command = block.replace(".venv/bin/litelens", f"{sys.executable} -m litelens_client")
    (percent,) = re.findall(r"Egyptian cat.*?([\d.]+)%", run(command, deployment))
    assert float(percent) == pytest.approx(100 * json.loads(ANSWER)["predictions"][0]["confidence"], abs=10)
