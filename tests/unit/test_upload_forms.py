"""An upload form that is sent again and again causes a limited number of classifications."""

from collections.abc import Iterator
from typing import Any

import pytest
from bulk import Context, batch, failed_ids, new_settings, notification, put, record, results_of
from PIL import Image
from support import encoded

from litelens.aws.results_table import ResultId, ResultsTable
from litelens.aws.s3 import UploadBucket
from litelens.bulk.batches import create_handler
from litelens.bulk.worker import MAX_IMAGES_OF_A_FORM
from litelens.settings import Settings


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings()


def images(number: int) -> Iterator[bytes]:
    """Yield different images."""
    for shade in range(number):
        yield encoded(Image.new("RGB", (32, 32), (shade, 0, 0)), "PNG")


def put_images(settings: Settings, key: str, number: int) -> None:
    """Put different images at a key, one after the other, and process the notification of each."""
    handle = create_handler(settings)
    for image in images(number):
        stored = put(settings, key, image)
        assert failed_ids(handle(batch(notification(record(stored))), Context())) == []


def form_key(settings: Settings) -> str:
    assert settings.upload_bucket
    return UploadBucket(settings.upload_bucket, 1_000_000).create_form("image/png").fields["key"]


def test_only_the_first_images_of_a_form_are_classified(settings: Settings) -> None:
    key = form_key(settings)
    put_images(settings, key, MAX_IMAGES_OF_A_FORM + 2)
    assert len(results_of(settings, key)) == MAX_IMAGES_OF_A_FORM


def test_an_image_of_a_form_that_is_notified_again_keeps_its_result(settings: Settings) -> None:
    key = form_key(settings)
    put_images(settings, key, MAX_IMAGES_OF_A_FORM)
    put_images(settings, key, MAX_IMAGES_OF_A_FORM)
    assert len(results_of(settings, key)) == MAX_IMAGES_OF_A_FORM


def test_images_of_a_form_that_arrive_together_are_counted_too(settings: Settings) -> None:
    key = form_key(settings)
    stored = [put(settings, key, image) for image in images(MAX_IMAGES_OF_A_FORM + 5)]
    messages = batch(*(notification(record(each)) for each in stored))
    assert failed_ids(create_handler(settings)(messages, Context())) == []
    assert len(results_of(settings, key)) == MAX_IMAGES_OF_A_FORM


def test_the_same_image_of_a_form_is_classified_once_however_often_it_is_sent(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[str] = []
    save = ResultsTable.save

    def counting(table: ResultsTable, result_id: ResultId, *arguments: Any, **options: Any) -> bytes:
        saved.append(result_id.key)
        return save(table, result_id, *arguments, **options)

    monkeypatch.setattr(ResultsTable, "save", counting)
    key, handle = form_key(settings), create_handler(settings)
    for _ in range(3):
        stored = put(settings, key, next(images(1)))
        assert failed_ids(handle(batch(notification(record(stored))), Context())) == []
    assert saved == [key]


def test_a_key_of_ones_own_may_be_overwritten_any_number_of_times(settings: Settings) -> None:
    put_images(settings, "uploads/camera/latest.png", MAX_IMAGES_OF_A_FORM + 2)
    assert len(results_of(settings, "uploads/camera/latest.png")) == MAX_IMAGES_OF_A_FORM + 2
