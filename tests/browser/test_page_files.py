"""Saving results and photos as files, and sending large photos and photos in other formats."""

import csv
import json
import re
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page_actions import (
    SAMPLES,
    card,
    choose_photos,
    classify_directly,
    failed_row,
    labels,
    open_controls,
    photo_names,
    wait_for_results,
)
from page_text import page_text
from PIL import Image, ImageOps
from playwright.sync_api import Download, FilePayload, Page, Route, expect
from support import CAT, ROCKET, ROOT, encoded

from litelens.settings import MAX_REQUEST_IMAGE_BYTES
from litelens_client.output import COLUMNS

# The EXIF tag of the orientation, with the value of a camera that was rotated.
ORIENTATION = 0x0112
ROTATED = 6

HEIC = ROOT / "tests" / "images" / "rocket.heic"

SHRUNKEN_SIDE = 2048
MIN_CAPTION = 24
PREVIEW_SIDE = 840

RED, BLUE, GREEN = (200, 30, 30), (30, 30, 200), (30, 160, 30)


class SentImages:
    """The images that the page sends, in order."""

    def __init__(self, page: Page) -> None:
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        page.route("**/v1/classify?*", self._note)

    @property
    def images(self) -> list[Image.Image]:
        return [Image.open(BytesIO(body)) for body in self.bodies]

    def _note(self, route: Route) -> None:
        self.bodies.append(route.request.post_data_buffer or b"")
        self.types.append(route.request.headers["content-type"])
        route.continue_()


def payload(name: str, content: bytes) -> FilePayload:
    return FilePayload(name=name, mimeType="application/octet-stream", buffer=content)


def rocket(name: str = "rocket.jpg") -> FilePayload:
    return payload(name, ROCKET.read_bytes())


def red_and_blue(width: int, height: int) -> Image.Image:
    """Return an image that is red on the left and blue on the right, with a green corner at the upper left."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    image.paste(GREEN, (0, 0, width // 4, height // 4))
    return image


def noisy(image: Image.Image, noise: np.random.Generator) -> Image.Image:
    """Add noise, which cannot be compressed."""
    pixels = np.asarray(image) + noise.uniform(-30, 30, (image.height, image.width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    return exif


def colours(image: Image.Image) -> dict[str, str]:
    """Return the prevailing colour in each corner of the picture."""
    small = np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))
    corners = {
        "upper left": small[0, 0],
        "upper right": small[0, 7],
        "lower left": small[7, 0],
        "lower right": small[7, 7],
    }
    return {corner: ("red", "green", "blue")[int(np.argmax(colour))] for corner, colour in corners.items()}


def saved(page: Page, kind: str, which: str = "") -> Download:
    """Save the results as CSV or JSON; `which` is a word of the button if there are several."""
    page.get_by_role("button", name="Save", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile(f"{kind}.*{which}")).click()
    return download.value


def read_csv(download: Download) -> list[dict[str, str]]:
    assert download.suggested_filename == "litelens.csv"
    return list(csv.DictReader(StringIO(Path(download.path()).read_bytes().decode(), newline=""), strict=True))


def read_json(download: Download) -> Any:
    assert download.suggested_filename == "litelens.json"
    return json.loads(Path(download.path()).read_bytes())


def pixels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image.convert("RGB"), np.int16)


def png_of(page: Page, name: str) -> tuple[str, Image.Image]:
    """Save a photo as PNG; return the file's name and its image without the caption below."""
    with page.expect_download() as download:
        card(page, name).get_by_role("button", name="Save picture").click()
    image = Image.open(download.value.path())
    assert image.format == "PNG"
    shown = (
        card(page, name)
        .locator("img")
        .first.evaluate("({ naturalWidth, naturalHeight }) => [naturalWidth, naturalHeight]")
    )
    height = round(image.width * shown[1] / shown[0])
    caption = image.crop((0, height, image.width, image.height))
    # A line of dark text on white.
    assert caption.height >= MIN_CAPTION
    assert 0.005 < (pixels(caption).max(axis=2) < 100).mean() < 0.5
    return download.value.suggested_filename, image.crop((0, 0, image.width, height))


def assert_differs_only_in_the_region(shown: Image.Image, photo: Image.Image, answer: Any) -> None:
    region = answer["heatmap"]["region"]
    assert region["width"] * region["height"] < photo.width * photo.height
    rows = slice(round(region["top"]), round(region["top"] + region["height"]))
    columns = slice(round(region["left"]), round(region["left"] + region["width"]))
    difference = np.abs(pixels(shown) - pixels(photo)).max(axis=2)
    assert (difference[rows, columns] > 20).mean() > 0.2
    difference[rows, columns] = 0
    # Browsers and Pillow decode JPEG slightly differently.
    assert difference.max() < 20


