"""The view Classify: choosing photos, their labels and heat maps, comparing, sorting and filtering."""

import json
import re
import shutil
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from page_actions import (
    SAMPLES,
    card,
    choose_photos,
    classify_directly,
    labels,
    open_controls,
    open_view,
    photo_names,
    wait_for_results,
)
from page_text import page_text
from PIL import Image
from playwright.sync_api import FilePayload, Locator, Page, Request, expect
from support import CAT, DATA, ROCKET, encoded, require

# The model is sure of the samples, but not of the rocket.
ALL_PHOTOS = {
    path.name: path for path in (ROCKET, *(SAMPLES / f"{name}.jpg" for name in ("coffee", "photographer", "cat")))
}

SURE, UNSURE = page_text("sure"), page_text("unsure")
THRESHOLD = page_text("threshold")

FIFTH = FilePayload(
    name="fifth.jpg",
    mimeType="image/jpeg",
    buffer=encoded(Image.open(SAMPLES / "coffee.jpg").resize((300, 300)), "JPEG"),
)
FILLERS = [f"coffee {number}.jpg" for number in range(3)]

at_the_desk = pytest.mark.parametrize("device", ["desk"], indirect=True)
on_the_phone = pytest.mark.parametrize("device", ["phone"], indirect=True)


class HeldAnswers:
    """Holds back the API's answers to the page until they are released."""

    def __init__(self, page: Page) -> None:
        self._held: list[str] = []
        self._free = 0
        self._session = page.context.new_cdp_session(page)
        self._session.on("Fetch.requestPaused", self._hold)
        pattern = {"urlPattern": "*/v1/classify*", "requestStage": "Response"}
        self._session.send("Fetch.enable", {"patterns": [pattern]})

    def release_one(self) -> None:
        """Release the first answer, even if it has not arrived yet."""
        self._free += 1
        self._release()

    def release_all(self) -> None:
        """Release the held answers and all later ones."""
        self._session.send("Fetch.disable")

    def _hold(self, paused: dict[str, Any]) -> None:
        self._held.append(paused["requestId"])
        self._release()

    def _release(self) -> None:
        while self._free and self._held:
            self._free -= 1
            self._session.send("Fetch.continueRequest", {"requestId": self._held.pop(0)})


class DraggedFiles:
    """Files, or a text, dragged over the page from another program."""

    def __init__(self, page: Page, *files: Path, text: str = "") -> None:
        items = [{"mimeType": "text/plain", "data": text}] if text else []
        self._data = {"items": items, "files": [str(file) for file in files], "dragOperationsMask": 1}
        self._session = page.context.new_cdp_session(page)
        self._tell("dragEnter")
        self._tell("dragOver")

    def drop(self) -> None:
        self._tell("drop")

    def leave(self) -> None:
        self._tell("dragOver", x=-5)

    def _tell(self, kind: str, x: int = 200) -> None:
        self._session.send("Input.dispatchDragEvent", {"type": kind, "x": x, "y": 200, "data": self._data})


class ClassifyRequests:
    """The URLs of the requests for classifications and heat maps from now on."""

    def __init__(self, page: Page) -> None:
        self.urls: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if "/v1/classify" in request.url:
            self.urls.append(request.url)


def named(name: str, image: Image.Image, **options: Any) -> FilePayload:
    return FilePayload(name=name, mimeType="image/jpeg", buffer=encoded(image, "JPEG", **options))


def choose_five(page: Page, *photos: Path) -> None:
    """Choose two photos and three of which the model is sure: with five, the page has filters."""
    choose_photos(page, *photos)
    choose_photos(page, *({**FIFTH, "name": name} for name in FILLERS))
    wait_for_results(page, *(photo.name for photo in photos), *FILLERS)


def classify_all_photos(page: Page) -> dict[str, Any]:
    """Choose all photos and wait for their results; returns the API's answer for each file name."""
    choose_photos(page, *ALL_PHOTOS.values())
    wait_for_results(page, *ALL_PHOTOS)
    return {name: classify_directly(page, path.read_bytes()) for name, path in ALL_PHOTOS.items()}


