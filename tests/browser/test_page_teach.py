"""The view Teach: classes, photos and the webcam, learning, trying, photos to check, keeping, and what can go wrong."""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from class_folders import photo
from page_actions import CHROMIUM, labels, open_view, with_key
from page_actions import card as photo_card
from page_text import page_text
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, FilePayload, Locator, Page, expect, sync_playwright
from servers import run_server
from support import CAT, ROOT, encoded, require

from litelens_client.learning.learn import MIN_PHOTOS

KEY = "key-of-the-tests"
NOT_A_PHOTO: FilePayload = {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"milk, bread"}
DAMAGED: FilePayload = {"name": "damaged.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n" + bytes(99)}

RULES = {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

at_the_desk = pytest.mark.parametrize("device", ["desk"], indirect=True)
on_the_phone = pytest.mark.parametrize("device", ["phone"], indirect=True)

# Asking for the webcam fails with an error of the name in `window.refusal`, if there is one.
REFUSE_WEBCAM = """
const ask = navigator.mediaDevices?.getUserMedia.bind(navigator.mediaDevices);
if (ask) {
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    if (window.refusal) throw new DOMException("refused", window.refusal);
    return ask(wanted);
  };
}
"""

# Returns controls that are smaller than a finger, or end outside the window.
READ_MISPLACED_CONTROLS = """
() => [...document.querySelectorAll("main a, main button, main input")]
  .filter((element) => element.checkVisibility())
  .filter((element) => {
    const { width, height, left, right } = element.getBoundingClientRect();
    return width < 44 || height < 44 || left < 0 || right > document.documentElement.clientWidth + 0.5;
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""

READ_TEXTS_OUTSIDE = """
() => [...document.querySelectorAll("main :is(p, h1, h2, span, li, code, strong, video, img)")]
  .filter((element) => element.checkVisibility() && !element.matches(".unseen"))
  .filter((element) => element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((element) => element.outerHTML.slice(0, 120))
"""


@dataclass(frozen=True)
class TeachServer:
    """A server whose models are in an empty folder."""

    port: int
    models: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser with a webcam that shows a moving shape, and that allows its use."""
    require(CHROMIUM, "there is no chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    webcam = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments + webcam)
        try:
            yield browser
        finally:
            browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeachServer]:
    folder = tmp_path_factory.mktemp("teach")
    with run_server(LITELENS_MODELS=str(folder / "models"), XDG_CACHE_HOME=str(folder / "cache")) as port:
        yield TeachServer(port, folder / "models")


@pytest.fixture
def page(context: BrowserContext, server: TeachServer) -> Page:
    """The view Teach with an empty draft."""
    context.request.delete(f"{server.url}/v1/draft")
    context.add_init_script(REFUSE_WEBCAM)
    page = context.new_page()
    page.goto(server.url)
    open_view(page, "Teach")
    expect(name_field(page, 1)).to_be_visible()
    return page


def png(label: str, number: int) -> bytes:
    return encoded(photo(label, number), "PNG", compress_level=1)


def files(label: str, count: int, first: int = 0) -> list[FilePayload]:
    """Return photos of a label as files to choose."""
    return [
        FilePayload(name=f"{label}-{number}.png", mimeType="image/png", buffer=png(label, number))
        for number in range(first, first + count)
    ]


def name_field(page: Page, number: int) -> Locator:
    return page.get_by_label(f"Name of class {number}")


def class_card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def thumbnails(page: Page, name: str) -> Locator:
    return class_card(page, name).locator(".teach-thumbs img")


def name_class(page: Page, number: int, name: str) -> None:
    name_field(page, number).fill(name)
    name_field(page, number).press("Enter")
    expect(class_card(page, name)).to_be_visible()


def choose(page: Page, name: str, *chosen: FilePayload | Path) -> None:
    """Choose photos for a class."""
    picker = class_card(page, name).locator("input[type=file]")
    picker.set_input_files(list(chosen))  # type: ignore[arg-type]


def try_photos(page: Page, *chosen: FilePayload) -> None:
    page.locator("input[data-picker=teach-try]").set_input_files(list(chosen))


def draft(page: Page) -> dict[str, int]:
    """Return the number of photos of each class on the server."""
    answer = page.request.get(f"{page.url.partition('#')[0]}v1/draft").json()
    return {each["name"]: len(each["photos"]) for each in answer["classes"]}


def fill_draft(page: Page, **photos: list[bytes]) -> None:
    """Put photos into classes with requests, and show them."""
    url = f"{page.url.partition('#')[0]}v1/draft/classes"
    for name, contents in photos.items():
        assert page.request.put(f"{url}/{quote(name)}").ok
        for content in contents:
            assert page.request.post(f"{url}/{quote(name)}/photos", data=content).ok
    page.reload()
    for name, contents in photos.items():
        expect(class_card(page, name)).to_contain_text(str(len(contents)))


def fill_with_pets(page: Page, count: int = 4) -> None:
    fill_draft(page, **{name: [png(name, number) for number in range(count)] for name in ("cat", "coffee")})


def fill_with_photos_to_check(page: Page) -> None:
    """Put a photo of coffee into the class cat, and the same photo twice into the class coffee."""
    cats, coffees = ([png(name, number) for number in range(6)] for name in ("cat", "coffee"))
    # However the photos are divided for the cross-validation, this one is clearly more like coffee.
    fill_draft(page, cat=[*cats, png("coffee", 31)], coffee=[*coffees, coffees[0]])


def learn(page: Page) -> None:
    page.get_by_role("button", name="Learn", exact=True).click()
    expect(result(page)).to_be_visible()


def result(page: Page) -> Locator:
    return page.locator("#teach-result")


def panel(page: Page, name: str) -> Locator:
    return page.get_by_role("region", name=name)


def problem(code: str, status: int, detail: str = "") -> dict[str, Any]:
    document = {"code": code, "status": status, "detail": detail, "request_id": "the-request"}
    return {"status": status, "content_type": "application/problem+json", "body": json.dumps(document)}


# The tab.


@at_the_desk
def test_the_tab_is_there_if_the_service_has_a_draft_and_its_code_is_loaded_when_it_is_opened(
    context: BrowserContext, server: TeachServer
) -> None:
    page = context.new_page()
    requested: list[str] = []
    page.on("request", lambda request: requested.append(re.sub(r".*/v-[0-9a-f]{12}", "", request.url)))
    page.goto(server.url)
    expect(page.get_by_role("link", name="Teach")).to_be_visible()
    parts = {"/views/teach.js", "/teaching.js", "/teach.css"}
    assert not parts & {*requested}
    open_view(page, "Teach")
    expect(name_field(page, 2)).to_be_visible()
    assert parts < {*requested}


@at_the_desk
def test_a_service_without_a_draft_has_no_tab_and_the_view_says_where_it_is(
    context: BrowserContext, server: TeachServer
) -> None:
    page = context.new_page()
    page.route("**/v1/draft", lambda route: route.fulfill(**problem("not_found", 404)))
    page.goto(f"{server.url}/#teach")
    expect(page.get_by_role("main")).to_contain_text(page_text("notHere"))
    expect(page.get_by_role("link", name="Teach")).to_have_count(0)


@at_the_desk
def test_another_service_is_not_asked_for_a_draft(
    context: BrowserContext, server: TeachServer, measured_port: int
) -> None:
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "draft" in request.url else None)
    page.add_init_script(f"sessionStorage.setItem('litelens.endpoint', 'http://127.0.0.1:{measured_port}')")
    page.route("**/v1/model", lambda route: route.fulfill(json=page.request.get(f"{server.url}/v1/model").json()))
    page.goto(server.url)
    page.goto(f"{server.url}/#teach")
    expect(page.get_by_role("main")).to_contain_text(page_text("notHere"))
    assert asked == []


# Classes and photos.


def test_two_objects_are_taught_tried_kept_and_used(page: Page, server: TeachServer) -> None:
    name_class(page, 1, "cat")
    choose(page, "cat", *files("cat", 6))
    name_class(page, 2, "coffee cup")
    choose(page, "coffee cup", *files("coffee", 6))
    expect(thumbnails(page, "cat")).to_have_count(6)
    expect(thumbnails(page, "coffee cup")).to_have_count(6)
    learn(page)
    expect(result(page)).to_contain_text(re.compile(r"\d+ times in 12"))
    # Few photos come with a caution, which names the class and its number.
    expect(result(page)).to_contain_text(re.compile("(cat|coffee cup) .*6"))
    expect(result(page)).to_be_focused()

    try_photos(page, *files("coffee", 1, first=40), *files("cat", 1, first=40))
    expect(panel(page, "Try it").locator(".teach-answer")).to_have_count(2)
    expect(panel(page, "Try it").locator(".teach-answer").first).to_contain_text(re.compile("cat", re.IGNORECASE))
    expect(panel(page, "Try it").locator(".teach-bars").first.get_by_role("listitem")).to_have_count(2)

    name = page.get_by_label("Name of the model")
    expect(name).to_have_value("cat-coffee-cup")
    name.fill("pets")
    page.get_by_role("button", name="Keep it").click()
    expect(panel(page, "Keep it").get_by_text("models/pets.")).to_be_visible()
    assert (server.models / "pets" / "manifest.json").is_file()
    for line in ("make classify IMAGE=photo.jpg BUNDLE=models/pets", '"Model=pets",', "make deploy ENV=dev"):
        expect(panel(page, "Keep it").get_by_text(line, exact=True)).to_be_visible()

    page.get_by_role("button", name="Classify photos with it").click()
    expect(page.get_by_role("combobox", name="Model")).to_have_value("pets")
    page.locator("input[data-picker=files]").set_input_files([*files("coffee", 1, first=41)])
    expect(labels(photo_card(page, "coffee-41.png"))).to_have_count(2)


def test_what_is_still_needed_is_named_and_then_learning_is_offered(page: Page) -> None:
    button = page.get_by_role("button", name="Learn", exact=True)
    expect(button).to_be_disabled()
    name_class(page, 1, "cat")
    choose(page, "cat", *files("cat", 1))
    expect(panel(page, "Learn").get_by_role("listitem")).to_have_count(2)
    expect(panel(page, "Learn").get_by_role("listitem").first).to_contain_text(re.compile("1 .*cat"))
    expect(page.get_by_role("alert")).to_have_count(0)
    choose(page, "cat", *files("cat", 1, first=1))
    expect(panel(page, "Learn").get_by_role("listitem")).to_have_count(1)
    choose(page, "Class 2", *files("coffee", 2))
    expect(panel(page, "Learn").get_by_role("listitem")).to_have_count(0)
    expect(button).to_be_enabled()


def test_the_page_and_the_server_need_the_same_number_of_photos() -> None:
    (number,) = re.findall(r"LEAST_PHOTOS = (\d+);", (ROOT / "web" / "teaching.js").read_text())
    assert int(number) == MIN_PHOTOS


@at_the_desk
def test_a_class_without_a_name_gets_one_and_can_be_renamed_with_its_photos(page: Page) -> None:
    choose(page, "Class 1", *files("cat", 3))
    expect(thumbnails(page, "Class 1")).to_have_count(3)
    expect(name_field(page, 1)).to_have_value("Class 1")
    name_class(page, 1, "Katze 🐈")
    expect(thumbnails(page, "Katze 🐈")).to_have_count(3)
    page.wait_for_function("() => [...document.querySelectorAll('.teach-thumbs img')].every((i) => i.naturalWidth)")
    assert draft(page) == {"Katze 🐈": 3}


def test_a_reload_loses_nothing(page: Page) -> None:
    name_class(page, 1, "cat")
    choose(page, "cat", *files("cat", 2))
    expect(thumbnails(page, "cat")).to_have_count(2)
    page.reload()
    expect(thumbnails(page, "cat")).to_have_count(2)
    expect(name_field(page, 1)).to_have_value("cat")
    expect(name_field(page, 2)).to_have_value("")


@at_the_desk
@pytest.mark.parametrize("name", ["a/b", ".hidden", "what?"])
def test_a_name_that_no_folder_can_have_is_refused_and_can_be_corrected(name: str, page: Page) -> None:
    name_field(page, 1).fill(name)
    name_field(page, 1).press("Enter")
    expect(class_card(page, "Class 1")).to_contain_text(page_text("draft_name_unusable"))
    expect(name_field(page, 1)).to_have_value(name)
    expect(name_field(page, 1)).to_have_attribute("aria-invalid", "true")
    name_class(page, 1, "ab")
    expect(class_card(page, "ab")).not_to_contain_text(page_text("draft_name_unusable"))
    assert draft(page) == {"ab": 0}


def test_a_photo_that_the_browser_cannot_show_is_taken_and_its_place_says_so(page: Page) -> None:
    name_class(page, 1, "rocket")
    choose(page, "rocket", *files("cat", 1))
    choose(page, "rocket", ROOT / "tests" / "images" / "rocket.heic")
    expect(thumbnails(page, "rocket")).to_have_count(2)
    expect(class_card(page, "rocket").get_by_text(page_text("undrawn")).filter(visible=True)).to_have_count(1)
    assert draft(page) == {"rocket": 2}


@at_the_desk
def test_enter_sends_the_name_of_a_class_once(page: Page) -> None:
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url) if request.method == "PUT" else None)
    name_class(page, 1, "cat")
    name_class(page, 2, "dog")
    assert draft(page) == {"cat": 0, "dog": 0}
    assert [url.rpartition("/")[2] for url in sent] == ["cat", "dog"]


