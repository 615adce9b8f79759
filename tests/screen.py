"""What people do on the page, and what they look at."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, FilePayload, Locator, Page, expect, sync_playwright
from support import SAMPLES as SAMPLES

# As long as for what people do: machines have more to do than that.
expect.set_options(timeout=60_000)

CHROMIUM = shutil.which("chromium")

# Chromium asks its maker for much at its start.
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
def browsing() -> Iterator[Browser]:
    """Debian's Chromium, until the block ends."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def add(page: Page, *files: Path | FilePayload) -> None:
    """Choose these photos, all at once."""
    page.get_by_role("button", name="Choose photos").wait_for()
    chosen: Sequence[Path] | Sequence[FilePayload] = list(files)  # type: ignore[assignment]
    page.locator("input[data-picker=files]").set_input_files(chosen)


def card(page: Page, name: str) -> Locator:
    """The photo of this file's name."""
    return page.get_by_role("article", name=name, exact=True)


def labels(card: Locator) -> Locator:
    """What the model says of a photo, once it has."""
    return card.get_by_role("group").get_by_role("button")


def done(page: Page, *names: str) -> None:
    """Wait until these photos have their answers."""
    for name in names:
        expect(labels(card(page, name))).to_have_count(5)


def go(page: Page, view: str) -> None:
    """Open a view by its link."""
    page.get_by_role("navigation").get_by_role("link", name=view).click()
    expect(page.get_by_role("navigation").get_by_role("link", name=view)).to_have_attribute("aria-current", "page")


def connect(page: Page, *, endpoint: str = "", key: str = "") -> None:
    """Enter these in Settings, and save them."""
    go(page, "Settings")
    page.get_by_label("Endpoint").fill(endpoint)
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Save and connect").click()


def adjust(page: Page) -> None:
    """Open the threshold, the order and the filters, which phones keep closed."""
    page.get_by_text("Threshold, order and filters").wait_for()
    if not page.get_by_label("Sort by").is_visible():
        page.get_by_text("Threshold, order and filters").click()


def names(page: Page) -> Locator:
    """The names of the photos that are shown, in their order."""
    return page.get_by_role("article").get_by_role("heading")


def said_of(page: Page, image: bytes, **options: str) -> Any:
    """What the API itself says of an image."""
    url = f"{page.url.partition('#')[0]}v1/classify"
    answer = page.request.post(url, params={**options}, data=image, headers={"content-type": "image/jpeg"})
    assert answer.ok, answer.text()
    return answer.json()


def with_key(page: Page, key: str) -> None:
    """Let the page be opened as if this key had been entered before in its tab."""
    page.add_init_script(f"if (location.protocol === 'http:') sessionStorage.setItem('litelens.key', '{key}');")
