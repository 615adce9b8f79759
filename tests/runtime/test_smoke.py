"""`make smoke` with the stack of `make local`, described to it by moto's CloudFormation and API Gateway."""

import contextlib
import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aws import REGION, aws_at, new_bucket
from fake_api import Request, Response, api_server
from local_stack import table_results, wait_until
from servers import serve_command
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, ROOT, free_port, require, running

from infra import smoke
from local.stack import Stack, run_stack

Deploy = Callable[..., str]

# API Gateway requires at least 20 characters.
API_KEY = "key-of-the-smoke-test"

GOLDEN = {
    image["file"]: image["label"] for image in json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())["golden"]
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A running stack that boto3 uses as AWS."""
    require(sys.platform == "linux", "the runtime interface emulator runs on Linux only")
    with run_stack(DEFAULT_BUNDLE) as stack, stack.poll_queue(), aws_at(stack.endpoint):
        yield stack


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    """The URL of the stack's API, which needs API_KEY."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running(serve_command(port), ready=url, cwd=ROOT, env={**stack.variables, "API_KEY": API_KEY}):
        yield url


@pytest.fixture(scope="module")
def key_id(stack: Stack) -> str:
    """The id of API_KEY in API Gateway."""
    return str(stack.client("apigateway").create_api_key(name="litelens", value=API_KEY, enabled=True)["id"])


@pytest.fixture
def guarded_url(url: str) -> Iterator[Callable[[str], str]]:
    """A function that returns the URL of the same API behind a gateway, which requires signatures (iam) or tokens."""
    with contextlib.ExitStack() as servers:
        yield lambda access: servers.enter_context(api_server(guard(access, url)))[0]


def guard(access: str, url: str) -> Callable[[Request], Response]:
    """Return API Gateway's part with Access=iam or jwt: it checks the form of signatures, and knows no valid token."""
    signature = re.compile(rf"AWS4-HMAC-SHA256 Credential=\w+/\d{{8}}/{REGION}/execute-api/aws4_request, .*")

    def respond(request: Request) -> Response:
        is_signed = access == "iam" and signature.fullmatch(request.headers.get("authorization", ""))
        if not is_signed and request.path != "/v1/health":
            return Response(403 if access == "iam" else 401)
        headers = {"x-api-key": API_KEY, "content-type": request.headers.get("content-type", "")}
        forwarded = urllib.request.Request(url + request.path, request.body or None, headers, method=request.method)
        with urllib.request.urlopen(forwarded, timeout=60) as answer:
            return Response(answer.status, answer.read())

    return respond


@pytest.fixture
def deploy(stack: Stack, url: str, key_id: str) -> Deploy:
    """A function that deploys a template with the outputs of the running stack, and returns the new stack's name."""

    def deploy(outputs: dict[str, str] | None = None, **parameters: str) -> str:
        storage = stack.storage
        outputs = {
            "ApiUrl": url,
            "ApiKeyId": key_id,
            "UploadBucketName": storage.bucket,
            "ResultsTableName": storage.results_table,
            **(outputs or {}),
        }
        values = {"Model": DEFAULT_BUNDLE.name, **parameters}
        template = {
            "Parameters": {name: {"Type": "String", "Default": value} for name, value in values.items()},
            "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
            "Outputs": {name: {"Value": value} for name, value in outputs.items() if value},
        }
        name = f"litelens-{uuid.uuid4().hex[:8]}"
        stack.client("cloudformation").create_stack(
            StackName=name,
            TemplateBody=json.dumps(template),
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
        )
        return name

    return deploy


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smoke, "_PAUSE", 0.1)
    monkeypatch.setattr(smoke, "_URL_SECONDS", 0.0)
    monkeypatch.setattr(smoke, "_DOMAIN_SECONDS", 0.0)
    monkeypatch.delenv("ENV", raising=False)


def run(monkeypatch: pytest.MonkeyPatch, name: str) -> int:
    monkeypatch.setenv("STACK", name)
    return smoke.main()


def smoke_uploads(stack: Stack) -> set[str]:
    found = stack.client("s3").list_objects_v2(Bucket=stack.storage.bucket, Prefix="uploads/smoke/")
    return {entry["Key"] for entry in found.get("Contents", ())}


