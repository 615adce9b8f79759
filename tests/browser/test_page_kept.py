"""Nothing is lost: photos survive a reload, a removal can be undone, and the page opens without a network."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from page_actions import DEVICES, SAMPLES, card, choose_photos, labels, open_view, photo_names, wait_for_results
from page_text import page_text
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect
from support import CAT, ROOT

from litelens_client.page import PAGE_HEADERS, PageFiles

# As many as a browser keeps; web/keeping.js has the limit.
MAX_PHOTOS = 200

pytestmark = pytest.mark.parametrize("device", ["desk"], indirect=True)


def photo(name: str, sample: str = "cat") -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": (SAMPLES / f"{sample}.jpg").read_bytes()}


def kept_names(page: Page, *, answered: bool = False) -> list[str]:
    """Return the names of the photos in the page's database, in order; with `answered`, of those with their answer."""
    return list(
        page.evaluate(
            """(answered) => new Promise((resolve) => {
                const opened = indexedDB.open("litelens");
                opened.onsuccess = () => {
                    const all = opened.result.transaction("photos").objectStore("photos").getAll();
                    const isChosen = ({ progress }) => !answered || progress?.stage === "done";
                    all.onsuccess = () => resolve(all.result.filter(isChosen).map(({ file }) => file.name));
                };
            })""",
            answered,
        )
    )


def wait_until_kept(page: Page, *names: str, answered: bool = False) -> None:
    for _ in range(100):
        if kept_names(page, answered=answered) == list(names):
            return
        page.wait_for_timeout(50)
    assert kept_names(page, answered=answered) == list(names)


def requests_of(page: Page) -> list[str]:
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    return urls


