"""The answer comes first, in words; what is large, over the page, and as code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from page_actions import (
    SAMPLES,
    card,
    choose_photos,
    classify_directly,
    labels,
    photo_names,
    wait_for_results,
    with_key,
)
from page_text import page_text
from PIL import ExifTags, Image
from playwright.sync_api import BrowserContext, FilePayload, Page, Route, expect
from servers import API_KEY, Deployment
from support import CAT, ROCKET, require

SURE, UNSURE, UNFAMILIAR = (page_text(key) for key in ("sure", "unsure", "unfamiliar"))
THRESHOLD = page_text("threshold")
NAMES = [f"{number}.jpg" for number in range(5)]

at_the_desk = pytest.mark.parametrize("device", ["desk"], indirect=True)
on_the_phone = pytest.mark.parametrize("device", ["phone"], indirect=True)

# The least side of a touch target, in CSS pixels.
TARGET = 44

PREVIEW_SIDE = 840

READ_SMALL_TARGETS = """
(least) => [...document.querySelectorAll("main :is(button, select, summary, a.button, label.check, input[type=range])")]
  .filter((element) => element.checkVisibility() && !element.closest("[popover]:not(:popover-open)"))
  .filter((element) => {
    const { width, height } = element.getBoundingClientRect();
    return Math.min(width, height) < least && !element.matches("summary");
  })
  .map((element) => element.outerHTML.slice(0, 120))