@at_the_desk
def test_two_classes_cannot_have_the_same_name(page: Page) -> None:
    name_class(page, 1, "cat")
    name_field(page, 2).fill("Cat")
    name_field(page, 2).press("Enter")
    expect(class_card(page, "Class 2")).to_contain_text(page_text("draft_name_taken"))
    assert draft(page) == {"cat": 0}


def test_a_photo_is_removed_with_one_click_and_comes_back(page: Page) -> None:
    fill_with_pets(page)
    page.get_by_role("button", name="Remove photo 2 of cat").click()
    expect(thumbnails(page, "cat")).to_have_count(3)
    expect(class_card(page, "cat").get_by_role("button", name="Undo")).to_be_visible()
    assert draft(page) == {"cat": 3, "coffee": 4}
    class_card(page, "cat").get_by_role("button", name="Undo").click()
    expect(thumbnails(page, "cat")).to_have_count(4)
    assert draft(page) == {"cat": 4, "coffee": 4}


@at_the_desk
def test_classes_with_photos_are_removed_only_after_a_question(page: Page) -> None:
    fill_with_pets(page)
    page.get_by_role("button", name="Remove: cat").click()
    class_card(page, "cat").get_by_role("button", name="No").click()
    assert draft(page) == {"cat": 4, "coffee": 4}
    page.get_by_role("button", name="Remove: cat").click()
    class_card(page, "cat").get_by_role("button", name="Remove", exact=True).click()
    expect(class_card(page, "cat")).to_have_count(0)
    assert draft(page) == {"coffee": 4}
    page.get_by_role("button", name="Start over").click()
    page.get_by_role("button", name="Remove all").click()
    expect(class_card(page, "coffee")).to_have_count(0)
    expect(page.get_by_role("article")).to_have_count(2)
    assert draft(page) == {}