def test_photos_and_answers_survive_a_reload_without_a_new_request(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"), {**photo("broken.jpg"), "buffer": b""})
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    page.get_by_label("Compare: coffee.jpg").check()
    wait_until_kept(page, "cat.jpg", "coffee.jpg", "broken.jpg")
    page.wait_for_timeout(500)
    requests = requests_of(page)
    page.reload()
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    expect(photo_names(page)).to_have_text(["cat.jpg", "coffee.jpg", "broken.jpg"])
    expect(page.get_by_label("Compare: coffee.jpg")).to_be_checked()
    expect(card(page, "cat.jpg").locator("img").first).to_have_js_property("naturalWidth", 330)
    assert not any("/v1/classify" in url for url in requests)
    # They are still photos that can be sent.
    labels(card(page, "cat.jpg")).first.click()
    expect(card(page, "cat.jpg").locator("img[data-label]")).to_be_visible()


def test_photos_without_an_answer_are_classified_after_a_reload(page: Page) -> None:
    page.route("**/v1/classify?*", lambda _: None)
    choose_photos(page, CAT)
    wait_until_kept(page, "cat.jpg")
    page.unroute_all()
    page.reload()
    wait_for_results(page, "cat.jpg")


def test_removed_photos_are_gone_after_a_reload(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    page.get_by_role("button", name="Remove: cat.jpg").click()
    wait_until_kept(page, "coffee.jpg")
    page.reload()
    wait_for_results(page, "coffee.jpg")
    expect(photo_names(page)).to_have_text(["coffee.jpg"])


def test_more_photos_than_are_kept_are_announced(page: Page) -> None:
    choose_photos(page, *({**photo(f"{number}.jpg"), "buffer": b""} for number in range(MAX_PHOTOS)))
    expect(photo_names(page)).to_have_count(MAX_PHOTOS)
    before = page.locator(".overview .small").count()
    choose_photos(page, *({**photo(f"more {number}.jpg"), "buffer": b""} for number in range(2)))
    expect(page.locator(".overview .small")).to_have_count(before + 1)
    expect(page.locator(".overview .small").last).to_contain_text("2 photos")
    page.wait_for_timeout(1000)
    assert len(kept_names(page)) == MAX_PHOTOS


def test_everything_can_be_forgotten(page: Page) -> None:
    open_view(page, "Settings")
    page.get_by_label("Theme").select_option("dark")
    open_view(page, "Classify")
    choose_photos(page, CAT)
    wait_until_kept(page, "cat.jpg")
    open_view(page, "Settings")
    page.get_by_role("button", name=page_text("forget")).click()
    expect(page.get_by_text(page_text("samples"))).to_be_visible()
    assert kept_names(page) == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0
    expect(page.locator("html")).to_have_attribute("data-theme", "auto")


def test_a_removal_can_be_undone(page: Page) -> None:
    names = ["cat.jpg", "coffee.jpg", "photographer.jpg"]
    choose_photos(page, *(SAMPLES / name for name in names))
    wait_for_results(page, *names)
    requests = requests_of(page)
    page.get_by_role("button", name="Remove: coffee.jpg").click()
    expect(photo_names(page)).to_have_text(["cat.jpg", "photographer.jpg"])
    page.get_by_role("button", name="Undo").click()
    expect(photo_names(page)).to_have_text(names)
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.get_by_text(page_text("samples"))).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(photo_names(page)).to_have_text(names)
    wait_for_results(page, *names)
    expect(card(page, "coffee.jpg").locator("img").first).to_have_js_property("naturalWidth", 400)
    assert not any("/v1/classify" in url for url in requests)


def test_a_photo_removed_before_its_answer_is_classified_after_undoing(page: Page) -> None:
    page.route("**/v1/classify?*", lambda _: None)
    choose_photos(page, CAT)
    page.get_by_role("button", name="Remove: cat.jpg").click()
    page.unroute_all()
    page.get_by_role("button", name="Undo").click()
    wait_for_results(page, "cat.jpg")


def test_the_page_goes_on_by_itself_when_the_service_is_back(page: Page) -> None:
    page.clock.install()
    for path in ("**/v1/model", "**/v1/classify?*"):
        page.route(path, lambda route: route.abort("connectionrefused"))
    choose_photos(page, CAT)
    expect(page.get_by_role("alert").first).to_contain_text(page_text("byItself"))
    page.unroute_all()
    page.clock.fast_forward("00:40")
    wait_for_results(page, "cat.jpg")
    expect(page.get_by_role("alert")).to_have_count(0)


@pytest.fixture
def offline_context(chromium: Browser, device: str) -> Iterator[BrowserContext]:
    """A context that allows service workers."""
    with chromium.new_context(**DEVICES[device]) as context:
        yield context


# The paths of the files that the service worker keeps.
READ_KEPT_PATHS = """
async () => (await (await caches.open("page")).keys()).map(({ url }) => new URL(url).pathname)
"""


class PageHandler(BaseHTTPRequestHandler):
    """Serves the files of a page, without an API."""

    def __init__(self, files: PageFiles, *arguments: Any) -> None:
        self._files = files
        super().__init__(*arguments)

    def do_GET(self) -> None:
        file = self._files.find(self.path)
        self.send_response(200 if file else 404)
        if file:
            headers = {**PAGE_HEADERS, "content-type": file.media_type, "cache-control": file.cache_control}
            for name, value in headers.items():
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(file.content if file else b"")

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def serve_page(folder: Path) -> Iterator[str]:
    """Serve the page in a folder until the block ends; yields its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(PageHandler, PageFiles(folder))) as server:
        Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


def wait_for_kept_paths(page: Page, is_reached: Callable[[list[str]], bool]) -> list[str]:
    """Wait until the paths of the files that the service worker keeps are so; return them."""
    for _ in range(1200):
        paths: list[str] = page.evaluate(READ_KEPT_PATHS)
        if is_reached(paths):
            return paths
        page.wait_for_timeout(50)
    raise AssertionError(f"kept files: {paths}")


def wait_until_page_is_kept(page: Page) -> set[str]:
    """Wait until the service worker has the page's files; return the folders of their versions."""
    return versions_of(wait_for_kept_paths(page, lambda paths: "/" in paths))


def versions_of(paths: list[str]) -> set[str]:
    return {path.split("/")[1] for path in paths if path.startswith("/v-")}


def test_the_page_opens_offline_with_its_photos(offline_context: BrowserContext, port: int) -> None:
    page = offline_context.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    wait_until_kept(page, "cat.jpg", answered=True)
    wait_until_page_is_kept(page)
    offline_context.set_offline(True)
    page.reload()
    wait_for_results(page, "cat.jpg")
    expect(page.get_by_role("alert")).to_contain_text(page_text("offline"))
    offline_context.set_offline(False)
    expect(page.get_by_role("alert")).to_have_count(0)


def test_the_page_opens_offline_after_an_update_and_keeps_only_the_new_files(
    offline_context: BrowserContext, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(ROOT / "web", tmp_path / "web"))
    page = offline_context.new_page()
    with serve_page(folder) as url:
        page.goto(url)
        (before,) = wait_until_page_is_kept(page)
        text = folder / "text.js"
        text.write_text(text.read_text().replace(page_text("samples"), "These are new samples"))
        page.reload()
        expect(page.get_by_text("These are new samples")).to_be_visible()
        paths = wait_for_kept_paths(page, lambda paths: "/" in paths and before not in versions_of(paths))
        assert len(versions_of(paths)) == 1
        # The view of the model is kept as soon as it has been opened.
        open_view(page, "Model")
        wait_for_kept_paths(page, lambda now: len(now) > len(paths))
        open_view(page, "Classify")
    page.reload()
    expect(page.get_by_text("These are new samples")).to_be_visible()
    expect(page.locator(".sample img").first).to_have_js_property("naturalWidth", 330)
    open_view(page, "Model")
    expect(page.get_by_role("heading", level=1)).to_have_text("The model")
