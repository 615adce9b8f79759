"""Large photos on their way around the API: to S3, through the queue and the function, and back to the page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_actions import card, choose_photos, labels, open_view, wait_for_results, with_key
from PIL import Image
from playwright.sync_api import BrowserContext, CDPSession, Page, Request, Response, expect
from support import DEFAULT_BUNDLE, ROCKET, encoded, free_port

from litelens.core.bundle import load_bundle
from local.stack import Stack, run_stack

# The way around the API is the same everywhere, and phones take the large photos.
pytestmark = pytest.mark.parametrize("device", ["phone"])

CHOICE = "Photos that are too large for a request"
AS_THEY_ARE = "upload them unchanged; the service keeps them for some days"
FOLLOWING = "Uploaded; waiting for the result"
REFUSED = "The upload was refused: the photo is too large, or took too long. Try again, or let this page shrink it."
DAMAGED = "The file is damaged or incomplete. Export the photo again and choose the new file."
LATE = "The photo was uploaded, but its result is not there yet. Try again in a few minutes."

# Bytes per second, for an upload of five million to be seen on its way, and not to be waited for.
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
def uploading(context: BrowserContext, site: str) -> Page:
    """The page where large photos are to be uploaded as they are."""
    page = context.new_page()
    with_key(page, "a-key")
    with page.expect_response("**/v1/model"):
        page.goto(site)
    open_view(page, "Settings")
    page.get_by_label(CHOICE).select_option(AS_THEY_ARE)
    open_view(page, "Classify")
    return page


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo that no request carries: wide, and nothing but noise."""
    pixels = np.random.default_rng(7).integers(0, 256, (1350, 2700, 3), np.uint8)
    path = tmp_path_factory.mktemp("photos") / "large.jpg"
    path.write_bytes(encoded(Image.fromarray(pixels), "JPEG", quality=96))
    assert path.stat().st_size > 4_400_000
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
    """Let what the page sends leave at so many bytes per second."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": speed}
    network.send("Network.emulateNetworkConditions", conditions)


@pytest.fixture
def network(uploading: Page) -> CDPSession:
    """The way to Chromium's own means of slowing a page's network down."""
    return uploading.context.new_cdp_session(uploading)


def test_uploads_are_a_choice_where_the_deployment_has_them(context: BrowserContext, site: str, page: Page) -> None:
    open_view(page, "Settings")
    expect(page.get_by_label("Theme")).to_be_visible()
    expect(page.get_by_label(CHOICE)).to_have_count(0)
    page.goto(f"{site}/#settings")
    expect(page.get_by_label(CHOICE).get_by_role("option", selected=True)).to_contain_text("shrink them first")
    page.get_by_label(CHOICE).select_option(AS_THEY_ARE)
    page.reload()
    expect(page.get_by_label(CHOICE).get_by_role("option", selected=True)).to_have_text(AS_THEY_ARE)


def test_a_large_photo_goes_to_s3_byte_for_byte_and_is_followed_to_its_result(
    uploading: Page, stack: Stack, large: Path
) -> None:
    requests = requests_of(uploading)
    with uploading.expect_response("**/v1/uploads") as allowed:
        choose_photos(uploading, large)
    expect(card(uploading, "large.jpg")).to_contain_text(FOLLOWING)
    assert uploaded(stack, allowed.value) == large.read_bytes()
    with stack.poll_queue():
        expect(labels(card(uploading, "large.jpg"))).to_have_count(5, timeout=60_000)
    (to_s3,) = [request for request in requests if request.url.startswith(stack.endpoint)]
    assert "x-api-key" not in to_s3.headers
    assert not any("/v1/classify" in request.url for request in requests)


def test_the_heat_map_of_an_uploaded_photo_lies_where_the_model_looked(
    uploading: Page, stack: Stack, large: Path
) -> None:
    with stack.poll_queue():
        choose_photos(uploading, large)
        expect(labels(card(uploading, "large.jpg"))).to_have_count(5, timeout=60_000)
    labels(card(uploading, "large.jpg")).first.click()
    expect(card(uploading, "large.jpg").get_by_text("Heat map")).not_to_contain_text("…")
    photo, heat = (box_of(uploading, number) for number in (0, 1))
    # The model sees the square in the middle, without its margin.
    side = photo["height"] * load_bundle(DEFAULT_BUNDLE).preprocessing.crop
    assert heat["height"] == pytest.approx(side, abs=1)
    assert heat["width"] == pytest.approx(side, abs=1)
    assert heat["x"] + heat["width"] / 2 == pytest.approx(photo["x"] + photo["width"] / 2, abs=1)


def box_of(page: Page, number: int) -> Any:
    return card(page, "large.jpg").locator("img").nth(number).bounding_box()


def test_an_upload_shows_how_much_of_it_has_left(uploading: Page, network: CDPSession, large: Path) -> None:
    send_at(network, SLOW)
    choose_photos(uploading, large)
    bar = card(uploading, "large.jpg").get_by_role("progressbar")
    expect(card(uploading, "large.jpg")).to_contain_text(re.compile("Sending, [1-9][0-9]?%"))
    assert 0 < float(bar.get_attribute("value") or 0) < 1
    send_at(network, FAST)
    expect(card(uploading, "large.jpg")).to_contain_text(FOLLOWING)


def test_an_upload_can_be_cancelled_on_its_way(uploading: Page, network: CDPSession, stack: Stack, large: Path) -> None:
    send_at(network, SLOW)
    choose_photos(uploading, large)
    expect(card(uploading, "large.jpg")).to_contain_text("Sending, ")
    with uploading.expect_event("requestfailed", lambda request: request.url.startswith(stack.endpoint)):
        card(uploading, "large.jpg").get_by_role("button", name="Cancel").click()
    expect(card(uploading, "large.jpg")).to_contain_text("Cancelled")


def test_an_uploaded_photo_can_be_cancelled_while_it_is_followed(uploading: Page, stack: Stack, large: Path) -> None:
    choose_photos(uploading, large)
    expect(card(uploading, "large.jpg")).to_contain_text(FOLLOWING)
    card(uploading, "large.jpg").get_by_role("button", name="Cancel").click()
    expect(card(uploading, "large.jpg")).to_contain_text("Cancelled")
    with stack.poll_queue():
        card(uploading, "large.jpg").get_by_role("button", name="Try again").click()
        expect(labels(card(uploading, "large.jpg"))).to_have_count(5, timeout=60_000)


def test_a_damaged_upload_is_told(uploading: Page, stack: Stack, large: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(large.read_bytes()[:4_500_000])
    with stack.poll_queue():
        choose_photos(uploading, damaged)
        expect(card(uploading, "damaged.jpg")).to_contain_text(DAMAGED, timeout=60_000)


def test_an_upload_that_s3_refuses_is_told_and_can_be_shrunk_instead(
    uploading: Page, stack: Stack, large: Path
) -> None:
    refusal = {"status": 403, "headers": {"Access-Control-Allow-Origin": "*"}, "body": "<Error><Code>AccessDenied"}
    uploading.route(f"{stack.endpoint}/**", lambda route: route.fulfill(**refusal))
    choose_photos(uploading, large, ROCKET)
    expect(card(uploading, "large.jpg")).to_contain_text(REFUSED)
    wait_for_results(uploading, "rocket.jpg")
    open_view(uploading, "Settings")
    uploading.get_by_label(CHOICE).select_option("shrink them first, which saves data")
    open_view(uploading, "Classify")
    card(uploading, "large.jpg").get_by_role("button", name="Try again").click()
    wait_for_results(uploading, "large.jpg")


def test_a_result_that_does_not_come_is_not_waited_for_for_ever(uploading: Page, large: Path) -> None:
    uploading.clock.install()
    choose_photos(uploading, large)
    expect(card(uploading, "large.jpg")).to_contain_text(FOLLOWING)
    uploading.clock.fast_forward("03:05")
    expect(card(uploading, "large.jpg")).to_contain_text(LATE)


def test_a_large_photo_is_shrunk_unless_it_is_to_be_uploaded(context: BrowserContext, site: str, large: Path) -> None:
    page = context.new_page()
    page.goto(site)
    requests = requests_of(page)
    with page.expect_response("**/v1/classify?") as answered:
        choose_photos(page, large)
    wait_for_results(page, "large.jpg")
    assert answered.value.json()["image"] == {"format": "JPEG", "width": 2048, "height": 1024}
    assert not any("/v1/uploads" in request.url for request in requests)


def test_a_photo_that_a_request_carries_is_not_uploaded(uploading: Page) -> None:
    requests = requests_of(uploading)
    choose_photos(uploading, ROCKET)
    wait_for_results(uploading, "rocket.jpg")
    assert not any("/v1/uploads" in request.url for request in requests)
