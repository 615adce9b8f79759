"""The command and the Python client with a running server, whose buckets are moto's."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from aws import ENVIRONMENT as AWS
from bulk import classify_uploads, new_settings
from PIL import Image
from servers import ENVIRONMENT, serve_command
from support import CAT, ROCKET, ROOT, encoded, free_port, running

from litelens.settings import MAX_REQUEST_IMAGE_BYTES, Settings, read_settings
from litelens_client.__main__ import main
from litelens_client.answers import Answer, ApiProblem, ClassifyError
from litelens_client.api import Client
from litelens_client.classify import LocalClassifier


@pytest.fixture(scope="module")
def stack(moto_server: str) -> Settings:
    return new_settings(max_upload_bytes=10_000_000)


@pytest.fixture(scope="module")
def bucket(stack: Settings) -> str:
    assert stack.upload_bucket
    return stack.upload_bucket


@pytest.fixture(scope="module")
def storing(moto_server: str, stack: Settings, bucket: str) -> Iterator[str]:
    """Run a server with uploads that reads objects in S3; yields its URL."""
    assert stack.results_table
    here = {
        "AWS_ENDPOINT_URL": moto_server,
        "LITELENS_BUCKETS": bucket,
        "LITELENS_UPLOAD_BUCKET": bucket,
        "LITELENS_RESULTS_TABLE": stack.results_table,
    }
    url = f"http://127.0.0.1:{(port := free_port())}"
    with running(serve_command(port), ready=url, cwd=ROOT, env={**ENVIRONMENT, **AWS, **here}):
        yield url


@contextmanager
def classifying(stack: Settings) -> Iterator[None]:
    """Classify uploads while the block runs."""
    from litelens.aws.s3 import s3_client

    is_over = threading.Event()

    def poll() -> None:
        while not is_over.wait(0.1):
            if "Contents" in s3_client().list_objects_v2(Bucket=stack.upload_bucket or "", Prefix="uploads/"):
                classify_uploads(stack)

    with ThreadPoolExecutor(1) as thread:
        polling = thread.submit(poll)
        try:
            yield
        finally:
            is_over.set()
            polling.result()


def test_the_api_and_this_machine_give_the_same_answer(port: int) -> None:
    photo = CAT.read_bytes()
    by_api = Client(f"http://127.0.0.1:{port}").classify(photo, top_k=3, threshold=0.1)
    here = LocalClassifier(read_settings()).classify(photo, top_k=3, threshold=0.1)
    assert len(by_api.predictions) == 3
    assert not by_api.uncertain
    for part in ("model", "image", "predictions", "uncertain", "group"):
        assert getattr(by_api, part) == getattr(here, part)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF", "BMP"])
def test_the_api_accepts_every_format(image_format: str, port: int) -> None:
    image = encoded(Image.new("RGB", (32, 32), "red"), image_format)
    assert Client(f"http://127.0.0.1:{port}").classify(image).image.format == image_format


@pytest.mark.parametrize(
    ("image", "options", "code"),
    [
        (b"hello", {}, "not_an_image"),
        (b"", {}, "image_missing"),
        (ROCKET.read_bytes()[:5000], {}, "corrupt_image"),
        (ROCKET.read_bytes(), {"top_k": 0}, "invalid_option"),
    ],
)
def test_the_api_and_this_machine_give_the_same_errors(
    image: bytes, options: dict[str, int], code: str, port: int
) -> None:
    with pytest.raises(ApiProblem) as by_api:
        Client(f"http://127.0.0.1:{port}").classify(image, **options)
    with pytest.raises(ClassifyError) as here:
        LocalClassifier(read_settings()).classify(image, **options)
    assert by_api.value.code == here.value.code == code
    assert by_api.value.detail == here.value.detail
    assert by_api.value.request_id
    assert here.value.request_id is None


def test_a_bucket_that_is_not_allowed_is_a_problem(port: int) -> None:
    with pytest.raises(ApiProblem) as raised:
        Client(f"http://127.0.0.1:{port}").classify("s3://photos/cat.jpg")
    assert (raised.value.code, raised.value.status) == ("bucket_not_allowed", 403)


def test_a_folder_is_classified_by_the_api_in_order(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "d"):
        (tmp_path / f"{name}.jpg").symlink_to(ROCKET)
    (tmp_path / "c.jpg").write_text("hello")
    assert main(["classify", str(tmp_path), "--url", f"http://127.0.0.1:{port}", "--json"]) == 1
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [os.path.basename(document["source"]) for document in documents] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [document["status"] for document in documents] == ["done", "done", "failed", "done"]


def test_many_images_get_the_answers_that_each_gets_alone(port: int) -> None:
    client = Client(f"http://127.0.0.1:{port}", connections=2)
    images = [CAT.read_bytes(), b"hello", ROCKET.read_bytes()] * 6
    alone = {image: client.classify(image) for image in set(images) - {b"hello"}}
    for image, outcome in zip(images, client.classify_all(images), strict=True):
        if image == b"hello":
            assert isinstance(outcome, ApiProblem)
            assert outcome.code == "not_an_image"
        else:
            assert isinstance(outcome, Answer)
            assert outcome.predictions == alone[image].predictions
            assert outcome.image == alone[image].image


def test_a_photo_that_is_reduced_gets_the_answer_of_the_whole_photo(port: int) -> None:
    with Image.open(ROCKET) as rocket:
        photo = encoded(rocket.resize((3000, 2000)), "JPEG", quality=95)
    client = Client(f"http://127.0.0.1:{port}")
    reduced, whole = client.classify(photo), client.classify(photo, original=True)
    assert reduced.image == whole.image
    assert reduced.predictions[0].label == whole.predictions[0].label
    assert reduced.predictions[0].confidence == pytest.approx(whole.predictions[0].confidence, abs=0.06)


def test_a_large_image_is_classified_through_the_bucket(storing: str, stack: Settings) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (1300, 1300, 3), np.uint8)
    image = encoded(Image.fromarray(noise), "PNG")
    assert len(image) > MAX_REQUEST_IMAGE_BYTES
    with classifying(stack):
        answer = Client(storing).classify(image, top_k=2)
    assert (answer.image.width, answer.image.format) == (1300, "PNG")
    assert len(answer.predictions) == 2


def test_a_large_file_that_is_not_an_image_fails_after_its_upload(storing: str, stack: Settings) -> None:
    with classifying(stack), pytest.raises(ApiProblem) as raised:
        Client(storing).classify(bytes(MAX_REQUEST_IMAGE_BYTES + 1))
    assert raised.value.code == "not_an_image"


def test_without_uploads_an_image_that_no_event_can_hold_is_refused(port: int) -> None:
    with pytest.raises(ApiProblem) as raised:
        Client(f"http://127.0.0.1:{port}").classify(bytes(MAX_REQUEST_IMAGE_BYTES + 1))
    assert raised.value.code == "request_too_large"


def test_a_prefix_is_listed_by_the_command_and_read_by_the_api(
    storing: str, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from litelens.aws.s3 import s3_client

    for name in ("a ü.jpg", "b.jpg"):
        s3_client().put_object(Bucket=bucket, Key=f"photos/{name}", Body=CAT.read_bytes())
    assert main(["classify", f"s3://{bucket}/photos/", "--url", storing, "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["source"] for document in documents] == [f"s3://{bucket}/photos/{n}" for n in ("a ü.jpg", "b.jpg")]
    assert {document["predictions"][0]["label"] for document in documents} == {"Egyptian cat"}


def test_a_missing_object_is_a_problem_of_the_api(storing: str, bucket: str) -> None:
    with pytest.raises(ApiProblem) as raised:
        Client(storing).classify(f"s3://{bucket}/none.jpg")
    assert raised.value.code == "object_not_found"
