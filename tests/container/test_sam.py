"""The SAM templates: valid, built, and invoked by sam's own emulation of API Gateway and Lambda."""

import base64
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from aws import aws_at
from bulk import batch
from container.conftest import BASE_IMAGE, EXTRA_CA, build_image
from support import ROCKET, ROOT, LambdaContext, answer_of, classify_bytes, free_port, recorded_event, require, running
from template import parameters

from litelens.api.handler import create_handler
from litelens.aws.clients import aws_client
from litelens.settings import read_settings
from local.aws import serve_aws
from local.storage import Storage, create_storage

# The default of the template.
ENGINE = str(parameters()["Engine"]["Default"])
# The templates with functions.
IMAGE_TEMPLATES = ("template.yaml", "infra/authorizer.yaml", "infra/bulk.yaml", "infra/release.yaml")
SAM = str(Path(sys.executable).parent / "sam")
ENVIRONMENT = {
    **os.environ,
    "AWS_ACCESS_KEY_ID": "none",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_SECRET_ACCESS_KEY": "none",
    "SAM_CLI_TELEMETRY": "0",
    "PYTHONPATH": "",
}


@dataclass(frozen=True)
class Deployed:
    """The template's storage on moto, and moto's URL for containers."""

    storage: Storage
    endpoint: str

    @property
    def bucket(self) -> str:
        return self.storage.bucket


