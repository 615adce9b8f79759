"""Large photos: uploaded to S3, classified by the bulk function, and shown with their results."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_actions import card, choose_photos, failed_row, labels, open_view, wait_for_results, with_key
from page_text import page_text
from PIL import Image
from playwright.sync_api import BrowserContext, CDPSession, Page, Request, Response, expect
from support import DEFAULT_BUNDLE, ROCKET, encoded, free_port

from litelens.core.bundle import load_bundle
from litelens.settings import MAX_REQUEST_IMAGE_BYTES
from local.stack import Stack, run_stack

# Uploads do not depend on the device, and phones take the large photos.
pytestmark = pytest.mark.parametrize("device", ["phone"])

OPTION = page_text("largePhotos")
SHRINK, UPLOAD = page_text("shrink"), page_text("upload")
FOLLOWING = page_text("following")
REFUSED = page_text("upload_refused")
LATE = page_text("result_late")

# Bytes per second: slow enough to see the progress of an upload of five million bytes, and unlimited.
SLOW, FAST = 400_000, -1


@pytest.fixture(scope="module")
def stack(emulator: Path) -> Iterator[Stack]:
    with run_stack(DEFAULT_BUNDLE) as stack:
        yield stack


@pytest.fixture(scope="module")
def site(stack: Stack) -> Iterator[str]:
    with stack.serve_api(free_port()) as url:
        yield url


@pytest.fixture
def upload_page(context: BrowserContext, site: str) -> Page:
    """The page with the setting that large photos are uploaded."""
    page = context.new_page()
    with_key(page, "a-key")
    with page.expect_response("**/v1/model"):
        page.goto(site)
    open_view(page, "Settings")
    page.get_by_label(OPTION).select_option(UPLOAD)
    open_view(page, "Classify")
    return page


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo that is too large for a request: wide, and nothing but noise."""
    pixels = np.random.default_rng(7).integers(0, 256, (1350, 2700, 3), np.uint8)
    path = tmp_path_factory.mktemp("photos") / "large.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels), "JPEG", quality=96))
    assert path.stat().st_size > MAX_REQUEST_IMAGE_BYTES
    return path


def uploaded(stack: Stack, answer: Response) -> bytes:
    """Return the object in S3 that was uploaded with the form in this response."""
    key = f"uploads/{answer.json()['id']}"
    return bytes(stack.client("s3").get_object(Bucket=stack.storage.bucket, Key=key)["Body"].read())


def requests_of(page: Page) -> list[Request]:
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))
    return requests


def send_at(network: CDPSession, speed: int) -> None:
    """Limit the page's upload speed to this many bytes per second."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": speed}
    network.send("Network.emulateNetworkConditions", conditions)


@pytest.fixture
def network(upload_page: Page) -> CDPSession:
    """A session of the DevTools protocol, which can slow down the page's network."""
    return upload_page.context.new_cdp_session(upload_page)


def test_uploading_large_photos_is_an_option_if_the_deployment_has_uploads(
    context: BrowserContext, site: str, page: Page
) -> None:
    open_view(page, "Settings")
    expect(page.get_by_label("Theme")).to_be_visible()
    expect(page.get_by_label(OPTION)).to_have_count(0)
    page.goto(f"{site}/#settings")
    expect(page.get_by_label(OPTION).get_by_role("option", selected=True)).to_have_text(SHRINK)
    page.get_by_label(OPTION).select_option(UPLOAD)
    page.reload()
    expect(page.get_by_label(OPTION).get_by_role("option", selected=True)).to_have_text(UPLOAD)


def test_a_large_photo_is_uploaded_unchanged_and_gets_its_result(upload_page: Page, stack: Stack, large: Path) -> None:
    requests = requests_of(upload_page)
    with upload_page.expect_response("**/v1/uploads") as allowed:
        choose_photos(upload_page, large)
    expect(card(upload_page, "large.jpg")).to_contain_text(FOLLOWING)
    assert uploaded(stack, allowed.value) == large.read_bytes()
    with stack.poll_queue():
        expect(labels(card(upload_page, "large.jpg"))).to_have_count(5, timeout=60_000)
    (to_s3,) = [request for request in requests if request.url.startswith(stack.endpoint)]
    assert "x-api-key" not in to_s3.headers
    assert not any("/v1/classify" in request.url for request in requests)


