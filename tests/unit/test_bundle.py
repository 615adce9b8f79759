import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE

from litelens.bundle import load_bundle
from litelens.classifier import Classifier
from litelens.errors import BundleError
from litelens.images import Limits

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a bundled model that a test may damage."""
    return shutil.copytree(CIFAR_BUNDLE, tmp_path / "bundle")


def change_manifest(bundle: Path, change: Change) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace_model(bundle: Path, content: bytes) -> None:
    """Another model file, with its right checksum."""
    (bundle / "model.tflite").write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    change_manifest(bundle, lambda m: m["files"]["model.tflite"].update(sha256=checksum))


def start(bundle: Path) -> Classifier:
    return Classifier(load_bundle(bundle), Limits(), threads=1)


@pytest.mark.parametrize(("folder", "labels", "groups"), [(DEFAULT_BUNDLE, 1000, 52), (CIFAR_BUNDLE, 100, 20)])
def test_a_bundled_model_starts(folder: Path, labels: int, groups: int) -> None:
    classifier = start(folder)
    assert len(classifier.bundle.labels) == labels
    assert len(set(classifier.bundle.groups.values())) == groups
    assert classifier.warm_up() > 0


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read: No such file"):
        start(bundle)


@pytest.mark.parametrize("content", ["{", '{"threshold": NaN}', "[" * 100_000])
def test_a_manifest_that_is_not_json_is_named(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is not valid JSON"):
        start(bundle)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_no_manifest_is_named(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is not a litelens manifest"):
        start(bundle)


def test_a_changed_model_is_named(bundle: Path) -> None:
    model = bundle / "model.tflite"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match=r"model.tflite has the sha256 [0-9a-f]{64}, but the manifest says"):
        start(bundle)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.pop("labels"), "it lacks 'labels'"),
        (lambda m: m.update(labels=[]), "labels must be a list of names"),
        (lambda m: m.update(labels=[*m["labels"][:-1], 7]), "labels must be a list of names"),
        (lambda m: m.update(labels=[*m["labels"][:-1], m["labels"][0]]), "labels must be distinct"),
        (lambda m: m.update(threshold=1.5), "threshold must be between 0 and 1"),
        (lambda m: m.update(threshold="high"), "threshold must be between 0 and 1"),
        (lambda m: m["preprocessing"].pop("mean"), "it lacks 'mean'"),
        (lambda m: m["preprocessing"].update(std=[0.5, 0.0, 0.5]), "std must be three numbers"),
        (lambda m: m["preprocessing"].update(mean=[0.5]), "mean must be three numbers"),
        (lambda m: m["preprocessing"].update(crop=0), "crop must be above 0"),
        (lambda m: m["preprocessing"].update(height=0), "height and width"),
        (lambda m: m["preprocessing"].update(height="32"), "height and width must be whole numbers"),
        (lambda m: m["preprocessing"].update(interpolation="magic"), "interpolation must be one of"),
        (lambda m: m["preprocessing"].update(blur=3), "blur"),
        (lambda m: m["preprocessing"].update(width=32.0), "height and width"),
        (lambda m: m["preprocessing"].update(height=10**400), "height and width"),
        (lambda m: m["preprocessing"].update(mean=[0.5, None, 0.5]), "mean must be three numbers"),
        (lambda m: m.update(labels="x" * 100), "labels must be a list of names"),
        (lambda m: m.update(name=None), "name must be a name"),
        (lambda m: m.update(version=""), "version must be a name"),
        (lambda m: m.pop("temperature"), "it lacks 'temperature'"),
        (lambda m: m.update(temperature=0), "temperature must be between 0.01 and 100"),
        (lambda m: m.update(temperature="warm"), "temperature must be between 0.01 and 100"),
        (lambda m: m.update(threshold=True), "threshold must be between 0 and 1"),
        (lambda m: m["files"].clear(), "it lacks 'model.tflite'"),
        (lambda m: m["quantization"].pop("weight_bits"), "it lacks 'weight_bits'"),
        (lambda m: m["quantization"].update(weight_bits=4), "weight_bits must be 7 or 8, not 4"),
        (lambda m: m.pop("tensors"), "it has no tensors, as an earlier litelens wrote it; make it again"),
        (lambda m: m["tensors"].pop("logits"), "it lacks 'logits'"),
        (lambda m: m["tensors"].update(extra=m["tensors"]["logits"]), "there is no use for the tensor extra"),
        (lambda m: m["tensors"]["logits"].update(shape=["many"]), "the shape of the tensor logits must be whole numb"),
        (lambda m: m["tensors"]["logits"].update(scale=0), "the scale of the tensor logits must be a number above 0"),
        (lambda m: m["tensors"]["logits"].update(scale="1"), "the scale of the tensor logits must be a number above 0"),
        (lambda m: m["tensors"]["image"].update(zero_point=0.5), "the zero_point of the tensor image must be a whole"),
        (lambda m: m["tensors"]["image"].update(zero_point=128), "the zero_point of the tensor image must be a whole"),
        (lambda m: m["tensors"]["image"].pop("scale"), "scale"),
        (lambda m: m["tensors"]["class_activation_map"].update(shape=[1, 2, 2, 7]), "but there are 100 labels"),
        (lambda m: m.update(groups=["vehicles"]), "groups must be the name of a group for each label"),
        (lambda m: m["groups"].update(rocket=""), "groups must be the name of a group for each label"),
        (lambda m: m["groups"].update(rocket=7), "groups must be the name of a group for each label"),
        (lambda m: m["groups"].pop("rocket"), "groups must have a group for every label, and for nothing else"),
        (lambda m: m["groups"].update(unicorn="beasts"), "groups must have a group for every label, and for nothing"),
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_named(bundle: Path, change: Change, complaint: str) -> None:
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=f"manifest.json is not a litelens manifest: .*{complaint}"):
        start(bundle)


@pytest.mark.parametrize(
    "change", [lambda m: m.pop("groups"), lambda m: m.update(groups={}), lambda m: m.update(groups=None)]
)
def test_a_bundle_needs_no_groups(bundle: Path, change: Change) -> None:
    change_manifest(bundle, change)
    assert load_bundle(bundle).groups == {}


def test_the_bundled_models_groups_are_read() -> None:
    groups = load_bundle(CIFAR_BUNDLE).groups
    assert len(groups) == 100
    assert groups["rocket"] == "vehicles 2"


def test_more_labels_than_outputs_stop_the_start(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["labels"].append("unheard_of") or m.pop("groups"))
    with pytest.raises(BundleError, match=r"the tensor logits has the shape \(1, 100\), but there are 101 labels"):
        start(bundle)


def test_another_input_size_stops_the_start(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["preprocessing"].update(height=224))
    with pytest.raises(BundleError, match=r"the tensor image has the shape \(1, 32, 32, 3\), but preprocessing makes"):
        start(bundle)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 4096])
def test_a_file_that_is_no_model_stops_the_start(bundle: Path, content: bytes) -> None:
    replace_model(bundle, content)
    with pytest.raises(BundleError, match=r"model.tflite is not a model that litert can run here"):
        start(bundle)