def test_files_that_are_no_photos_are_named_and_the_others_are_added(page: Page) -> None:
    name_class(page, 1, "cat")
    choose(page, "cat", NOT_A_PHOTO, *files("cat", 2), DAMAGED)
    expect(thumbnails(page, "cat")).to_have_count(2)
    refused = class_card(page, "cat").get_by_role("alert")
    expect(refused).to_contain_text("notes.txt")
    expect(refused).to_contain_text("damaged.png")
    class_card(page, "cat").get_by_role("button", name="Close").click()
    expect(refused).to_have_count(0)


@at_the_desk
def test_a_large_photo_is_stored_smaller_upright_and_without_its_metadata(page: Page) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees
    exif[0x010F] = "the maker of the camera"
    with Image.open(CAT) as cat:
        large = encoded(cat.resize((3000, 1500)), "JPEG", exif=exif, quality=95)
    choose(page, "Class 1", FilePayload(name="large.jpg", mimeType="image/jpeg", buffer=large))
    expect(thumbnails(page, "Class 1")).to_have_count(1)
    stored = page.request.get(f"{page.url.partition('/#')[0]}{thumbnails(page, 'Class 1').get_attribute('src')}").body()
    with Image.open(BytesIO(stored)) as image:
        assert image.size == (512, 1024)
        assert len(image.getexif()) == 0