def test_results_are_saved_as_json_and_as_the_csv_that_the_command_writes(page: Page) -> None:
    choose_photos(page, rocket(), rocket("again.jpg"))
    wait_for_results(page, "rocket.jpg", "again.jpg")
    answer = classify_directly(page, rocket()["buffer"])
    best = answer["predictions"][0]
    rows = read_csv(saved(page, "CSV"))
    assert list(rows[0]) == list(COLUMNS)
    assert [row["image"] for row in rows] == ["rocket.jpg", "again.jpg"]
    assert rows[0]["label"] == best["label"]
    assert float(rows[0]["confidence"]) == best["confidence"]
    assert rows[0]["uncertain"] == "true"
    assert rows[0]["group"] == answer["group"]["label"]
    assert rows[0]["error_code"] == rows[0]["error"] == ""
    result, again = read_json(saved(page, "JSON"))
    assert (result["source"], result["status"]) == ("rocket.jpg", "done")
    assert again["source"] == "again.jpg"
    for member in ("image", "predictions", "group", "uncertain", "model"):
        assert result[member] == answer[member]


def test_file_names_are_quoted_and_never_formulas_in_a_spreadsheet(page: Page) -> None:
    formula = '=1+1,"x".jpg'
    choose_photos(page, rocket(formula))
    wait_for_results(page, formula)
    (row,) = read_csv(saved(page, "CSV"))
    assert row["image"] == f"'{formula}"
    assert row["label"]
    assert read_json(saved(page, "JSON"))[0]["source"] == formula


def test_all_results_are_saved_or_only_the_shown_ones_in_their_order(page: Page) -> None:
    photos = [ROCKET, SAMPLES / "coffee.jpg", CAT]
    choose_photos(page, *photos)
    choose_photos(page, rocket("4.jpg"), rocket("5.jpg"))
    wait_for_results(page, *(photo.name for photo in photos), "4.jpg", "5.jpg")
    open_controls(page)
    page.get_by_label("Sort by").select_option("confidence, lowest first")
    page.get_by_label("Minimum confidence").fill("0.25")
    answers = {
        photo.name: classify_directly(page, photo.read_bytes())["predictions"][0]["confidence"] for photo in photos
    }
    left = sorted((name for name in answers if answers[name] >= 0.25), key=answers.__getitem__)
    assert 1 < len(left) < len(photos)
    expect(photo_names(page)).to_have_text(left)
    shown = f"{len(left)} shown"
    assert [row["image"] for row in read_csv(saved(page, "CSV", shown))] == left
    assert [result["source"] for result in read_json(saved(page, "JSON", shown))] == left
    # What is filtered out is not lost without a word.
    assert len(read_csv(saved(page, "CSV", "all 5"))) == len(read_json(saved(page, "JSON", "all 5"))) == 5


def test_saved_results_use_the_threshold_of_the_page(page: Page) -> None:
    names = [f"{number}.jpg" for number in range(5)]
    choose_photos(page, *map(rocket, names))
    wait_for_results(page, *names)
    open_controls(page)
    for threshold, uncertain in ((0.05, False), (0.9, True)):
        page.get_by_label(page_text("threshold")).fill(f"{threshold}")
        row, *_ = read_csv(saved(page, "CSV"))
        result, *_ = read_json(saved(page, "JSON"))
        assert row["uncertain"] == str(uncertain).lower()
        assert result["uncertain"] is uncertain
        assert result["threshold"] == threshold


def test_a_failed_photo_is_saved_with_its_problem(page: Page) -> None:
    choose_photos(page, payload("broken.jpg", b"no photo"), rocket())
    wait_for_results(page, "rocket.jpg")
    failed_row(page, "broken.jpg").wait_for()
    failed, _ = read_csv(saved(page, "CSV"))
    assert (failed["image"], failed["label"], failed["error_code"]) == ("broken.jpg", "", "not_an_image")
    expect(failed_row(page, "broken.jpg")).to_contain_text(failed["error"])
    failed, _ = read_json(saved(page, "JSON"))
    assert (failed["source"], failed["status"]) == ("broken.jpg", "failed")
    assert failed["problem"]["code"] == "not_an_image"


