"""Describer: its requests to a Converse server, and how it handles the replies."""

import base64
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from aws import AWS_TEXT, Clock, fake_clock
from converse import (
    ACCOUNT,
    HANGS,
    MALFORMED,
    STATUS,
    ConverseServer,
    Reply,
    answer,
    converse_server,
    failure,
    refusal,
    sent,
)
from PIL import Image
from support import ROCKET, ROOT, encoded, free_port

from litelens.aws.bedrock import MAX_SIDE, MAX_TOKENS, Describer, Description, Turn, to_jpeg
from litelens.aws.clients import Deadline
from litelens.aws.errors import DescribeError, DescribeRefused, DescribeThrottled, DescribeTimeout, DescribeUnavailable

MODEL = "eu.amazon.nova-lite-v1:0"
JPEG = b"\xff\xd8\xff\xe0 any bytes \xff\xd9"
LABELS = [("skyscraper", 0.785321), ("rocket", 0.199639)]
PREDICTIONS = {"text": "Predictions for this image: skyscraper (78.5%), rocket (20.0%)."}
IMAGE = {"image": {"format": "jpeg", "source": {"bytes": base64.b64encode(JPEG).decode()}}}
QUESTION = "Is my neighbour Zebedee in it?"
CONVERSATION = [Turn("What is it?", "A rocket."), Turn("Where?", "Beside a tower.")]


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConverseServer]:
    """A server that boto3 uses instead of Bedrock."""
    with converse_server() as server:
        point_to(server, monkeypatch)
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return fake_clock(monkeypatch)


