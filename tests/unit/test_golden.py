"""Golden images: what is taken for right, what the bundled model's are worth, and how they are read."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import DEFAULT_BUNDLE

from handlers.bodies import IMAGE_TYPES
from litelens import images
from litelens.bundle import load_bundle
from litelens.classifier import Classifier, Options
from litelens.engines import ENGINES
from litelens.errors import BundleError
from litelens.golden import TOLERANCE, GoldenImage, complaint
from litelens.images import Limits, decode

CAT = GoldenImage("photo.jpg", "cat", confidence=0.6, lead=0.3)
GOLDEN = load_bundle(DEFAULT_BUNDLE).golden


def confidences(classifier: Classifier, image: GoldenImage) -> dict[str, float]:
    everything = Options(top_k=len(classifier.bundle.labels))
    prediction = classifier.classify(image.read(classifier.bundle.folder), everything)
    return {candidate.label: candidate.confidence for candidate in prediction.candidates}


def complaints(classifier: Classifier) -> set[str]:
    """The files of the bundled model that are not answered as expected."""
    return {image.file for image in classifier.bundle.golden if complaint(image, confidences(classifier, image))}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"cat": 0.6, "dog": 0.3}, None),
        ({"cat": 0.69, "dog": 0.2}, None),
        ({"cat": 0.51, "dog": 0.4}, None),
        ({"cat": 0.51, "dog": 0.515}, "the best label is dog (0.515) and not cat (0.510)"),
        ({"cat": 0.71}, "cat has the confidence 0.710, which is more than 0.1 from the expected 0.600"),
        ({"cat": 0.49}, "cat has the confidence 0.490"),
        ({"cat": float("nan")}, "cat has the confidence nan"),
        ({"dog": 0.6}, "the answer does not have the label cat"),
        ({}, "the answer does not have the label cat"),
    ],
)
def test_an_answer_is_right_within_the_tolerance(answer: dict[str, float], said: str | None) -> None:
    found = complaint(CAT, answer)
    assert found is None if said is None else f"photo.jpg: {said}" in str(found)


def test_labels_that_are_nearly_as_good_may_change_places() -> None:
    close = dataclasses.replace(CAT, lead=0.05)
    assert complaint(close, {"cat": 0.58, "dog": 0.6}) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_the_bundled_model_answers_as_expected_by_every_engine(engine: str) -> None:
    assert complaints(Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1, engine=engine)) == set()


def test_engines_leave_as_much_of_the_tolerance_to_cpus_as_they_take() -> None:
    by_openvino = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1, engine="openvino")
    for image in GOLDEN:
        assert complaint(image, confidences(by_openvino, image), TOLERANCE / 2) is None


def test_the_bundled_images_are_of_every_format_and_small() -> None:
    assert {image.media_type for image in GOLDEN} == set(IMAGE_TYPES)
    assert sum(len(image.read(DEFAULT_BUNDLE)) for image in GOLDEN) < 300_000


def test_a_decoder_that_does_not_turn_images_is_noticed(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_UPRIGHT", {})
    assert complaints(classifier) == {"turned.jpg"}


def test_a_decoder_that_forgets_transparency_is_noticed(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paste(strip: Image.Image, rgb: Image.Image, position: tuple[int, int]) -> None:
        rgb.paste(strip.convert("RGB"), position)

    monkeypatch.setattr(images, "_paste_flat", paste)
    assert complaints(classifier) == {"transparent.png"}


def test_a_decoder_that_swaps_red_and_blue_is_noticed(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    to_rgb = images._to_rgb

    def to_bgr(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
        return Image.merge("RGB", to_rgb(image, frame).split()[::-1])

    monkeypatch.setattr(images, "_to_rgb", to_bgr)
    # One complaint stops a release; not all images fail, since a good model recognizes some things in any colour.
    assert len(complaints(classifier)) >= len(GOLDEN) / 2


def test_the_large_jpeg_is_decoded_at_a_reduced_size(classifier: Classifier) -> None:
    data = next(image for image in GOLDEN if image.file == "large.jpg").read(DEFAULT_BUNDLE)
    decoded = decode(data, Limits(), classifier.bundle.preprocessing)
    assert decoded.rgb.width < decoded.width


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"golden/photo.jpg cannot be read: No such file or directory"):
        CAT.read(tmp_path)


def with_golden(folder: Path, golden: Any) -> Path:
    """A bundle without its model whose manifest has this list."""
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"golden": golden}))
    return folder


def refusal(folder: Path, golden: Any) -> str:
    with pytest.raises(BundleError) as raised:
        load_bundle(with_golden(folder, golden))
    return str(raised.value)


@pytest.mark.parametrize("golden", [[], None])
def test_a_bundle_needs_no_golden_images(golden: Any, tmp_path: Path) -> None:
    shutil.copy(DEFAULT_BUNDLE / "model.tflite", tmp_path)
    assert load_bundle(with_golden(tmp_path, golden)).golden == ()


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    entry = dataclasses.asdict(GOLDEN[0])
    assert "golden must not have the same file twice" in refusal(tmp_path, [entry, entry])


@pytest.mark.parametrize("golden", [{}, "photo.jpg", 3, True])
def test_what_is_no_list_is_refused(golden: Any, tmp_path: Path) -> None:
    assert "golden must be a list of images" in refusal(tmp_path, golden)


numbers = st.floats(allow_nan=False, allow_infinity=False)
other_values = st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
WRONG: Mapping[str, st.SearchStrategy[Any]] = {
    "file": other_values
    | numbers
    | st.sampled_from(["../model.tflite", "/etc/hosts.jpg", "a/b.jpg", ".jpg", "photo.JPG", "photo.tiff", "a b.jpg"]),
    "label": other_values | numbers | st.just("unicorn"),
    "confidence": other_values | numbers.filter(lambda value: not 0 <= value <= 1),
    "lead": other_values | numbers.filter(lambda value: not 0 <= value <= GOLDEN[0].confidence),
}

Damage = Callable[[dict[str, Any]], Any]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(field=st.sampled_from(sorted(WRONG)), data=st.data())
def test_an_entry_that_says_what_cannot_be_is_named(field: str, data: st.DataObject, tmp_path: Path) -> None:
    entry = dataclasses.asdict(GOLDEN[0]) | {field: data.draw(WRONG[field])}
    said = refusal(tmp_path, [entry])
    assert said.startswith(f"{tmp_path}/manifest.json is not a litelens manifest: ")
    named = {"file": "a file in golden"}.get(field, f"the {field} of large.jpg in golden")
    assert named in said


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda entry, field=field: {k: v for k, v in entry.items() if k != field} for field in WRONG),
        lambda entry: entry | {"comment": "nice"},
        lambda entry: list(entry),
        lambda _: "photo.jpg",
        lambda _: None,
    ],
)
def test_an_entry_with_other_fields_is_refused(damage: Damage, tmp_path: Path) -> None:
    entry = damage(dataclasses.asdict(GOLDEN[0]))
    assert "each image in golden must have file, label, confidence and lead" in refusal(tmp_path, [entry])