@at_the_desk
def test_many_photos_are_folded(page: Page) -> None:
    fill_draft(page, cat=[png("cat", number) for number in range(20)])
    expect(thumbnails(page, "cat")).to_have_count(11)
    class_card(page, "cat").get_by_role("button", name="9 more").click()
    expect(thumbnails(page, "cat")).to_have_count(20)


def drop(page: Page, x: float, y: float, *paths: Path) -> None:
    """Drop files or folders of another program there."""
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": y, "data": data})


def drop_onto(page: Page, target: Locator, *paths: Path) -> None:
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    assert box
    drop(page, box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, *paths)


def folder_of(root: Path, label: str, count: int = 2) -> Path:
    folder = root / label
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(png(label, number))
    return folder


@at_the_desk
def test_photos_are_dropped_onto_a_class_and_a_folder_names_it(page: Page, tmp_path: Path) -> None:
    cats, coffees = folder_of(tmp_path, "cat"), folder_of(tmp_path, "coffee", 3)
    name_class(page, 1, "animal")
    drop_onto(page, class_card(page, "animal"), *sorted(cats.iterdir()))
    expect(thumbnails(page, "animal")).to_have_count(2)
    drop_onto(page, class_card(page, "Class 2"), coffees)
    expect(thumbnails(page, "coffee")).to_have_count(3)
    expect(page).to_have_url(re.compile("#teach$"))
    assert draft(page) == {"animal": 2, "coffee": 3}


