"""Options of a classify request: the number of labels, the threshold, heat maps; and the groups of a bundle."""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.tools import flatbuffer_utils
from PIL import Image
from support import CAT, DEFAULT_BUNDLE, LambdaContext, answer_of, classify_bytes, classify_json, encoded, event

from litelens.api.handler import create_handler
from litelens.core.bundle import FEATURES, MANIFEST, MODEL, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits, decode
from litelens.settings import Settings

Handle = Callable[[dict[str, Any]], dict[str, Any]]

PHOTO = CAT.read_bytes()
PHOTO_JSON = {"image": base64.b64encode(PHOTO).decode()}


def answer_to(handle: Handle, request: dict[str, Any]) -> Any:
    response = handle(request)
    assert response["statusCode"] == 200, response["body"]
    return answer_of(response)


def handle_with(bundle: Path) -> Handle:
    handler = create_handler(Settings(bundle, Limits(), threads=1))
    return lambda event: handler(event, LambdaContext())


def overlay_of(heat_map: dict[str, Any]) -> Image.Image:
    head, _, png = heat_map["png"].partition(",")
    assert head == "data:image/png;base64"
    image = Image.open(BytesIO(base64.b64decode(png, validate=True)))
    image.load()
    return image


@pytest.fixture
def without_maps(tmp_path: Path) -> Handle:
    """A handler whose model has no features."""
    model = flatbuffer_utils.read_model(str(DEFAULT_BUNDLE / MODEL))
    (graph,), (signature,) = model.subgraphs, model.signatureDefs
    signature.outputs = [output for output in signature.outputs if output.name != FEATURES.encode()]
    graph.outputs = [output.tensorIndex for output in signature.outputs]
    flatbuffer_utils.write_model(model, str(tmp_path / MODEL))
    manifest = json.loads((DEFAULT_BUNDLE / MANIFEST).read_text())
    del manifest["tensors"][FEATURES], manifest["files"]["head.npz"]
    manifest["files"][MODEL]["sha256"] = hashlib.sha256((tmp_path / MODEL).read_bytes()).hexdigest()
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    return handle_with(tmp_path)


