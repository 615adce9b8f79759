"""Golden images are deterministic, test the decoders, and are omitted if the engines differ."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace
from PIL import Image
from support import DEFAULT_BUNDLE, SAMPLES

from litelens.core.bundle import load_bundle
from litelens.core.engines import OpenVINO
from litelens.core.golden import TOLERANCE, GoldenImage
from litelens.core.images import Limits, decode
from litelens_client.learning import golden
from litelens_client.learning.golden import add_golden_images
from training import publish
from training.errors import GateError

FILES = ["large.jpg", "turned.jpg", "transparent.png", "photo.webp", "photo.gif", "photo.bmp"]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return shutil.copytree(DEFAULT_BUNDLE, tmp_path / "bundle")


def manifest(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text())


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (bundle / "golden").iterdir()}


def assert_expects_the_same(bundle: Path) -> None:
    """The bundled model's images, with confidences as other CPUs round them too."""
    for made, committed in zip(load_bundle(bundle).golden, load_bundle(DEFAULT_BUNDLE).golden, strict=True):
        assert (made.file, made.label) == (committed.file, committed.label)
        assert (made.confidence, made.lead) == pytest.approx((committed.confidence, committed.lead), abs=0.01)


def test_the_committed_bundle_has_the_golden_images_that_training_writes(bundle: Path) -> None:
    shutil.rmtree(bundle / "golden")
    assert add_golden_images(bundle) == []
    assert contents(bundle) == contents(DEFAULT_BUNDLE)
    assert_expects_the_same(bundle)
    assert list(manifest(bundle)) == list(manifest(DEFAULT_BUNDLE))
    assert (bundle / "model.tflite").read_bytes() == (DEFAULT_BUNDLE / "model.tflite").read_bytes()


def test_a_bundle_without_golden_images_gets_them(bundle: Path) -> None:
    without = {name: value for name, value in manifest(bundle).items() if name != "golden"}
    (bundle / "manifest.json").write_text(json.dumps(without))
    shutil.rmtree(bundle / "golden")
    add_golden_images(bundle)
    assert_expects_the_same(bundle)
    assert list(manifest(bundle)) == list(manifest(DEFAULT_BUNDLE))


def test_golden_images_are_omitted_if_the_engines_differ(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OpenVINO.run

    def far_off(*arguments: Any) -> dict[str, Any]:
        return {name: np.roll(levels, 1, axis=-1) for name, levels in run(*arguments).items()}

    monkeypatch.setattr(OpenVINO, "run", far_off)
    assert add_golden_images(bundle) == FILES
    assert manifest(bundle)["golden"] == []
    assert contents(bundle) == {}
    assert load_bundle(bundle).golden == ()


@pytest.mark.parametrize(("side", "crop"), [(32, 1.0), (224, 1.0), (224, 0.875), (299, 0.875), (480, 1.0)])
def test_the_large_jpeg_is_decoded_at_a_reduced_size_for_every_model(side: int, crop: float) -> None:
    spec = replace(load_bundle(DEFAULT_BUNDLE).preprocessing, height=side, width=side, crop=crop)
    with Image.open(SAMPLES / "cat.jpg") as photo:
        decoded = decode(golden._large_jpeg(photo, spec), Limits(), spec)
    assert decoded.rgb.width < decoded.width


def test_the_rotated_jpeg_is_decoded_upright() -> None:
    with Image.open(SAMPLES / "cat.jpg") as photo:
        data = golden._rotated_jpeg(photo, load_bundle(DEFAULT_BUNDLE).preprocessing)
        size = photo.size
    with Image.open(BytesIO(data)) as lying:
        assert lying.size == size[::-1]
    decoded = decode(data, Limits())
    assert (decoded.width, decoded.height) == size


def test_the_committed_images_have_labels_that_lead_by_more_than_the_tolerance() -> None:
    images = load_bundle(DEFAULT_BUNDLE).golden
    assert len(images) == len(FILES)
    assert all(image.lead > TOLERANCE for image in images)


def test_the_photo_with_the_largest_lead_is_used_if_none_is_above_the_tolerance(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(golden, "TOLERANCE", 2.0)
    add_golden_images(bundle)
    most = {image.file: image.lead for image in load_bundle(bundle).golden}
    assert all(most[image.file] >= image.lead for image in load_bundle(DEFAULT_BUNDLE).golden)


def test_a_bundle_without_golden_images_is_not_published() -> None:
    with pytest.raises(GateError, match=r"weight_bits=\[8\]"):
        publish._check_golden_images(())


def test_publishing_warns_if_no_golden_image_has_a_clear_label(capsys: pytest.CaptureFixture[str]) -> None:
    publish._check_golden_images([GoldenImage("photo.gif", "cat", 0.5, 0.05)])
    assert "No golden image has a label that clearly leads" in capsys.readouterr().out
    publish._check_golden_images([GoldenImage("photo.gif", "cat", 0.6, 0.2)])
    assert capsys.readouterr().out == ""
