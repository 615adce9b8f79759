"""POST /v1/describe, with a Converse server that sends scripted replies."""

import base64
import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from aws import AWS_TEXT, Clock, aws_at, fake_clock
from converse import HANGS, ConverseServer, Reply, answer, converse_server, failure, refusal
from support import DEFAULT_BUNDLE, ROCKET, LambdaContext, event
from test_api_aws import problem_of, put, succeeded
from test_request_forms import FORM_TYPE, form

from litelens import telemetry
from litelens.api import handler as api
from litelens.aws.bedrock import DEFAULT_QUESTION
from litelens.core.images import Limits
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

MODEL = "eu.amazon.nova-lite-v1:0"
PHOTO = ROCKET.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}
QUESTION = "Is my neighbour Zebedee in it?"
ANSWER = "Zebedee is nowhere to be seen."
KEY = "holiday/zanzibar.jpg"
API_KEY = "key-of-the-usage-plan"

# By name: the model's reply, and the expected status and code.
REPLIES: dict[str, tuple[Reply, int, str]] = {
    "a guardrail": (refusal("guardrail_intervened"), 422, "describe_refused"),
    "a content filter": (refusal("content_filtered"), 422, "describe_refused"),
    "too many requests": (failure("ThrottlingException"), 503, "describe_throttled"),
    "a model that is too slow": (failure("ModelTimeoutException"), 504, "describe_timeout"),
    "no access to the model": (failure("AccessDeniedException", QUESTION), 502, "describe_unavailable"),
    "no answer": (answer(" "), 502, "describe_unavailable"),
}
COVERED_CODES = frozenset(code for _, _, code in REPLIES.values())


def describe(document: Any, query: dict[str, str] | None = None) -> dict[str, Any]:
    return event("POST", "/v1/describe", json.dumps(document), "application/json", query)


def describe_bytes(**query: str) -> dict[str, Any]:
    return event("POST", "/v1/describe", PHOTO, "image/jpeg", query or None)


def messages_of(bedrock: ConverseServer) -> list[tuple[str, str]]:
    """Return the role and the last text of each message in the last request."""
    return [(message["role"], message["content"][-1]["text"]) for message in bedrock.requests[-1].document["messages"]]


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConverseServer]:
    """A server that boto3 uses instead of Bedrock."""
    with converse_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        server.script(answer(ANSWER))
        yield server


@pytest.fixture
def handle_describe(bedrock: ConverseServer) -> Handle:
    settings = Settings(DEFAULT_BUNDLE, Limits(), threads=1, buckets=frozenset(["photos"]), describe_model=MODEL)
    handler = api.create_handler(settings)
    return lambda event: handler(event, LambdaContext())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


def test_the_answer_comes_with_the_predictions(
    handle: Handle, handle_describe: Handle, bedrock: ConverseServer
) -> None:
    found = succeeded(handle_describe(describe({**PHOTO_JSON, "question": QUESTION})))
    classified = succeeded(handle(event("POST", "/v1/classify", PHOTO, "image/jpeg")))
    assert list(found) == [
        *("model", "describe_model", "answer", "turns", "predictions"),
        *("uncertain", "input_tokens", "output_tokens", "request_id"),
    ]
    assert (found["answer"], found["describe_model"]) == (ANSWER, MODEL)
    assert found["turns"] == [{"question": QUESTION, "answer": ANSWER}]
    assert (found["input_tokens"], found["output_tokens"]) == (900, 7)
    for field in ("model", "predictions", "uncertain", "request_id"):
        assert found[field] == classified[field]
    assert messages_of(bedrock) == [("user", QUESTION)]


def test_a_conversation_continues_with_the_returned_turns(handle_describe: Handle, bedrock: ConverseServer) -> None:
    bedrock.script(answer("A rocket."), answer("Beside a tower."), answer("By day."))
    turns: list[Any] = []
    for question in ("What is it?", "Where?", "When?"):
        turns = succeeded(handle_describe(describe({**PHOTO_JSON, "question": question, "turns": turns})))["turns"]
    assert [turn["answer"] for turn in turns] == ["A rocket.", "Beside a tower.", "By day."]
    assert messages_of(bedrock) == [
        *(("user", "What is it?"), ("assistant", "A rocket.")),
        *(("user", "Where?"), ("assistant", "Beside a tower.")),
        ("user", "When?"),
    ]
    # The image goes with the first question only.
    images = [
        [part for part in message["content"] if "image" in part]
        for message in bedrock.requests[-1].document["messages"]
    ]
    assert [len(parts) for parts in images] == [1, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("request_", "question"),
    [
        (describe({**PHOTO_JSON, "question": QUESTION}), QUESTION),
        (describe(PHOTO_JSON), DEFAULT_QUESTION),
        (describe_bytes(question=QUESTION), QUESTION),
        (describe_bytes(), DEFAULT_QUESTION),
        (event("POST", "/v1/describe", form(("question", QUESTION), ("image", PHOTO)), FORM_TYPE), QUESTION),
        (event("POST", "/v1/describe", form(("image", PHOTO)), FORM_TYPE), DEFAULT_QUESTION),
    ],
    ids=["json", "json-alone", "bytes", "bytes-alone", "form", "form-alone"],
)
def test_every_kind_of_request_may_have_a_question(
    handle_describe: Handle, bedrock: ConverseServer, request_: dict[str, Any], question: str
) -> None:
    assert succeeded(handle_describe(request_))["turns"] == [{"question": question, "answer": ANSWER}]
    assert messages_of(bedrock) == [("user", question)]


