"""Errors become sentences that say what to do, and the page continues to work."""

import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from page_actions import SAMPLES, card, choose_photos, failed_row, labels, open_view, wait_for_results
from page_text import page_text
from PIL import Image
from playwright.sync_api import FilePayload, Page, Request, expect
from support import CAT, ROCKET, encoded

# Problems do not depend on the device, and are most frequent on phones.
pytestmark = pytest.mark.parametrize("device", ["phone"])

CLASSIFY = re.compile("/v1/classify")
MODEL = re.compile("/v1/model$")

THROTTLED = page_text("too_many_requests")
QUOTA = page_text("quota_exceeded")
OFFLINE = page_text("offline")
UNREACHABLE = page_text("unreachable")
TOO_LARGE = page_text("request_too_large")
INTERNAL = page_text("internal_error")
TIMEOUT = page_text("timeout")
NOT_LITELENS = page_text("not_litelens")
EMPTY = page_text("image_missing")
GONE = page_text("file_gone")

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
LOGIN_PAGE = "<!doctype html><title>Welcome to our trains</title>"


def refuse(
    page: Page, status: int, body: object, *, headers: Mapping[str, str] = NO_HEADERS, times: int = 1
) -> list[Request]:
    """Make the API refuse the next photos; return the list of all requests for photos from now on."""
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request) if CLASSIFY.search(request.url) else None)
    content: dict[str, Any] = {"body": body} if isinstance(body, str) else {"json": body}
    page.route(CLASSIFY, lambda route: route.fulfill(status=status, headers=dict(headers), **content), times=times)
    return requests


def problem(status: int, code: str) -> dict[str, Any]:
    """Return a problem document of the API or of API Gateway."""
    return {"code": code, "status": status, "detail": f"the detail of {code}", "request_id": "id-of-the-request"}