def best(answer: Any) -> Any:
    return answer["predictions"][0]


def readable(label: str) -> str:
    return label.replace("_", " ")


def percent(share: float) -> str:
    return f"{share:.1%}"


def threshold(page: Page) -> float:
    """Return the model's threshold."""
    return float(page.request.get(f"{page.url}v1/model").json()["manifest"]["threshold"])


def copy(page: Page, text: str | None = None) -> None:
    """Copy the photo of the cat to the clipboard, together with the text if there is one."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (text) => {
            const photo = await createImageBitmap(await (await fetch("samples/cat.jpg")).blob());
            const canvas = new OffscreenCanvas(photo.width, photo.height);
            canvas.getContext("2d").drawImage(photo, 0, 0);
            const picture = { "image/png": await canvas.convertToBlob() };
            const words = text && { "text/plain": new Blob([text], { type: "text/plain" }) };
            await navigator.clipboard.write([new ClipboardItem({ ...picture, ...words })]);
        }""",
        text,
    )


def preview(card: Locator) -> Locator:
    return card.locator("img").first


def overlay(card: Locator) -> Locator:
    """Return the heat map over a photo."""
    return card.locator("img[data-label]")


def assert_in_place(photo: Locator, answer: Any) -> None:
    """Check that the heat map covers the region in the answer."""
    region, size = answer["heatmap"]["region"], answer["image"]
    expect(overlay(photo)).to_have_js_property("complete", True)
    whole, part = preview(photo).bounding_box(), overlay(photo).bounding_box()
    assert whole
    assert part
    across, down = whole["width"] / size["width"], whole["height"] / size["height"]
    assert across == pytest.approx(down, rel=0.02)
    expected = {
        "x": whole["x"] + region["left"] * across,
        "y": whole["y"] + region["top"] * down,
        "width": region["width"] * across,
        "height": region["height"] * down,
    }
    assert part == pytest.approx(expected, abs=1)


