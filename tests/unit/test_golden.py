"""Golden images: comparing answers with them, the faults that the published ones detect, and their manifest entries."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from support import DEFAULT_BUNDLE

from litelens.core import images
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.engines import ENGINES
from litelens.core.errors import BundleError
from litelens.core.formats import IMAGE_FORMATS, MEDIA_TYPES, SUFFIXES
from litelens.core.golden import TOLERANCE, GoldenImage, mismatch
from litelens.core.images import Limits, decode

CAT = GoldenImage("photo.jpg", "cat", confidence=0.6, lead=0.3)
GOLDEN = load_bundle(DEFAULT_BUNDLE).golden


def confidences(classifier: Classifier, image: GoldenImage) -> dict[str, float]:
    everything = Options(top_k=len(classifier.bundle.labels))
    prediction = classifier.classify(image.read(classifier.bundle.folder), everything)
    return {candidate.label: candidate.confidence for candidate in prediction.candidates}


def mismatches(classifier: Classifier) -> set[str]:
    """Return the golden images whose answer is not the expected one."""
    return {image.file for image in classifier.bundle.golden if mismatch(image, confidences(classifier, image))}


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)


@pytest.mark.parametrize(
    ("answer", "message"),
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
def test_an_answer_matches_within_the_tolerance(answer: dict[str, float], message: str | None) -> None:
    found = mismatch(CAT, answer)
    assert found is None if message is None else f"photo.jpg: {message}" in str(found)


def test_labels_with_nearly_the_same_confidence_may_change_places() -> None:
    close = msgspec.structs.replace(CAT, lead=0.05)
    assert mismatch(close, {"cat": 0.58, "dog": 0.6}) is None


@pytest.mark.parametrize("engine", ENGINES)
def test_the_default_model_answers_as_expected_with_every_engine(engine: str) -> None:
    assert mismatches(Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1, engine=engine)) == set()


def test_the_difference_between_engines_takes_at_most_half_of_the_tolerance() -> None:
    openvino = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1, engine="openvino")
    for image in GOLDEN:
        assert mismatch(image, confidences(openvino, image), TOLERANCE / 2) is None


def test_the_golden_images_have_every_format_and_are_small() -> None:
    assert {image.media_type for image in GOLDEN} == {each.media_type for each in IMAGE_FORMATS}
    assert sum(len(image.read(DEFAULT_BUNDLE)) for image in GOLDEN) < 300_000


def test_a_decoder_that_ignores_the_orientation_is_detected(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_UPRIGHT", {})
    assert mismatches(classifier) == {"turned.jpg"}


def test_a_decoder_that_ignores_transparency_is_detected(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    def paste(strip: Image.Image, rgb: Image.Image, position: tuple[int, int]) -> None:
        rgb.paste(strip.convert("RGB"), position)

    monkeypatch.setattr(images, "_paste_flat", paste)
    assert mismatches(classifier) == {"transparent.png"}


def test_a_decoder_that_swaps_red_and_blue_is_detected(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    to_rgb = images._to_rgb

    def to_bgr(image: Image.Image, frame: tuple[int, int, int, int]) -> Image.Image:
        return Image.merge("RGB", to_rgb(image, frame).split()[::-1])

    monkeypatch.setattr(images, "_to_rgb", to_bgr)
    # One mismatch stops a release. Not all images fail, because a good model recognizes some things in any colour.
    assert len(mismatches(classifier)) >= len(GOLDEN) / 2


def test_the_large_jpeg_is_decoded_at_a_reduced_size(classifier: Classifier) -> None:
    data = next(image for image in GOLDEN if image.file == "large.jpg").read(DEFAULT_BUNDLE)
    decoded = decode(data, Limits(), classifier.bundle.preprocessing)
    assert decoded.rgb.width < decoded.width


def test_an_error_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"golden/photo.jpg cannot be read: No such file or directory"):
        CAT.read(tmp_path)


def with_golden(folder: Path, golden: Any) -> Path:
    """Write a bundle without a model, whose manifest has this list."""
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"golden": golden}))
    return folder


def refuse(folder: Path, golden: Any) -> str:
    with pytest.raises(BundleError) as raised:
        load_bundle(with_golden(folder, golden))
    return str(raised.value)


@pytest.mark.parametrize("golden", [[], None])
def test_golden_images_are_optional(golden: Any, tmp_path: Path) -> None:
    for name in ("model.tflite", "head.npz"):
        shutil.copy(DEFAULT_BUNDLE / name, tmp_path)
    assert load_bundle(with_golden(tmp_path, golden)).golden == ()


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    entry = msgspec.structs.asdict(GOLDEN[0])
    assert "golden must not have the same file twice" in refuse(tmp_path, [entry, entry])


@pytest.mark.parametrize("golden", [{}, "photo.jpg", 3, True])
def test_a_value_that_is_not_a_list_is_refused(golden: Any, tmp_path: Path) -> None:
    assert "golden must be a list or null" in refuse(tmp_path, golden)


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


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(field=st.sampled_from(sorted(WRONG)), data=st.data())
def test_an_invalid_value_is_refused_with_its_field(field: str, data: st.DataObject, tmp_path: Path) -> None:
    entry = msgspec.structs.asdict(GOLDEN[0]) | {field: data.draw(WRONG[field])}
    assert refuse(tmp_path, [entry]).startswith(
        f"{tmp_path}/manifest.json is not a litelens manifest: golden.0.{field} must "
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_golden_image_can_have_every_suffix_of_the_supported_formats(suffix: str) -> None:
    assert GoldenImage(f"photo{suffix}", "cat", 0.6, 0.3).media_type in MEDIA_TYPES


@pytest.mark.parametrize("field", WRONG)
def test_a_missing_field_is_refused(field: str, tmp_path: Path) -> None:
    entry = msgspec.structs.asdict(GOLDEN[0])
    del entry[field]
    assert f"the field golden.0.{field} is missing" in refuse(tmp_path, [entry])


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    entry = msgspec.structs.asdict(GOLDEN[0]) | {"comment": "nice"}
    assert "there is no field golden.0.comment" in refuse(tmp_path, [entry])


@pytest.mark.parametrize("entry", [["large.jpg"], "photo.jpg", None])
def test_an_entry_without_fields_is_refused(entry: Any, tmp_path: Path) -> None:
    assert "golden.0 must be a set of fields" in refuse(tmp_path, [entry])
