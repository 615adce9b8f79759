"""The inputs of a classify request: forms, several images, objects in S3, and options."""

import base64
import threading
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image
from support import (
    DEFAULT_BUNDLE,
    ROCKET,
    LambdaContext,
    answer_of,
    classify_bytes,
    classify_json,
    content_type_of,
    encoded,
    event,
)
from test_request_forms import BOUNDARY, FORM_TYPE, B, form

from litelens.api.handler import create_handler
from litelens.api.requests import ImageInput, source_of
from litelens.aws.s3 import ObjectLocation
from litelens.core.classifier import Classifier, PreparedImage
from litelens.core.engines import LiteRT
from litelens.core.images import Limits
from litelens.settings import MAX_IMAGES, Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = ROCKET.read_bytes()
PHOTO_BASE64 = base64.b64encode(PHOTO).decode()
PHOTO_JSON = {"image": PHOTO_BASE64}
GREY_PNG = encoded(Image.new("RGB", (20, 10), "grey"), "PNG")
GREY_JSON = {"image": base64.b64encode(GREY_PNG).decode()}


def handle_with_threads(threads: int) -> Handle:
    """Return a handler whose function has this many cores."""
    handler = create_handler(Settings(DEFAULT_BUNDLE, Limits(), threads))
    return lambda event: handler(event, LambdaContext())


def classify_form(body: bytes, content_type: str = FORM_TYPE) -> dict[str, Any]:
    return event("POST", "/v1/classify", body, content_type)


def images(*parts: bytes) -> dict[str, Any]:
    return classify_form(form(*(("image", part) for part in parts)))


def part(head: str, content: bytes = PHOTO) -> dict[str, Any]:
    """Return a request with a form of one part with these headers."""
    return classify_form(b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (B, head.encode("latin-1"), content, B))


def succeeded(response: dict[str, Any]) -> Any:
    assert response["statusCode"] == 200, response["body"]
    return answer_of(response)


def formats(response: dict[str, Any]) -> list[str]:
    """Return the format of each image, or the code of its problem."""
    results = succeeded(response)["results"]
    return [r["image"]["format"] if r["status"] == "done" else r["problem"]["code"] for r in results]


S3 = {"bucket": "photos", "key": "cat.jpg"}
IMAGE_PART = 'Content-Disposition: form-data; name="image"; filename="photo.jpg"'
WHOLE_FORM = form(("image", PHOTO))