@at_the_desk
@pytest.mark.parametrize("inside", [True, False])
def test_folders_of_classes_are_dropped_at_once(inside: bool, page: Page, tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folders = [folder_of(root, label) for label in ("cat", "coffee", "rocket")]
    drop(page, 1200, 700, *([root] if inside else folders))
    for name in ("cat", "coffee", "rocket"):
        expect(thumbnails(page, name)).to_have_count(2)
    assert draft(page) == {"cat": 2, "coffee": 2, "rocket": 2}


@at_the_desk
def test_photos_dropped_beside_the_classes_stay_in_this_view(page: Page, tmp_path: Path) -> None:
    drop(page, 1200, 700, *folder_of(tmp_path, "cat").iterdir())
    expect(page.get_by_role("status").last).to_have_text(page_text("dropHint"))
    expect(page).to_have_url(re.compile("#teach$"))
    assert draft(page) == {}


# Learning.


def test_photos_to_check_are_moved_or_removed_with_one_click(page: Page) -> None:
    fill_with_photos_to_check(page)
    learn(page)
    check = panel(page, "Photos to check")
    check.get_by_role("button", name="Move to coffee").click()
    expect(thumbnails(page, "coffee")).to_have_count(8)
    expect(check.get_by_role("button", name="Move to coffee")).to_have_count(0)
    # The page shows the removal before the server has made it.
    with page.expect_response(lambda response: response.request.method == "DELETE"):
        check.get_by_role("button", name="Remove one").click()
    expect(thumbnails(page, "coffee")).to_have_count(7)
    expect(check).to_have_count(0)
    assert draft(page) == {"cat": 6, "coffee": 7}


@at_the_desk
def test_a_photo_that_is_right_is_not_listed_any_more(page: Page) -> None:
    fill_with_photos_to_check(page)
    learn(page)
    check = panel(page, "Photos to check")
    check.get_by_role("button", name="It is right").click()
    expect(check.get_by_role("button", name="Move to coffee")).to_have_count(0)
    assert draft(page) == {"cat": 7, "coffee": 7}


@at_the_desk
def test_a_draft_that_has_changed_is_learned_from_again_before_it_is_kept(page: Page) -> None:
    fill_with_pets(page)
    learn(page)
    expect(page.get_by_label("Name of the model")).to_be_visible()
    page.get_by_role("button", name="Remove photo 1 of cat").click()
    expect(panel(page, "Learn")).to_contain_text(page_text("outdated"))
    expect(page.get_by_label("Name of the model")).to_have_count(0)
    panel(page, "Learn").get_by_role("button", name="Learn again").click()
    expect(panel(page, "Learn")).to_contain_text(re.compile("times in 7"))
    expect(page.get_by_label("Name of the model")).to_be_visible()


@at_the_desk
def test_learning_is_shown_after_a_reload_and_in_other_tabs(page: Page) -> None:
    fill_with_pets(page)
    answer = page.request.get(f"{page.url.partition('#')[0]}v1/draft").json()
    learning = {**answer, "learning": True, "progress": {"done": 3, "total": 12}}
    page.route("**/v1/draft", lambda route: route.fulfill(json=learning))
    page.reload()
    expect(panel(page, "Learn").get_by_role("progressbar")).to_have_attribute("value", "0.25")
    expect(panel(page, "Learn")).to_contain_text("3 of 12 photos read")
    expect(page.get_by_role("button", name="Learn", exact=True)).to_have_count(0)
    page.unroute("**/v1/draft")
    expect(page.get_by_role("button", name="Learn", exact=True)).to_be_enabled()


@at_the_desk
def test_the_learned_model_is_downloaded_as_a_bundle(page: Page) -> None:
    fill_with_pets(page)
    learn(page)
    page.get_by_label("Name of the model").fill("mugs")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "mugs.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert {"manifest.json", "model.tflite"} < {*archive.namelist()}


@at_the_desk
def test_a_line_to_run_is_copied(page: Page, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    fill_with_pets(page)
    learn(page)
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name=re.compile("Copy.*make deploy")).click()
    expect(page.get_by_role("button", name=re.compile("Copied.*make deploy"))).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "make deploy ENV=dev"


@at_the_desk
def test_a_model_that_was_not_taught_here_is_not_replaced(page: Page, server: TeachServer) -> None:
    (server.models / "mine").mkdir(parents=True, exist_ok=True)
    fill_with_pets(page)
    learn(page)
    page.get_by_label("Name of the model").fill("mine")
    page.get_by_role("button", name="Keep it").click()
    expect(panel(page, "Keep it").get_by_role("alert")).to_have_text(page_text("draft_name_taken"))
    assert list((server.models / "mine").iterdir()) == []
    page.get_by_label("Name of the model").fill("yours")
    page.get_by_role("button", name="Keep it").click()
    expect(panel(page, "Keep it").get_by_text("models/yours.")).to_be_visible()
    expect(panel(page, "Keep it").get_by_role("alert")).to_have_count(0)


# The webcam.


def open_webcam(page: Page, place: Locator) -> None:
    place.get_by_role("button", name="Webcam").click()
    expect(place.locator("video")).to_be_visible()
    page.wait_for_function("() => document.querySelector('video').videoWidth > 0")


@at_the_desk
def test_the_webcam_takes_photos_while_its_button_is_held(page: Page) -> None:
    open_webcam(page, class_card(page, "Class 1"))
    shutter = page.get_by_role("button", name="Hold to take photos")
    shutter.hover()
    page.mouse.down()
    expect(thumbnails(page, "Class 1").nth(2)).to_be_visible()
    page.mouse.up()
    expect(page.get_by_role("progressbar")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    before = draft(page)["Class 1"]
    assert before >= 3
    shutter.focus()
    page.keyboard.press("Space")
    expect(class_card(page, "Class 1")).to_contain_text(f"{before + 1} photos")
    assert draft(page) == {"Class 1": before + 1}


@on_the_phone
def test_a_tap_takes_a_photo(page: Page) -> None:
    open_webcam(page, class_card(page, "Class 1"))
    page.get_by_role("button", name="Hold to take photos").tap()
    expect(thumbnails(page, "Class 1").first).to_be_visible()


@at_the_desk
def test_the_webcam_is_tried_live_and_ends_with_the_view(page: Page) -> None:
    fill_with_pets(page)
    learn(page)
    place = panel(page, "Try it")
    open_webcam(page, place)
    expect(place.locator(".teach-live .teach-bars").get_by_role("listitem")).to_have_count(2)
    track = page.evaluate_handle("() => document.querySelector('video').srcObject.getTracks()[0]")
    open_view(page, "Settings")
    page.wait_for_function("(track) => track.readyState === 'ended'", arg=track)
    open_view(page, "Teach")
    expect(place.locator("video")).to_have_count(0)


@at_the_desk
@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("NotAllowedError", "camera_refused"),
        ("NotFoundError", "camera_missing"),
        ("NotReadableError", "camera_in_use"),
    ],
)
def test_a_webcam_that_cannot_be_used_is_explained_and_can_be_tried_again(name: str, code: str, page: Page) -> None:
    page.evaluate("(name) => { window.refusal = name }", name)
    class_card(page, "Class 1").get_by_role("button", name="Webcam").click()
    expect(class_card(page, "Class 1").get_by_role("alert")).to_have_text(page_text(code))
    page.evaluate("window.refusal = null")
    open_webcam(page, class_card(page, "Class 1"))
    expect(page.get_by_role("alert")).to_have_count(0)


