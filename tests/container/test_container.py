"""The container image, run as Lambda runs it: an unknown user, a read-only file system, one core's memory."""

import dataclasses
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from container.conftest import BASE_IMAGE, build_image
from support import DEFAULT_BUNDLE, LambdaContext, answer_of, free_port, post_json, recorded_event, running

from litelens.api.handler import create_handler
from litelens.aws.clients import Service
from litelens.core.bundle import load_bundle
from litelens.core.engines import ENGINES
from litelens.settings import read_settings

Invoke = Callable[[Any], Any]

PACKAGES = {"litert": "ai_edge_litert", "openvino": "openvino"}
LARGEST_LAYER = {"litert": 102_000_000, "openvino": 181_000_000}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine in the image."""
    return str(request.param)


@pytest.fixture(scope="module")
def image(docker: str, engine: str) -> str:
    return build_image(docker, engine)


def inside(docker: str, image: str, script: str) -> str:
    """Run a shell script in a new container and return its output."""
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
        *("python3", "-m", "awslambdaric", "litelens.api.handler.handler"),
    ]
    address = f"http://127.0.0.1:{port}"
    with running(command, ready=address):
        try:
            yield lambda event: post_json(f"{address}/2015-03-31/functions/function/invocations", event)
        finally:
            subprocess.run([docker, "rm", "--force", name], capture_output=True)


def test_it_predicts_what_the_handler_predicts(invoke: Invoke, engine: str) -> None:
    event = recorded_event("classify_jpeg")
    handler = create_handler(dataclasses.replace(read_settings(), engine=engine))
    expected = answer_of(handler(event, LambdaContext()))["predictions"]
    answers = [invoke(event), invoke(event)]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    assert [answer_of(answer)["predictions"] for answer in answers] == [expected, expected]


def test_bad_input_is_refused_and_the_next_image_classified(invoke: Invoke) -> None:
    assert invoke(recorded_event("classify_truncated_jpeg"))["statusCode"] == 422
    assert invoke(recorded_event("classify_json"))["statusCode"] == 200


def test_it_holds_the_handler_the_model_and_their_dependencies_only(docker: str, image: str, engine: str) -> None:
    held = set(inside(docker, image, "ls $LAMBDA_TASK_ROOT").split())
    assert {"litelens", "model", "aws_lambda_powertools"} <= held
    assert held & {"ai_edge_litert", "openvino"} == {PACKAGES[engine]}
    assert not held & {"tensorflow", "keras", "training", "tests", "uvicorn", "requirements.txt", "models"}
    of_model = {path for path in inside(docker, image, "ls $LITELENS_BUNDLE").split() if not path.endswith(".openvino")}
    assert of_model == {"golden", "manifest.json", "metrics.json", "model.tflite", "report.html"}


def test_the_default_model_is_the_only_one_in_it(docker: str, image: str) -> None:
    models = inside(docker, image, "find / -name '*.tflite' -exec sha256sum {} + 2>/dev/null || true").split("\n")[:-1]
    assert [line.split()[0] for line in models] == [load_bundle(DEFAULT_BUNDLE).sha256]


def test_what_openvino_makes_of_the_model_is_in_the_image(docker: str, image: str, engine: str) -> None:
    compiled = inside(docker, image, "ls $LITELENS_BUNDLE | grep -c openvino || true").strip()
    assert compiled == {"openvino": "1", "litert": "0"}[engine]


def test_the_layer_above_the_base_image_is_small(docker: str, image: str, engine: str) -> None:
    sizes = [
        int(
            subprocess.run(
                [docker, "image", "inspect", "--format={{.Size}}", name], check=True, capture_output=True
            ).stdout
        )
        for name in (BASE_IMAGE, image)
    ]
    assert sizes[1] - sizes[0] <= LARGEST_LAYER[engine]


def test_a_start_imports_no_telemetry_and_no_client_of_aws(docker: str, image: str) -> None:
    """OpenVINO's package would tell its makers that it was imported; boto3 takes longer than all the rest."""
    modules = set(inside(docker, image, 'python3 -c "import litelens.api.handler, sys; print(*sys.modules)"').split())
    assert not {module for module in modules if "telemetry" in module}
    assert not modules & {"boto3", "botocore.session", "botocore.client"}


def test_all_that_the_function_can_be_asked_for_is_left_in_the_packages(docker: str, image: str) -> None:
    used = (
        "import litelens.bulk.handler, litelens.api.docs, litelens.release.hook, boto3",
        "litelens.api.docs.page('')",
        f"[boto3.session.Session().client(name) for name in {('bedrock-runtime', *get_args(Service))}]",
    )
    variables = (
        *("AWS_DEFAULT_REGION=us-east-1", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret"),
        *("LITELENS_UPLOAD_BUCKET=uploads", "LITELENS_RESULTS_TABLE=results", "LITELENS_IDEMPOTENCY_TABLE=once"),
    )
    script = "; ".join((*used, "print('all there')"))
    assert inside(docker, image, f'{" ".join(variables)} python3 -c "{script}"').endswith("all there\n")


def test_any_user_can_read_everything_and_nothing_is_left_to_compile(docker: str, image: str) -> None:
    unreadable = "find $LAMBDA_TASK_ROOT ! -perm -o=r -o -type d ! -perm -o=x"
    assert inside(docker, image, unreadable) == ""
    compiled = inside(
        docker, image, "ls $LAMBDA_TASK_ROOT/litelens/core/__pycache__ $LAMBDA_TASK_ROOT/litelens/api/__pycache__"
    )
    assert compiled.count(".pyc") >= 8


def test_no_compiler_cache_or_certificate_of_the_build_is_left(docker: str, image: str) -> None:
    assert inside(docker, image, "command -v gcc cc make || true") == ""
    assert inside(docker, image, "ls -A /tmp; ls -d ~/.cache/pip 2>/dev/null || true") == ""
    history = subprocess.run([docker, "history", "--no-trunc", image], check=True, capture_output=True, text=True)
    assert "CERTIFICATE" not in history.stdout