"""


def photo(name: str, sample: str = "cat") -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": (SAMPLES / f"{sample}.jpg").read_bytes()}


def change_answers(page: Page, **changes: Any) -> None:
    """Change members of all answers of the API."""

    def change(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=response.json() | changes)

    page.route("**/v1/classify?*", change)


def predictions(*confidences: float) -> list[dict[str, Any]]:
    return [
        {"label": f"class {index}", "index": index, "confidence": confidence}
        for index, confidence in enumerate(confidences)
    ]


@pytest.mark.parametrize("names", [["cat.jpg"], [f"{number}.jpg" for number in range(8)]], ids=["one", "many"])
def test_the_first_label_is_large_and_visible_without_scrolling(page: Page, names: Sequence[str], device: str) -> None:
    page.set_viewport_size({"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}[device])  # type: ignore[arg-type]
    choose_photos(page, *map(photo, names))
    wait_for_results(page, *names)
    label = labels(card(page, names[0])).first.locator(".label")
    expect(label).to_be_in_viewport(ratio=1)
    assert 22 <= float(label.evaluate("(label) => parseFloat(getComputedStyle(label).fontSize)")) <= 24
    assert int(label.evaluate("(label) => getComputedStyle(label).fontWeight")) >= 700
    name = card(page, names[0]).locator(".name")
    assert float(name.evaluate("(name) => parseFloat(getComputedStyle(name).fontSize)")) < 16


@at_the_desk
def test_one_photo_has_its_answer_beside_it_and_no_empty_columns(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"))
    wait_for_results(page, "cat.jpg")
    whole, picture, answer = (
        card(page, "cat.jpg").bounding_box(),
        card(page, "cat.jpg").locator(".picture").bounding_box(),
        card(page, "cat.jpg").get_by_role("group", name=page_text("labels")).bounding_box(),
    )
    main = page.get_by_role("main").bounding_box()
    assert whole
    assert picture
    assert answer
    assert main
    assert whole["width"] > main["width"] - 40
    assert picture["width"] > whole["width"] / 2
    assert picture["height"] > 500
    assert answer["x"] > picture["x"] + picture["width"]


def test_a_sure_and_an_unsure_answer_differ_in_words(page: Page) -> None:
    choose_photos(page, CAT, ROCKET)
    wait_for_results(page, "cat.jpg", "rocket.jpg")
    expect(card(page, "cat.jpg").get_by_role("heading")).to_contain_text(f"Egyptian cat, {SURE}")
    rocket = card(page, "rocket.jpg").get_by_role("heading")
    expect(rocket).to_contain_text(page_text("probably"))
    expect(rocket).to_contain_text(UNSURE)


def test_a_photo_unlike_all_others_is_said_to_be_so(page: Page) -> None:
    change_answers(page, unfamiliar=True, uncertain=True)
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    expect(card(page, "cat.jpg").get_by_role("heading")).to_have_text(UNFAMILIAR)
    expect(card(page, "cat.jpg").get_by_text(SURE, exact=True)).to_have_count(0)
    expect(page.get_by_role("status").filter(has_text=UNFAMILIAR)).to_have_count(1)


def test_an_answer_near_chance_is_never_sure_whatever_the_threshold(page: Page) -> None:
    def with_two_classes(route: Route) -> None:
        response = route.fetch()
        document = response.json()
        document["manifest"] |= {"labels": ["class 0", "class 1"], "threshold": 0.1}
        route.fulfill(response=response, json=document)

    page.route("**/v1/model", with_two_classes)
    page.reload()
    change_answers(page, predictions=predictions(0.55, 0.45), uncertain=False)
    choose_photos(page, CAT)
    expect(card(page, "cat.jpg").get_by_text(UNSURE, exact=True)).to_be_visible()
    page.unroute("**/v1/classify?*")
    change_answers(page, predictions=predictions(0.75, 0.25), uncertain=False)
    choose_photos(page, ROCKET)
    expect(card(page, "rocket.jpg").get_by_text(SURE, exact=True)).to_be_visible()


def test_filters_are_folded_away_and_appear_from_five_photos_on(page: Page) -> None:
    choose_photos(page, *map(photo, NAMES[:4]))
    wait_for_results(page, *NAMES[:4])
    expect(page.get_by_role("button", name="Sort and filter")).to_have_count(0)
    choose_photos(page, photo(NAMES[4]))
    expect(page.get_by_role("button", name="Sort and filter")).to_be_visible()
    expect(page.get_by_label("Sort by")).to_have_count(0)
    page.get_by_role("button", name="Sort and filter").click()
    expect(page.get_by_label("Sort by")).to_be_visible()


def test_without_a_model_there_is_no_threshold_and_the_api_decides(page: Page) -> None:
    page.route("**/v1/model", lambda route: route.fulfill(status=500, body=""))
    page.reload()
    choose_photos(page, *map(photo, NAMES))
    choose_photos(page, ROCKET)
    wait_for_results(page, *NAMES, "rocket.jpg")
    expect(card(page, "rocket.jpg").get_by_text(UNSURE, exact=True)).to_be_visible()
    expect(card(page, NAMES[0]).get_by_text(SURE, exact=True)).to_be_visible()
    page.get_by_role("button", name="Sort and filter").click()
    expect(page.get_by_label("Sort by")).to_be_visible()
    expect(page.get_by_label(THRESHOLD)).to_have_count(0)


def test_nothing_moves_when_a_heat_map_appears_and_it_has_a_legend(page: Page) -> None:
    choose_photos(page, CAT, ROCKET)
    wait_for_results(page, "cat.jpg", "rocket.jpg")
    places = "() => [...document.querySelectorAll('article *')].filter((one) => !one.closest('.heat-key, .heat'))" + (
        ".map((one) => Math.round(one.getBoundingClientRect().top))"
    )
    page.mouse.move(0, 0)
    before = page.evaluate(places)
    labels(card(page, "cat.jpg")).nth(1).focus()
    page.keyboard.press("Enter")
    expect(card(page, "cat.jpg").locator("img[data-label]")).to_be_visible()
    expect(card(page, "cat.jpg").get_by_text(page_text("much"))).to_be_visible()
    assert page.evaluate(places) == before


@on_the_phone
def test_touch_targets_are_large_enough(page: Page) -> None:
    choose_photos(page, *map(photo, NAMES))
    choose_photos(page, {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b""})
    wait_for_results(page, *NAMES)
    page.get_by_role("button", name="Sort and filter").click()
    assert page.evaluate(READ_SMALL_TARGETS, TARGET) == []


@on_the_phone
def test_three_compared_photos_fit_on_a_phone(page: Page) -> None:
    choose_photos(page, *map(photo, NAMES[:3]))
    wait_for_results(page, *NAMES[:3])
    for name in NAMES[:3]:
        page.get_by_label(f"Compare: {name}").check()
    page.get_by_role("link", name="Compare 3").click()
    for name in NAMES[:3]:
        expect(page.get_by_role("columnheader", name=name)).to_be_in_viewport(ratio=1)
    table = page.get_by_role("table")
    assert table.evaluate("(table) => table.scrollWidth <= table.parentElement.clientWidth")


def test_an_animation_is_shown_as_its_first_frame(page: Page) -> None:
    red, blue = (Image.new("RGB", (1000, 20), colour) for colour in ("red", "blue"))
    file = BytesIO()
    red.save(file, "GIF", save_all=True, append_images=[blue], duration=50, loop=0)
    choose_photos(page, {"name": "blink.gif", "mimeType": "image/gif", "buffer": file.getvalue()})
    wait_for_results(page, "blink.gif")
    # Not the file itself, which would play on, but a preview of its first frame.
    expect(card(page, "blink.gif").locator("img").first).to_have_js_property("naturalWidth", PREVIEW_SIDE)


def test_a_photo_is_shown_large_and_the_arrow_keys_change_it(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    enlarge = page.get_by_role("button", name="Enlarge: cat.jpg")
    enlarge.click()
    large = page.get_by_role("dialog")
    expect(large.get_by_role("article", name="cat.jpg")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(large.get_by_role("article", name="coffee.jpg")).to_be_visible()
    # There is no third photo.
    page.keyboard.press("ArrowRight")
    expect(large.get_by_role("article", name="coffee.jpg")).to_be_visible()
    page.keyboard.press("2")
    expect(labels(large).nth(1)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("ArrowLeft")
    expect(large.get_by_role("article", name="cat.jpg")).to_be_visible()
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    expect(enlarge).to_be_focused()


@at_the_desk
def test_numbers_choose_a_label_of_the_only_photo(page: Page) -> None:
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("4")
    expect(labels(card(page, "cat.jpg")).nth(3)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("4")
    expect(card(page, "cat.jpg").get_by_role("button", pressed=True)).to_have_count(0)


def test_a_photo_removed_while_it_is_large_closes_the_view_of_it(page: Page) -> None:
    choose_photos(page, photo("cat.jpg"), photo("coffee.jpg", "coffee"))
    wait_for_results(page, "cat.jpg", "coffee.jpg")
    page.get_by_role("button", name="Enlarge: cat.jpg").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove: cat.jpg").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(photo_names(page)).to_have_text(["coffee.jpg"])


def run_snippets(page: Page, environment: dict[str, str]) -> None:
    """Run the lines of code that the page shows for cat.jpg, in the folder that has it."""
    lines = {
        language: page.get_by_role("region", name=language).inner_text()
        for language in ("curl", "Python", "JavaScript", "JSON")
    }
    commands = {
        "curl": ["sh", "-c", lines["curl"]],
        "Python": [sys.executable, "-c", lines["Python"]],
        "JavaScript": ["node", "--input-type=module", "-e", lines["JavaScript"]],
    }
    shown = json.loads(lines["JSON"])
    for language, command in commands.items():
        ran = subprocess.run(
            command, cwd=SAMPLES, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        if language == "curl":
            answer = json.loads(ran.stdout)
            assert answer["predictions"] == shown["predictions"]
        else:
            assert ran.stdout.strip() == shown["predictions"][0]["label"], language


@at_the_desk
def test_the_code_for_an_answer_gives_this_answer(page: Page) -> None:
    for program in ("curl", "node"):
        require(shutil.which(program), f"there is no {program} on this machine")
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    card(page, "cat.jpg").get_by_role("button", name="Code").click()
    run_snippets(page, {"PATH": "/usr/bin:/bin"})


@at_the_desk
def test_the_code_reads_the_key_from_the_environment(context: BrowserContext, deployment: Deployment) -> None:
    for program in ("curl", "node"):
        require(shutil.which(program), f"there is no {program} on this machine")
    page = context.new_page()
    with_key(page, API_KEY)
    page.goto(deployment.url)
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    card(page, "cat.jpg").get_by_role("button", name="Code").click()
    assert API_KEY not in page.get_by_role("dialog").inner_text()
    run_snippets(page, {"PATH": "/usr/bin:/bin", "LITELENS_API_KEY": API_KEY})


@at_the_desk
def test_code_can_be_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose_photos(page, CAT)
    wait_for_results(page, "cat.jpg")
    card(page, "cat.jpg").get_by_role("button", name="Code").click()
    page.get_by_role("button", name="Copy: JSON").click()
    expect(page.locator("body > [role=status]")).to_contain_text("JSON")
    copied = json.loads(page.evaluate("navigator.clipboard.readText()"))
    assert copied["predictions"] == classify_directly(page, CAT.read_bytes())["predictions"]


def test_the_code_says_if_the_page_sent_another_file(page: Page, tmp_path: Path) -> None:
    # A WebP with EXIF is sent as a JPEG.
    path = tmp_path / "cat.webp"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 1
    Image.open(CAT).save(path, exif=exif)
    choose_photos(page, path, CAT)
    wait_for_results(page, "cat.webp", "cat.jpg")
    for name, count in {"cat.webp": 1, "cat.jpg": 0}.items():
        card(page, name).get_by_role("button", name="Code").click()
        expect(page.get_by_role("dialog").get_by_text("JPEG of 330")).to_have_count(count)
        page.keyboard.press("Escape")
