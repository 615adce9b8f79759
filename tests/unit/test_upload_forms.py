"""An upload form that is sent again and again causes a limited number of classifications."""

import pytest
from bulk import Context, batch, failed_ids, new_settings, notification, put, record, results_of
from PIL import Image
from support import encoded

from litelens.aws.s3 import UploadBucket
from litelens.bulk.batches import create_handler
from litelens.bulk.worker import MAX_IMAGES_OF_A_FORM
from litelens.settings import Settings


@pytest.fixture
def settings(moto_server: str) -> Settings:
    return new_settings()


def put_images(settings: Settings, key: str, number: int) -> None:
    """Put different images at a key, one after the other, and process the notification of each."""
    handle = create_handler(settings)
    for shade in range(number):
        stored = put(settings, key, encoded(Image.new("RGB", (32, 32), (shade, 0, 0)), "PNG"))
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


def test_a_key_of_ones_own_may_be_overwritten_any_number_of_times(settings: Settings) -> None:
    put_images(settings, "uploads/camera/latest.png", MAX_IMAGES_OF_A_FORM + 2)
    assert len(results_of(settings, "uploads/camera/latest.png")) == MAX_IMAGES_OF_A_FORM + 2