def point_to(server: ConverseServer, patch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        patch.setenv(name, value)


def ask_model(
    question: str = QUESTION,
    turns: Sequence[Turn] = (),
    seconds: float = 25,
    describer: Describer | None = None,
) -> Description:
    return (describer or Describer(MODEL)).describe(JPEG, LABELS, question, turns, Deadline.after(seconds))


def texts_of(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the role and the last text of each message."""
    return [(message["role"], message["content"][-1]["text"]) for message in messages]


class TestRequest:
    def test_the_request_has_converses_wire_format(self, bedrock: ConverseServer) -> None:
        ask_model()
        (request,) = bedrock.requests
        assert request.path == "/model/eu.amazon.nova-lite-v1%3A0/converse"
        assert request.headers["Content-Type"] == "application/json"
        assert "/us-east-1/bedrock/aws4_request" in request.headers["Authorization"]
        system = request.document.pop("system")
        assert request.document == {
            "messages": [{"role": "user", "content": [IMAGE, PREDICTIONS, {"text": QUESTION}]}],
            "inferenceConfig": {"maxTokens": MAX_TOKENS},
        }
        (prompt,) = system
        assert prompt["text"]

    def test_an_arn_is_one_segment_of_the_path(self, bedrock: ConverseServer) -> None:
        profile = f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:application-inference-profile/abc"
        ask_model(describer=Describer(profile))
        assert bedrock.requests[0].path == (
            f"/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A{ACCOUNT}%3Aapplication-inference-profile%2Fabc/converse"
        )

    def test_a_conversation_comes_before_the_question_oldest_turn_first(self, bedrock: ConverseServer) -> None:
        ask_model(turns=CONVERSATION)
        messages = bedrock.requests[0].document["messages"]
        assert texts_of(messages) == [
            ("user", "What is it?"),
            ("assistant", "A rocket."),
            ("user", "Where?"),
            ("assistant", "Beside a tower."),
            ("user", QUESTION),
        ]
        assert messages[0]["content"][:-1] == [IMAGE, PREDICTIONS]
        assert [len(message["content"]) for message in messages] == [3, 1, 1, 1, 1]

    def test_the_request_goes_to_the_endpoint_in_the_environment(
        self, bedrock: ConverseServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask_model()
        with converse_server() as other:
            point_to(other, monkeypatch)
            ask_model()
            assert (len(bedrock.requests), len(other.requests)) == (1, 1)


class TestAnswer:
    def test_an_answer_has_its_token_counts(self, bedrock: ConverseServer) -> None:
        bedrock.script(answer(" A rocket", " on its pad.\n", input_tokens=1201, output_tokens=9))
        assert ask_model() == Description("A rocket on its pad.", input_tokens=1201, output_tokens=9)

    def test_a_describer_answers_several_questions(self, bedrock: ConverseServer) -> None:
        bedrock.script(answer("A rocket."), answer("No."))
        describer = Describer(MODEL)
        assert [ask_model(describer=describer).answer for _ in range(2)] == ["A rocket.", "No."]

    @pytest.mark.parametrize("reason", ["max_tokens", "stop_sequence", "model_context_window_exceeded"])
    def test_a_truncated_answer_is_still_an_answer(self, bedrock: ConverseServer, reason: str) -> None:
        bedrock.script(answer("A rocket on its", stop_reason=reason))
        assert ask_model().answer == "A rocket on its"

    def test_the_models_reasoning_is_left_out(self, bedrock: ConverseServer) -> None:
        thought = {"reasoningContent": {"reasoningText": {"text": "Hm, a cone."}}}
        bedrock.script(sent(reply_with([thought, {"text": "A rocket."}])))
        assert ask_model().answer == "A rocket."


class TestRefusal:
    @pytest.mark.parametrize("reason", ["guardrail_intervened", "content_filtered", "refusal"])
    def test_a_canned_message_is_a_refusal(self, bedrock: ConverseServer, reason: str) -> None:
        bedrock.script(refusal(reason))
        with pytest.raises(DescribeRefused) as refused:
            ask_model()
        assert "canned" not in str(refused.value)

    def test_a_refusal_may_have_no_message(self, bedrock: ConverseServer) -> None:
        bedrock.script(sent({"stopReason": "content_filtered", "output": None}))
        with pytest.raises(DescribeRefused):
            ask_model()


class TestFailure:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("AccessDeniedException", DescribeUnavailable),
            ("InternalServerException", DescribeUnavailable),
            ("ModelErrorException", DescribeUnavailable),
            ("ModelNotReadyException", DescribeUnavailable),
            ("ModelTimeoutException", DescribeTimeout),
            ("ResourceNotFoundException", DescribeUnavailable),
            ("ServiceQuotaExceededException", DescribeThrottled),
            ("ServiceUnavailableException", DescribeUnavailable),
            ("ThrottlingException", DescribeThrottled),
            ("ValidationException", DescribeUnavailable),
        ],
    )
    def test_each_exception_of_converse_becomes_an_error_without_its_text(
        self, bedrock: ConverseServer, clock: Clock, code: str, kind: type[DescribeError]
    ) -> None:
        bedrock.script(failure(code, about=f"{MODEL} {QUESTION}"))
        with pytest.raises(DescribeError) as failed:
            ask_model()
        assert type(failed.value) is kind
        for secret in (AWS_TEXT, ACCOUNT, "arn:", MODEL, "Zebedee", code):
            assert secret not in str(failed.value)

    def test_every_exception_of_converse_is_covered(self) -> None:
        import boto3

        client = boto3.session.Session().client("bedrock-runtime", region_name="us-east-1")
        declared = {error.name for error in client.meta.service_model.operation_model("Converse").error_shapes}
        assert declared
        assert declared <= set(STATUS)

    @pytest.mark.parametrize(
        "reply",
        [
            MALFORMED,
            Reply(200, b"<html>", {"Content-Type": "text/html"}),
            sent({}),
            sent([]),
            sent({"output": "A rocket.", "stopReason": "end_turn"}),
            answer(),
            answer(" \n"),
            answer("Text that is no answer.", stop_reason="malformed_model_output"),
            answer("Text that is no answer.", stop_reason="tool_use"),
            Reply(400, b"<html>", {"Content-Type": "text/html"}),
        ],
    )
    def test_an_invalid_response_makes_the_model_unavailable(self, bedrock: ConverseServer, reply: Reply) -> None:
        bedrock.script(reply)
        with pytest.raises(DescribeUnavailable):
            ask_model()
        assert len(bedrock.requests) == 1

    @pytest.mark.parametrize("part", ["output", "stopReason", "usage"])
    def test_a_response_needs_all_its_parts(self, bedrock: ConverseServer, part: str) -> None:
        whole = reply_with([{"text": "A rocket."}])
        bedrock.script(sent(whole))
        assert ask_model().answer == "A rocket."
        bedrock.script(sent({name: value for name, value in whole.items() if name != part}))
        with pytest.raises(DescribeUnavailable):
            ask_model()

    def test_an_unreachable_model_is_unavailable(
        self, bedrock: ConverseServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(DescribeUnavailable):
            ask_model(seconds=2)

    @pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION"])
    def test_without_credentials_or_region_the_model_is_unavailable(
        self, bedrock: ConverseServer, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        monkeypatch.delenv(missing)
        with pytest.raises(DescribeUnavailable):
            ask_model()
        assert bedrock.requests == []


class TestRetries:
    @pytest.mark.parametrize(
        "code",
        [
            "InternalServerException",
            "ModelNotReadyException",
            "ServiceQuotaExceededException",
            "ServiceUnavailableException",
            "ThrottlingException",
        ],
    )
    def test_transient_errors_are_retried(self, bedrock: ConverseServer, clock: Clock, code: str) -> None:
        bedrock.script(failure(code), failure(code), answer("A rocket."))
        assert ask_model().answer == "A rocket."
        assert len(bedrock.requests) == 3

    @pytest.mark.parametrize(
        "code", ["AccessDeniedException", "ModelErrorException", "ModelTimeoutException", "ValidationException"]
    )
    def test_permanent_errors_are_not_retried(self, bedrock: ConverseServer, code: str) -> None:
        bedrock.script(failure(code), answer("A rocket."))
        with pytest.raises(DescribeError):
            ask_model()
        assert len(bedrock.requests) == 1

    def test_a_throttled_model_is_retried_until_the_deadline(self, bedrock: ConverseServer, clock: Clock) -> None:
        bedrock.script(failure("ThrottlingException"))
        begin = clock.now
        with pytest.raises(DescribeThrottled):
            ask_model(seconds=5)
        assert len(bedrock.requests) == len(clock.pauses) + 1 > 2
        assert clock.now < begin + 5

    def test_a_timeout_is_not_retried(self, bedrock: ConverseServer, clock: Clock) -> None:
        bedrock.script(HANGS)
        with pytest.raises(DescribeTimeout):
            ask_model(seconds=1.2)
        assert len(bedrock.requests) == 1
        assert clock.pauses == []

    def test_without_time_left_there_is_no_request(self, bedrock: ConverseServer, clock: Clock) -> None:
        with pytest.raises(DescribeTimeout):
            ask_model(seconds=0.9)
        assert bedrock.requests == []


class TestJpeg:
    @pytest.mark.parametrize(
        ("size", "sent_size"),
        [
            ((4000, 3000), (MAX_SIDE, 1176)),
            ((3000, 4000), (1176, MAX_SIDE)),
            ((MAX_SIDE, MAX_SIDE), (MAX_SIDE, MAX_SIDE)),
            ((100, 50), (100, 50)),
            ((20_000, 3), (MAX_SIDE, 1)),
        ],
    )
    def test_only_large_images_are_scaled_down(self, size: tuple[int, int], sent_size: tuple[int, int]) -> None:
        made = Image.open(BytesIO(to_jpeg(Image.new("RGB", size, "navy"))))
        assert (made.format, made.mode, made.size) == ("JPEG", "RGB", sent_size)

    def test_the_jpeg_looks_like_the_image(self) -> None:
        photo = Image.open(ROCKET)
        made = Image.open(BytesIO(to_jpeg(photo)))
        difference = np.abs(np.asarray(made, np.int16) - np.asarray(photo, np.int16))
        assert made.size == photo.size
        assert difference.mean() < 3

    def test_the_jpeg_contains_no_metadata(self) -> None:
        exif = Image.Exif()
        exif.get_ifd(0x8825)[1] = "N-position"
        exif[0x010E] = "exif-description"
        secrets = {"exif": exif, "comment": b"a-comment", "xmp": b"<x-packet/>", "icc_profile": b"the-profile"}
        photo = encoded(Image.new("RGB", (8, 8)), "JPEG", **secrets)
        marks = (b"N-position", b"exif-description", b"a-comment", b"<x-packet/>", b"the-profile")
        assert all(mark in photo for mark in marks)
        rgb = Image.open(BytesIO(photo))
        made = to_jpeg(rgb)
        assert not any(mark in made for mark in marks)
        assert set(Image.open(BytesIO(made)).info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
        assert rgb.info["comment"] == b"a-comment"

    def test_even_a_noisy_jpeg_is_below_converses_limit(self, noise: np.random.Generator) -> None:
        pixels = noise.integers(0, 256, (MAX_SIDE, MAX_SIDE, 3), np.uint8)
        assert len(to_jpeg(Image.fromarray(pixels))) < 3_750_000


def test_boto3_is_not_imported_before_the_first_question() -> None:
    program = "import sys, litelens.aws.bedrock as d; d.Describer('x'); print({'boto3', 'botocore'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "lambda", capture_output=True, check=True)
    assert ran.stdout.strip() == b"set()"


def reply_with(content: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a reply with this content."""
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 900, "outputTokens": 7, "totalTokens": 907},
        "metrics": {"latencyMs": 800},
    }