@pytest.mark.parametrize("name", REPLIES)
def test_a_failure_of_the_model_gets_the_problem_with_its_code(
    handle_describe: Handle, bedrock: ConverseServer, clock: Clock, name: str
) -> None:
    reply, status, code = REPLIES[name]
    bedrock.script(reply)
    response = handle_describe(describe({**PHOTO_JSON, "question": QUESTION}))
    assert bedrock.requests
    assert problem_of(response) == (status, code)
    assert (response["multiValueHeaders"].get("Retry-After") == ["2"]) is (status == 503)
    for secret in (AWS_TEXT, QUESTION, "canned"):
        assert secret not in response["body"]


def test_a_model_that_does_not_respond_is_a_timeout(handle_describe: Handle, bedrock: ConverseServer) -> None:
    class ShortOfTime(LambdaContext):
        def get_remaining_time_in_millis(self) -> int:
            return 4_500

    settings = Settings(DEFAULT_BUNDLE, Limits(), threads=1, describe_model=MODEL)
    bedrock.script(HANGS)
    response = api.create_handler(settings)(describe(PHOTO_JSON), ShortOfTime())
    assert problem_of(response) == (504, "describe_timeout")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (describe({**PHOTO_JSON, "question": "x" * 2001}), 400, "invalid_request"),
        (describe({**PHOTO_JSON, "question": ""}), 400, "invalid_request"),
        (describe({**PHOTO_JSON, "question": " \n"}), 400, "invalid_request"),
        (describe_bytes(question="x" * 2001), 400, "invalid_option"),
        (describe_bytes(question=" "), 400, "invalid_option"),
        (describe({**PHOTO_JSON, "turns": [{"question": "What?"}]}), 400, "invalid_request"),
        (describe({**PHOTO_JSON, "turns": [{"question": " ", "answer": "x"}]}), 400, "invalid_request"),
        (describe({**PHOTO_JSON, "turns": [{"question": "x", "answer": "x"}] * 21}), 400, "invalid_request"),
        (describe({**PHOTO_JSON, "top_k": 1}), 400, "invalid_request"),
        (describe({"images": [PHOTO_JSON]}), 400, "invalid_request"),
        (describe({"question": QUESTION}), 400, "image_missing"),
        (describe({"image": "aGVsbG8="}), 415, "not_an_image"),
        (describe({"s3_uri": "s3://secrets/cat.jpg"}), 403, "bucket_not_allowed"),
        (event("POST", "/v1/describe", form(("image", PHOTO), ("image", PHOTO)), FORM_TYPE), 400, "invalid_request"),
        (event("POST", "/v1/describe", form(("image", PHOTO), ("top_k", "1")), FORM_TYPE), 400, "invalid_request"),
        (event("POST", "/v1/describe", "hello", "text/plain"), 415, "unsupported_media_type"),
    ],
)
def test_an_invalid_request_does_not_reach_the_model(
    handle_describe: Handle, bedrock: ConverseServer, request_: dict[str, Any], status: int, code: str
) -> None:
    assert problem_of(handle_describe(request_)) == (status, code)
    assert bedrock.requests == []


def test_descriptions_are_not_configured_without_a_model(handle: Handle) -> None:
    assert problem_of(handle(describe(PHOTO_JSON))) == (501, "not_configured")
    assert problem_of(handle(describe({"nothing": "right"}))) == (501, "not_configured")


def test_no_log_line_contains_the_image_its_key_or_the_conversation(
    moto_server: str,
    handle_describe: Handle,
    bedrock: ConverseServer,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = StringIO()
    monkeypatch.setattr(telemetry.logger.registered_handler, "stream", written)
    in_s3 = {"s3_uri": f"s3://photos/{KEY}"}
    with aws_at(moto_server):
        from litelens.aws.s3 import s3_client

        s3_client().create_bucket(Bucket="photos")
        put("photos", KEY, PHOTO)
        caplog.clear()
        for request in (
            describe({**in_s3, "question": QUESTION, "turns": [{"question": "Zoe?", "answer": "Zachary."}]}),
            describe({**PHOTO_JSON, "question": QUESTION}),
            event("POST", "/v1/classify", json.dumps(in_s3), "application/json"),
            event("POST", "/v1/classify", json.dumps({"s3_uri": f"s3://secrets/{KEY}"}), "application/json"),
            event("POST", "/v1/classify", json.dumps({"s3_uri": f"s3://photos/{KEY}.gone"}), "application/json"),
        ):
            request["headers"]["x-api-key"] = API_KEY
            handle_describe(request)
        bedrock.script(failure("ValidationException", QUESTION))
        handle_describe(describe({**PHOTO_JSON, "question": QUESTION}))
    ours = [record for record in caplog.records if record.name != "werkzeug"]
    printed = "".join((written.getvalue(), *capsys.readouterr(), *(str(vars(record)) for record in ours)))
    assert printed.count('"message":"described"') == 2
    assert printed.count('"message":"refused"') == 2
    assert printed.count('"message":"failed"') == 1
    for secret in (
        KEY,
        "zanzibar",
        "Zebedee",
        "Zoe",
        "Zachary",
        PHOTO_JSON["image"][:40],
        API_KEY,
        AWS_TEXT,
        "Traceback",
    ):
        assert secret not in printed
