"""What people do on the page, and what they look at."""

from collections.abc import Sequence
from pathlib import Path

from playwright.sync_api import FilePayload, Locator, Page, expect
from support import ROOT

SAMPLES = ROOT / "web" / "samples"


def add(page: Page, *files: Path | FilePayload) -> None:
    """Choose these photos, all at once."""
    page.get_by_role("button", name="Choose photos").wait_for()
    chosen: Sequence[Path] | Sequence[FilePayload] = list(files)  # type: ignore[assignment]
    page.locator("input[data-picker=files]").set_input_files(chosen)


def card(page: Page, name: str) -> Locator:
    """The photo of this file's name."""
    return page.get_by_role("article", name=name)


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
