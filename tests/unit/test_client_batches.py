"""Requests with several images, of the Python client and of `litelens classify`, against a fake API."""

import json
import threading
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_api import (
    MODEL,
    Request,
    Response,
    api_server,
    classification,
    each_image,
    failed,
    images_of,
    in_turn,
    labelled,
    refused,
    sent,
)
from msgspec.structs import replace
from PIL import ExifTags, Image
from profiles import rgb_profile
from skimage import data
from support import DEFAULT_BUNDLE, encoded

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits
from litelens.settings import MAX_IMAGES
from litelens_client import api, reduction
from litelens_client.__main__ import main
from litelens_client.answers import Answer, ApiProblem, ClassifyError
from litelens_client.api import ApiUnreachable, Client
from litelens_client.batches import MAX_BATCH_BYTES


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the number of retries, but remove the pauses."""
    monkeypatch.setattr(api, "_RETRIES", api._RETRIES.new(backoff_factor=0, backoff_jitter=0))


def done(image: bytes) -> dict[str, Any]:
    """Return the result whose label is the image's text."""
    return {"status": "done", **classification(image.decode())}


def texts(count: int) -> list[bytes]:
    return [f"{number}".encode() for number in range(count)]


def labels(outcomes: list[Any]) -> list[str]:
    """Return the label of each answer, and the code of each error."""
    return [
        outcome.predictions[0].label
        if isinstance(outcome, Answer)
        else getattr(outcome, "code", type(outcome).__name__)
        for outcome in outcomes
    ]


def test_requests_are_filled_and_answers_keep_the_order_of_the_images() -> None:
    with api_server(each_image(done)) as (url, requests):
        outcomes = list(Client(url, connections=3).classify_all(texts(40), model="pets", top_k=1))
    assert labels(outcomes) == [str(number) for number in range(40)]
    assert sorted(len(images_of(request)) for request in requests) == [8, MAX_IMAGES, MAX_IMAGES]
    assert {request.path for request in requests} == {"/v1/classify?model=pets&top_k=1"}
    assert {outcome.request_id for outcome in outcomes if isinstance(outcome, Answer)} == {"request-1"}


def test_no_images_are_no_request() -> None:
    assert list(Client("http://127.0.0.1:1").classify_all([])) == []


def test_a_single_image_is_sent_as_by_classify() -> None:
    with api_server(each_image(done)) as (url, requests):
        assert labels(list(Client(url).classify_all([b"cat"]))) == ["cat"]
    assert requests[0].body == b"cat"
    assert requests[0].headers["content-type"] == "image/jpeg"