def test_a_chosen_photo_shows_the_labels_of_the_api_with_their_confidences(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    chooser.value.set_files(ROCKET)
    wait_for_results(page, "rocket.jpg")
    answer = classify_directly(page, (ROCKET).read_bytes())
    expect(labels(card(page, "rocket.jpg"))).to_have_text(
        [
            re.compile(rf"{readable(found['label'])}.*{percent(found['confidence'])}", re.DOTALL)
            for found in answer["predictions"]
        ]
    )
    card(page, "rocket.jpg").get_by_text(page_text("details")).click()
    details = page.get_by_role("definition")
    expect(details.first).to_contain_text(answer["group"]["label"])
    expect(details.first).to_contain_text(percent(answer["group"]["confidence"]))
    expect(details.nth(1)).to_contain_text(f"{answer['image']['width']}")


def test_many_photos_chosen_at_once_get_their_own_labels(page: Page, port: int) -> None:
    require((DATA / "photos").is_dir(), f"there are no photos at {DATA}; LITELENS_DATA names another folder")
    photos = sorted((DATA / "photos").glob("*.jpg"))
    assert len(photos) > 50
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose photos").click()
    assert chooser.value.is_multiple()
    chooser.value.set_files(photos)
    expect(page.locator(".summary")).to_contain_text(f"{len(photos)} photos")
    expect(labels(page.get_by_role("article"))).to_have_count(5 * len(photos), timeout=30_000)
    shown = page.get_by_role("article").evaluate_all(
        "cards => cards.map(card => [card.ariaLabel, card.querySelector('[aria-pressed]').title.split(': ')[1]])"
    )
    assert shown == [[photo.name, best_label(port, photo)] for photo in photos]


@cache
def best_label(port: int, photo: Path) -> str:
    url = f"http://127.0.0.1:{port}/v1/classify?top_k=1"
    request = urllib.request.Request(url, photo.read_bytes(), {"content-type": "image/jpeg"})
    with urllib.request.urlopen(request) as answer:
        return readable(best(json.load(answer))["label"])


@at_the_desk
def test_dropped_files_are_classified_and_a_curtain_shows_while_they_are_dragged(page: Page) -> None:
    page.locator("input[data-picker=files]").wait_for(state="attached")
    curtain = page.get_by_text("Drop to classify")
    text = DraggedFiles(page, text="no file")
    expect(curtain).to_have_count(0)
    text.leave()
    dragged = DraggedFiles(page, ROCKET, SAMPLES / "coffee.jpg")
    expect(curtain).to_be_visible()
    dragged.leave()
    expect(curtain).to_have_count(0)
    expect(photo_names(page)).to_have_count(0)
    DraggedFiles(page, ROCKET, SAMPLES / "coffee.jpg").drop()
    expect(curtain).to_have_count(0)
    wait_for_results(page, "rocket.jpg", "coffee.jpg")


@at_the_desk
def test_a_dropped_folder_is_classified_with_its_subfolders_in_order_and_without_hidden_files(
    page: Page, tmp_path: Path
) -> None:
    folder = tmp_path / "trip"
    for name in ("10.jpg", "9.jpg", "day 1/evening.jpg", ".hidden.jpg", ".hidden/8.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / "coffee.jpg", folder / name)
    page.locator("input[data-picker=files]").wait_for(state="attached")
    DraggedFiles(page, folder, ROCKET).drop()
    wait_for_results(page, "9.jpg", "10.jpg", "evening.jpg", "rocket.jpg")
    expect(photo_names(page)).to_have_text(["9.jpg", "10.jpg", "evening.jpg", "rocket.jpg"])


@at_the_desk
def test_a_dropped_folder_with_more_files_than_browsers_list_at_once_is_complete(page: Page, tmp_path: Path) -> None:
    for number in range(101):
        (tmp_path / f"{number}.jpg").write_bytes(b"")
    page.locator("input[data-picker=files]").wait_for(state="attached")
    DraggedFiles(page, tmp_path).drop()
    expect(photo_names(page)).to_have_text([f"{number}.jpg" for number in range(101)])


@at_the_desk
def test_a_photo_dropped_on_another_view_opens_the_view_classify(page: Page) -> None:
    open_view(page, "Model")
    DraggedFiles(page, ROCKET).drop()
    wait_for_results(page, "rocket.jpg")


def test_a_pasted_picture_is_classified(page: Page) -> None:
    page.locator("input[data-picker=files]").wait_for(state="attached")
    # File managers copy the name too.
    for number, text in enumerate((None, "rocket.png"), start=1):
        copy(page, text)
        page.keyboard.press("Control+V")
        expect(labels(page.get_by_role("article"))).to_have_count(5 * number)
    expect(preview(page.get_by_role("article")).first).to_have_js_property("naturalWidth", 330)


def test_text_pasted_into_a_field_goes_into_the_field(page: Page) -> None:
    open_view(page, "Settings")
    # Office programs copy text together with a picture of it.
    copy(page, "http://127.0.0.1")
    page.get_by_label("Endpoint").focus()
    page.keyboard.press("Control+V")
    expect(page.get_by_label("Endpoint")).to_have_value("http://127.0.0.1")
    expect(page.get_by_role("heading", name="Settings")).to_be_visible()
    open_view(page, "Classify")
    expect(page.get_by_text(page_text("samples"))).to_be_visible()
    expect(photo_names(page)).to_have_count(0)


@on_the_phone
def test_phones_take_a_photo_with_their_camera(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Take a photo").click()
    assert chooser.value.element.get_attribute("capture") == "environment"
    assert not chooser.value.is_multiple()
    chooser.value.set_files(ROCKET)
    wait_for_results(page, "rocket.jpg")


@at_the_desk
def test_desktops_have_no_camera_button(page: Page) -> None:
    expect(page.get_by_role("button", name="Choose photos")).to_be_visible()
    expect(page.get_by_role("button", name="Take a photo")).to_have_count(0)


def test_each_sample_can_be_classified(page: Page) -> None:
    for name, file in {"a cat": "cat", "a cup of coffee": "coffee", "a camera on a tripod": "photographer"}.items():
        page.get_by_role("button", name=f"Try the sample: {name}").click()
        wait_for_results(page, f"{file}.jpg")
        best_label = re.compile(best_shown(page, SAMPLES / f"{file}.jpg"), re.IGNORECASE)
        expect(labels(card(page, f"{file}.jpg")).first).to_contain_text(best_label)
        expect(card(page, f"{file}.jpg").get_by_text(SURE, exact=True)).to_be_visible()
        page.get_by_role("button", name=f"Remove: {file}.jpg").click()
    expect(page.get_by_role("button", name="Try the sample: a cat")).to_be_visible()


def best_shown(page: Page, photo: Path) -> str:
    return readable(best(classify_directly(page, photo.read_bytes()))["label"])


def test_a_sample_without_a_network_shows_the_problem(page: Page) -> None:
    sample = page.get_by_role("button", name="Try the sample: a cat")
    expect(sample.locator("img")).to_have_js_property("naturalWidth", 330)
    page.context.set_offline(True)
    sample.click()
    expect(card(page, "cat.jpg")).to_contain_text(page_text("offline"))
    page.context.set_offline(False)
    wait_for_results(page, "cat.jpg")


def test_previews_are_shown_before_any_answer(page: Page) -> None:
    held = HeldAnswers(page)
    choose_photos(page, ROCKET, SAMPLES / "photographer.jpg")
    expect(preview(card(page, "rocket.jpg"))).to_have_js_property("naturalWidth", 640)
    expect(preview(card(page, "photographer.jpg"))).to_have_js_property("naturalHeight", 470)
    expect(page.get_by_text("2 photos · 2 in progress")).to_be_visible()
    expect(labels(page.get_by_role("article"))).to_have_count(0)
    held.release_all()
    wait_for_results(page, "rocket.jpg", "photographer.jpg")


def test_four_requests_are_sent_at_a_time_while_the_other_photos_wait(page: Page) -> None:
    held = HeldAnswers(page)
    classifying = page.get_by_text("Classifying", exact=True)
    waiting = page.get_by_text("Waiting for its turn", exact=True)
    rocket = Image.open(ROCKET)
    choose_photos(page, *(named(f"{number}.jpg", rocket) for number in range(6)))
    expect(classifying).to_have_count(4)
    expect(waiting).to_have_count(2)
    expect(page.get_by_role("progressbar", name="Classifying: 0.jpg")).to_be_visible()
    held.release_one()
    expect(labels(page.get_by_role("article"))).to_have_count(5)
    expect(page.get_by_role("status")).to_contain_text("5 photos are left.")
    # The two that waited are in one request.
    expect(classifying).to_have_count(5)
    expect(waiting).to_have_count(0)
    held.release_all()
    wait_for_results(page, *(f"{number}.jpg" for number in range(6)))


def test_sending_a_photo_shows_its_progress(page: Page) -> None:
    session = page.context.new_cdp_session(page)
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1}
    session.send("Network.emulateNetworkConditions", {**limits, "uploadThroughput": 1000})
    choose_photos(page, named("large.jpg", Image.open(SAMPLES / "photographer.jpg").resize((1600, 1600))))
    expect(card(page, "large.jpg")).to_contain_text(re.compile(r"Sending, \d\d?%"))
    sent = page.get_by_role("progressbar", name=re.compile("Sending.*large.jpg")).get_attribute("value")
    assert 0 < float(sent or 0) < 1
    session.send("Network.emulateNetworkConditions", {**limits, "uploadThroughput": -1})
    wait_for_results(page, "large.jpg")


def test_one_photo_can_be_cancelled_and_retried_while_the_others_continue(page: Page) -> None:
    held = HeldAnswers(page)
    choose_photos(page, ROCKET, SAMPLES / "coffee.jpg")
    expect(page.get_by_text("Classifying", exact=True)).to_have_count(2)
    with page.expect_event("requestfailed", lambda request: "/v1/classify" in request.url):
        card(page, "rocket.jpg").get_by_role("button", name="Cancel").click()
    expect(card(page, "rocket.jpg").get_by_text("Cancelled")).to_be_visible()
    held.release_all()
    wait_for_results(page, "coffee.jpg")
    expect(labels(card(page, "rocket.jpg"))).to_have_count(0)
    card(page, "rocket.jpg").get_by_role("button", name="Try again").click()
    wait_for_results(page, "rocket.jpg")


def test_photos_cancelled_before_their_turn_are_not_sent_and_do_not_delay_the_others(page: Page) -> None:
    held, requests = HeldAnswers(page), ClassifyRequests(page)
    photo = Image.open(ROCKET)
    choose_photos(page, *(named(f"{number}.jpg", photo) for number in range(9)))
    expect(page.get_by_text("Waiting for its turn")).to_have_count(5)
    cancelled = ["4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    for name in cancelled:
        card(page, name).get_by_role("button", name="Cancel").click()
    held.release_all()
    wait_for_results(page, "0.jpg", "1.jpg", "2.jpg", "3.jpg", "8.jpg")
    for name in cancelled:
        expect(card(page, name).get_by_text("Cancelled")).to_be_visible()
    assert len(requests.urls) == 5


def test_only_the_failed_photos_are_retried_together(page: Page) -> None:
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    page.route("**/v1/classify?*", lambda route: route.fulfill(status=500, body=""))
    choose_photos(page, ROCKET, SAMPLES / "coffee.jpg")
    expect(card(page, "rocket.jpg")).to_contain_text(page_text("internal_error"))
    expect(page.get_by_text(re.compile("3 photos .* 2 failed"))).to_be_visible()
    page.unroute("**/v1/classify?*")
    requests = ClassifyRequests(page)
    page.get_by_role("button", name="Try 2 again").click()
    wait_for_results(page, "rocket.jpg", "coffee.jpg")
    assert len(requests.urls) == 2
    expect(page.get_by_role("button", name="again")).to_have_count(0)


def test_one_photo_or_all_photos_can_be_removed(page: Page) -> None:
    classify_all_photos(page)
    page.get_by_role("button", name="Remove: coffee.jpg").click()
    expect(photo_names(page)).to_have_text(["rocket.jpg", "photographer.jpg", "cat.jpg"])
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(photo_names(page)).to_have_count(0)
    expect(page.get_by_text(page_text("samples"))).to_be_visible()


def test_a_photo_removed_while_it_is_classified_does_not_reappear(page: Page) -> None:
    held = HeldAnswers(page)
    choose_photos(page, ROCKET, SAMPLES / "coffee.jpg")
    expect(page.get_by_text("Classifying", exact=True)).to_have_count(2)
    with page.expect_event("requestfailed", lambda request: "/v1/classify" in request.url):
        page.get_by_role("button", name="Remove: rocket.jpg").click()
    held.release_all()
    wait_for_results(page, "coffee.jpg")
    expect(photo_names(page)).to_have_text(["coffee.jpg"])
    expect(page.locator(".summary")).not_to_contain_text("in progress")


def test_the_threshold_decides_which_answers_are_sure_without_a_new_request(page: Page) -> None:
    choose_five(page, CAT, ROCKET)
    sure, unsure = (page.locator(".headline").get_by_text(words, exact=True) for words in (SURE, UNSURE))
    expect(card(page, "cat.jpg").get_by_text(SURE, exact=True)).to_be_visible()
    expect(card(page, "rocket.jpg").get_by_text(UNSURE, exact=True)).to_be_visible()
    expect(page.get_by_text(f"5 photos · 1 {UNSURE}")).to_be_visible()
    requests = ClassifyRequests(page)
    open_controls(page)
    slider = page.get_by_label(THRESHOLD)
    slider.press("Home")
    expect(sure).to_have_count(5)
    slider.press("End")
    expect(unsure).to_have_count(5)
    slider.fill("0.05")
    expect(sure).to_have_count(5)
    page.get_by_role("button", name=percent(threshold(page))).click()
    expect(card(page, "rocket.jpg").get_by_text(UNSURE, exact=True)).to_be_visible()
    expect(card(page, "cat.jpg").get_by_text(SURE, exact=True)).to_be_visible()
    expect(page.get_by_role("button", name=percent(threshold(page)))).to_have_count(0)
    assert requests.urls == []


def test_the_heat_map_of_the_best_label_covers_its_region_of_the_photo(page: Page) -> None:
    rocket = Image.open(ROCKET)
    exif = Image.Exif()
    exif[0x0112] = 6
    photos = [
        named("landscape.jpg", rocket),
        named("portrait.jpg", rocket.crop((180, 0, 330, 320))),
        named("turned.jpg", rocket, exif=exif),
    ]
    choose_photos(page, *photos)
    for photo in photos:
        shown = card(page, photo["name"])
        labels(shown).first.click()
        answer = classify_directly(page, photo["buffer"], heatmap="true")
        expect(overlay(shown)).to_have_attribute("src", answer["heatmap"]["png"])
        expect(shown).to_contain_text(f"Heat map: {readable(best(answer)['label'])}")
        assert_in_place(shown, answer)
    turned = answer["image"]
    assert turned["height"] > turned["width"]


def test_the_heat_map_of_another_label_replaces_the_first(page: Page) -> None:
    answer = classify_all_photos(page)["rocket.jpg"]
    rocket = card(page, "rocket.jpg")
    labels(rocket).first.click()
    expect(overlay(rocket)).to_have_count(1)
    third = answer["predictions"][2]["label"]
    rocket.get_by_role("button", name=readable(third)).click()
    shown = classify_directly(page, (ROCKET).read_bytes(), heatmap_label=third)
    expect(overlay(rocket)).to_have_attribute("src", shown["heatmap"]["png"])
    assert_in_place(rocket, shown)
    expect(rocket.get_by_role("button", pressed=True)).to_have_count(1)
    expect(overlay(page.get_by_role("article"))).to_have_count(1)


def test_pressing_a_label_again_hides_its_heat_map_which_is_requested_only_once(page: Page) -> None:
    choose_photos(page, ROCKET)
    rocket = card(page, "rocket.jpg")
    requests = ClassifyRequests(page)
    for _ in range(2):
        labels(rocket).first.click()
        expect(overlay(rocket)).to_be_visible()
        expect(labels(rocket).first).to_have_attribute("aria-pressed", "true")
        labels(rocket).first.click()
        expect(overlay(rocket)).to_have_count(0)
        expect(rocket.get_by_text("Heat map")).to_have_count(0)
    assert len([url for url in requests.urls if "heatmap" in url]) == 1


@at_the_desk
def test_the_slider_sets_the_opacity_of_heat_maps(page: Page) -> None:
    choose_photos(page, ROCKET)
    labels(card(page, "rocket.jpg")).first.click()
    heat, slider = overlay(card(page, "rocket.jpg")), page.get_by_label(page_text("opacity"))
    for opacity in ("0", "0.25", "1"):
        slider.fill(opacity)
        expect(heat).to_have_css("opacity", opacity)
    slider.press("ArrowLeft")
    expect(heat).to_have_css("opacity", "0.99")


def compare(page: Page, *files: str) -> None:
    for file in files:
        page.get_by_label(f"Compare: {file}").check()
    page.get_by_role("link", name=re.compile(r"Compare \d")).click()
    expect(page.get_by_role("heading", name="Compare photos")).to_be_focused()


def test_two_photos_are_compared_side_by_side_with_heat_maps_of_the_same_label(page: Page) -> None:
    answers = classify_all_photos(page)
    compare(page, "rocket.jpg", "coffee.jpg")
    rocket, coffee = columns = [page.get_by_role("columnheader", name=f"{name}.jpg") for name in ("rocket", "coffee")]
    for column in columns:
        expect(preview(column)).to_be_in_viewport(ratio=1)
    label = best(answers["coffee.jpg"])["label"]
    page.get_by_label("Heat map of").select_option(readable(label))
    for column, file in ((rocket, "rocket.jpg"), (coffee, "coffee.jpg")):
        answer = classify_directly(page, ALL_PHOTOS[file].read_bytes(), heatmap_label=label)
        expect(overlay(column)).to_have_attribute("src", answer["heatmap"]["png"])
        assert_in_place(column, answer)
    page.get_by_label("Heat map of").select_option("none")
    expect(overlay(page.get_by_role("table"))).to_have_count(0)


def test_compared_photos_have_a_row_for_each_label_of_any_of_them(page: Page) -> None:
    answers = classify_all_photos(page)
    files = ["rocket.jpg", "coffee.jpg", "cat.jpg"]
    compare(page, *files)
    confidences = {
        label: [
            {found["label"]: found["confidence"] for found in answers[file]["predictions"]}.get(label) for file in files
        ]
        for label in {found["label"] for file in files for found in answers[file]["predictions"]}
    }
    assert len(confidences) > 5
    expect(page.get_by_role("rowheader")).to_have_count(len(confidences))
    for label, of_files in confidences.items():
        header = page.get_by_role("rowheader", name=readable(label), exact=True)
        cells = page.get_by_role("row").filter(has=header).get_by_role("cell")
        least = [answers[file]["predictions"][-1]["confidence"] for file in files]
        shares = [
            f"below {percent(low)}" if of is None else percent(of) for of, low in zip(of_files, least, strict=True)
        ]
        expect(cells).to_have_text(shares)


def test_the_heat_map_chosen_in_the_comparison_applies_to_photos_added_later_and_only_there(page: Page) -> None:
    answers = classify_all_photos(page)
    label, other = (best(answers[name])["label"] for name in ("coffee.jpg", "cat.jpg"))
    card(page, "cat.jpg").get_by_role("button", name=readable(other)).click()
    compare(page, "rocket.jpg", "coffee.jpg")
    page.get_by_label("Heat map of").select_option(readable(label))
    expect(overlay(page.get_by_role("table"))).to_have_count(2)
    page.get_by_role("link", name="Back to all photos").click()
    expect(overlay(card(page, "cat.jpg"))).to_have_attribute("data-label", other)
    expect(overlay(page.get_by_role("article"))).to_have_count(1)
    compare(page, "cat.jpg")
    answer = classify_directly(page, (CAT).read_bytes(), heatmap_label=label)
    cat = page.get_by_role("columnheader", name="cat.jpg")
    expect(overlay(cat)).to_have_attribute("src", answer["heatmap"]["png"])


def test_the_comparison_of_less_than_two_photos_explains_how_to_choose_them(page: Page) -> None:
    choose_photos(page, ROCKET)
    page.get_by_label("Compare: rocket.jpg").check()
    expect(page.get_by_role("link", name="Compare")).to_have_count(0)
    page.goto(f"{page.url}#compare")
    expect(page.get_by_text(page_text("nothingToCompare"))).to_be_visible()
    page.get_by_role("link", name="Back to all photos").click()
    wait_for_results(page, "rocket.jpg")


def test_photos_can_be_sorted_by_name_label_and_confidence(page: Page) -> None:
    answers = classify_all_photos(page)
    choose_photos(page, FIFTH)
    wait_for_results(page, "fifth.jpg")
    answers["fifth.jpg"] = classify_directly(page, FIFTH["buffer"])
    open_controls(page)
    orders = {
        "file name": sorted(answers),
        "label": sorted(answers, key=lambda name: best(answers[name])["label"]),
        "confidence, highest first": sorted(answers, key=lambda name: -best(answers[name])["confidence"]),
        "confidence, lowest first": sorted(answers, key=lambda name: best(answers[name])["confidence"]),
        "order added": [*ALL_PHOTOS, "fifth.jpg"],
    }
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    for order, sorted_names in orders.items():
        page.get_by_label("Sort by").select_option(order)
        expect(photo_names(page)).to_have_text(sorted_names)


def test_photos_can_be_filtered_by_certainty_and_failure(page: Page) -> None:
    broken = FilePayload(name="broken.jpg", mimeType="image/jpeg", buffer=b"no photo")
    choose_five(page, CAT, ROCKET)
    choose_photos(page, broken)
    expect(page.get_by_role("region", name=page_text("settled"))).to_contain_text("broken.jpg")
    open_controls(page)
    kinds = {
        UNSURE: ["rocket.jpg"],
        "failed": ["broken.jpg"],
        SURE: ["cat.jpg", *FILLERS],
        "all": ["cat.jpg", "rocket.jpg", *FILLERS, "broken.jpg"],
    }
    for kind, left in kinds.items():
        page.get_by_role("combobox", name="Show").select_option(kind)
        expect(photo_names(page)).to_have_text(left)
    page.get_by_role("combobox", name="Show").select_option(SURE)
    expect(page.get_by_text("4 of 6 photos")).to_be_visible()
    page.get_by_label(THRESHOLD).press("End")
    expect(page.get_by_text(page_text("nothingShown"))).to_be_visible()


def test_photos_can_be_filtered_by_their_first_label_and_minimum_confidence(page: Page) -> None:
    answers = classify_all_photos(page)
    choose_photos(page, FIFTH)
    wait_for_results(page, "fifth.jpg")
    answers["fifth.jpg"] = classify_directly(page, FIFTH["buffer"])
    open_controls(page)
    page.get_by_label("Minimum confidence").fill("0.3")
    expect(photo_names(page)).to_have_text([name for name in answers if best(answers[name])["confidence"] >= 0.3])
    page.get_by_label("Minimum confidence").fill("0")
    # Only first labels are offered: a photo whose third label is a cat does not show a cat.
    offered = {readable(best(answer)["label"]) for answer in answers.values()}
    assert set(page.get_by_label("With label").get_by_role("option").all_inner_texts()) == {"any", *offered}
    page.get_by_label("With label").select_option(readable(best(answers["rocket.jpg"])["label"]))
    expect(photo_names(page)).to_have_text(["rocket.jpg"])
    page.get_by_label("Minimum confidence").fill("0.9")
    expect(photo_names(page)).to_have_count(0)


def test_filters_that_leave_no_photo_can_be_reset_without_changing_the_order(page: Page) -> None:
    answers = classify_all_photos(page)
    choose_photos(page, FIFTH, {**FIFTH, "name": "sixth.jpg"})
    wait_for_results(page, "fifth.jpg", "sixth.jpg")
    open_controls(page)
    page.get_by_label("Sort by").select_option("file name")
    label = readable(best(answers["rocket.jpg"])["label"])
    page.get_by_label("With label").select_option(label)
    page.get_by_role("button", name="Remove: rocket.jpg").click()
    expect(page.get_by_text(page_text("nothingShown"))).to_be_visible()
    expect(page.get_by_label("With label").locator("option:checked")).to_have_text(label)
    page.get_by_role("button", name="Show all").click()
    expect(photo_names(page)).to_have_text(["cat.jpg", "coffee.jpg", "fifth.jpg", "photographer.jpg", "sixth.jpg"])
    expect(page.get_by_label("With label").locator("option:checked")).to_have_text("any")