@at_the_desk
def test_the_webcam_is_not_asked_for_without_a_click(page: Page) -> None:
    page.evaluate("window.refusal = 'NotAllowedError'")
    fill_with_pets(page)
    learn(page)
    expect(page.locator("video")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)


# What can go wrong.


@at_the_desk
def test_the_page_goes_on_by_itself_when_the_server_is_back(page: Page) -> None:
    name_class(page, 1, "cat")
    page.route(re.compile("/v1/draft"), lambda route: route.abort())
    choose(page, "cat", *files("cat", 2))
    expect(page.get_by_role("alert")).to_have_text(page_text("gone"))
    page.unroute_all()
    expect(thumbnails(page, "cat")).to_have_count(2)
    expect(page.get_by_role("alert")).to_have_count(0)
    assert draft(page) == {"cat": 2}


@at_the_desk
def test_a_draft_in_use_is_waited_for(page: Page) -> None:
    name_class(page, 1, "cat")
    page.route("**/photos", lambda route: route.fulfill(**problem("draft_busy", 409)), times=1)
    choose(page, "cat", *files("cat", 1))
    expect(page.get_by_role("alert")).to_have_text(page_text("inUse"))
    expect(thumbnails(page, "cat")).to_have_count(1)
    expect(page.get_by_role("alert")).to_have_count(0)


