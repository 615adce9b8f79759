"""The Python client against a fake API."""

import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import SSOTokenLoadError
from fake_api import MODEL, Request, Response, api_server, classification, in_turn, labelled, problem, refused, sent
from PIL import Image
from support import CAT, ROOT, encoded, free_port, require, shell_blocks

import litelens_client
from litelens.core.formats import FORMAT_NAMES, IMAGE_FORMATS, ImageFormat
from litelens.settings import MAX_REQUEST_IMAGE_BYTES
from litelens_client import api
from litelens_client.__main__ import main
from litelens_client.answers import ApiProblem, ClassifyError
from litelens_client.api import ApiUnreachable, Client

KEY = "key-of-the-tests"
TOKEN = "header.claims.signature"
SECRET = "secret-of-the-tests"
JPEG = b"\xff\xd8\xff" + bytes(10)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGE = PNG_SIGNATURE + bytes(MAX_REQUEST_IMAGE_BYTES)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the number of retries, but remove the pauses."""
    monkeypatch.setattr(api, "_RETRIES", api._RETRIES.new(backoff_factor=0, backoff_jitter=0))
    monkeypatch.setattr(api, "_POLL_SECONDS", 0)


def test_the_package_exports_the_client() -> None:
    assert litelens_client.Client is Client


@pytest.mark.parametrize("image_format", FORMAT_NAMES)
def test_an_image_is_sent_unchanged_with_its_media_type(image_format: str) -> None:
    image = encoded(Image.new("RGB", (2, 2)), image_format)
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url).classify(image)
    (request,) = requests
    assert (request.method, request.path) == ("POST", "/v1/classify")
    assert request.headers["content-type"] == f"image/{image_format.lower()}"
    assert request.body == image


def test_an_answer_is_decoded() -> None:
    with api_server(in_turn(labelled("cat", "dog", confidence=0.9))) as (url, _):
        answer = Client(url).classify(JPEG)
    assert [(found.label, found.confidence) for found in answer.predictions] == [("cat", 0.9), ("dog", 0.45)]
    assert answer.model.name == "pets"
    assert answer.request_id == "request-1"


def test_the_key_is_sent_as_a_header() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url, KEY).classify(JPEG)
        Client(url).classify(JPEG)
    assert [request.headers.get("x-api-key") for request in requests] == [KEY, None]


def test_options_are_sent_in_the_query() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(f"{url}/live/").classify(JPEG, model="pets & more", top_k=3, threshold=0.25)
    assert requests[0].path == "/live/v1/classify?model=pets%20%26%20more&top_k=3&threshold=0.25"


def test_an_s3_uri_is_sent_as_json() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url).classify("s3://photos/a ü.jpg", top_k=1)
    assert requests[0].headers["content-type"] == "application/json"
    assert json.loads(requests[0].body) == {"s3_uri": "s3://photos/a ü.jpg"}
    assert requests[0].path == "/v1/classify?top_k=1"


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_api_is_retried(status: int) -> None:
    busy = refused(status, "busy", **{"Retry-After": "0"})
    with api_server(in_turn(busy, busy, labelled("cat"))) as (url, requests):
        assert Client(url).classify(JPEG).predictions[0].label == "cat"
    assert [request.body for request in requests] == [JPEG] * 3


def test_an_api_that_stays_busy_is_a_problem() -> None:
    with (
        api_server(in_turn(refused(429, "too_many_requests", "Too fast."))) as (url, requests),
        pytest.raises(ApiProblem, match=r"Too fast\.") as raised,
    ):
        Client(url).classify(JPEG)
    assert (raised.value.code, raised.value.status) == ("too_many_requests", 429)
    assert len(requests) == 6


def test_a_broken_connection_is_retried() -> None:
    with api_server(in_turn(None, labelled("cat"))) as (url, requests):
        assert Client(url).classify(JPEG).predictions[0].label == "cat"
    assert len(requests) == 2


def test_an_api_that_always_closes_the_connection_is_unreachable() -> None:
    with (
        api_server(in_turn(None)) as (url, requests),
        pytest.raises(ApiUnreachable, match=r"^127\.0\.0\.1:\d+ cannot be reached: the connection was interrupted\.$"),
    ):
        Client(url).classify(JPEG)
    assert len(requests) == 3


def test_an_api_that_does_not_listen_is_unreachable_for_all_images() -> None:
    with pytest.raises(ApiUnreachable, match=r"the connection was not accepted\.$") as raised:
        Client(f"http://127.0.0.1:{free_port()}").classify(JPEG)
    assert raised.value.concerns_all


def test_a_host_that_does_not_exist_is_unreachable_for_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_no_host(*_: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", find_no_host)
    with pytest.raises(ApiUnreachable, match=r"the host does not exist\.$") as raised:
        Client("http://litelens.invalid").classify(JPEG)
    assert raised.value.concerns_all


def test_an_api_that_has_answered_before_may_answer_other_images() -> None:
    last_answer = dataclasses.replace(labelled("cat"), headers={"Connection": "close"})
    with api_server(in_turn(last_answer)) as (url, _):
        client = Client(url)
        client.classify(JPEG)
    with pytest.raises(ApiUnreachable) as raised:
        client.classify(JPEG)
    assert not raised.value.concerns_all


def test_an_api_that_does_not_answer_in_time_is_unreachable() -> None:
    test_is_over = threading.Event()

    def no_response(_: Request) -> None:
        test_is_over.wait(60)

    with api_server(no_response) as (url, _):
        with pytest.raises(ApiUnreachable, match=r"the request timed out\.$"):
            Client(url, timeout=0.05).classify(JPEG)
        test_is_over.set()


def test_a_server_without_tls_is_unreachable_by_https() -> None:
    with (
        api_server(in_turn(labelled("cat"))) as (url, requests),
        pytest.raises(ApiUnreachable, match="certificate is not valid, or it does not use TLS"),
    ):
        Client(url.replace("http", "https"), KEY).classify(JPEG)
    assert not requests


def test_a_problem_of_the_api_keeps_its_code_and_sentence() -> None:
    with (
        api_server(in_turn(refused(422, "corrupt_image", "It is damaged."))) as (url, _),
        pytest.raises(ApiProblem, match=r"^It is damaged\.$") as raised,
    ):
        Client(url).classify(JPEG)
    found = raised.value
    assert (found.code, found.status, found.request_id) == ("corrupt_image", 422, "request-1")
    assert not found.concerns_all


def test_the_error_for_a_wrong_key_does_not_contain_the_key() -> None:
    with (
        api_server(in_turn(sent({"message": "Forbidden"}, 403))) as (url, _),
        pytest.raises(ApiProblem, match=r"403.+--api-key.+--token.+--sign") as raised,
    ):
        Client(url, KEY).classify(JPEG)
    assert raised.value.code == "forbidden"
    assert raised.value.concerns_all
    assert KEY not in repr(raised.value)


@pytest.mark.parametrize(("status", "sentence"), [(502, "502 Bad Gateway"), (404, "404 Not Found"), (599, "599")])
def test_the_error_of_a_proxy_is_reported_by_its_status(status: int, sentence: str) -> None:
    with (
        api_server(in_turn(Response(status, b"<html>nginx</html>"))) as (url, _),
        pytest.raises(ApiProblem, match=rf"^The API's server answered {sentence}\.$") as raised,
    ):
        Client(url).classify(JPEG)
    assert raised.value.code == f"http_{status}"


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Log in to the hotel's network</html>",
        b"",
        b'{"status": "ok"}',
        b'{"model": ' + b"[" * 100_000,
        labelled("cat").body.replace(b"cat", b"\xff"),
        labelled().body,
    ],
)
def test_an_answer_that_is_not_litelens_is_a_problem(body: bytes) -> None:
    with (
        api_server(in_turn(Response(200, body))) as (url, _),
        pytest.raises(ApiProblem, match="is not from a litelens API; check the URL") as raised,
    ):
        Client(url).classify(JPEG)
    assert raised.value.code == "unexpected_answer"


def test_redirects_are_not_followed() -> None:
    with (
        api_server(in_turn(Response(302, headers={"Location": "/elsewhere"}))) as (url, requests),
        pytest.raises(ApiProblem, match="answered 302 Found"),
    ):
        Client(url, KEY).classify(JPEG)
    assert [request.path for request in requests] == ["/v1/classify"]


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "host:8080", "ftp://host", "example.com/live"])
def test_a_url_without_scheme_is_rejected(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with http:// or https://"):
        Client(url)


@pytest.mark.parametrize("url", ["http://", "https://me:secret@host", "https://host/?a=b", "http://a b"])
def test_an_invalid_url_is_rejected_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="The URL of the API must be like") as raised:
        Client(url)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["api_key", "token"])
@pytest.mark.parametrize("secret", ["two words", "line\n", "schlüssel"])
def test_an_invalid_key_or_token_is_rejected_without_printing_it(name: str, secret: str) -> None:
    with pytest.raises(ValueError, match=name.removeprefix("api_")) as raised:
        Client("http://127.0.0.1", **{name: secret})
    assert secret.strip() not in str(raised.value)


def test_a_token_is_sent_as_a_bearer_token() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url, token=TOKEN).classify(JPEG)
    assert requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "x-api-key" not in requests[0].headers


@pytest.mark.parametrize(
    "access",
    [{"api_key": KEY, "token": TOKEN}, {"api_key": KEY, "sign": True}, {"token": TOKEN, "sign": True}],
    ids=" and ".join,
)
def test_only_one_of_key_token_and_signature_can_be_given(access: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"one") as raised:
        Client("http://127.0.0.1", **access)
    assert not {KEY, TOKEN} & set(str(raised.value).split())


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set credentials and a region, and hide those of the person who runs the tests."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")


def expected_signature(request: Request, region: str, secret: str = SECRET) -> str:
    """Return the header Authorization that API Gateway would compute for a request as it arrived."""
    authorization = request.headers["authorization"]
    (names,) = re.findall("SignedHeaders=([a-z0-9;-]+)", authorization)
    received = AWSRequest(request.method, f"http://{request.headers['host']}{request.path}", data=request.body)
    received.context["timestamp"] = request.headers["x-amz-date"]
    for name in names.split(";"):
        received.headers[name] = request.headers[name]
    auth = SigV4Auth(Credentials("AKIATEST", secret), "execute-api", region)
    signature = auth.signature(auth.string_to_sign(received, auth.canonical_request(received)), received)
    scope = f"{request.headers['x-amz-date'][:8]}/{region}/execute-api/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential=AKIATEST/{scope}, SignedHeaders={names}, Signature={signature}"


@pytest.mark.usefixtures("aws_credentials")
def test_requests_are_signed_with_the_aws_credentials() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        client = Client(f"{url}/live/", sign=True)
        client.classify(JPEG, model="pets & more+~", top_k=3)
        client.classify("s3://photos/a ü.jpg")
    assert len(requests) == 2
    for request in requests:
        assert request.headers["authorization"] == expected_signature(request, "eu-central-1")
        assert request.headers["authorization"] != expected_signature(request, "eu-central-1", secret="another")
        assert "x-api-key" not in request.headers


@pytest.mark.usefixtures("aws_credentials")
def test_the_requests_of_an_upload_are_signed_except_that_to_the_storage() -> None:
    with api_server(uploading(PENDING, DONE)) as (url, requests):
        Client(url, sign=True).classify(LARGE)
    create, form, *polls = requests
    assert not {"authorization", "x-amz-date"} & set(form.headers)
    assert [poll.path for poll in polls] == ["/v1/results/u%2F1"] * 2
    for request in (create, *polls):
        assert request.headers["authorization"] == expected_signature(request, "eu-central-1")


@pytest.mark.usefixtures("aws_credentials")
def test_temporary_credentials_are_sent_with_their_signed_session_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-1")
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url, sign=True).classify(JPEG)
    headers = requests[0].headers
    assert headers["x-amz-security-token"] == "session-1"
    assert "x-amz-security-token" in headers["authorization"]
    assert headers["authorization"] == expected_signature(requests[0], "eu-central-1")


@pytest.mark.usefixtures("aws_credentials")
@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("abc.execute-api.eu-west-1.amazonaws.com", "eu-west-1"),
        ("abc.execute-api.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("vpce-1-2.execute-api.us-gov-west-1.vpce.amazonaws.com:443", "us-gov-west-1"),
        ("api.example.com", "eu-central-1"),
        ("abc.execute-api.eu-west-1.amazonaws.com.example.com", "eu-central-1"),
    ],
)
def test_the_region_is_that_of_the_host_or_else_of_the_environment(host: str, region: str) -> None:
    headers = Client(f"https://{host}/live", sign=True)._authenticate("GET", f"https://{host}/live/v1/model", None, b"")
    assert f"/{region}/execute-api/aws4_request," in headers["Authorization"]


@pytest.mark.usefixtures("aws_credentials")
def test_a_request_to_the_url_of_a_function_is_signed_for_lambda() -> None:
    host = "abc.lambda-url.eu-west-1.on.aws"
    headers = Client(f"https://{host}", sign=True)._authenticate("GET", f"https://{host}/v1/model", None, b"")
    assert "/eu-west-1/lambda/aws4_request," in headers["Authorization"]


@pytest.mark.usefixtures("aws_credentials")
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AWS_ACCESS_KEY_ID": None}, "AWS_PROFILE"),
        ({"AWS_REGION": None}, "AWS_DEFAULT_REGION"),
        ({"AWS_PROFILE": "missing"}, "AWS_PROFILE"),
    ],
    ids=["no credentials", "no region", "no such profile"],
)
def test_signing_needs_credentials_and_a_region(
    variables: dict[str, str | None], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(ValueError, match=named):
        Client("http://127.0.0.1", sign=True)


@pytest.mark.usefixtures("aws_credentials")
def test_credentials_that_have_expired_concern_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    def expired(_: Credentials) -> None:
        raise SSOTokenLoadError(error_msg="expired")

    monkeypatch.setattr(Credentials, "get_frozen_credentials", expired)
    with (
        api_server(in_turn(labelled("cat"))) as (url, requests),
        pytest.raises(ClassifyError) as raised,
    ):
        Client(url, sign=True).classify(JPEG)
    assert (raised.value.code, raised.value.concerns_all) == ("not_signed", True)
    assert requests == []


@pytest.mark.parametrize(
    ("status", "error_type", "named"),
    [
        (401, "UnauthorizedException", "--token"),
        (403, "ForbiddenException", "--api-key"),
        (403, "MissingAuthenticationTokenException", "--sign"),
        (403, "InvalidSignatureException:http://internal.amazon.com/", "AWS credentials"),
        (403, "AccessDeniedException", "execute-api:Invoke"),
        (401, "", "--api-key.+--token.+--sign"),
    ],
)
def test_a_refusal_says_what_the_api_wants(status: int, error_type: str, named: str) -> None:
    response = sent({"message": "No"}, status, {"x-amzn-ErrorType": error_type} if error_type else {})
    with api_server(in_turn(response)) as (url, _), pytest.raises(ApiProblem, match=rf"{status} .+{named}") as raised:
        Client(url, token=TOKEN).classify(JPEG)
    assert raised.value.code == ("unauthorized" if status == 401 else "forbidden")
    assert raised.value.concerns_all
    assert TOKEN not in str(raised.value)


def test_a_caller_of_a_functions_url_learns_its_own_permissions() -> None:
    response = urllib3.HTTPResponse(b"{}", {"x-amzn-ErrorType": "AccessDeniedException"}, 403)
    for host, permission in (
        ("abc.lambda-url.eu-west-1.on.aws", "lambda:InvokeFunctionUrl"),
        ("abc.execute-api.eu-west-1.amazonaws.com", "execute-api:Invoke"),
    ):
        assert permission in str(api._problem(response, host))


@pytest.fixture
def _no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LITELENS_URL", "LITELENS_API_KEY", "LITELENS_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_access", "aws_credentials")
@pytest.mark.parametrize(
    ("options", "variables", "sent_as"),
    [
        (["--token", TOKEN], {}, f"Bearer {TOKEN}"),
        ([], {"LITELENS_TOKEN": TOKEN}, f"Bearer {TOKEN}"),
        (["--token", TOKEN], {"LITELENS_API_KEY": KEY}, f"Bearer {TOKEN}"),
        (["--token", TOKEN], {"LITELENS_TOKEN": "another"}, f"Bearer {TOKEN}"),
        (["--sign"], {"LITELENS_API_KEY": KEY, "LITELENS_TOKEN": TOKEN}, "AWS4-HMAC-SHA256 Credential=AKIATEST/"),
        (["--api-key", KEY], {"LITELENS_TOKEN": TOKEN}, None),
        (["--api-key", ""], {"LITELENS_TOKEN": TOKEN}, None),
    ],
)
def test_the_command_authenticates_as_its_options_or_else_the_environment_say(
    options: list[str], variables: dict[str, str], sent_as: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        assert main(["classify", str(CAT), "--url", url, *options]) == 0
    headers = requests[0].headers
    assert headers.get("authorization", "").startswith(sent_as or "")
    assert ("authorization" in headers) is (sent_as is not None)
    assert headers.get("x-api-key") == (KEY if KEY in options else None)


@pytest.mark.usefixtures("_no_access")
@pytest.mark.parametrize(
    ("arguments", "variables", "named"),
    [
        (["--url", "http://127.0.0.1", "--api-key", KEY, "--token", TOKEN], {}, ["--api-key", "--token"]),
        (["--url", "http://127.0.0.1", "--api-key", KEY, "--sign"], {}, ["--api-key", "--sign"]),
        (["--url", "http://127.0.0.1", "--token", TOKEN, "--sign"], {}, ["--token", "--sign"]),
        (
            ["--url", "http://127.0.0.1"],
            {"LITELENS_API_KEY": KEY, "LITELENS_TOKEN": TOKEN},
            ["LITELENS_API_KEY", "LITELENS_TOKEN"],
        ),
        (["--token", TOKEN], {}, ["--token", "--url"]),
        (["--sign"], {}, ["--sign", "--url"]),
    ],
)
def test_the_command_refuses_contradictory_options(
    arguments: list[str],
    variables: dict[str, str],
    named: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as raised:
        main(["classify", str(CAT), *arguments])
    assert raised.value.code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert all(name in last_line for name in named)
    assert KEY not in last_line
    assert TOKEN not in last_line


@pytest.mark.usefixtures("_no_access")
def test_a_key_and_a_token_in_the_environment_do_not_matter_without_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELENS_API_KEY", KEY)
    monkeypatch.setenv("LITELENS_TOKEN", TOKEN)
    assert main(["classify", str(CAT)]) == 0


@pytest.mark.usefixtures("aws_credentials")
@pytest.mark.parametrize("session_token", ["", "session-1"])
def test_curl_signs_requests_as_the_documentation_says(session_token: str) -> None:
    require(shutil.which("curl"), "curl is not installed")
    page = ROOT / "docs" / "api.md"
    (command,) = [block for block in shell_blocks(page) if "sigv4" in block]
    if session_token:
        (option,) = re.findall(r"`(-H .+AWS_SESSION_TOKEN.+)`", page.read_text())
        command = command.replace("curl ", f"curl {option} ")
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        variables = {"API": f"{url}/live", "AWS_SESSION_TOKEN": session_token}
        subprocess.run(["sh", "-euc", command], cwd=ROOT, env={**os.environ, **variables}, check=True)
    assert requests[0].body == CAT.read_bytes()
    assert requests[0].headers.get("x-amz-security-token", "") == session_token
    assert requests[0].headers["authorization"] == expected_signature(requests[0], "eu-central-1")


def uploading(*results: dict[str, object], storage: int = 204, max_bytes: int = 25_000_000) -> Callable[..., Response]:
    """Return a fake API with uploads, whose storage is at /bucket, and which returns these results in turn."""
    result_answers = in_turn(
        *(sent({"id": "u/1", "model": MODEL, "result": result, "request_id": "request-2"}) for result in results)
    )

    def respond(request: Request) -> Response:
        if request.path == "/v1/uploads":
            form = {"url": f"http://{request.headers['host']}/bucket", "fields": {"key": "uploads/1", "policy": "p"}}
            upload = {"id": "u/1", **form, "expires_in": 900, "max_bytes": max_bytes, "request_id": "request-1"}
            return sent(upload, 201)
        if request.path == "/bucket":
            return Response(storage)
        response = result_answers(request)
        assert response
        return response

    return respond


PENDING = {"status": "pending"}
DONE = {"status": "done", **classification("cat", "dog", "fox")}


def test_a_large_image_is_uploaded_and_its_result_polled() -> None:
    with api_server(uploading(PENDING, PENDING, DONE)) as (url, requests):
        answer = Client(url, KEY).classify(LARGE)
    assert [found.label for found in answer.predictions] == ["cat", "dog", "fox"]
    assert (answer.model.name, answer.request_id) == ("pets", "request-2")
    paths = [(request.method, request.path) for request in requests]
    assert paths == [("POST", "/v1/uploads"), ("POST", "/bucket"), *[("GET", "/v1/results/u%2F1")] * 3]
    assert json.loads(requests[0].body) == {"content_type": "image/png"}


def test_the_upload_form_ends_with_the_file_and_has_no_key() -> None:
    with api_server(uploading(DONE)) as (url, requests):
        Client(url, KEY).classify(LARGE)
    form = requests[1]
    parts = message_from_bytes(f"Content-Type: {form.headers['content-type']}\n\n".encode() + form.body).get_payload()
    fields = [(part.get_param("name", header="content-disposition"), part.get_content_type()) for part in parts]
    assert fields == [("key", "text/plain"), ("policy", "text/plain"), ("file", "image/png")]
    assert LARGE in form.body
    assert "x-api-key" not in form.headers
    assert requests[2].headers["x-api-key"] == KEY


def test_an_image_at_the_limit_of_requests_is_not_uploaded() -> None:
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        Client(url).classify(LARGE[:MAX_REQUEST_IMAGE_BYTES])
    assert [request.path for request in requests] == ["/v1/classify"]


def test_options_apply_to_uploads() -> None:
    with api_server(uploading(DONE)) as (url, _):
        answer = Client(url).classify(LARGE, top_k=2, threshold=0.95)
    assert [found.label for found in answer.predictions] == ["cat", "dog"]
    assert answer.uncertain


def test_the_upload_of_an_unfamiliar_photo_is_uncertain_at_every_threshold() -> None:
    unfamiliar = DONE | {"unfamiliar": True, "uncertain": True}
    with api_server(uploading(unfamiliar)) as (url, _):
        answer = Client(url).classify(LARGE, threshold=0)
    assert (answer.unfamiliar, answer.uncertain) == (True, True)


def test_an_upload_for_a_model_is_refused_because_the_default_model_would_classify_it() -> None:
    with api_server(uploading(DONE)) as (url, requests), pytest.raises(ApiProblem, match="default model") as raised:
        Client(url).classify(LARGE, model="pets")
    assert raised.value.code == "image_too_large"
    assert [request.path for request in requests] == ["/v1/uploads"]


def test_a_failed_upload_raises_the_problem_of_the_api() -> None:
    with (
        api_server(uploading({"status": "failed", "problem": problem(415, "not_an_image", "No image.")})) as (url, _),
        pytest.raises(ApiProblem, match=r"^No image\.$") as raised,
    ):
        Client(url).classify(LARGE)
    assert (raised.value.code, raised.value.status) == ("not_an_image", 415)


def test_an_upload_that_the_storage_rejects_is_a_problem() -> None:
    with (
        api_server(uploading(PENDING, storage=403)) as (url, requests),
        pytest.raises(ApiProblem, match=r"^The storage rejected the upload with 403 Forbidden\.$") as raised,
    ):
        Client(url).classify(LARGE)
    assert raised.value.code == "upload_refused"
    assert len(requests) == 2


def test_an_image_above_the_limit_of_uploads_is_not_sent() -> None:
    with (
        api_server(uploading(DONE, max_bytes=MAX_REQUEST_IMAGE_BYTES)) as (url, requests),
        pytest.raises(ApiProblem, match="4,400,008 bytes; at most 4,400,000 are accepted") as raised,
    ):
        Client(url).classify(LARGE)
    assert raised.value.code == "image_too_large"
    assert len(requests) == 1


def test_waiting_for_a_result_ends_at_the_timeout() -> None:
    with (
        api_server(uploading(PENDING)) as (url, _),
        pytest.raises(ApiProblem, match="not classified within 0 seconds") as raised,
    ):
        Client(url, result_timeout=0).classify(LARGE)
    assert raised.value.code == "result_late"


def test_without_uploads_a_large_image_is_sent_in_the_request() -> None:
    with api_server(in_turn(refused(501, "not_configured"), labelled("cat"))) as (url, requests):
        assert Client(url).classify(LARGE).predictions[0].label == "cat"
    assert [request.path for request in requests] == ["/v1/uploads", "/v1/classify"]
    assert requests[1].body == LARGE


def test_without_uploads_a_large_image_for_a_model_is_sent_in_the_request() -> None:
    with api_server(in_turn(refused(501, "not_configured"), labelled("cat"))) as (url, requests):
        assert Client(url).classify(LARGE, model="pets").predictions[0].label == "cat"
    assert requests[1].path == "/v1/classify?model=pets"


def test_a_file_is_sent_unchanged(tmp_path: Path) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(PNG_SIGNATURE + b"and more")
    with api_server(in_turn(labelled("cat"))) as (url, requests):
        assert Client(url).classify(photo).predictions[0].label == "cat"
    assert requests[0].headers["content-type"] == "image/png"
    assert requests[0].body == PNG_SIGNATURE + b"and more"


def test_a_large_file_is_uploaded(tmp_path: Path) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(LARGE)
    with api_server(uploading(DONE)) as (url, requests):
        Client(url).classify(photo)
    assert json.loads(requests[0].body) == {"content_type": "image/png"}
    assert LARGE in requests[1].body


@pytest.mark.parametrize("image_format", IMAGE_FORMATS, ids=FORMAT_NAMES)
def test_a_large_file_of_every_format_is_uploaded_with_its_media_type(
    image_format: ImageFormat, tmp_path: Path
) -> None:
    photo = tmp_path / "photo"
    photo.write_bytes(encoded(Image.new("RGB", (2, 2)), image_format.name) + bytes(MAX_REQUEST_IMAGE_BYTES))
    with api_server(uploading(DONE)) as (url, requests):
        Client(url).classify(photo)
    assert json.loads(requests[0].body) == {"content_type": image_format.media_type}


@pytest.mark.parametrize("takes_uploads", [True, False])
def test_a_file_that_is_too_large_is_not_read(
    takes_uploads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = tmp_path / "photo"
    with photo.open("wb") as file:
        file.truncate(30_000_000)
    monkeypatch.delattr(Path, "read_bytes")
    api = uploading(DONE) if takes_uploads else in_turn(refused(501, "not_configured"))
    most = "25,000,000" if takes_uploads else "10,000,000"
    with (
        api_server(api) as (url, requests),
        pytest.raises(ApiProblem, match=f"has 30,000,000 bytes; at most {most} are accepted") as raised,
    ):
        Client(url).classify(photo)
    assert raised.value.code == "image_too_large"
    assert len(requests) == 1


def test_a_missing_file_raises_file_not_found_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Client("http://127.0.0.1").classify(tmp_path / "gone.jpg")
