"""The README's calls, run as they are written, against a server that has all that a deployment can have."""

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
CALLS = [block for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL) if "$API/" in block]
(ANSWER,) = re.findall(r"^```json\n([^`]*)\n```", README, re.MULTILINE)


def commands(block: str) -> list[str]:
    """The commands of a block: a line, or several where the first ones end with a pipe or a backslash."""
    return re.findall(r"(?:^.+[|\\\\]\n)*^.+$", block, re.MULTILINE)


def run(command: str, deployment: Deployment) -> str:
    for program in ("curl", "jq"):
        require(shutil.which(program), f"there is no {program} here")
    environment = {**os.environ, "API": deployment.url, "KEY": API_KEY}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def answers(command: str, deployment: Deployment) -> Any:
    return json.loads(run(command, deployment))


@pytest.mark.parametrize("command", commands(CALLS[0]))
def test_every_way_to_send_an_image_gets_the_answer_that_is_shown(command: str, deployment: Deployment) -> None:
    answer, shown = answers(command, deployment), json.loads(ANSWER)
    assert list(answer) == list(shown)
    assert answer["model"] == shown["model"]
    assert answer["uncertain"] == shown["uncertain"]
    # Kernels for other processors may round otherwise.
    confidences = {p["label"]: (p["confidence"], p["group"]) for p in answer["predictions"]}
    for prediction in shown["predictions"][:2]:
        assert confidences[prediction["label"]] == (
            pytest.approx(prediction["confidence"], abs=0.1),
            prediction["group"],
        )


def test_options_and_several_images(deployment: Deployment) -> None:
    with_map, several = (answers(command, deployment) for command in commands(CALLS[1]))
    assert with_map["heatmap"]["label"] == "lynx"
    assert len(with_map["predictions"]) == 1
    assert [result["status"] for result in several["results"]] == ["done", "failed"]
    assert several["results"][1]["problem"]["code"] == "object_not_found"


def test_a_large_image_goes_by_upload(deployment: Deployment) -> None:
    ask, upload, fetch = commands(CALLS[2])
    run(ask, deployment)
    assert answers(fetch, deployment)["result"] == {"status": "pending"}
    assert run(upload, deployment) == ""
    classify_uploads(deployment.settings)
    assert answers(fetch, deployment)["result"]["status"] == "done"


def test_the_other_routes(deployment: Deployment) -> None:
    describe, model, report, health, document = commands(CALLS[3])
    assert answers(describe, deployment)["answer"] == "A rocket beside its tower."
    assert answers(model, deployment)["manifest"]["name"] == DEFAULT_MODEL
    assert run(report, deployment).startswith("<!doctype html>")
    assert answers(health, deployment)["status"] == "ok"
    assert answers(document, deployment)["openapi"] == "3.1.0"


def test_these_are_all_calls() -> None:
    assert [len(commands(block)) for block in CALLS] == [3, 2, 3, 5]


def test_the_command_line_asks_the_api(deployment: Deployment) -> None:
    (block,) = re.findall(r"^```sh\n(\S*litelens classify .*?)^```", README, re.MULTILINE | re.DOTALL)
    command = block.replace(".venv/bin/litelens", f"{sys.executable} -m client")
    (percent,) = re.findall(r"Egyptian cat.*?([\d.]+)%", run(command, deployment))
    # Kernels for another CPU may round otherwise.
    assert float(percent) == pytest.approx(62.8, abs=10)
