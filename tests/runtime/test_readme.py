"""The README's calls, run as they are written."""

import json
import re
import shutil
import subprocess

import pytest
from support import ROOT, require

README = (ROOT / "README.md").read_text()
CALLS = re.findall(r"^```sh\n([^`]*127\.0\.0\.1:8080[^`]*/v1/classify)\n```", README, re.MULTILINE)
(ANSWER,) = re.findall(r"^```json\n([^`]*)\n```", README, re.MULTILINE)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_gets_the_answer_that_the_readme_shows(call: str, port: int) -> None:
    require(shutil.which("curl"), "there is no curl here")
    here = call.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    done = subprocess.run(here, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    shown = json.loads(ANSWER)
    assert list(answer) == list(shown)
    assert answer["model"] == shown["model"]
    assert answer["uncertain"] == shown["uncertain"]
    # Kernels for other processors may round otherwise.
    confidences = {p["label"]: p["confidence"] for p in answer["predictions"]}
    for prediction in shown["predictions"][:2]:
        assert confidences[prediction["label"]] == pytest.approx(prediction["confidence"], abs=0.1)


def test_both_ways_to_call_are_shown() -> None:
    assert len(CALLS) == 2