def test_the_heat_map_of_an_uploaded_photo_covers_the_part_that_the_model_gets(
    upload_page: Page, stack: Stack, large: Path
) -> None:
    with stack.poll_queue():
        choose_photos(upload_page, large)
        expect(labels(card(upload_page, "large.jpg"))).to_have_count(5, timeout=60_000)
    labels(card(upload_page, "large.jpg")).first.click()
    expect(card(upload_page, "large.jpg").get_by_text("Heat map")).not_to_contain_text("…")
    photo, heat = (box_of(upload_page, number) for number in (0, 1))
    # The model gets the square in the middle, without its margin.
    side = photo["height"] * load_bundle(DEFAULT_BUNDLE).preprocessing.crop
    assert heat["height"] == pytest.approx(side, abs=1)
    assert heat["width"] == pytest.approx(side, abs=1)
    assert heat["x"] + heat["width"] / 2 == pytest.approx(photo["x"] + photo["width"] / 2, abs=1)


def box_of(page: Page, number: int) -> Any:
    return card(page, "large.jpg").locator("img").nth(number).bounding_box()


def test_an_upload_shows_its_progress(upload_page: Page, network: CDPSession, large: Path) -> None:
    send_at(network, SLOW)
    choose_photos(upload_page, large)
    bar = card(upload_page, "large.jpg").get_by_role("progressbar")
    expect(card(upload_page, "large.jpg")).to_contain_text(re.compile("Sending, [1-9][0-9]?%"))
    assert 0 < float(bar.get_attribute("value") or 0) < 1
    send_at(network, FAST)
    expect(card(upload_page, "large.jpg")).to_contain_text(FOLLOWING)


def test_an_upload_can_be_cancelled(upload_page: Page, network: CDPSession, stack: Stack, large: Path) -> None:
    send_at(network, SLOW)
    choose_photos(upload_page, large)
    expect(card(upload_page, "large.jpg")).to_contain_text("Sending, ")
    with upload_page.expect_event("requestfailed", lambda request: request.url.startswith(stack.endpoint)):
        card(upload_page, "large.jpg").get_by_role("button", name="Cancel").click()
    expect(card(upload_page, "large.jpg")).to_contain_text("Cancelled")


def test_waiting_for_the_result_of_an_upload_can_be_cancelled(upload_page: Page, stack: Stack, large: Path) -> None:
    choose_photos(upload_page, large)
    expect(card(upload_page, "large.jpg")).to_contain_text(FOLLOWING)
    card(upload_page, "large.jpg").get_by_role("button", name="Cancel").click()
    expect(card(upload_page, "large.jpg")).to_contain_text("Cancelled")
    with stack.poll_queue():
        card(upload_page, "large.jpg").get_by_role("button", name="Try again").click()
        expect(labels(card(upload_page, "large.jpg"))).to_have_count(5, timeout=60_000)


def test_a_damaged_upload_is_reported(upload_page: Page, stack: Stack, large: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(large.read_bytes()[:200] + bytes(5_000_000))
    with stack.poll_queue():
        choose_photos(upload_page, damaged)
        expect(failed_row(upload_page, "damaged.jpg")).to_be_visible(timeout=60_000)


def test_an_upload_that_s3_refuses_is_reported_and_can_be_shrunk_instead(
    upload_page: Page, stack: Stack, large: Path
) -> None:
    refusal = {"status": 403, "headers": {"Access-Control-Allow-Origin": "*"}, "body": "<Error><Code>AccessDenied"}
    upload_page.route(f"{stack.endpoint}/**", lambda route: route.fulfill(**refusal))
    choose_photos(upload_page, large, ROCKET)
    expect(card(upload_page, "large.jpg")).to_contain_text(REFUSED)
    wait_for_results(upload_page, "rocket.jpg")
    open_view(upload_page, "Settings")
    upload_page.get_by_label(OPTION).select_option(SHRINK)
    open_view(upload_page, "Classify")
    card(upload_page, "large.jpg").get_by_role("button", name="Try again").click()
    wait_for_results(upload_page, "large.jpg")


def test_waiting_for_a_result_ends_with_a_message(upload_page: Page, large: Path) -> None:
    upload_page.clock.install()
    choose_photos(upload_page, large)
    expect(card(upload_page, "large.jpg")).to_contain_text(FOLLOWING)
    upload_page.clock.fast_forward("03:05")
    expect(card(upload_page, "large.jpg")).to_contain_text(LATE)


def test_a_large_photo_is_shrunk_by_default(context: BrowserContext, site: str, large: Path) -> None:
    page = context.new_page()
    page.goto(site)
    requests = requests_of(page)
    with page.expect_response("**/v1/classify?") as answered:
        choose_photos(page, large)
    wait_for_results(page, "large.jpg")
    assert answered.value.json()["image"] == {"format": "JPEG", "width": 2048, "height": 1024}
    assert not any("/v1/uploads" in request.url for request in requests)


def test_a_photo_that_fits_into_a_request_is_not_uploaded(upload_page: Page) -> None:
    requests = requests_of(upload_page)
    choose_photos(upload_page, ROCKET)
    wait_for_results(upload_page, "rocket.jpg")
    assert not any("/v1/uploads" in request.url for request in requests)
