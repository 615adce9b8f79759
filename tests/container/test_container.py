"""The container image, run as in Lambda: any user, a read-only file system, the memory of one core."""

import dataclasses
import json
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
LARGEST_LAYER = {"litert": 128_000_000, "openvino": 207_000_000}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """The engine in the image."""
    return str(request.param)


@pytest.fixture(scope="module")
def image(docker: str, engine: str) -> str:
    return build_image(docker, engine)


# The base image has no `find`.
MODELS_SCRIPT = """
import hashlib
from pathlib import Path
for model in Path("/").rglob("*.tflite"):
    print(hashlib.sha256(model.read_bytes()).hexdigest())
"""
UNREADABLE_SCRIPT = """
import os
from pathlib import Path
for path in Path(os.environ["LAMBDA_TASK_ROOT"]).rglob("*"):
    mode = path.stat().st_mode
    if not mode & 0o004 or path.is_dir() and not mode & 0o001:
        print(path)
"""


# The maximum number of modules that the API's handler imports, by package. A new version of a package may need more.
_COMMON_MODULES = {
    "the standard library": 170,
    "aws_lambda_powertools": 120,
    "numpy": 90,
    "litelens": 45,
    "PIL": 23,
    "msgspec": 13,
    "jmespath": 9,
}
MODULE_BUDGET = {
    "litert": {**_COMMON_MODULES, "ai_edge_litert": 6},
    "openvino": {**_COMMON_MODULES, "openvino": 90},
}
_COUNT_MODULES = """
import collections, json, sys
before = set(sys.modules)
import litelens.api.handler
roots = (name.partition(".")[0] for name in set(sys.modules) - before)
names = ("the standard library" if root in sys.stdlib_module_names else root for root in roots)
print(json.dumps(collections.Counter(names)))
"""


def output_of(docker: str, image: str, script: str, program: str = "sh") -> str:
    """Run a script in a new container, of the shell or of python3, and return its output."""
    command = [docker, "run", "--rm", "--network=none", f"--entrypoint={program}", image, "-c", script]
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


def test_the_image_gives_the_handlers_predictions(invoke: Invoke, engine: str) -> None:
    event = recorded_event("classify_jpeg")
    handler = create_handler(dataclasses.replace(read_settings(), engine=engine))
    expected = answer_of(handler(event, LambdaContext()))["predictions"]
    answers = [invoke(event), invoke(event)]
    assert [answer["statusCode"] for answer in answers] == [200, 200]
    assert [answer_of(answer)["predictions"] for answer in answers] == [expected, expected]


def test_an_image_is_classified_after_a_bad_one_was_refused(invoke: Invoke) -> None:
    assert invoke(recorded_event("classify_truncated_jpeg"))["statusCode"] == 422
    assert invoke(recorded_event("classify_json"))["statusCode"] == 200


def test_the_image_contains_only_the_handler_the_model_and_their_dependencies(
    docker: str, image: str, engine: str
) -> None:
    contents = set(output_of(docker, image, "ls $LAMBDA_TASK_ROOT").split())
    assert {"litelens", "model", "models", "aws_lambda_powertools"} <= contents
    assert contents & {"ai_edge_litert", "openvino"} == {PACKAGES[engine]}
    assert not contents & {"tensorflow", "keras", "training", "tests", "uvicorn", "requirements.txt"}
    assert "openapi.py" not in output_of(docker, image, "ls $LAMBDA_TASK_ROOT/litelens/api").split()
    assert output_of(docker, image, "ls $LITELENS_MODELS").split() == [DEFAULT_BUNDLE.name]
    of_model = {
        path for path in output_of(docker, image, "ls $LITELENS_BUNDLE").split() if not path.endswith(".openvino")
    }
    assert of_model == {"golden", "head.npz", "manifest.json", "metrics.json", "model.tflite", "report.html"}


def test_the_image_contains_only_the_default_model(docker: str, image: str) -> None:
    models = output_of(docker, image, MODELS_SCRIPT, "python3").split()
    assert models == [load_bundle(DEFAULT_BUNDLE).sha256]


def test_the_image_contains_the_model_compiled_by_openvino(docker: str, image: str, engine: str) -> None:
    compiled = [name for name in output_of(docker, image, "ls $LITELENS_BUNDLE").split() if "openvino" in name]
    assert len(compiled) == {"openvino": 1, "litert": 0}[engine]


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


def test_the_start_imports_neither_telemetry_nor_boto3(docker: str, image: str) -> None:
    """OpenVINO's package would report its import to its makers, and importing boto3 takes longest."""
    modules = set(
        output_of(docker, image, 'python3 -c "import litelens.api.handler, sys; print(*sys.modules)"').split()
    )
    assert not {module for module in modules if "telemetry" in module} - {"litelens.telemetry"}
    assert not modules & {"boto3", "botocore.session", "botocore.client"}


def test_the_start_imports_no_more_modules_than_budgeted(docker: str, image: str, engine: str) -> None:
    """Imports take a large part of a cold start. A package that is not in the budget may have two modules."""
    found = json.loads(output_of(docker, image, _COUNT_MODULES, "python3"))
    budget = MODULE_BUDGET[engine]
    assert {name: count for name, count in found.items() if count > budget.get(name, 2)} == {}
    assert sum(found.values()) < sum(budget.values())


def test_numpy_starts_no_threads(docker: str, image: str) -> None:
    """Threads of OpenBLAS that wait for work would use up the function's share of the CPU."""
    script = "import numpy, os; print(len(os.listdir('/proc/self/task')))"
    assert output_of(docker, image, script, "python3") == "1\n"


def test_the_packages_contain_everything_that_the_functions_use(docker: str, image: str) -> None:
    used = (
        "import litelens.bulk.handler, litelens.api.docs, litelens.release.hook, boto3",
        "litelens.api.docs.page('')",
        f"[boto3.session.Session().client(name) for name in {('bedrock-runtime', *get_args(Service))}]",
    )
    variables = (
        *("AWS_DEFAULT_REGION=us-east-1", "AWS_ACCESS_KEY_ID=id", "AWS_SECRET_ACCESS_KEY=secret"),
        *("LITELENS_UPLOAD_BUCKET=uploads", "LITELENS_RESULTS_TABLE=results"),
    )
    script = "; ".join((*used, "print('all there')"))
    assert output_of(docker, image, f'{" ".join(variables)} python3 -c "{script}"').endswith("all there\n")


def test_any_user_can_read_all_files_and_python_is_compiled(docker: str, image: str) -> None:
    assert output_of(docker, image, UNREADABLE_SCRIPT, "python3") == ""
    compiled = output_of(
        docker, image, "ls $LAMBDA_TASK_ROOT/litelens/core/__pycache__ $LAMBDA_TASK_ROOT/litelens/api/__pycache__"
    )
    assert compiled.count(".pyc") >= 8


def test_no_compiler_cache_or_certificate_of_the_build_remains(docker: str, image: str) -> None:
    assert output_of(docker, image, "command -v gcc cc make || true") == ""
    assert output_of(docker, image, "ls -A /tmp; ls -d ~/.cache/pip 2>/dev/null || true") == ""
    history = subprocess.run([docker, "history", "--no-trunc", image], check=True, capture_output=True, text=True)
    assert "CERTIFICATE" not in history.stdout
