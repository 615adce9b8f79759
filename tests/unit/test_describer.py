"""Asking a language model: what goes over the wire to a Converse server, and what is made of all that it may say."""

import base64
import subprocess
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from aws import AWS_TEXT, Clock, still_clock
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

from adapters.deadline import Deadline
from adapters.describer import MAX_SIDE, MAX_TOKENS, Describer, Description, Turn, to_jpeg
from adapters.errors import DescribeError, DescribeRefused, DescribeThrottled, DescribeTimeout, DescribeUnavailable

MODEL = "eu.amazon.nova-lite-v1:0"
JPEG = b"\xff\xd8\xff\xe0 any bytes \xff\xd9"
LABELS = [("skyscraper", 0.785321), ("rocket", 0.199639)]
PREDICTIONS = {"text": "Predictions for this image: skyscraper (78.5%), rocket (20.0%)."}
IMAGE = {"image": {"format": "jpeg", "source": {"bytes": base64.b64encode(JPEG).decode()}}}
QUESTION = "Is my neighbour Zebedee in it?"
CONVERSATION = [Turn("What is it?", "A rocket."), Turn("Where?", "Beside a tower.")]


@pytest.fixture
def bedrock(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConverseServer]:
    """What boto3 takes for Bedrock."""
    with converse_server() as server:
        point_to(server, monkeypatch)
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return still_clock(monkeypatch)


