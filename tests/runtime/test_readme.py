"""The README's calls, run as they are written."""

import json
import re
import subprocess
from typing import Any

import pytest
from support import ROOT

README = (ROOT / "README.md").read_text()
CALLS = re.findall(r"^```sh\n([^`]*127\.0\.0\.1:8080[^`]*/v1/classify)\n```", README, re.MULTILINE)
(ANSWER,) = re.findall(r"^```json\n([^`]*)\n```", README, re.MULTILINE)


def steady(answer: dict[str, Any]) -> dict[str, Any]:
    """The parts of an answer that are the same each time."""
    return {name: answer[name] for name in ("model", "predictions", "uncertain")}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_gets_the_answer_that_the_readme_shows(call: str, port: int) -> None:
    here = call.replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    done = subprocess.run(here, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=60)
    answer = json.loads(done.stdout)
    assert list(answer) == list(json.loads(ANSWER))
    assert steady(answer) == steady(json.loads(ANSWER))


def test_both_ways_to_call_are_shown() -> None:
    assert len(CALLS) == 2