def test_a_photo_is_saved_with_its_heat_map_in_its_original_size(page: Page) -> None:
    choose_photos(page, rocket())
    wait_for_results(page, "rocket.jpg")
    answer = classify_directly(page, rocket()["buffer"], heatmap="true")
    label = answer["predictions"][1]["label"]
    labels(card(page, "rocket.jpg")).nth(1).click()
    expect(card(page, "rocket.jpg").locator("img[data-label]")).to_be_visible()
    name, image = png_of(page, "rocket.jpg")
    assert name == f"rocket {label}.png"
    photo = Image.open(ROCKET)
    assert image.size == photo.size
    assert_differs_only_in_the_region(image, photo, answer)
    labels(card(page, "rocket.jpg")).nth(0).click()
    name, other = png_of(page, "rocket.jpg")
    assert name == f"rocket {answer['predictions'][0]['label']}.png"
    assert other.tobytes() != image.tobytes()


def test_a_photo_is_saved_without_a_heat_map_that_is_not_shown(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    choose_photos(page, rocket())
    wait_for_results(page, "rocket.jpg")
    name, plain = png_of(page, "rocket.jpg")
    assert name == f"rocket {classify_directly(page, rocket()['buffer'])['predictions'][0]['label']}.png"
    assert np.abs(pixels(plain) - pixels(Image.open(ROCKET))).max() < 20
    assert not any("heatmap" in url for url in requests)


def test_a_rotated_photo_is_saved_upright_with_its_heat_map_in_the_right_place(page: Page) -> None:
    photo = Image.open(ROCKET)
    content = encoded(photo, "JPEG", exif=rotated_exif(), quality=95)
    choose_photos(page, payload("turned.jpg", content))
    wait_for_results(page, "turned.jpg")
    labels(card(page, "turned.jpg")).first.click()
    expect(card(page, "turned.jpg").locator("img[data-label]")).to_be_visible()
    _, image = png_of(page, "turned.jpg")
    upright = ImageOps.exif_transpose(Image.open(BytesIO(content)))
    assert image.size == upright.size == (photo.height, photo.width)
    assert_differs_only_in_the_region(image, upright, classify_directly(page, content, heatmap="true"))


def test_saving_a_photo_waits_for_its_heat_map_which_is_requested_once(page: Page) -> None:
    choose_photos(page, rocket())
    wait_for_results(page, "rocket.jpg")
    held: list[Route] = []
    page.route("**/v1/classify?*heatmap_label*", lambda route: held.append(route))
    with page.expect_request("**/v1/classify?*heatmap_label*"):
        labels(card(page, "rocket.jpg")).first.click()
    expect(card(page, "rocket.jpg").get_by_text("Heat map: ")).to_contain_text("…")
    with page.expect_download() as download:
        card(page, "rocket.jpg").get_by_role("button", name="Save picture").click()
        (route,) = held
        route.continue_()
    assert len(held) == 1
    label = classify_directly(page, rocket()["buffer"])["predictions"][0]["label"]
    assert download.value.suggested_filename == f"rocket {label}.png"


def test_photos_that_the_api_accepts_are_sent_unchanged(page: Page) -> None:
    photo = Image.open(SAMPLES / "coffee.jpg")
    kinds = {
        "a.jpg": "JPEG",
        "b.png": "PNG",
        "called otherwise.jpg": "WEBP",
        "d.gif": "GIF",
        "e.bmp": "BMP",
        "f.avif": "AVIF",
    }
    contents = {name: encoded(photo, kind) for name, kind in kinds.items()}
    sent = SentImages(page)
    # Photos that wait would share a request.
    for name, content in contents.items():
        choose_photos(page, payload(name, content))
        wait_for_results(page, name)
    assert sent.types == [f"image/{kind.lower()}" for kind in kinds.values()]
    assert sent.bodies == list(contents.values())


def test_a_photo_too_large_for_a_request_is_shrunk_and_stays_upright(
    page: Page, noise: np.random.Generator, tmp_path: Path
) -> None:
    photo = tmp_path / "large.jpg"
    noisy(red_and_blue(2560, 1280), noise).save(photo, "JPEG", quality=98, subsampling=0, exif=rotated_exif())
    assert photo.stat().st_size > MAX_REQUEST_IMAGE_BYTES
    sent = SentImages(page)
    choose_photos(page, photo)
    wait_for_results(page, "large.jpg")
    (image,) = sent.images
    assert image.format == "JPEG"
    assert image.size == (SHRUNKEN_SIDE // 2, SHRUNKEN_SIDE)
    assert len(sent.bodies[0]) < MAX_REQUEST_IMAGE_BYTES
    assert image.getexif().get(ORIENTATION, 1) == 1
    assert colours(image) == {"upper left": "red", "upper right": "green", "lower left": "blue", "lower right": "blue"}
    # The preview is small, because large images fill a phone's memory.
    expect(card(page, "large.jpg").locator("img")).to_have_js_property("naturalHeight", PREVIEW_SIDE)


def test_a_heat_map_is_in_the_right_place_on_a_photo_that_was_shrunk(page: Page, tmp_path: Path) -> None:
    photo = tmp_path / "large.bmp"
    red_and_blue(2560, 1280).save(photo)
    assert photo.stat().st_size > MAX_REQUEST_IMAGE_BYTES
    sent = SentImages(page)
    choose_photos(page, photo)
    wait_for_results(page, "large.bmp")
    labels(card(page, "large.bmp")).first.click()
    expect(card(page, "large.bmp").locator("img[data-label]")).to_be_visible()
    _, image = png_of(page, "large.bmp")
    assert image.size == (2560, 1280)
    answer = classify_directly(page, sent.bodies[0], heatmap="true")
    scale = image.width / answer["image"]["width"]
    assert scale == 1.25
    answer["heatmap"]["region"] = {side: value * scale for side, value in answer["heatmap"]["region"].items()}
    assert_differs_only_in_the_region(image, Image.open(photo), answer)


def test_a_photo_that_the_api_would_rotate_but_the_browser_does_not_is_sent_as_the_browser_shows_it(page: Page) -> None:
    photo = Image.open(ROCKET)
    sent = SentImages(page)
    choose_photos(page, payload("turned.webp", encoded(photo, "WEBP", exif=rotated_exif())))
    wait_for_results(page, "turned.webp")
    (image,) = sent.images
    assert image.format == "JPEG"
    assert image.getexif().get(ORIENTATION, 1) == 1
    preview = card(page, "turned.webp").locator("img")
    seen = [preview.evaluate(f"image => image.natural{side}") for side in ("Width", "Height")]
    assert list(image.size) == seen


def test_a_format_that_only_the_browser_reads_is_converted_with_a_white_background(page: Page) -> None:
    photo = Image.open(CAT).convert("RGBA").resize((256, 192))
    photo.paste((0, 0, 0, 0), (0, 0, photo.width // 2, photo.height))
    sent = SentImages(page)
    choose_photos(page, payload("cat.ico", encoded(photo, "ICO", sizes=[photo.size])))
    wait_for_results(page, "cat.ico")
    (image,) = sent.images
    assert (image.format, image.size) == ("JPEG", photo.size)
    assert sent.types == ["image/jpeg"]
    assert pixels(image)[:, : photo.width // 2 - 16].min() > 245
    assert pixels(image)[:, photo.width // 2 + 16 :].mean() < 200


def test_a_photo_that_only_the_api_reads_is_answered_without_a_picture(page: Page) -> None:
    assert page.locator("input[data-picker=files]").get_attribute("accept") == "image/*,.heic,.heif,.avif"
    sent = SentImages(page)
    choose_photos(page, HEIC)
    wait_for_results(page, HEIC.name)
    assert (sent.types, sent.bodies) == (["image/heic"], [HEIC.read_bytes()])
    shown = card(page, HEIC.name)
    expect(shown.get_by_text(page_text("undrawn"))).to_be_visible()
    expect(shown.locator(".picture img")).to_have_count(0)
    labels(shown).first.click()
    heat, frame = shown.locator("img.heat"), shown.locator(".frame")
    expect(heat).to_be_visible()
    within, around = heat.bounding_box(), frame.bounding_box()
    assert within
    assert around
    assert around["width"] / around["height"] == pytest.approx(120 / 80, rel=0.02)
    assert within["width"] <= around["width"] + 1
    shown.get_by_role("button", name="Save picture").click()
    expect(shown.get_by_role("alert")).to_have_text(page_text("not_drawn"))
    page.get_by_role("button", name=f"Enlarge: {HEIC.name}").click()
    expect(page.get_by_role("dialog").get_by_text(page_text("undrawn"))).to_be_visible()
    page.keyboard.press("Escape")
    (row,) = read_csv(saved(page, "CSV"))
    assert (row["image"], row["error_code"]) == (HEIC.name, "")


def test_a_photo_that_only_the_api_reads_and_that_is_too_large_for_a_request_is_not_called_damaged(
    page: Page, tmp_path: Path
) -> None:
    photo = tmp_path / "large.heic"
    photo.write_bytes(HEIC.read_bytes() + bytes(MAX_REQUEST_IMAGE_BYTES))
    choose_photos(page, photo)
    expect(failed_row(page, "large.heic")).to_contain_text(page_text("not_drawn"))


def test_a_photo_with_too_many_pixels_for_the_api_is_shrunk_and_sent_again(page: Page, tmp_path: Path) -> None:
    photo = tmp_path / "vast.jpg"
    Image.new("L", (8000, 6400), 99).save(photo, "JPEG")
    sent = SentImages(page)
    choose_photos(page, photo)
    wait_for_results(page, "vast.jpg")
    assert [image.size for image in sent.images] == [(8000, 6400), (2048, 1638)]
