import base64
import re
from collections.abc import Callable
from html.parser import HTMLParser
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litelens_client.learning.report import (
    Example,
    Kind,
    draw_overlay,
    list_confusions,
    render,
    times_in_hundred,
    weakest_classes,
)

KINDS: tuple[Kind, Kind] = ("wrong", "right")
HOSTILE = "<script>alert('x')</script>"


class Page(HTMLParser):
    """The content of a page: its words, its elements with their attributes, and the code of styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._words: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.code: list[str] = []
        self._in_code = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_code = tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._in_code = False

    def handle_data(self, data: str) -> None:
        if self._in_code:
            self.code.append(data)
        else:
            self._words += data.split()

    @property
    def words(self) -> str:
        return " ".join(self._words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def sections(self) -> list[str | None]:
        return [attributes["id"] for attributes in self.all("section")]


def document(classes: int = 3, test_images: int = 30) -> dict[str, Any]:
    each = test_images // classes
    confusion = np.eye(classes, dtype=int) * (each - 1) + np.roll(np.eye(classes, dtype=int), 1, axis=1)
    labels = [f"class {n}" for n in range(classes)]
    bins = [{"images": 10, "confidence": 0.5, "accuracy": 0.4}, {"images": 20, "confidence": 0.9, "accuracy": 0.8}]
    return {
        "model": "ab" * 32,
        "name": "flowers",
        "version": "1.2.3",
        "description": "A model of flowers.",
        "command": "python -m training all flowers --data flowers",
        "created": "2026-11-21T10:00:00Z",
        "versions": {"python": "3.11.7", "keras": "3.15.1"},
        "network": {"architecture": "ResNet50", "weights": "imagenet", "head": "new"},
        "dataset": "flowers",
        "preprocessing": {"height": 32, "width": 32, "mean": [0.5, 0.5, 0.5]},
        "origin": None,
        "gate": None,
        "confidence": None,
        "recipe": {
            "seed": 1,
            "phases": [{"trains": "head", "epochs": 1}, {"trains": "all", "epochs": 1, "optimizer": "sgd"}],
            "augmentation": {"flip": True, "mixup": None},
        },
        "fit": {
            "images": 48_000,
            "epochs": 2,
            "last_sitting_seconds": 4_000,
            "validation_accuracy": 0.55,
            "backend": "torch",
            "keras": "3.15.1",
            "processor": "2 cores, x86_64",
        },
        "history": [
            {"phase": n, "epoch": 1, "loss": 2.0 / n, "accuracy": 0.2 * n, "learning_rate": 0.1}
            | {"val_loss": 2.1 / n, "val_accuracy": 0.19 * n}
            for n in (1, 2)
        ],
        "model_bytes": 24_460_000,
        "metrics": {
            "test_images": test_images,
            "test_duplicates": 7,
            "fp32_top1": 0.562,
            "fp32_top5": 0.81,
            "int8_top1": 0.551,
            "int8_top5": 0.823,
            "int8_group_top1": None,
            "agreement": 0.954,
            "calibration_error_uncalibrated": 0.087,
            "calibration_error": 0.013,
            "validation_images": 2_000,
            "temperature": 1.31,
            "threshold": 0.62,
            "answered_share": 0.403,
            "answered_accuracy": 0.951,
        },
        "duplicates": [f"cat/{n}.jpg" for n in range(7)],
        "classes": [
            {"label": label, "images": each, "precision": 0.9, "recall": 0.8, "f1": 0.85 - n / 10_000}
            for n, label in enumerate(labels)
        ],
        "confusion": confusion.tolist(),
        "reliability": bins,
        "reliability_uncalibrated": bins,
        "coverage": [
            {"coverage": 0.5, "accuracy": 0.9, "threshold": 0.7},
            {"coverage": 1.0, "accuracy": 0.6, "threshold": 0.2},
        ],
        "groups": {},
        "distribution": {"train": [100 + n for n in range(classes)], "validation": [10] * classes, "test": []},
        "candidates": [
            {"converter": "TFLiteConverter", "weight_bits": 8, "calibration_images": 500, "bytes": 24_460_000}
            | {"top1": 0.551, "agreement": 0.954, "chosen": True, "error": None},
            {"converter": "litert-quantizer", "weight_bits": 7, "calibration_images": 500, "bytes": None}
            | {"top1": None, "agreement": None, "chosen": False, "error": "PAD_V2 is unknown to it."},
        ],
        "skipped": {"images": 3, "listed": [{"file": "cat/1.jpg", "reason": "The image is truncated."}]},
    }


def imported_document() -> dict[str, Any]:
    """The document of a model that was not fitted here and has no labelled test images."""
    full = document()
    nothing = ("history", "classes", "confusion", "reliability", "reliability_uncalibrated", "coverage")
    return (
        full
        | {name: [] for name in nothing}
        | {
            "fit": None,
            "distribution": {"train": [], "validation": [], "test": []},
            "skipped": {"images": 0, "listed": []},
            "metrics": dict.fromkeys(full["metrics"]) | {"test_images": 500, "agreement": 0.954},
            "recipe": {"phases": []},
            "origin": {
                "weights": "Somebody's",
                "licence": "MIT",
                "source": "https://example.org/weights",
                "top1": 0.75,
                "int8_top1": 0.74,
            },
            "gate": {"most_lost": 0.01, "least_agreement": 0.9, "reason": "It is small."},
            "confidence": {"temperature": 1.0, "threshold": 0.5, "reason": "It is cautious."},
        }
    )


def png(image: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def example(heat_map: bool = True, truth: str = "class 0") -> Example:
    image = png(np.full((32, 32, 3), 128, np.uint8))
    return Example("wrong", image, np.eye(4) if heat_map else None, truth, (("class 1", 0.712), (truth, 0.2)))


def pictures(page: Page) -> list[Image.Image]:
    files = [image["src"] or "" for image in page.all("img")]
    return [Image.open(BytesIO(base64.b64decode(file.removeprefix("data:image/png;base64,")))) for file in files]


@pytest.mark.parametrize("classes", [2, 30, 100])
def test_the_page_loads_nothing_from_elsewhere(classes: int) -> None:
    described = document(classes, 300) | {"description": "See https://example.org/ for more."}
    page = Page(render(described, [example()]))
    targets = [attributes.get(name) for _, attributes in page.elements for name in ("src", "href", "srcset", "action")]
    assert all(target.startswith(("data:", "#")) for target in targets if target)
    styles = [attributes.get("style") or "" for _, attributes in page.elements]
    assert not [code for code in (*page.code, *styles) if re.search(r"url\(|@import|https?:|//", code)]
    assert not {"iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}


def test_the_figures_are_the_numbers_of_the_document() -> None:
    header, main = render(document(10), []).split("</header>")
    assert "flowers version 1.2.3" in Page(header).words
    words = Page(main.split("</section>")[0]).words
    for text in ("55.1%", "82.3%", "95.4%", "24.5 MB", "59.7%"):
        assert text in words
    assert "10 classes" in words
    assert "confidence below 0.62 are marked uncertain" in words
    assert "Of the others, 95.1% are correct." in words


def test_the_report_begins_with_the_verdict_and_then_shows_mistakes() -> None:
    mistaken, right = (Example(kind, png(np.zeros((8, 8, 3), np.uint8)), None, "class 0", ()) for kind in KINDS)
    text = render(document(), [right, mistaken])
    assert Page(text.split('class="verdict">')[1].split("</p>")[0]).words.split()[1] == "55"
    assert text.index('class="verdict"') < text.index('class="figures"')
    page = Page(text)
    assert page.sections()[:2] == ["mistakes", "figures"]
    assert page.all("nav")
    assert text.split('id="mistakes"')[1].split("</section>")[0].count("<img") == 1
    assert "mistakes" not in Page(render(document(), [right])).sections()


@pytest.mark.parametrize(("share", "times"), [(0.551, 55), (0.9999, 99), (1.0, 100), (0.0, 0), (None, None)])
def test_only_a_model_without_errors_is_right_100_times_in_100(share: float | None, times: int | None) -> None:
    assert times_in_hundred(share) == times


def test_top_5_is_omitted_for_five_classes_or_fewer() -> None:
    assert "82.3%" not in render(document(5), [])
    assert "82.3%" in render(document(6), [])


def test_int8_and_fp32_are_compared_in_points() -> None:
    words = Page(render(document(10), [])).words
    assert "55.1% 56.2% \N{MINUS SIGN}1.1 points" in words
    assert "82.3% 81.0% +1.3 points" in words


def test_text_from_the_data_is_escaped() -> None:
    hostile = document()
    hostile["classes"][0]["label"] = HOSTILE
    hostile["name"] = hostile["command"] = hostile["recipe"]["seed"] = HOSTILE
    hostile["groups"] = {HOSTILE: HOSTILE}
    hostile["skipped"]["listed"][0]["file"] = HOSTILE
    page = Page(render(hostile, [example(truth=HOSTILE)]))
    assert len(page.all("script")) == 1
    assert HOSTILE in page.words
    assert any(HOSTILE in (image["alt"] or "") for image in page.all("img"))


def test_a_complete_document_has_all_sections() -> None:
    everything = ["figures", "precision", "training", "confusion", "classes", "reliability", "coverage", "examples"]
    assert Page(render(document(), [])).sections() == [*everything, "candidates", "data", "making"]


@pytest.mark.parametrize(
    ("field", "section"),
    [
        ("history", "training"),
        ("confusion", "confusion"),
        ("reliability", "reliability"),
        ("coverage", "coverage"),
        ("candidates", "candidates"),
    ],
)
def test_an_empty_section_is_omitted_and_not_linked(field: str, section: str) -> None:
    page = Page(render(document() | {field: []}, []))
    assert section not in page.sections()
    assert f"#{section}" not in [link["href"] for link in page.all("a")]


def test_the_report_of_an_imported_model_has_only_known_figures() -> None:
    page = Page(render(imported_document(), []))
    assert page.sections() == ["figures", "precision", "examples", "candidates", "making"]
    assert "95.4%" in page.words
    assert "accuracy was not measured" in page.words
    assert "was not fitted here" in page.words
    assert "None" not in page.words


@pytest.mark.parametrize("classes", [2, 25, 26, 100, 1000])
def test_every_class_is_in_the_table(classes: int) -> None:
    page = render(document(classes, 2 * classes), [])
    rows = re.search(r'<table class="sortable">.*?</table>', page, re.S)
    assert rows
    assert all(f'<th scope="row">class {n}</th>' in rows[0] for n in range(classes))


def test_the_page_of_100_classes_is_small() -> None:
    described = document(100, 1000)
    described["confusion"] = np.random.default_rng(1).integers(0, 9, (100, 100)).tolist()
    assert len(render(described, []).encode()) < 200_000


def test_the_weakest_classes_are_listed_with_their_most_frequent_confusion() -> None:
    described = document(12, 120)
    for index in (3, 8):
        described["classes"][index]["f1"] = index / 100
    words = Page(render(described, [])).words
    assert re.search(r"The 5 weakest classes class 3 : F1 3\.0%.*?confused with class 4 .*?class 8 : F1 8\.0%", words)


def test_the_weakest_classes_are_at_most_half_of_all_and_have_test_images() -> None:
    classes = document(4)["classes"]
    classes[1] |= {"images": 0, "f1": 0.0}
    assert [row["label"] for row in weakest_classes(classes, [])] == ["class 3", "class 2"]


def test_confusions_are_listed_by_frequency() -> None:
    first, second = list_confusions(np.array([[5, 1, 0], [0, 0, 0], [4, 0, 4]]), ["a", "b", "c"])
    assert (first.truth, first.predicted, first.images, first.share) == ("c", "a", 4, 0.5)
    assert (second.truth, second.predicted, second.images) == ("a", "b", 1)


def test_a_model_without_confusions_is_reported_as_such() -> None:
    page = Page(render(document() | {"confusion": np.eye(3, dtype=int).tolist()}, []))
    assert "All test images were classified correctly." in page.words


def test_the_threshold_is_marked_where_the_curve_reaches_it() -> None:
    coverage = render(document(), []).split('id="coverage"')[1].split("</section>")[0]
    (at,) = re.findall(r'class="mark" d="M([\d.]+) ', coverage)
    half, whole = re.findall(r'class="dot training" cx="([\d.]+)"', coverage)
    share = (float(at) - float(half)) / (float(whole) - float(half))
    assert share == pytest.approx((0.7 - 0.62) / (0.7 - 0.2), abs=0.01)


def test_phases_are_marked_only_if_there_are_several() -> None:
    both = document()
    one = both | {"history": both["history"][:1]}
    assert "phase 2" in Page(render(both, [])).words
    assert "phase 1" not in Page(render(one, [])).words


def test_without_examples_the_page_says_so() -> None:
    assert "contains no example images" in Page(render(document(), [])).words


def test_an_example_is_shown_with_its_heat_map_and_predictions() -> None:
    page = Page(render(document(), [example()]))
    plain, heated = pictures(page)
    assert plain.size == heated.size == (96, 96)
    assert np.asarray(plain).tolist() != np.asarray(heated).tolist()
    assert "class 1 71.2% class 0 20.0%" in page.words
    assert all(image["alt"] for image in page.all("img"))


def test_an_example_without_a_heat_map_is_one_picture() -> None:
    page = Page(render(document(), [example(heat_map=False)]))
    assert len(pictures(page)) == 1
    assert "regions" not in page.words


def test_large_examples_are_reduced_in_proportion() -> None:
    large = Example("right", png(np.zeros((200, 400, 3), np.uint8)), None, "class 0", (("class 0", 0.9),))
    (picture,) = pictures(Page(render(document(), [large])))
    assert picture.size == (160, 80)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_a_heat_map_covers_the_image_where_it_is_strong(scale: float) -> None:
    heat_map = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [-1.0, 0.0, 1.0]]) * scale
    seen = np.asarray(draw_overlay(Image.new("RGB", (30, 30), (90, 90, 90)), heat_map)).astype(int)
    assert (seen[:10, :10] == 90).all()
    assert (seen[25:, :10] == 90).all()
    assert seen[29, 29, 0] > 200


@pytest.mark.parametrize("value", [0.0, -3.0, float("nan")])
def test_a_heat_map_without_activation_does_not_change_the_image(value: float) -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    assert np.asarray(draw_overlay(image, np.full((2, 2), value))).tolist() == np.asarray(image).tolist()


def test_the_chosen_candidate_is_marked_and_a_failed_one_says_why() -> None:
    words = Page(render(document(), [])).words
    assert re.search(r"TFLiteConverter 8 500 24\.5 MB 55\.1% 95\.4% ✓ chosen", words)
    assert "failed: PAD_V2 is unknown to it." in words


def test_excluded_and_skipped_images_are_listed() -> None:
    words = Page(render(document(), [])).words
    assert "7 test images that also occur in the training or validation split are excluded" in words
    assert "cat/0.jpg, cat/1.jpg" in words
    assert "3 images could not be read and were skipped; 1 of them are listed." in words
    assert "cat/1.jpg The image is truncated." in words


def test_command_recipe_and_versions_are_in_the_report() -> None:
    words = Page(render(document(), [])).words
    assert "python -m training all flowers --data flowers" in words
    assert "phases 2 / optimizer sgd" in words
    assert "augmentation / flip yes" in words
    assert "mean 0.5, 0.5, 0.5" in words
    assert "python 3.11.7" in words
    assert "The fit took 1 h 7 min" in words


@pytest.mark.parametrize("described", [document, imported_document])
def test_headings_are_in_order_and_tables_have_captions_and_header_scopes(
    described: Callable[[], dict[str, Any]],
) -> None:
    page = Page(render(described(), [example()]))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    charts = page.all("svg")
    assert all(chart["aria-label"] for chart in charts)


def test_published_accuracies_and_reasons_for_limits_are_in_the_report() -> None:
    words = Page(render(imported_document(), [])).words
    for text in ("75.0%", "74.0%", "Somebody's", "MIT", "It is small.", "It is cautious."):
        assert text in words