def photo(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def try_again(page: Page, name: str) -> None:
    card(page, name).get_by_role("button", name="Try again").click()


def test_a_throttled_photo_is_retried_after_the_delay_that_the_api_gives(page: Page) -> None:
    page.clock.install()
    sent = refuse(page, 429, problem(429, "too_many_requests"), headers={"Retry-After": "30"})
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg")).to_contain_text("Too many requests; trying again in 30 seconds")
    choose_photos(page, SAMPLES / "coffee.jpg")
    wait_for_results(page, "coffee.jpg")
    expect(card(page, "rocket.jpg")).to_contain_text("Too many requests")
    page.clock.fast_forward("01:00")
    wait_for_results(page, "rocket.jpg")
    assert len(sent) == 3


def test_a_photo_that_is_throttled_repeatedly_fails_with_a_message(page: Page) -> None:
    page.clock.install()
    page.clock.pause_at(page.evaluate("Date.now()") / 1000 + 60)
    sent = refuse(page, 429, problem(429, "too_many_requests"), times=5)
    choose_photos(page, ROCKET)
    for wait in ("1 second", "2 seconds", "4 seconds", "8 seconds"):
        expect(card(page, "rocket.jpg")).to_contain_text(f"trying again in {wait}")
        page.clock.fast_forward("00:11")
    expect(card(page, "rocket.jpg")).to_contain_text(THROTTLED)
    assert len(sent) == 5
    try_again(page, "rocket.jpg")
    wait_for_results(page, "rocket.jpg")


def test_a_throttled_photo_can_be_cancelled_while_it_waits(page: Page) -> None:
    page.clock.install()
    sent = refuse(page, 429, problem(429, "too_many_requests"), headers={"Retry-After": "30"})
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg")).to_contain_text("trying again")
    card(page, "rocket.jpg").get_by_role("button", name="Cancel").click()
    expect(card(page, "rocket.jpg")).to_contain_text("Cancelled")
    page.clock.fast_forward("01:00")
    choose_photos(page, SAMPLES / "coffee.jpg")
    wait_for_results(page, "coffee.jpg")
    expect(card(page, "rocket.jpg")).to_contain_text("Cancelled")
    assert len(sent) == 2


def test_an_exceeded_quota_is_reported_without_a_retry(page: Page) -> None:
    sent = refuse(page, 429, problem(429, "quota_exceeded"))
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg")).to_contain_text(QUOTA)
    assert len(sent) == 1
    try_again(page, "rocket.jpg")
    wait_for_results(page, "rocket.jpg")


def test_a_lost_network_is_reported_and_photos_are_sent_by_themselves_when_it_is_back(page: Page) -> None:
    choose_photos(page, SAMPLES / "coffee.jpg")
    wait_for_results(page, "coffee.jpg")
    page.context.set_offline(True)
    choose_photos(page, ROCKET, CAT)
    for name in ("rocket.jpg", "cat.jpg"):
        expect(card(page, name)).to_contain_text(OFFLINE)
    wait_for_results(page, "coffee.jpg")
    page.context.set_offline(False)
    wait_for_results(page, "coffee.jpg", "rocket.jpg", "cat.jpg")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_broken_connection_is_reported_and_the_photo_can_be_sent_again(page: Page) -> None:
    page.route(CLASSIFY, lambda route: route.abort("connectionreset"), times=1)
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg")).to_contain_text(UNREACHABLE)
    try_again(page, "rocket.jpg")
    wait_for_results(page, "rocket.jpg")


def test_a_failed_heat_map_is_reported_and_can_be_requested_again(page: Page) -> None:
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    label = labels(card(page, "cat.jpg")).first
    page.route(CLASSIFY, lambda route: route.abort("connectionreset"), times=1)
    label.click()
    expect(card(page, "cat.jpg").get_by_role("alert")).to_have_text(UNREACHABLE)
    label.click()
    label.click()
    expect(card(page, "cat.jpg")).to_contain_text("Heat map: Egyptian cat")
    expect(card(page, "cat.jpg").get_by_role("alert")).to_have_count(0)


def test_a_page_that_was_opened_without_a_network_can_connect_later(page: Page) -> None:
    page.route(MODEL, lambda route: route.abort("connectionreset"))
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text(UNREACHABLE)
    page.unroute(MODEL)
    page.get_by_role("alert").get_by_role("button", name="Try again").click()
    expect(page.get_by_role("alert")).to_have_count(0)
    open_view(page, "Model")
    expect(page.get_by_role("main")).to_contain_text("everyday")


def test_a_photo_that_the_api_finds_too_large_is_shrunk_and_sent_once_more(page: Page) -> None:
    sent = refuse(page, 413, problem(413, "image_too_large"))
    wide = encoded(Image.new("RGB", (4096, 1024), "red"), "PNG")
    with page.expect_response(lambda response: CLASSIFY.search(response.url) is not None and response.ok) as answered:
        choose_photos(page, photo("wide.png", wide))
    wait_for_results(page, "wide.png")
    assert answered.value.json()["image"] == {"format": "JPEG", "width": 2048, "height": 512}
    assert len(sent) == 2


def test_a_photo_that_is_too_large_even_after_shrinking_is_reported(page: Page) -> None:
    for number, body in enumerate([problem(413, "request_too_large"), "<h1>413</h1>"]):
        sent = refuse(page, 413, body, times=2)
        choose_photos(page, photo(f"{number}.jpg", ROCKET.read_bytes()))
        expect(card(page, f"{number}.jpg")).to_contain_text(TOO_LARGE)
        assert len(sent) == 2


def test_a_failed_photo_shows_its_problem_and_the_others_are_classified(page: Page) -> None:
    failures: list[tuple[int, object, str]] = [
        (500, problem(500, "internal_error"), f"{INTERNAL} (Request id-of-the-request)"),
        (504, problem(504, "timeout"), f"{TIMEOUT} (Request id-of-the-request)"),
        (502, "<h1>Bad gateway</h1>", INTERNAL),
        (400, problem(400, "new_code"), "the detail of new_code"),
        (200, LOGIN_PAGE, NOT_LITELENS),
        (200, {"hello": "world"}, NOT_LITELENS),
        (404, LOGIN_PAGE, NOT_LITELENS),
    ]
    for number, (status, body, sentence) in enumerate(failures):
        refuse(page, status, body)
        choose_photos(page, photo(f"{number}.jpg", ROCKET.read_bytes()))
        expect(card(page, f"{number}.jpg").get_by_text(sentence, exact=True)).to_be_visible()
    choose_photos(page, SAMPLES / "coffee.jpg")
    wait_for_results(page, "coffee.jpg")
    page.get_by_role("button", name="Try 7 again").click()
    wait_for_results(page, *[f"{number}.jpg" for number in range(7)])


def test_a_file_that_was_deleted_after_it_was_chosen_is_reported(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "rocket.jpg"
    file.write_bytes(ROCKET.read_bytes())
    refuse(page, 500, problem(500, "internal_error"))
    choose_photos(page, file)
    expect(card(page, "rocket.jpg")).to_contain_text(INTERNAL)
    file.unlink()
    try_again(page, "rocket.jpg")
    expect(card(page, "rocket.jpg")).to_contain_text(GONE)


def test_files_that_are_not_photos_are_reported_and_the_photos_are_classified(page: Page) -> None:
    rocket = ROCKET.read_bytes()
    choose_photos(
        page,
        photo("truncated.jpg", rocket[: len(rocket) // 2]),
        photo("letter.jpg", b"Dear reader, this is no photo."),
        photo("empty.jpg", b""),
        photo("rocket.jpg", rocket),
    )
    for name in ("truncated.jpg", "letter.jpg", "empty.jpg"):
        # Another attempt would fail too.
        expect(failed_row(page, name)).to_be_visible()
        expect(failed_row(page, name).get_by_role("button", name="Try again")).to_have_count(0)
    expect(failed_row(page, "empty.jpg")).to_contain_text(EMPTY)
    wait_for_results(page, "rocket.jpg")
    expect(page.get_by_text(f"4 photos · 1 {page_text('unsure')} · 3 failed")).to_be_visible()


def test_a_damaged_photo_is_refused_by_the_api_itself(page: Page) -> None:
    with page.expect_response(CLASSIFY) as answered:
        choose_photos(page, photo("truncated.jpg", ROCKET.read_bytes()[:20_000]))
    assert answered.value.status == 422
    expect(failed_row(page, "truncated.jpg")).to_contain_text(answered.value.json()["detail"])


def test_a_drawing_is_refused_with_the_words_of_the_api_and_without_a_preview(page: Page) -> None:
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><rect width="9" height="9"/></svg>'
    with page.expect_response(CLASSIFY) as answered:
        choose_photos(page, {"name": "drawing.svg", "mimeType": "image/svg+xml", "buffer": drawing})
    assert "SVG" in answered.value.json()["detail"]
    expect(failed_row(page, "drawing.svg")).to_contain_text(answered.value.json()["detail"])
    expect(page.get_by_role("main").locator("img")).to_have_count(0)


def test_a_photo_that_the_browser_cannot_shrink_is_too_large_and_not_damaged(page: Page) -> None:
    # A white PNG of 30,000 x 30,000 pixels.
    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(3751)) for _ in range(30_000)) + rows.flush()
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    with page.expect_response(CLASSIFY) as answered:
        choose_photos(page, photo("vast.png", png))
    assert answered.value.json()["code"] == "image_too_large"
    expect(failed_row(page, "vast.png")).to_contain_text(answered.value.json()["detail"])


def test_a_problem_is_announced_to_screen_readers(page: Page) -> None:
    choose_photos(page, photo("empty.jpg", b""))
    expect(page.get_by_role("status").filter(has_text=EMPTY)).to_have_text(f"empty.jpg: {EMPTY}")