@pytest.fixture
def without_groups(tmp_path: Path) -> Handle:
    """A handler whose bundle has no groups."""
    manifest = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())
    del manifest["groups"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    for name in ("model.tflite", "head.npz"):
        os.symlink(DEFAULT_BUNDLE / name, tmp_path / name)
    return handle_with(tmp_path)


def test_each_option_in_json_overrides_the_same_option_in_the_query(handle: Handle) -> None:
    query = {"top_k": "7", "threshold": "0", "heatmap": "true"}
    request = event("POST", "/v1/classify", json.dumps(PHOTO_JSON | {"top_k": 2}), "application/json", query)
    answer = answer_to(handle, request)
    assert len(answer["predictions"]) == 2
    assert answer["uncertain"] is False
    assert "heatmap" in answer


def test_an_answer_is_uncertain_below_the_requested_threshold(handle: Handle) -> None:
    best = answer_to(handle, classify_bytes(PHOTO))["predictions"][0]["confidence"]
    for threshold, uncertain in ((0, False), (best - 0.001, False), (best + 0.001, True), (1, True)):
        assert answer_to(handle, classify_json({**PHOTO_JSON, "threshold": threshold}))["uncertain"] is uncertain
        assert answer_to(handle, classify_bytes(PHOTO, threshold=f"{threshold}"))["uncertain"] is uncertain


class TestHeatMaps:
    def test_there_is_no_heat_map_unless_requested(self, handle: Handle) -> None:
        for request in (
            classify_bytes(PHOTO),
            classify_bytes(PHOTO, heatmap="false"),
            classify_bytes(PHOTO, heatmap="false", heatmap_label="goldfish"),
            classify_json({**PHOTO_JSON, "heatmap": False}),
        ):
            assert "heatmap" not in answer_to(handle, request)

    def test_the_heat_map_is_of_the_best_label_by_default(self, handle: Handle) -> None:
        answer = answer_to(handle, classify_bytes(PHOTO, heatmap="true"))
        assert list(answer["heatmap"]) == ["label", "png", "grid", "region"]
        assert answer["heatmap"]["label"] == answer["predictions"][0]["label"]

    @pytest.mark.parametrize("label", ["tabby cat", "goldfish"])
    def test_a_request_may_name_any_label(self, handle: Handle, label: str) -> None:
        named = answer_to(handle, classify_bytes(PHOTO, heatmap_label=label, top_k="1"))["heatmap"]
        assert named["label"] == label
        assert named == answer_to(handle, classify_json({**PHOTO_JSON, "heatmap_label": label}))["heatmap"]
        assert named["grid"] != answer_to(handle, classify_bytes(PHOTO, heatmap="true"))["heatmap"]["grid"]

    @pytest.mark.parametrize("label", ["Egyptian cat", "tabby cat", "goldfish"])
    def test_the_mean_of_the_grid_is_the_labels_logit(self, handle: Handle, label: str) -> None:
        classifier = Classifier(load_bundle(DEFAULT_BUNDLE), Limits(), threads=1)
        spec = classifier.bundle.preprocessing
        pixels = decode(PHOTO, Limits(), spec).pixels(spec)
        index = classifier.bundle.labels.index(label)
        grid = np.array(answer_to(handle, classify_bytes(PHOTO, heatmap_label=label))["heatmap"]["grid"])
        assert grid == pytest.approx(classifier.heat_map(pixels, index), abs=1e-4)
        assert grid.mean() == pytest.approx(classifier.logits(pixels)[index], abs=1e-4)
        assert grid.std() > 0

    @pytest.mark.parametrize(
        ("size", "region"),
        [
            ((600, 400), (122, 22, 356, 356)),
            ((100, 300), (5.5, 105.5, 89, 89)),
            ((260, 260), (14.3, 14.3, 231.4, 231.4)),
            ((1, 1000), (0.055, 499.555, 0.89, 0.89)),
        ],
    )
    def test_the_region_is_the_part_of_the_photo_that_the_model_gets(
        self, handle: Handle, size: tuple[int, int], region: tuple[float, ...]
    ) -> None:
        photo = encoded(Image.radial_gradient("L").resize(size).convert("RGB"), "PNG")
        answer = answer_to(handle, classify_bytes(photo, "image/png", heatmap="true"))
        assert tuple(answer["heatmap"]["region"].values()) == pytest.approx(region)
        assert list(answer["heatmap"]["region"]) == ["left", "top", "width", "height"]
        assert (answer["image"]["width"], answer["image"]["height"]) == size

    def test_the_region_refers_to_the_upright_photo(self, handle: Handle) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        lying = encoded(Image.radial_gradient("L").resize((300, 100)), "JPEG", exif=exif)
        answer = answer_to(handle, classify_bytes(lying, heatmap="true"))
        assert (answer["image"]["width"], answer["image"]["height"]) == (100, 300)
        region = pytest.approx({"left": 5.5, "top": 105.5, "width": 89, "height": 89})
        assert answer["heatmap"]["region"] == region

    def test_the_overlay_is_most_opaque_where_the_grid_is_highest(self, handle: Handle) -> None:
        heat_map = answer_to(handle, classify_bytes(PHOTO, heatmap="true"))["heatmap"]
        image = overlay_of(heat_map)
        grid = np.array(heat_map["grid"])
        assert (image.format, image.mode, image.size) == ("PNG", "RGBA", (256, 256))
        alpha = np.asarray(image.getchannel("A"), dtype=float)
        cells = np.asarray(image.getchannel("A").resize(grid.shape[::-1], Image.Resampling.BOX))
        assert np.argmax(cells) == np.argmax(grid)
        # Several cells can round to the same lowest opacity.
        assert cells.flat[np.argmin(grid)] == cells.min()
        assert alpha.max() > 200
        assert alpha.min() < 30

    @pytest.mark.parametrize("options", [{"heatmap": True}, {"heatmap_label": "goldfish"}])
    def test_a_model_without_heat_maps_refuses_a_request_for_one(
        self, without_maps: Handle, options: dict[str, Any]
    ) -> None:
        response = without_maps(classify_json({**PHOTO_JSON, **options}))
        assert (response["statusCode"], answer_of(response)["code"]) == (400, "invalid_option")

    def test_a_model_without_heat_maps_classifies(self, without_maps: Handle) -> None:
        assert answer_to(without_maps, classify_bytes(PHOTO))["predictions"][0]["label"] == "Egyptian cat"


class TestGroups:
    def test_the_best_group_has_the_highest_sum_of_confidences(self, handle: Handle) -> None:
        answer = answer_to(handle, classify_bytes(PHOTO, top_k="1000"))
        sums: dict[str, float] = {}
        for prediction in answer["predictions"]:
            sums[prediction["group"]] = sums.get(prediction["group"], 0) + prediction["confidence"]
        assert len(sums) == 52
        assert answer["group"]["label"] == max(sums, key=sums.__getitem__)
        assert answer["group"]["confidence"] == pytest.approx(max(sums.values()), abs=1e-5)
        assert answer["group"]["confidence"] > answer["predictions"][0]["confidence"]

    def test_each_label_has_its_group(self, handle: Handle) -> None:
        groups = json.loads((DEFAULT_BUNDLE / "manifest.json").read_text())["groups"]
        predictions = answer_to(handle, classify_bytes(PHOTO, top_k="1000"))["predictions"]
        assert {prediction["label"]: prediction["group"] for prediction in predictions} == groups

    def test_a_bundle_without_groups_gives_answers_without_groups(self, without_groups: Handle) -> None:
        answer = answer_to(without_groups, classify_bytes(PHOTO))
        assert "group" not in answer
        assert [list(prediction) for prediction in answer["predictions"]] == [["label", "index", "confidence"]] * 5