def test_the_body_of_a_request_stays_below_its_limit() -> None:
    image = b"\xff\xd8\xff" + bytes(MAX_BATCH_BYTES // 3)
    response = in_turn(sent({"model": MODEL, "results": [done(b"cat")] * 2, "request_id": "request-1"}))
    with api_server(response) as (url, requests):
        assert labels(list(Client(url).classify_all([image] * 4, original=True))) == ["cat"] * 4
    assert [len(images_of(request)) for request in requests] == [2, 2]
    assert all(len(request.body) <= MAX_BATCH_BYTES for request in requests)


def test_an_image_that_fails_does_not_affect_the_others(tmp_path: Path) -> None:
    def classify(image: bytes) -> dict[str, Any]:
        return failed(422, "corrupt_image") if image == b"1" else done(image)

    with api_server(each_image(classify)) as (url, requests):
        outcomes = list(Client(url).classify_all([b"0", b"1", tmp_path / "none.jpg", b"2"]))
    assert labels(outcomes) == ["0", "corrupt_image", "FileNotFoundError", "2"]
    assert isinstance(outcomes[1], ApiProblem)
    assert outcomes[1].request_id == "request-1"
    assert len(requests) == 1


@pytest.mark.parametrize("code", ["timeout", "storage_timeout", "storage_unavailable"])
def test_only_the_images_for_which_there_was_no_time_are_sent_again(code: str) -> None:
    seen: list[bytes] = []

    def classify(image: bytes) -> dict[str, Any]:
        seen.append(image)
        return done(image) if image in (b"0", b"1") or seen.count(image) > 2 else failed(504, code)

    with api_server(each_image(classify)) as (url, requests):
        assert labels(list(Client(url).classify_all(texts(5)))) == list("01234")
    assert [images_of(request) for request in requests[:2]] == [texts(5), texts(5)[2:]]
    assert [seen.count(image) for image in texts(5)] == [1, 1, 3, 3, 3]


def test_an_image_for_which_there_is_never_time_fails() -> None:
    with api_server(each_image(lambda _: failed(504, "timeout"))) as (url, requests):
        assert labels(list(Client(url).classify_all(texts(4)))) == ["timeout"] * 4
    assert len(requests) == 4


@pytest.mark.parametrize("status", [413, 500, 502, 504])
def test_a_request_that_is_too_much_is_divided_until_the_image_that_causes_it_is_alone(status: int) -> None:
    def respond(request: Request) -> Response:
        return Response(status) if b"3" in images_of(request) else each_image(done)(request)

    with api_server(respond) as (url, _):
        assert labels(list(Client(url).classify_all(texts(6)))) == ["0", "1", "2", f"http_{status}", "4", "5"]


def test_a_service_that_always_fails_is_not_asked_for_every_image() -> None:
    with api_server(lambda _: Response(504)) as (url, requests):
        assert labels(list(Client(url).classify_all(texts(MAX_IMAGES)))) == ["http_504"] * MAX_IMAGES
    assert len(requests) < MAX_IMAGES / 2


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_to_a_busy_api_is_sent_again_as_a_whole(status: int) -> None:
    busy = [refused(status, "busy", **{"Retry-After": "0"})]

    def respond(request: Request) -> Response:
        return busy.pop() if busy else each_image(done)(request)

    with api_server(respond) as (url, requests):
        assert labels(list(Client(url).classify_all(texts(3)))) == list("012")
    assert requests[0].body == requests[1].body


def test_a_connection_that_always_breaks_fails_all_images_of_its_request() -> None:
    answered = [labelled("cat")]

    def respond(request: Request) -> Response | None:
        return answered.pop() if answered else None

    with api_server(respond) as (url, _):
        client = Client(url)
        client.classify(b"0")
        outcomes = list(client.classify_all(texts(2)))
    assert [type(outcome) for outcome in outcomes] == [ApiUnreachable] * 2


@pytest.mark.parametrize(
    "answer",
    [
        {"model": MODEL, "results": [done(b"0")], "request_id": "request-1"},
        {"model": MODEL, **classification("cat"), "request_id": "request-1"},
    ],
)
def test_an_answer_without_a_result_for_each_image_is_a_problem(answer: dict[str, Any]) -> None:
    with api_server(in_turn(sent(answer))) as (url, _):
        assert labels(list(Client(url).classify_all(texts(2)))) == ["unexpected_answer"] * 2


def test_an_error_that_concerns_all_images_is_raised_and_ends_the_requests() -> None:
    with api_server(in_turn(refused(403, "forbidden"))) as (url, requests):
        outcomes = Client(url, connections=1).classify_all(texts(200))
        with pytest.raises(ClassifyError) as raised:
            next(outcomes)
    assert raised.value.concerns_all
    assert len(requests) == 1


def test_objects_in_s3_are_sent_together_but_not_with_files() -> None:
    uris = [f"s3://photos/{number}.jpg" for number in range(2)]

    def respond(request: Request) -> Response:
        if request.headers["content-type"] != "application/json":
            return each_image(done)(request)
        results = [done(image["s3_uri"].encode()) for image in json.loads(request.body)["images"]]
        return sent({"model": MODEL, "results": results, "request_id": "request-1"})

    with api_server(respond) as (url, requests):
        assert labels(list(Client(url).classify_all([*uris, b"0", b"1"]))) == [*uris, "0", "1"]
    assert len(requests) == 2


def test_images_are_taken_only_when_they_are_needed() -> None:
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        for number in range(10_000):
            taken.append(number)
            yield f"{number}".encode()

    with api_server(each_image(done)) as (url, _):
        outcomes = Client(url, connections=1).classify_all(endless())
        assert labels([next(outcomes)]) == ["0"]
        outcomes.close()  # type: ignore[attr-defined]
    assert len(taken) <= 4 * MAX_IMAGES


def photos_in(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number:03}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_text(f"{number}")
    return paths


def test_the_command_fills_requests_and_prints_results_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = photos_in(tmp_path, 40)
    # The first request is answered last.
    others_are_answered = threading.Semaphore(0)

    def last_first(request: Request) -> Response:
        if b"0" in images_of(request):
            assert all(others_are_answered.acquire(timeout=60) for _ in range(2))
        else:
            others_are_answered.release()
        return each_image(done)(request)

    with api_server(last_first) as (url, requests):
        assert main(["classify", str(tmp_path), "--url", url, "--parallel", "3", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = [(document["source"], document["predictions"][0]["label"]) for document in documents]
    assert found == [(str(path), str(number)) for number, path in enumerate(paths)]
    assert len(requests) == 3


def test_ctrl_c_keeps_the_results_of_the_requests_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos_in(tmp_path, 40)
    get, waits = AsyncResult.get, iter(range(100))

    def interrupted(*arguments: Any) -> Any:
        if next(waits) > 0:
            raise KeyboardInterrupt
        return get(*arguments)

    # The main thread is interrupted while it waits for the second request.
    monkeypatch.setattr(AsyncResult, "get", interrupted)
    with api_server(each_image(done)) as (url, _):
        assert main(["classify", str(tmp_path), "--url", url, "--parallel", "1", "--csv"]) == 130
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1 + MAX_IMAGES
    assert captured.err == "Interrupted after 16 of 40 photos.\n"


SPEC = load_bundle(DEFAULT_BUNDLE).preprocessing
MANIFEST = {
    "name": "everyday",
    "preprocessing": json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())["preprocessing"],
}


@cache
def noisy(width: int, height: int) -> Image.Image:
    """Return a photo of this size with noise, as of a camera."""
    pixels = np.asarray(Image.fromarray(data.coffee()).resize((width, height)), np.int16)
    noise = np.random.default_rng(7).integers(-8, 9, pixels.shape, np.int16)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def large_photo(image_format: str = "JPEG", **options: Any) -> bytes:
    """Return a photo of which half the width and height are enough for the model."""
    return encoded(noisy(2400, 1600), image_format, **{"quality": 95, **options})


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    return exif


def with_model(request: Request) -> Response:
    """Answer for the model, and for each image."""
    if request.method == "GET":
        return sent({"manifest": MANIFEST, "links": {}, "limits": {}})
    return each_image(lambda _: done(b"cat"))(request)


def test_photos_with_more_pixels_than_the_model_needs_are_reduced() -> None:
    photo = large_photo()
    with api_server(with_model) as (url, requests):
        client = Client(url)
        answers = [client.classify(photo, model="pets"), *client.classify_all([photo, b"small"], model="pets")]
    assert [(request.method, request.path) for request in requests] == [
        ("GET", "/v1/model?model=pets"),
        *[("POST", "/v1/classify?model=pets")] * 2,
    ]
    for answer in answers[:2]:
        assert isinstance(answer, Answer)
        assert (answer.image.format, answer.image.width, answer.image.height) == ("JPEG", 2400, 1600)
    (reduced,) = images_of(requests[1])
    assert images_of(requests[2]) == [reduced, b"small"]
    assert len(reduced) < len(photo) / 4
    assert Image.open(BytesIO(reduced)).size == (1200, 800)


def test_original_photos_are_sent_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = large_photo()
    (tmp_path / "a.jpg").write_bytes(photo)
    with api_server(with_model) as (url, requests):
        Client(url).classify(photo, original=True)
        assert main(["classify", str(tmp_path), "--url", url, "--original"]) == 0
    assert [request.body for request in requests] == [photo, photo]
    with pytest.raises(SystemExit):
        main(["classify", str(tmp_path), "--original", "--url", ""])
    assert "--original needs --url" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer", [refused(403, "forbidden"), sent({"manifest": {}}), sent({"manifest": {"preprocessing": {"depth": 3}}})]
)
def test_a_photo_is_sent_unchanged_if_the_api_does_not_say_what_its_model_needs(answer: Response) -> None:
    photo = large_photo()

    def respond(request: Request) -> Response:
        return answer if request.method == "GET" else labelled("cat")

    with api_server(respond) as (url, requests):
        assert Client(url).classify(photo).predictions[0].label == "cat"
    assert requests[-1].body == photo


@pytest.mark.parametrize(
    "image",
    [
        large_photo()[:300_000],
        encoded(noisy(900, 900), "JPEG", quality=98),
        b"\xff\xd8\xff" + bytes(300_000),
        bytes(300_000),
    ],
    ids=["truncated", "few pixels", "no JPEG", "no image"],
)
def test_what_cannot_be_reduced_is_sent_unchanged(image: bytes) -> None:
    with api_server(with_model) as (url, requests):
        Client(url).classify(image)
    assert requests[-1].body == image


@pytest.mark.parametrize(
    ("image_format", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"exif": orientation(6)}),
        ("JPEG", {"icc_profile": rgb_profile("ProPhoto")}),
        ("PNG", {}),
        ("WEBP", {"method": 0}),
    ],
    ids=["JPEG", "turned", "profile", "PNG", "WebP"],
)
def test_a_reduced_photo_gets_the_same_answer(image_format: str, options: dict[str, Any]) -> None:
    classifier = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(bytes=25_000_000), threads=1)
    photo = large_photo(image_format, **options)
    reduced = reduction.reduce_photo(photo, SPEC)
    assert reduced
    whole, part = classifier.classify(photo), classifier.classify(reduced.data)
    assert (reduced.original.width, reduced.original.height) == (whole.width, whole.height)
    assert reduced.original.format == image_format
    assert (part.width > part.height) == (whole.width > whole.height)
    assert part.candidates[0].label == whole.candidates[0].label
    assert part.candidates[0].confidence == pytest.approx(whole.candidates[0].confidence, abs=0.05)


def test_a_photo_for_an_input_that_needs_single_pixels_is_not_reduced() -> None:
    assert reduction.reduce_photo(large_photo(), replace(SPEC, interpolation="nearest")) is None


def test_a_photo_is_not_reduced_if_the_model_needs_its_pixels() -> None:
    assert reduction.reduce_photo(large_photo(), replace(SPEC, width=600, height=600)) is None