@at_the_desk
def test_learning_that_fails_is_explained_and_can_be_tried_again(page: Page) -> None:
    fill_with_pets(page)
    page.route("**/learn", lambda route: route.fulfill(**problem("internal_error", 500)), times=1)
    page.get_by_role("button", name="Learn", exact=True).click()
    expect(panel(page, "Learn").get_by_role("alert")).to_contain_text("the-request")
    learn(page)
    expect(panel(page, "Learn").get_by_role("alert")).to_have_count(0)


@at_the_desk
def test_a_class_that_another_tab_removed_disappears(page: Page) -> None:
    fill_with_pets(page)
    page.request.delete(f"{page.url.partition('#')[0]}v1/draft/classes/cat")
    page.get_by_role("button", name="Remove photo 1 of cat").click()
    expect(class_card(page, "cat")).to_have_count(0)
    expect(class_card(page, "coffee")).to_be_visible()


@at_the_desk
def test_photos_are_shown_if_the_server_requires_a_key(context: BrowserContext, tmp_path: Path) -> None:
    variables = {"LITELENS_MODELS": str(tmp_path / "models"), "XDG_CACHE_HOME": str(tmp_path), "API_KEY": KEY}
    with run_server(**variables) as port:
        page = context.new_page()
        with_key(page, KEY)
        page.goto(f"http://127.0.0.1:{port}/#teach")
        choose(page, "Class 1", *files("cat", 2))
        expect(thumbnails(page, "Class 1")).to_have_count(2)
        page.reload()
        expect(thumbnails(page, "Class 1")).to_have_count(2)
        page.wait_for_function("() => [...document.querySelectorAll('.teach-thumbs img')].every((i) => i.naturalWidth)")


