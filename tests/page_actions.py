"""Actions on the page, and locators of its elements."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright
from support import SAMPLES as SAMPLES

# As long as for actions, for busy machines.
expect.set_options(timeout=60_000)

CHROMIUM = shutil.which("chromium")

# Without background networking: Chromium contacts its maker at the start.
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

DEVICES: dict[str, dict[str, Any]] = {
    "desk": {"viewport": {"width": 1280, "height": 900}},
    "phone": {
        "viewport": {"width": 375, "height": 740},
        "is_mobile": True,
        "has_touch": True,
        "device_scale_factor": 2,
    },
}


@contextmanager
def launch_browser() -> Iterator[Browser]:
    """Run Debian's Chromium until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def choose_photos(page: Page, *files: Path | FilePayload) -> None:
    """Choose these photos, all at once."""
    chosen: Sequence[Path] | Sequence[FilePayload] = list(files)  # type: ignore[assignment]
    page.locator("input[data-picker=files]").set_input_files(chosen)


def card(page: Page, name: str) -> Locator:
    """Return the card of the photo with this file name, or its row if it has failed."""
    return page.get_by_role("article", name=name, exact=True)


def failed_row(page: Page, name: str) -> Locator:
    """Return the row of a photo that failed or was cancelled."""
    return page.locator("#failures").get_by_role("article", name=name, exact=True)


def labels(card: Locator) -> Locator:
    """Return the labels on a card, which appear after classification."""
    return card.get_by_role("group").get_by_role("button")


def wait_for_results(page: Page, *photo_names: str) -> None:
    """Wait until these photos are classified."""
    for name in photo_names:
        expect(labels(card(page, name))).to_have_count(5)


def open_view(page: Page, view: str) -> None:
    """Open a view by its link."""
    page.get_by_role("navigation").get_by_role("link", name=view).click()
    expect(page.get_by_role("navigation").get_by_role("link", name=view)).to_have_attribute("aria-current", "page")


def connect(page: Page, *, endpoint: str = "", key: str = "") -> None:
    """Enter and save these values in Settings."""
    open_view(page, "Settings")
    page.get_by_label("Endpoint").fill(endpoint)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Save and connect").click()


def open_controls(page: Page) -> None:
    """Open the panel with threshold, order and filters, which pages with five photos or more have."""
    button = page.get_by_role("button", name="Sort and filter")
    if button.get_attribute("aria-expanded") == "false":
        button.click()


def photo_names(page: Page) -> Locator:
    """Return the names of the shown photos, in order; failed ones come last."""
    return page.get_by_role("article").locator(".name")


def classify_directly(page: Page, image: bytes, **options: str) -> Any:
    """Classify an image with the API directly."""
    url = f"{page.url.partition('#')[0]}v1/classify"
    answer = page.request.post(url, params={**options}, data=image, headers={"content-type": "image/jpeg"})
    assert answer.ok, answer.text()
    return answer.json()


def with_key(page: Page, key: str) -> None:
    """Store a key in the tab before the page is opened."""
    page.add_init_script(f"if (location.protocol === 'http:') sessionStorage.setItem('litelens.key', '{key}');")
