"""Many photos: the page sends those that wait in requests with several images."""

from typing import Any

import pytest
from page_actions import SAMPLES, card, choose_photos, failed_row, labels, wait_for_results
from page_text import page_text
from playwright.sync_api import FilePayload, Page, Route, expect
from support import ROCKET

from litelens.api.requests import parse_form
from litelens.settings import MAX_IMAGES
from litelens_client.batches import MAX_BATCH_BYTES

# The requests do not depend on the device.
pytestmark = pytest.mark.parametrize("device", ["desk"], indirect=True)

# The page sends the first photos alone, because nothing else is to be sent.
ALONE = 4

COFFEE = (SAMPLES / "coffee.jpg").read_bytes()


def photo(name: str, content: bytes = COFFEE) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


class Requests:
    """The requests for classifications: they are held until release(), and then answered by the server."""

    def __init__(self, page: Page) -> None:
        self.images: list[list[bytes]] = []
        self._held: list[Route] = []
        self._is_free = False
        page.route("**/v1/classify?*", self._take)

    def release(self) -> None:
        self._is_free = True
        for route in self._held:
            route.continue_()

    def _take(self, route: Route) -> None:
        body, content_type = route.request.post_data_buffer or b"", route.request.headers["content-type"]
        form = parse_form(body, content_type, images=MAX_IMAGES, fields=()) if has_several(route) else None
        self.images.append(list(form.images) if form else [body])
        if self._is_free:
            route.continue_()
        else:
            self._held.append(route)


def has_several(route: Route) -> bool:
    """Return whether a request has several images."""
    return route.request.headers["content-type"].startswith("multipart/form-data")


def best(page: Page, name: str) -> Any:
    return labels(card(page, name)).first


def test_photos_that_wait_are_sent_together_and_a_bad_one_fails_alone(page: Page) -> None:
    requests = Requests(page)
    names = [f"{number}.jpg" for number in range(ALONE + MAX_IMAGES + 3)]
    contents = dict.fromkeys(names, COFFEE) | {"7.jpg": b"no image", "8.jpg": ROCKET.read_bytes()}
    choose_photos(page, *(photo(name, contents[name]) for name in names))
    expect(page.get_by_text(page_text("waiting"), exact=True)).to_have_count(len(names) - ALONE)
    requests.release()
    wait_for_results(page, *(name for name in names if name != "7.jpg"))
    expect(failed_row(page, "7.jpg")).to_be_visible()
    expect(best(page, "8.jpg")).not_to_have_text(best(page, "6.jpg").inner_text())
    assert sorted(map(len, requests.images)) == [1] * ALONE + [3, MAX_IMAGES]
    sent = [image for images in requests.images for image in images]
    assert sorted(sent) == sorted(contents.values())


def test_a_request_has_no_more_bytes_than_its_limit(page: Page) -> None:
    requests = Requests(page)
    # Bytes after the end of a JPEG are ignored.
    large = COFFEE + bytes(MAX_BATCH_BYTES // 3)
    choose_photos(page, *(photo(f"{number}.jpg", large) for number in range(ALONE + 3)))
    expect(page.get_by_text(page_text("waiting"), exact=True)).to_have_count(3)
    requests.release()
    wait_for_results(page, *(f"{number}.jpg" for number in range(ALONE + 3)))
    assert sorted(len(images) for images in requests.images[ALONE:]) == [1, 2]


def test_a_photo_in_a_request_with_others_can_be_cancelled_alone(page: Page) -> None:
    choose_photos(page, *(photo(f"{number}.jpg") for number in range(ALONE)))
    wait_for_results(page, *(f"{number}.jpg" for number in range(ALONE)))
    requests = Requests(page)
    held: list[Route] = []
    choose_photos(page, *(photo(f"a{number}.jpg") for number in range(ALONE + 3)))
    expect(page.get_by_text(page_text("waiting"), exact=True)).to_have_count(3)
    # The photos that were sent alone are answered, also if their requests arrive only now.
    page.route("**/v1/classify?*", lambda route: held.append(route) if has_several(route) else route.fallback())
    requests.release()
    together = [f"a{number}.jpg" for number in range(ALONE, ALONE + 3)]
    wait_for_results(page, *(f"a{number}.jpg" for number in range(ALONE)))
    card(page, together[1]).get_by_role("button", name="Cancel").click()
    expect(failed_row(page, together[1])).to_contain_text("Cancelled")
    (route,) = held
    route.continue_()
    wait_for_results(page, together[0], together[2])


def test_a_request_that_the_service_cannot_finish_is_divided(page: Page) -> None:
    requests = Requests(page)
    names = [f"{number}.jpg" for number in range(ALONE + 4)]
    choose_photos(page, *(photo(name) for name in names))
    expect(page.get_by_text(page_text("waiting"), exact=True)).to_have_count(4)

    def fail_many(route: Route) -> None:
        if has_several(route):
            route.fulfill(status=502, body="")
        else:
            route.continue_()

    page.route("**/v1/classify?*", fail_many)
    requests.release()
    wait_for_results(page, *names)
