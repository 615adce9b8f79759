"""Take screenshots of the page's main states, with the real model: `make screenshots`."""

import sys
from pathlib import Path

from page_actions import (
    CHROMIUM,
    DEVICES,
    SAMPLES,
    card,
    choose_photos,
    labels,
    launch_browser,
    open_view,
    wait_for_results,
)
from playwright.sync_api import Page, expect
from servers import run_server
from support import ROOT

FOLDER = ROOT / "docs" / "screenshots"
PHOTOS = [SAMPLES / f"{name}.jpg" for name in ("cat", "coffee", "photographer")]


def main() -> None:
    if CHROMIUM is None:
        sys.exit("There is no chromium on this machine; install it, for example with apt-get install chromium.")
    FOLDER.mkdir(exist_ok=True)
    with run_server() as port, launch_browser() as browser:
        for device in DEVICES:
            for scheme in ("light", "dark"):
                with browser.new_context(**DEVICES[device], color_scheme=scheme) as context:
                    page = context.new_page()
                    with page.expect_response("**/v1/model"):
                        page.goto(f"http://127.0.0.1:{port}/")
                    _take_all(page, f"{device}-{scheme}")


def _take_all(page: Page, name: str) -> None:
    _take(page, f"empty-{name}")
    choose_photos(page, PHOTOS[0])
    wait_for_results(page, PHOTOS[0].name)
    labels(card(page, "cat.jpg")).first.click()
    expect(card(page, "cat.jpg").locator("img[data-label]")).to_be_visible()
    page.mouse.move(0, 0)
    _take(page, f"classify-{name}")
    choose_photos(page, *PHOTOS[1:], ROOT / "README.md")
    wait_for_results(page, *[photo.name for photo in PHOTOS])
    _take(page, f"several-{name}")
    page.get_by_role("button", name="Enlarge: coffee.jpg").click()
    _take(page, f"large-{name}")
    page.keyboard.press("Escape")
    card(page, "cat.jpg").get_by_role("button", name="Code").click()
    _take(page, f"code-{name}")
    page.keyboard.press("Escape")
    for photo in PHOTOS:
        page.get_by_label(f"Compare: {photo.name}").check()
    page.get_by_role("link", name="Compare 3").click()
    page.get_by_label("Heat map of").select_option(index=1)
    expect(page.locator("img[data-label]")).to_have_count(3)
    _take(page, f"compare-{name}")
    for view in ("Model", "Settings"):
        open_view(page, view)
        _take(page, f"{view.lower()}-{name}")
    page.route("**/v1/model", lambda route: route.abort())
    page.reload()
    page.get_by_role("alert").first.wait_for()
    open_view(page, "Classify")
    _take(page, f"unreachable-{name}")
    page.unroute_all()


def _take(page: Page, name: str) -> None:
    path: Path = FOLDER / f"{name}.jpg"
    page.evaluate("scrollTo(0, 0)")
    page.screenshot(path=path, animations="disabled", quality=85)
    print(f"Wrote {path.relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()
