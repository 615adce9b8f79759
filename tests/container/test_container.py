"""The container image, run as Lambda runs it: an unknown user, a read-only file system, one core's memory."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import LambdaContext, answer_of, free_port, post_json, recorded_event, running

from handlers.api import handler

Invoke = Callable[[Any], Any]


def inside(docker: str, image: str, script: str) -> str:
    """What a shell script prints inside a fresh container."""
    command = [docker, "run", "--rm", "--network=none", "--entrypoint=sh", image, "-c", script]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


@pytest.fixture(scope="module")
def invoke(docker: str, image: str, emulator: Path) -> Iterator[Invoke]:
    port = free_port()
    name = f"litelens-test-{port}"
    command = [
        *(docker, "run", "--rm", f"--name={name}", f"--publish=127.0.0.1:{port}:8080"),
        *("--user=993:990", "--read-only", "--tmpfs=/tmp", "--memory=1769m", "--cap-drop=ALL"),
        *(f"--volume={emulator}:/emulator:ro", "--entrypoint=/emulator", image),
        *("python3", "-m", "awslambdaric", "handlers.api.handler"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, ready=address):
        try:
            yield lambda event: post_json(f"{address}/2015-03-31/functions/function/invocations", event)
        finally:
            subprocess.run([docker, "rm", "--force", name], capture_output=True)


def test_it_predicts_what_the_handler_predicts(invoke: Invoke) -> None:
    event = recorded_event("classify_jpeg")
    expected = answer_of(handler(event, LambdaContext()))["predictions"]
    answers = [invoke(event), invoke(event)]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    assert [answer_of(answer)["predictions"] for answer in answers] == [expected, expected]


def test_bad_input_is_refused_and_the_next_image_classified(invoke: Invoke) -> None:
    assert invoke(recorded_event("classify_truncated_jpeg"))["statusCode"] == 422
    assert invoke(recorded_event("classify_json"))["statusCode"] == 200


def test_it_holds_the_handler_the_model_and_their_dependencies_only(docker: str, image: str) -> None:
    held = set(inside(docker, image, "ls $LAMBDA_TASK_ROOT").split())
    assert {"handlers", "litelens", "settings.py", "model", "ai_edge_litert", "aws_lambda_powertools"} <= held
    assert not held & {"tensorflow", "keras", "training", "tests", "uvicorn", "requirements.txt", "models"}
    assert set(inside(docker, image, "ls $LITELENS_BUNDLE").split()) == {
        "manifest.json",
        "metrics.json",
        "model.tflite",
        "report.html",
    }


def test_any_user_can_read_everything_and_nothing_is_left_to_compile(docker: str, image: str) -> None:
    unreadable = "find $LAMBDA_TASK_ROOT ! -perm -o=r -o -type d ! -perm -o=x"
    assert inside(docker, image, unreadable) == ""
    compiled = inside(docker, image, "ls $LAMBDA_TASK_ROOT/litelens/__pycache__ $LAMBDA_TASK_ROOT/handlers/__pycache__")
    assert compiled.count(".pyc") >= 8


def test_no_compiler_cache_or_certificate_of_the_build_is_left(docker: str, image: str) -> None:
    assert inside(docker, image, "command -v gcc cc make || true") == ""
    assert inside(docker, image, "ls -A /tmp; ls -d ~/.cache/pip 2>/dev/null || true") == ""
    history = subprocess.run([docker, "history", "--no-trunc", image], check=True, capture_output=True, text=True)
    assert "CERTIFICATE" not in history.stdout