def test_the_script_classifies_a_golden_image_through_the_bucket_and_the_url(deploy: Deploy) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "infra" / "smoke.py"],
        env={**os.environ, "STACK": deploy(), "PYTHONPATH": "lambda:client"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    bucket, url, refusal = done.stdout.splitlines()
    assert bucket.startswith("bucket: ")
    assert url.startswith("URL: ")
    assert "403" in refusal
    for line in (bucket, url):
        assert any(file in line and line.count(label) == 2 for file, label in GOLDEN.items())
        assert line.endswith(" ms.")


def test_each_run_classifies_a_new_upload(deploy: Deploy, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    name, before = deploy(), smoke_uploads(stack)
    assert [run(monkeypatch, name), run(monkeypatch, name)] == [0, 0]
    assert len(smoke_uploads(stack) - before) == 2


def test_with_iam_the_request_is_signed(
    deploy: Deploy,
    guarded_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, deploy({"ApiKeyId": "", "ApiUrl": guarded_url("iam")}, Access="iam")) == 0
    _, url, refusal = capsys.readouterr().out.splitlines()
    assert any(file in url and url.count(label) == 2 for file, label in GOLDEN.items())
    assert "403" in refusal


def test_with_iam_credentials_are_needed(
    deploy: Deploy,
    guarded_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def no_credentials(*_: Any, **options: Any) -> smoke.Client:
        if options.get("sign"):
            raise ValueError("There are no AWS credentials.")
        return original(*_, **options)

    original = smoke.Client
    monkeypatch.setattr(smoke, "Client", no_credentials)
    assert run(monkeypatch, deploy({"ApiKeyId": "", "ApiUrl": guarded_url("iam")}, Access="iam")) == 1
    assert "credentials" in capsys.readouterr().err.splitlines()[0]


def test_with_tokens_only_the_health_of_the_api_is_tested(
    deploy: Deploy,
    guarded_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(monkeypatch, deploy({"ApiKeyId": "", "ApiUrl": guarded_url("jwt")}, Access="jwt")) == 0
    bucket, url, refusal = capsys.readouterr().out.splitlines()
    assert bucket.startswith("bucket: ")
    assert DEFAULT_BUNDLE.name in url
    assert "Access=jwt" in url
    assert "401" in refusal


@pytest.mark.parametrize("health", [Response(500), Response(200, b"not of litelens"), None])
def test_an_api_without_health_fails(
    health: Response | None, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with api_server(lambda request: health if request.path == "/v1/health" else Response(401)) as (url, _):
        assert run(monkeypatch, deploy({"ApiKeyId": "", "ApiUrl": url}, Access="jwt")) == 1
    failure, _ = capsys.readouterr().err.splitlines()
    assert f"{url}/v1/health" in failure


def test_another_model_fails_with_tokens_too(
    deploy: Deploy,
    guarded_url: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outputs = {"ApiKeyId": "", "ApiUrl": guarded_url("jwt")}
    assert run(monkeypatch, deploy(outputs, Access="jwt", Model=CIFAR_BUNDLE.name)) == 1
    url = capsys.readouterr().err.splitlines()[1]
    assert CIFAR_BUNDLE.name in url
    assert f"{DEFAULT_BUNDLE.name}/" in url


def test_an_api_that_needs_no_credentials_fails(
    stack: Stack, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_url = f"http://127.0.0.1:{(port := free_port())}"
    variables = {name: value for name, value in stack.variables.items() if name != "API_KEY"}
    with running(serve_command(port), ready=open_url, cwd=ROOT, env=variables):
        assert run(monkeypatch, deploy({"ApiUrl": open_url})) == 1
    printed = capsys.readouterr()
    assert [line.partition(":")[0] for line in printed.out.splitlines()] == ["bucket", "URL"]
    refusal, _ = printed.err.splitlines()
    assert "Access=key" in refusal


def test_another_model_fails_in_both_ways(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = deploy(Model=f"{CIFAR_BUNDLE.name},{DEFAULT_BUNDLE.name}")
    assert run(monkeypatch, name) == 1
    bucket, url, advice = capsys.readouterr().err.splitlines()
    for line in (bucket, url):
        assert CIFAR_BUNDLE.name in line
        assert f"{DEFAULT_BUNDLE.name}/" in line
    assert f"STACK={name}" in advice


def test_a_rejected_key_fails_after_the_bucket_was_tested(
    deploy: Deploy, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = stack.client("apigateway").create_api_key(name="wrong", value="wrong-key-of-the-tests", enabled=True)
    monkeypatch.setenv("ENV", "dev")
    assert run(monkeypatch, deploy({"ApiKeyId": key["id"]})) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("bucket: ")
    url, advice = printed.err.splitlines()
    assert "key" in url
    assert "make logs ENV=dev" in advice
    assert "403" in printed.out


def test_a_new_key_may_be_refused_for_a_while(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [smoke.ApiProblem("forbidden", "The key is wrong.", 403) for _ in range(2)]

    class NewKey(smoke.Client):
        def classify(self, *arguments: Any, **options: Any) -> Any:
            if refusals:
                raise refusals.pop()
            return super().classify(*arguments, **options)

    monkeypatch.setattr(smoke, "Client", NewKey)
    monkeypatch.setattr(smoke, "_URL_SECONDS", 60.0)
    assert run(monkeypatch, deploy()) == 0
    assert refusals == []


def test_an_unreachable_url_fails(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    assert run(monkeypatch, deploy({"ApiUrl": f"http://127.0.0.1:{port}"})) == 1
    message = capsys.readouterr().err
    assert f"127.0.0.1:{port}" in message
    assert "DomainTarget" not in message


def test_a_domain_that_cannot_be_reached_names_its_record(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = {"ApiUrl": f"http://127.0.0.1:{free_port()}", "DomainTarget": "d-1.execute-api.example"}
    assert run(monkeypatch, deploy(outputs, DomainName="api.example.com", DisableExecuteApi="true")) == 1
    url = capsys.readouterr().err.splitlines()[0]
    assert all(name in url for name in ("api.example.com", "d-1.execute-api.example", "DomainTarget"))


def test_a_new_domain_may_be_unreachable_for_longer_than_a_new_api(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [smoke.ApiUnreachable("The host does not exist.") for _ in range(2)]

    class NewDomain(smoke.Client):
        def classify(self, *arguments: Any, **options: Any) -> Any:
            if failures:
                raise failures.pop()
            return super().classify(*arguments, **options)

    monkeypatch.setattr(smoke, "Client", NewDomain)
    monkeypatch.setattr(smoke, "_DOMAIN_SECONDS", 60.0)
    assert run(monkeypatch, deploy(DomainName="api.example.com", DisableExecuteApi="true")) == 0
    assert failures == []


def test_an_upload_without_a_result_fails(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smoke, "_BUCKET_SECONDS", 0.0)
    # Nothing classifies the objects of this bucket.
    assert run(monkeypatch, deploy({"UploadBucketName": new_bucket()})) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith("URL: ")
    assert "uploads/smoke/" in printed.err


def test_an_image_that_cannot_be_classified_fails(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found = smoke.read_sample(DEFAULT_BUNDLE.name)
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    monkeypatch.setattr(smoke.Sample, "path", property(lambda _: damaged))
    monkeypatch.setattr(smoke, "read_sample", lambda _: found)
    assert run(monkeypatch, deploy()) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_the_result_of_an_upload_is_found_in_an_object(
    deploy: Deploy, stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class ClassifyingUploader(smoke.Uploader):
        """Uploads a photo, waits for its result in the table, and writes it into an object after another one."""

        def upload_all(self, photos: Any, **options: Any) -> Any:
            (sent,) = super().upload_all(photos, **options)
            wait_until(lambda: table_results(stack, sent.key), 60)
            (result,) = table_results(stack, sent.key)
            lines = [json.dumps(each) + "\n" for each in (result | {"key": "uploads/other.jpg"}, result)]
            name = f"results/{datetime.now(UTC).date()}/{uuid.uuid4()}.jsonl"
            stack.client("s3").put_object(Bucket=stack.storage.bucket, Key=name, Body="".join(lines).encode())
            yield sent

    monkeypatch.setattr(smoke, "Uploader", ClassifyingUploader)
    assert run(monkeypatch, deploy({"ResultsTableName": ""}, Results="objects")) == 0
    assert capsys.readouterr().out.startswith("bucket: ")


@pytest.mark.parametrize("missing", ["ApiUrl", "ApiKeyId", "UploadBucketName", "ResultsTableName"])
def test_a_missing_output_is_named(
    missing: str, deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = deploy({missing: ""})
    assert run(monkeypatch, name) == 1
    message = capsys.readouterr().err
    assert name in message
    assert missing in message


def test_a_model_that_is_not_here_is_named(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, deploy(Model="elsewhere")) == 1
    assert "elsewhere" in capsys.readouterr().err


@pytest.mark.usefixtures("stack")
def test_a_stack_that_does_not_exist_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "litelens-nowhere") == 1
    assert "litelens-nowhere" in capsys.readouterr().err
