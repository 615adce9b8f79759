"""Long use of the page: jobs are stopped, focus stays near, and results of two services are not mixed."""

import json
import shutil
from pathlib import Path

from page_actions import SAMPLES, card, choose_photos, labels, open_controls, open_view, wait_for_results, with_key
from page_text import page_text
from playwright.sync_api import BrowserContext, FilePayload, Page, Route, expect
from servers import API_KEY, Deployment, run_server
from support import CIFAR_BUNDLE, ROCKET

PHOTOS = [ROCKET, *(SAMPLES / f"{name}.jpg" for name in ("coffee", "photographer", "cat"))]
FIFTH: FilePayload = {"name": "fifth.jpg", "mimeType": "image/jpeg", "buffer": ROCKET.read_bytes()}
BROKEN: FilePayload = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"no photo"}
AT_A_TIME = 4


def test_few_heat_maps_are_requested_at_a_time_and_none_for_removed_photos(page: Page) -> None:
    held: list[Route] = []
    stopped: list[str] = []
    choose_photos(page, *PHOTOS)
    choose_photos(page, FIFTH)
    wait_for_results(page, *[photo.name for photo in PHOTOS], "fifth.jpg")
    page.route("**/v1/classify?*heatmap_label*", lambda route: held.append(route))
    page.on("requestfailed", lambda request: stopped.append(request.url))
    for name in [*[photo.name for photo in PHOTOS], "fifth.jpg"]:
        page.get_by_label(f"Compare: {name}").check()
    page.get_by_role("link", name="Compare 5").click()
    page.get_by_label("Heat map of").select_option(index=1)
    expect(page.get_by_role("table").get_by_text("Heat map: ")).to_have_count(5)
    page.get_by_role("link", name="Back to all photos").click()
    page.get_by_role("button", name="Clear", exact=True).click()
    # This request would have to wait if the others had not been cancelled.
    choose_photos(page, PHOTOS[0])
    wait_for_results(page, "rocket.jpg")
    assert len(held) == len(stopped) <= AT_A_TIME


def test_removing_all_photos_resets_the_filters(page: Page) -> None:
    choose_photos(page, *PHOTOS)
    choose_photos(page, FIFTH)
    wait_for_results(page, "rocket.jpg", "fifth.jpg")
    open_controls(page)
    page.get_by_role("combobox", name="Show").select_option("failed")
    expect(card(page, "rocket.jpg")).to_have_count(0)
    page.get_by_role("button", name="Clear", exact=True).click()
    choose_photos(page, PHOTOS[1])
    wait_for_results(page, "coffee.jpg")


def test_the_focus_stays_near_a_removed_element(page: Page) -> None:
    choose_photos(page, *PHOTOS[:2])
    wait_for_results(page, "rocket.jpg", "coffee.jpg")
    page.get_by_role("button", name="Remove: rocket.jpg").press("Enter")
    expect(page.get_by_role("list", name="Photos")).to_be_focused()
    page.route("**/v1/classify*", lambda route: route.fulfill(status=500, body=""))
    choose_photos(page, PHOTOS[2])
    again = card(page, "photographer.jpg").get_by_role("button", name="Try again")
    again.focus()
    page.unroute_all()
    again.press("Enter")
    wait_for_results(page, "photographer.jpg")
    expect(card(page, "photographer.jpg")).to_be_focused()


def test_a_repeated_failure_is_announced_again(page: Page) -> None:
    page.route("**/v1/classify*", lambda route: route.abort())
    choose_photos(page, PHOTOS[0])
    status = page.locator("body > [role=status]")
    expect(status).to_contain_text(f"rocket.jpg: {page_text('unreachable')}")
    page.evaluate("""() => {
        const status = document.querySelector("body > [role=status]");
        window.announcements = [];
        new MutationObserver(() => window.announcements.push(status.textContent)).observe(
            status, {childList: true, characterData: true, subtree: true});
    }""")
    card(page, "rocket.jpg").get_by_role("button", name="Try again").click()
    page.wait_for_function("() => window.announcements.length >= 2")
    announcements = page.evaluate("window.announcements")
    assert announcements[0] == ""
    assert announcements[-1].startswith(f"rocket.jpg: {page_text('unreachable')}")


def test_a_failed_download_of_the_report_is_reported_next_to_its_button(
    context: BrowserContext, deployment: Deployment
) -> None:
    page = context.new_page()
    with_key(page, API_KEY)
    page.goto(f"{deployment.url}/#model")
    page.route("**/v1/model/report", lambda route: route.abort())
    page.get_by_role("button", name="The full report").click()
    expect(page.get_by_role("alert")).to_contain_text(page_text("unreachable"))
    expect(page.get_by_role("heading", name="Classes")).to_be_visible()


def test_the_page_works_without_browser_storage(context: BrowserContext, port: int) -> None:
    page = context.new_page()
    page.add_init_script("""for (const name of ["sessionStorage", "localStorage"]) {
        Object.defineProperty(window, name, {get() { throw new DOMException("no", "SecurityError"); }});
    }
    indexedDB.open = () => { throw new DOMException("no", "SecurityError"); };""")
    page.goto(f"http://127.0.0.1:{port}/")
    choose_photos(page, PHOTOS[0])
    wait_for_results(page, "rocket.jpg")
    open_view(page, "Settings")
    page.get_by_label("Theme").select_option("dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_a_broken_photo_does_not_hide_the_next_one(context: BrowserContext, deployment: Deployment) -> None:
    page = context.new_page()
    with_key(page, API_KEY)
    page.goto(deployment.url)
    choose_photos(page, BROKEN)
    choose_photos(page, PHOTOS[0])
    wait_for_results(page, "rocket.jpg")
    open_view(page, "Ask")
    page.get_by_role("radio", name="rocket.jpg").check()
    expect(page.get_by_role("main").locator("img[src^=blob]").first).to_be_visible()


def test_no_share_is_shown_for_a_threshold_above_all_measured_ones(context: BrowserContext, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(CIFAR_BUNDLE, tmp_path / "bundle"))
    for name, changes in {"manifest.json": {"threshold": 1.0}, "metrics.json": {"confusion": []}}.items():
        (bundle / name).write_text(json.dumps(json.loads((bundle / name).read_text()) | changes))
    with run_server(LITELENS_BUNDLE=str(bundle)) as port:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{port}/#model")
        expect(page.get_by_role("heading", name="Certainty")).to_be_visible()
        expect(page.get_by_text("At the threshold of")).to_have_count(0)
        expect(page.get_by_role("heading", name="Confusion")).to_have_count(0)


def test_a_heat_map_is_announced_when_it_is_shown(page: Page) -> None:
    choose_photos(page, PHOTOS[0])
    wait_for_results(page, "rocket.jpg")
    first = labels(card(page, "rocket.jpg")).first
    first.click()
    expect(first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("body > [role=status]")).to_contain_text("rocket.jpg: heat map of ")