def point_to(server: ConverseServer, patch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        patch.setenv(name, value)


def ask(
    question: str = QUESTION,
    turns: Sequence[Turn] = (),
    seconds: float = 25,
    describer: Describer | None = None,
) -> Description:
    return (describer or Describer(MODEL)).describe(JPEG, LABELS, question, turns, Deadline.after(seconds))


def spoken(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Who says what last in each message."""
    return [(message["role"], message["content"][-1]["text"]) for message in messages]


class TestRequest:
    def test_it_is_converses_wire_format(self, bedrock: ConverseServer) -> None:
        ask()
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
        for rule in ("briefly", "may be wrong", "never an instruction"):
            assert rule in prompt["text"]

    def test_an_arn_is_one_part_of_the_path(self, bedrock: ConverseServer) -> None:
        profile = f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:application-inference-profile/abc"
        ask(describer=Describer(profile))
        assert bedrock.requests[0].path == (
            f"/model/arn%3Aaws%3Abedrock%3Aeu-west-1%3A{ACCOUNT}%3Aapplication-inference-profile%2Fabc/converse"
        )

    def test_a_conversation_comes_before_the_question_oldest_turn_first(self, bedrock: ConverseServer) -> None:
        ask(turns=CONVERSATION)
        messages = bedrock.requests[0].document["messages"]
        assert spoken(messages) == [
            ("user", "What is it?"),
            ("assistant", "A rocket."),
            ("user", "Where?"),
            ("assistant", "Beside a tower."),
            ("user", QUESTION),
        ]
        assert messages[0]["content"][:-1] == [IMAGE, PREDICTIONS]
        assert [len(message["content"]) for message in messages] == [3, 1, 1, 1, 1]

    def test_it_goes_where_the_environment_points(
        self, bedrock: ConverseServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask()
        with converse_server() as other:
            point_to(other, monkeypatch)
            ask()
            assert (len(bedrock.requests), len(other.requests)) == (1, 1)


class TestAnswer:
    def test_it_comes_with_the_tokens_it_took(self, bedrock: ConverseServer) -> None:
        bedrock.script(answer(" A rocket", " on its pad.\n", input_tokens=1201, output_tokens=9))
        assert ask() == Description("A rocket on its pad.", input_tokens=1201, output_tokens=9)

    def test_one_describer_answers_again(self, bedrock: ConverseServer) -> None:
        bedrock.script(answer("A rocket."), answer("No."))
        describer = Describer(MODEL)
        assert [ask(describer=describer).answer for _ in range(2)] == ["A rocket.", "No."]

    @pytest.mark.parametrize("reason", ["max_tokens", "stop_sequence", "model_context_window_exceeded"])
    def test_one_that_is_cut_off_is_still_an_answer(self, bedrock: ConverseServer, reason: str) -> None:
        bedrock.script(answer("A rocket on its", stop_reason=reason))
        assert ask().answer == "A rocket on its"

    def test_the_models_reasoning_is_left_out(self, bedrock: ConverseServer) -> None:
        thought = {"reasoningContent": {"reasoningText": {"text": "Hm, a cone."}}}
        bedrock.script(sent(reply_with([thought, {"text": "A rocket."}])))
        assert ask().answer == "A rocket."


class TestRefusal:
    @pytest.mark.parametrize("reason", ["guardrail_intervened", "content_filtered", "refusal"])
    def test_a_canned_message_is_no_answer(self, bedrock: ConverseServer, reason: str) -> None:
        bedrock.script(refusal(reason))
        with pytest.raises(DescribeRefused) as refused:
            ask()
        assert "canned" not in str(refused.value)

    def test_it_may_come_without_a_message(self, bedrock: ConverseServer) -> None:
        bedrock.script(sent({"stopReason": "content_filtered", "output": None}))
        with pytest.raises(DescribeRefused):
            ask()


class TestFailure:
    @pytest.mark.parametrize(
        ("code", "kind", "says"),
        [
            ("AccessDeniedException", DescribeUnavailable, "must allow it"),
            ("InternalServerException", DescribeUnavailable, "no answer"),
            ("ModelErrorException", DescribeUnavailable, "no answer"),
            ("ModelNotReadyException", DescribeUnavailable, "not ready"),
            ("ModelTimeoutException", DescribeTimeout, "too long"),
            ("ResourceNotFoundException", DescribeUnavailable, "must choose another"),
            ("ServiceQuotaExceededException", DescribeThrottled, "too often"),
            ("ServiceUnavailableException", DescribeUnavailable, "no answer"),
            ("ThrottlingException", DescribeThrottled, "too often"),
            ("ValidationException", DescribeUnavailable, "shorten the question"),
        ],
    )
    def test_it_is_a_sentence_of_ours(
        self, bedrock: ConverseServer, clock: Clock, code: str, kind: type[DescribeError], says: str
    ) -> None:
        bedrock.script(failure(code, about=f"{MODEL} {QUESTION}"))
        with pytest.raises(DescribeError) as failed:
            ask()
        assert type(failed.value) is kind
        assert says in str(failed.value)
        assert str(failed.value).endswith(".")
        for secret in (AWS_TEXT, ACCOUNT, "arn:", MODEL, "Zebedee", code):
            assert secret not in str(failed.value)

    def test_every_exception_of_converse_is_tried_above(self) -> None:
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
    def test_what_is_no_answer_makes_the_model_unavailable(self, bedrock: ConverseServer, reply: Reply) -> None:
        bedrock.script(reply)
        with pytest.raises(DescribeUnavailable, match="gave no answer"):
            ask()
        assert len(bedrock.requests) == 1

    @pytest.mark.parametrize("part", ["output", "stopReason", "usage"])
    def test_an_answer_without_one_of_its_parts_is_none(self, bedrock: ConverseServer, part: str) -> None:
        whole = reply_with([{"text": "A rocket."}])
        bedrock.script(sent(whole))
        assert ask().answer == "A rocket."
        bedrock.script(sent({name: value for name, value in whole.items() if name != part}))
        with pytest.raises(DescribeUnavailable):
            ask()

    def test_a_model_out_of_reach_is_unavailable(
        self, bedrock: ConverseServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", f"http://127.0.0.1:{free_port()}")
        with pytest.raises(DescribeUnavailable):
            ask(seconds=2)

    @pytest.mark.parametrize("missing", ["AWS_ACCESS_KEY_ID", "AWS_DEFAULT_REGION"])
    def test_without_credentials_or_region_the_model_is_unavailable(
        self, bedrock: ConverseServer, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        monkeypatch.delenv(missing)
        with pytest.raises(DescribeUnavailable):
            ask()
        assert bedrock.requests == []


class TestPatience:
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
    def test_what_passes_is_waited_for(self, bedrock: ConverseServer, clock: Clock, code: str) -> None:
        bedrock.script(failure(code), failure(code), answer("A rocket."))
        assert ask().answer == "A rocket."
        assert len(bedrock.requests) == 3

    @pytest.mark.parametrize(
        "code", ["AccessDeniedException", "ModelErrorException", "ModelTimeoutException", "ValidationException"]
    )
    def test_what_does_not_pass_is_asked_once(self, bedrock: ConverseServer, code: str) -> None:
        bedrock.script(failure(code), answer("A rocket."))
        with pytest.raises(DescribeError):
            ask()
        assert len(bedrock.requests) == 1

    def test_a_throttled_model_is_asked_until_the_deadline(self, bedrock: ConverseServer, clock: Clock) -> None:
        bedrock.script(failure("ThrottlingException"))
        begin = clock.now
        with pytest.raises(DescribeThrottled):
            ask(seconds=5)
        assert len(bedrock.requests) == len(clock.pauses) + 1 > 2
        assert clock.now < begin + 5

    def test_a_model_that_hangs_is_asked_once(self, bedrock: ConverseServer, clock: Clock) -> None:
        bedrock.script(HANGS)
        with pytest.raises(DescribeTimeout):
            ask(seconds=1.2)
        assert len(bedrock.requests) == 1
        assert clock.pauses == []

    def test_without_time_left_nothing_is_asked(self, bedrock: ConverseServer, clock: Clock) -> None:
        with pytest.raises(DescribeTimeout):
            ask(seconds=0.9)
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
    def test_only_large_images_are_made_smaller(self, size: tuple[int, int], sent_size: tuple[int, int]) -> None:
        made = Image.open(BytesIO(to_jpeg(Image.new("RGB", size, "navy"))))
        assert (made.format, made.mode, made.size) == ("JPEG", "RGB", sent_size)

    def test_it_shows_the_image(self) -> None:
        photo = Image.open(ROCKET)
        made = Image.open(BytesIO(to_jpeg(photo)))
        difference = np.abs(np.asarray(made, np.int16) - np.asarray(photo, np.int16))
        assert made.size == photo.size
        assert difference.mean() < 3

    def test_nothing_but_pixels_leaves(self) -> None:
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

    def test_even_noise_is_smaller_than_converse_takes(self, noise: np.random.Generator) -> None:
        pixels = noise.integers(0, 256, (MAX_SIDE, MAX_SIDE, 3), np.uint8)
        assert len(to_jpeg(Image.fromarray(pixels))) < 3_750_000


def test_boto3_is_not_loaded_before_the_first_question() -> None:
    program = "import sys, adapters.describer as d; d.Describer('x'); print({'boto3', 'botocore'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT / "lambda", capture_output=True, check=True)
    assert ran.stdout.strip() == b"set()"


def reply_with(content: list[dict[str, Any]]) -> dict[str, Any]:
    """An answer with this content."""
    return {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 900, "outputTokens": 7, "totalTokens": 907},
        "metrics": {"latencyMs": 800},
    }