# By name: the request, and the expected status and code.
BAD_INPUTS = {
    "a form without a boundary": (classify_form(WHOLE_FORM, "multipart/form-data"), 400, "invalid_multipart"),
    "a form with an empty boundary": (
        classify_form(WHOLE_FORM, 'multipart/form-data; boundary=""'),
        400,
        "invalid_multipart",
    ),
    "a form with another boundary": (
        classify_form(WHOLE_FORM, "multipart/form-data; boundary=x"),
        400,
        "invalid_multipart",
    ),
    "an empty form": (classify_form(b""), 400, "invalid_multipart"),
    "a truncated form": (classify_form(WHOLE_FORM[: len(WHOLE_FORM) // 2]), 400, "invalid_multipart"),
    "a form without its last boundary": (classify_form(WHOLE_FORM[: -len(B) - 8]), 400, "invalid_multipart"),
    "a form with text before its first boundary": (classify_form(b"prose" + WHOLE_FORM), 400, "invalid_multipart"),
    "a part without a name": (part("Content-Disposition: form-data"), 400, "invalid_multipart"),
    "a part without a disposition": (part("Content-Type: image/jpeg"), 400, "invalid_multipart"),
    "a part of another disposition": (part('Content-Disposition: file; name="image"'), 400, "invalid_multipart"),
    "a part whose header is not UTF-8": (part(f"{IMAGE_PART}\r\nX-Name: \xff"), 400, "invalid_multipart"),
    "a part of another length than it says": (part(f"{IMAGE_PART}\r\nContent-Length: 3"), 400, "invalid_multipart"),
    "a part with too many headers": (part("X: y\r\n" * 20 + IMAGE_PART), 400, "invalid_multipart"),
    "an unknown field": (classify_form(form(("image", PHOTO), ("topk", "1"))), 400, "invalid_request"),
    "a field with an empty name": (classify_form(form(("image", PHOTO), ("", "1"))), 400, "invalid_request"),
    "a form without an image": (classify_form(form(("top_k", "1"))), 400, "image_missing"),
    "a form with an empty image": (images(b""), 400, "image_missing"),
    "17 images in a form": (images(*[GREY_PNG] * 17), 400, "invalid_request"),
    "a form's option that is not UTF-8": (
        classify_form(form(("image", PHOTO), ("top_k", b"\xff"))),
        400,
        "invalid_request",
    ),
    "an invalid option in a form": (classify_form(form(("image", PHOTO), ("top_k", "0"))), 400, "invalid_option"),
    "a form with bytes that are not an image": (images(b"hello"), 415, "not_an_image"),
    "no images": (classify_json({"images": []}), 400, "invalid_request"),
    "17 images": (classify_json({"images": [GREY_JSON] * 17}), 400, "invalid_request"),
    "images that are null": (classify_json({"images": None}), 400, "invalid_request"),
    "an image and images": (classify_json({**GREY_JSON, "images": [GREY_JSON]}), 400, "invalid_request"),
    "an object and images": (classify_json({"s3": S3, "images": [GREY_JSON]}), 400, "invalid_request"),
    "an image and an object": (classify_json({**GREY_JSON, "s3": S3}), 400, "invalid_request"),
    "an object and its URI": (classify_json({"s3": S3, "s3_uri": "s3://photos/cat.jpg"}), 400, "invalid_request"),
    "an object without a key": (classify_json({"s3": {"bucket": "photos"}}), 400, "invalid_request"),
    "an object with an empty key": (classify_json({"s3": S3 | {"key": ""}}), 400, "invalid_request"),
    "an object with a key that is too long": (classify_json({"s3": S3 | {"key": "x" * 1025}}), 400, "invalid_request"),
    "an object with an unknown field": (classify_json({"s3": S3 | {"region": "us-east-1"}}), 400, "invalid_request"),
    "a bucket with too short a name": (classify_json({"s3": S3 | {"bucket": "ab"}}), 400, "invalid_request"),
    "an object that is null": (classify_json({"s3": None}), 400, "invalid_request"),
    "an HTTPS URL": (classify_json({"s3_uri": "https://photos.s3.amazonaws.com/cat.jpg"}), 400, "invalid_request"),
    "a URI without a key": (classify_json({"s3_uri": "s3://photos"}), 400, "invalid_request"),
    "a URI with an empty key": (classify_json({"s3_uri": "s3://photos/"}), 400, "invalid_request"),
    "a URI without a bucket": (classify_json({"s3_uri": "s3:///cat.jpg"}), 400, "invalid_request"),
    "a URI in capitals": (classify_json({"s3_uri": "S3://photos/cat.jpg"}), 400, "invalid_request"),
    "a URI after a space": (classify_json({"s3_uri": " s3://photos/cat.jpg"}), 400, "invalid_request"),
    "an invalid option for several images": (
        classify_json({"images": [GREY_JSON], "top_k": 0}),
        400,
        "invalid_option",
    ),
    "a threshold above 1": (classify_json({**GREY_JSON, "threshold": 1.01}), 400, "invalid_option"),
    "a threshold below 0": (classify_json({**GREY_JSON, "threshold": -0.01}), 400, "invalid_option"),
    "a threshold that is not a number": (classify_bytes(PHOTO, threshold="nan"), 400, "invalid_option"),
    "a threshold with an underscore": (classify_bytes(PHOTO, threshold="0_1"), 400, "invalid_option"),
    "a threshold in quotes": (classify_json({**GREY_JSON, "threshold": "0.5"}), 400, "invalid_request"),
    "a heat map option that is not a boolean": (classify_bytes(PHOTO, heatmap="perhaps"), 400, "invalid_option"),
    "a heat map of an unknown label": (classify_bytes(PHOTO, heatmap_label="unicorn"), 400, "invalid_option"),
    "an unknown label beside no heat map": (
        classify_bytes(PHOTO, heatmap="false", heatmap_label="unicorn"),
        400,
        "invalid_option",
    ),
}
COVERED_CODES = frozenset(code for _, _, code in BAD_INPUTS.values())


@pytest.mark.parametrize("name", BAD_INPUTS)
def test_a_bad_input_gets_the_problem_with_its_code(handle: Handle, name: str) -> None:
    request, status, code = BAD_INPUTS[name]
    response = handle(request)
    problem = answer_of(response)
    assert (response["statusCode"], problem["code"]) == (status, code), problem["detail"]
    assert content_type_of(response) == "application/problem+json"
    assert len(problem["detail"]) < 300


class TestForms:
    def test_a_form_with_one_image_gets_the_same_answer_as_its_bytes(self, handle: Handle) -> None:
        assert (
            succeeded(handle(images(PHOTO)))["predictions"] == succeeded(handle(classify_bytes(PHOTO)))["predictions"]
        )

    def test_several_images_get_their_answers_in_order(self, handle: Handle) -> None:
        response = handle(images(GREY_PNG, PHOTO, b"hello", GREY_PNG))
        assert formats(response) == ["PNG", "JPEG", "not_an_image", "PNG"]
        assert list(succeeded(response)) == ["model", "results", "request_id"]

    def test_a_form_may_have_the_maximum_number_of_images(self, handle: Handle) -> None:
        assert formats(handle(images(*[GREY_PNG] * MAX_IMAGES))) == ["PNG"] * 16

    @pytest.mark.parametrize("order", [1, -1])
    def test_options_may_come_before_or_after_the_image(self, handle: Handle, order: int) -> None:
        parts = [
            ("top_k", "2"),
            ("image", PHOTO),
            ("threshold", "0.01"),
            ("heatmap", "TRUE"),
            ("heatmap_label", "goldfish"),
        ]
        answer = succeeded(handle(classify_form(form(*parts[::order]))))
        assert len(answer["predictions"]) == 2
        assert answer["uncertain"] is False
        assert answer["heatmap"]["label"] == "goldfish"

    def test_fields_override_the_query(self, handle: Handle) -> None:
        made = event(
            "POST",
            "/v1/classify",
            form(("image", PHOTO), ("top_k", "2")),
            FORM_TYPE,
            {"top_k": "7", "heatmap": "true"},
        )
        answer = succeeded(handle(made))
        assert len(answer["predictions"]) == 2
        assert "heatmap" in answer

    @pytest.mark.parametrize(
        "head",
        [
            "Content-Disposition: form-data; name=image",
            "content-disposition: FORM-DATA; NAME=image",
            f"{IMAGE_PART}\r\nContent-Type: image/jpeg; charset=klingon",
            f"{IMAGE_PART}\r\nContent-Type: ;;;=",
            "Content-Disposition: form-data; name=\"image\"; filename*=UTF-8''%e2%82",
        ],
    )
    def test_an_image_part_needs_only_its_name(self, handle: Handle, head: str) -> None:
        assert succeeded(handle(part(head)))["image"]["format"] == "JPEG"

    def test_the_boundary_may_be_quoted_and_parameter_names_are_case_insensitive(self, handle: Handle) -> None:
        made = classify_form(WHOLE_FORM, f'Multipart/Form-Data; charset=utf-8; Boundary="{BOUNDARY}"')
        assert succeeded(handle(made))["image"]["format"] == "JPEG"


class TestSeveralImages:
    @pytest.fixture(params=[1, 2], ids=["one core", "two cores"])
    def handle(self, request: pytest.FixtureRequest) -> Handle:
        return handle_with_threads(request.param)

    def test_with_two_cores_the_next_image_is_decoded_while_the_model_runs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = handle_with_threads(2)
        prepare, run = Classifier.prepare, LiteRT.run
        prepared: list[bytes] = []
        second = threading.Event()

        def counted(self: Classifier, data: bytes) -> PreparedImage:
            prepared.append(data)
            if len(prepared) == 2:
                second.set()
            return prepare(self, data)

        def after_second(*arguments: Any) -> Any:
            assert second.wait(timeout=60)
            return run(*arguments)

        monkeypatch.setattr(Classifier, "prepare", counted)
        monkeypatch.setattr(LiteRT, "run", after_second)
        assert formats(handle(images(GREY_PNG, PHOTO, GREY_PNG))) == ["PNG", "JPEG", "PNG"]
        assert prepared == [GREY_PNG, PHOTO, GREY_PNG]

    def test_with_one_core_images_are_decoded_in_the_thread_of_the_request(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        handle = handle_with_threads(1)
        prepare, threads = Classifier.prepare, set()

        def counted(self: Classifier, data: bytes) -> PreparedImage:
            threads.add(threading.get_ident())
            return prepare(self, data)

        monkeypatch.setattr(Classifier, "prepare", counted)
        assert formats(handle(images(GREY_PNG, PHOTO))) == ["PNG", "JPEG"]
        assert threads == {threading.get_ident()}

    def test_the_results_are_in_the_order_of_the_images(self, handle: Handle) -> None:
        response = handle(classify_json({"images": [GREY_JSON, PHOTO_JSON, GREY_JSON]}))
        assert formats(response) == ["PNG", "JPEG", "PNG"]
        alone = succeeded(handle(classify_json(PHOTO_JSON)))
        second = succeeded(response)["results"][1]
        for field in ("image", "predictions", "uncertain", "group"):
            assert second[field] == alone[field]

    def test_a_list_of_one_image_gets_a_list_of_one_result(self, handle: Handle) -> None:
        assert formats(handle(classify_json({"images": [PHOTO_JSON]}))) == ["JPEG"]

    def test_a_request_may_have_the_maximum_number_of_images(self, handle: Handle) -> None:
        assert formats(handle(classify_json({"images": [GREY_JSON] * MAX_IMAGES}))) == ["PNG"] * 16

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            ({}, "image_missing"),
            ({"image": ""}, "image_missing"),
            ({"image": "!!!!"}, "invalid_base64"),
            ({"image": "aGVsbG8="}, "not_an_image"),
            ({"image": base64.b64encode(PHOTO[:20_000]).decode()}, "corrupt_image"),
            ({"image": base64.b64encode(bytes(6_000_001)).decode()}, "request_too_large"),
            ({**GREY_JSON, "s3": S3}, "invalid_request"),
            ({"s3": S3}, "bucket_not_allowed"),
            ({**GREY_JSON, "top_k": 1}, "invalid_request"),
            ({"image": 1}, "invalid_request"),
            (PHOTO_BASE64, "invalid_request"),
            (None, "invalid_request"),
        ],
    )
    def test_a_bad_image_does_not_fail_the_others(self, handle: Handle, bad: Any, code: str) -> None:
        response = handle(classify_json({"images": [GREY_JSON, bad, PHOTO_JSON]}))
        assert formats(response) == ["PNG", code, "JPEG"]
        problem = succeeded(response)["results"][1]["problem"]
        assert problem["request_id"] == succeeded(response)["request_id"]
        assert problem["type"] == f"urn:litelens:problem:{code}"

    def test_options_apply_to_all_images(self, handle: Handle) -> None:
        document = {"images": [GREY_JSON, PHOTO_JSON], "top_k": 2, "threshold": 0, "heatmap_label": "goldfish"}
        for result in succeeded(handle(classify_json(document)))["results"]:
            assert len(result["predictions"]) == 2
            assert result["uncertain"] is False
            assert result["heatmap"]["label"] == "goldfish"


@pytest.mark.parametrize(
    ("uri", "bucket", "key"),
    [
        ("s3://photos/cat.jpg", "photos", "cat.jpg"),
        ("s3://photos/2026/a b/ü?versionId=1#x", "photos", "2026/a b/ü?versionId=1#x"),
        ("s3://photos//cat.jpg", "photos", "/cat.jpg"),
        ("s3://photos/../other/cat.jpg", "photos", "../other/cat.jpg"),
    ],
)
def test_an_s3_uri_has_a_bucket_and_a_literal_key(uri: str, bucket: str, key: str) -> None:
    assert source_of(ImageInput(s3_uri=uri)) == ObjectLocation(bucket, key)