# Accessibility.


def assert_accessible(page: Page) -> None:
    """Check the view with axe in both themes, and its sizes on a phone."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = Axe().run(page, options={"runOnly": RULES}).response["violations"]
        assert [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]] == []
    if page.evaluate("matchMedia('(pointer: coarse)').matches"):
        assert page.evaluate(READ_MISPLACED_CONTROLS) == []
    assert page.evaluate(READ_TEXTS_OUTSIDE) == []


def test_axe_finds_no_violation_and_targets_are_large_enough(page: Page) -> None:
    assert_accessible(page)
    cats, coffees = ([png(name, number) for number in range(14)] for name in ("cat", "coffee"))
    fill_draft(page, cat=[*cats, png("coffee", 31)], **{"coffee" * 10: [*coffees, coffees[0]]})
    choose(page, "cat", NOT_A_PHOTO)
    page.get_by_role("button", name="Remove: cat").click()
    page.get_by_role("button", name="Start over").click()
    open_webcam(page, class_card(page, "cat"))
    assert_accessible(page)
    class_card(page, "cat").get_by_role("button", name="No").click()
    learn(page)
    try_photos(page, *files("coffee", 1, first=40), DAMAGED)
    expect(panel(page, "Try it").locator(".teach-answer")).to_have_count(1)
    page.get_by_role("button", name="Keep it").click()
    expect(panel(page, "Keep it").get_by_role("button", name=re.compile("make deploy"))).to_be_visible()
    assert_accessible(page)


@at_the_desk
def test_the_view_works_with_the_keyboard_alone(page: Page) -> None:
    keyboard = page.keyboard
    page.get_by_role("heading", level=1).focus()

    def tab_to(target: Locator) -> None:
        for _ in range(60):
            if target.evaluate("(element) => element === document.activeElement"):
                return
            keyboard.press("Tab")
        raise AssertionError(f"{target} is not reached")

    for number, (name, label) in enumerate((("cat", "cat"), ("cup", "coffee")), start=1):
        tab_to(name_field(page, number))
        keyboard.type(name)
        keyboard.press("Enter")
        expect(class_card(page, name)).to_be_visible()
        with page.expect_file_chooser() as chooser:
            tab_to(class_card(page, name).get_by_role("button", name="Choose photos"))
            keyboard.press("Enter")
        chooser.value.set_files(files(label, 3))
        expect(thumbnails(page, name)).to_have_count(3)
    tab_to(page.get_by_role("button", name="Learn", exact=True))
    keyboard.press("Enter")
    expect(result(page)).to_be_focused()
    tab_to(page.get_by_role("button", name="Keep it"))
    keyboard.press("Enter")
    expect(page.get_by_role("button", name="Classify photos with it")).to_be_visible()