def sam(*arguments: str) -> str:
    command = [SAM, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(docker: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of the built template, with the base image and certificates of this machine."""
    build_image(docker, ENGINE)
    # In a copy of the repository, because templates refer to other files by relative paths.
    folder = tmp_path_factory.mktemp("sam")
    for name in ("infra", "lambda", "models", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("template.yaml", "samconfig.toml", ".dockerignore"):
        shutil.copy(ROOT / name, folder)
    for path in IMAGE_TEMPLATES:
        (folder / path).write_text(for_this_machine((folder / path).read_text()))
    sam("build", f"--template={folder}/template.yaml", f"--build-dir={folder}/build")
    return f"{folder}/build/template.yaml"


def for_this_machine(template: str) -> str:
    base_image = "        BASE_IMAGE: public.ecr.aws/lambda/python:3.13\n"
    # sam sets only variables that the template declares.
    variable = "          POWERTOOLS_SERVICE_NAME: "
    assert template.count(base_image) == template.count(variable) == 1
    here = f"        BASE_IMAGE: {BASE_IMAGE}\n        EXTRA_CA: {json.dumps(EXTRA_CA)}\n"
    return template.replace(base_image, here).replace(variable, f"          AWS_ENDPOINT_URL: to be set\n{variable}")


@pytest.fixture(scope="module")
def deployed(docker: str) -> Iterator[Deployed]:
    """The template's storage on a moto server that containers can reach, with rocket.jpg in the bucket."""
    question = [docker, "network", "inspect", "bridge", "--format={{(index .IPAM.Config 0).Subnet}}"]
    subnet = subprocess.run(question, check=True, capture_output=True, text=True).stdout.strip()
    host = str(ip_network(subnet)[1])
    with serve_aws(host="0.0.0.0") as url, aws_at(url):
        made = Deployed(create_storage(url, "litelens", {}), url.replace("127.0.0.1", host))
        aws_client("s3").put_object(Bucket=made.bucket, Key="rocket.jpg", Body=ROCKET.read_bytes())
        yield made


@pytest.fixture(scope="module")
def variables(deployed: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The path of the file with the functions' variables, for sam."""
    shared = {"AWS_ENDPOINT_URL": deployed.endpoint, "LITELENS_UPLOAD_BUCKET": deployed.bucket}
    shared["LITELENS_RESULTS_TABLE"] = deployed.storage.results_table
    bulk = {**deployed.storage.function.variables, **shared}
    path = tmp_path_factory.mktemp("variables") / "variables.json"
    path.write_text(json.dumps({"ApiFunction": shared, "BulkFunction": bulk}))
    return path


@pytest.fixture(scope="module")
def api(built: str, deployed: Deployed, variables: Path) -> Iterator[str]:
    port = free_port()
    command = [
        *(SAM, "local", "start-api", f"--template={built}", f"--port={port}", "--warm-containers=EAGER"),
        *(f"--env-vars={variables}", f"--parameter-overrides=ImageBuckets={deployed.bucket}"),
    ]
    with running(command, ready=f"http://127.0.0.1:{port}", within=180, cwd=ROOT, env=ENVIRONMENT):
        yield f"http://127.0.0.1:{port}"


def curl(*arguments: str) -> Any:
    require(shutil.which("curl"), "there is no curl here")
    done = subprocess.run(["curl", "--silent", "--show-error", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def expected_predictions(event: dict[str, Any]) -> Any:
    handler = create_handler(dataclasses.replace(read_settings(), engine=ENGINE))
    return answer_of(handler(event, LambdaContext()))["predictions"]


@pytest.mark.parametrize("template", IMAGE_TEMPLATES)
def test_a_template_is_valid(template: str) -> None:
    assert "is a valid SAM Template" in sam("validate", "--lint", f"--template={template}")


def test_a_recorded_event_is_classified(built: str) -> None:
    event = ROOT / "tests" / "events" / "classify_jpeg.json"
    answer = json.loads(sam("local", "invoke", f"--template={built}", f"--event={event}", "ApiFunction"))
    assert answer["statusCode"] == 200
    assert answer_of(answer)["predictions"] == expected_predictions(recorded_event("classify_jpeg"))


def test_raw_bytes_and_base64_over_http_get_the_same_predictions(api: str, tmp_path: Path) -> None:
    raw = curl("-HContent-Type: image/jpeg", "--data-binary", f"@{ROCKET}", f"{api}/v1/classify")
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"image": base64.b64encode(ROCKET.read_bytes()).decode()}))
    as_json = curl("-HContent-Type: application/json", "--data", f"@{body}", f"{api}/v1/classify")
    assert raw["predictions"] == as_json["predictions"] == expected_predictions(classify_bytes(ROCKET.read_bytes()))


def test_a_form_over_http_gets_the_same_predictions(api: str) -> None:
    form = curl("-F", f"image=@{ROCKET}", f"{api}/v1/classify")
    assert form["predictions"] == expected_predictions(classify_bytes(ROCKET.read_bytes()))


def test_an_object_in_s3_gets_the_same_predictions_and_other_buckets_are_refused(api: str, deployed: Deployed) -> None:
    sent = ("-HContent-Type: application/json", f"{api}/v1/classify", "--data")
    found = curl(*sent, json.dumps({"s3_uri": f"s3://{deployed.bucket}/rocket.jpg"}))
    assert found["predictions"] == expected_predictions(classify_bytes(ROCKET.read_bytes()))
    assert curl(*sent, json.dumps({"s3_uri": f"s3://{deployed.bucket}/missing.jpg"}))["code"] == "object_not_found"
    assert curl(*sent, json.dumps({"s3_uri": "s3://another/rocket.jpg"}))["code"] == "bucket_not_allowed"


def test_an_upload_is_classified_by_the_bulk_function(
    api: str, built: str, deployed: Deployed, variables: Path, tmp_path: Path
) -> None:
    upload = curl("-HContent-Type: application/json", "--data", '{"content_type": "image/jpeg"}', f"{api}/v1/uploads")
    assert upload["url"] == f"{deployed.endpoint}/{deployed.bucket}"
    fields = [part for name, value in upload["fields"].items() for part in ("--form-string", f"{name}={value}")]
    done = subprocess.run(
        ["curl", "--silent", "--fail", *fields, "-F", f"file=@{ROCKET};type=image/jpeg", upload["url"]], timeout=60
    )
    assert done.returncode == 0
    assert curl(f"{api}/v1/results/{upload['id']}")["result"] == {"status": "pending"}
    received = aws_client("sqs").receive_message(QueueUrl=deployed.storage.source.queue_url, MaxNumberOfMessages=10)
    event = tmp_path / "event.json"
    event.write_text(json.dumps(batch(*(message["Body"] for message in received["Messages"]))))
    answer = sam(
        "local", "invoke", f"--template={built}", f"--event={event}", f"--env-vars={variables}", "BulkFunction"
    )
    assert json.loads(answer) == {"batchItemFailures": []}
    result = curl(f"{api}/v1/results/{upload['id']}")["result"]
    assert result["predictions"] == expected_predictions(classify_bytes(ROCKET.read_bytes()))


def test_other_routes_answer_over_http(api: str) -> None:
    assert curl(f"{api}/v1/health")["status"] == "ok"
    assert curl(f"{api}/v1/nothing")["code"] == "not_found"
