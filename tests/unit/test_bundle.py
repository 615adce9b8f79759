import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE

from litelens.core.bundle import Tensor, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import BundleError
from litelens.core.images import Limits

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of a published bundle that a test may damage."""
    return shutil.copytree(CIFAR_BUNDLE, tmp_path / "bundle")


def change_manifest(bundle: Path, change: Change) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def replace_model(bundle: Path, content: bytes) -> None:
    """Replace the model file, and its checksum in the manifest."""
    (bundle / "model.tflite").write_bytes(content)
    checksum = hashlib.sha256(content).hexdigest()
    change_manifest(bundle, lambda m: m["files"]["model.tflite"].update(sha256=checksum))


def start(bundle: Path) -> Classifier:
    return Classifier(load_bundle(bundle), Limits(), threads=1)


@pytest.mark.parametrize(("folder", "labels", "groups"), [(DEFAULT_BUNDLE, 1000, 52), (CIFAR_BUNDLE, 100, 20)])
def test_a_published_bundle_loads_and_runs(folder: Path, labels: int, groups: int) -> None:
    classifier = start(folder)
    assert len(classifier.bundle.labels) == labels
    assert len(set(classifier.bundle.groups.values())) == groups
    assert classifier.warm_up() > 0


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite"])
def test_an_error_names_the_missing_file(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read: No such file"):
        start(bundle)


@pytest.mark.parametrize(
    "content", ["{", '{"threshold": NaN}', '{"threshold": Infinity}', '{"threshold": 1e999}', "[" * 100_000]
)
def test_a_manifest_that_is_not_json_is_refused(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is not valid JSON"):
        start(bundle)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_without_the_fields_of_a_manifest_is_refused(bundle: Path, content: str) -> None:
    (bundle / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json is not a litelens manifest"):
        start(bundle)


def test_a_model_with_another_checksum_is_refused(bundle: Path) -> None:
    model = bundle / "model.tflite"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(BundleError, match=r"model.tflite has the sha256 [0-9a-f]{64}, but the manifest says"):
        start(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("labels"), "the field labels is missing"),
        (lambda m: m.update(labels=[]), "labels must be a list of length >= 1"),
        (lambda m: m.update(labels=[*m["labels"][:-1], 7]), "labels.99 must be text, not 7"),
        (lambda m: m.update(labels=[*m["labels"][:-1], ""]), "labels.99 must be text of length >= 1"),
        (lambda m: m.update(labels=[*m["labels"][:-1], m["labels"][0]]), "labels must be distinct"),
        (lambda m: m.update(labels="x" * 100), "labels must be a list, not 'xxx"),
        (lambda m: m.update(name=None), "name must be text"),
        (lambda m: m.update(version=""), "version must be text of length >= 1"),
        (lambda m: m.pop("temperature"), "the field temperature is missing"),
        (lambda m: m.update(temperature=0), "temperature must be a number >= 0.01, not 0"),
        (lambda m: m.update(temperature=101), "temperature must be a number <= 100.0, not 101"),
        (lambda m: m.update(temperature=10**400), "temperature is out of range"),
        (lambda m: m.update(temperature="warm"), "temperature must be a number, not 'warm'"),
        (lambda m: m.update(threshold=1.5), "threshold must be a number <= 1.0, not 1.5"),
        (lambda m: m.update(threshold="high"), "threshold must be a number, not 'high'"),
        (lambda m: m.update(threshold=True), "threshold must be a number, not True"),
        (lambda m: m["preprocessing"].pop("mean"), "the field preprocessing.mean is missing"),
        (lambda m: m["preprocessing"].update(std=[0.5, 0.0, 0.5]), "preprocessing.std.1 must be a number >= 0.001"),
        (lambda m: m["preprocessing"].update(mean=[0.5]), "preprocessing.mean must be a list of length 3"),
        (lambda m: m["preprocessing"].update(mean=[0.5, None, 0.5]), "preprocessing.mean.1 must be a number"),
        (lambda m: m["preprocessing"].update(mean=[0.5, -101, 0.5]), "preprocessing.mean.1 must be a number >= -100"),
        (lambda m: m["preprocessing"].update(crop=0), "preprocessing.crop must be a number > 0"),
        (lambda m: m["preprocessing"].update(crop=1.1), "preprocessing.crop must be a number <= 1.0"),
        (lambda m: m["preprocessing"].update(height=0), "preprocessing.height must be a whole number >= 1, not 0"),
        (lambda m: m["preprocessing"].update(height="32"), "preprocessing.height must be a whole number, not '32'"),
        (lambda m: m["preprocessing"].update(height=10**400), "preprocessing.height must be a whole number <= 4096"),
        (lambda m: m["preprocessing"].update(width=32.0), "preprocessing.width must be a whole number, not 32.0"),
        (lambda m: m["preprocessing"].update(width=True), "preprocessing.width must be a whole number, not True"),
        (
            lambda m: m["preprocessing"].update(interpolation="magic"),
            "preprocessing.interpolation must be one of bicubic, bilinear, lanczos, nearest, not 'magic'",
        ),
        (lambda m: m["preprocessing"].update(blur=3), "there is no field preprocessing.blur"),
        (lambda m: m.update(preprocessing=[]), r"preprocessing must be a set of fields, not \[\]"),
        (lambda m: m["files"].clear(), "the field files.model.tflite is missing"),
        (lambda m: m["files"]["model.tflite"].update(sha256=7), r"files.model.tflite.sha256 must be text, not 7"),
        (lambda m: m["quantization"].pop("weight_bits"), "the field quantization.weight_bits is missing"),
        (lambda m: m.pop("quantization"), "the field quantization.weight_bits is missing"),
        (lambda m: m["quantization"].update(weight_bits=4), "quantization.weight_bits must be one of 7, 8, 32, not 4"),
        (lambda m: m["quantization"].update(weight_bits=9), "quantization.weight_bits must be one of 7, 8, 32, not 9"),
        (lambda m: m.update(output="odds"), "output must be one of logits, probabilities, not 'odds'"),
        (lambda m: m.update(output="probabilities"), "output must be logits if files has head.npz"),
        (
            lambda m: m.pop("tensors"),
            "the field tensors is missing, because an earlier litelens .*; make the bundle again",
        ),
        (lambda m: m["tensors"].pop("logits"), "the field tensors.logits is missing"),
        (lambda m: m["tensors"].update(extra=m["tensors"]["logits"]), "there is no field tensors.extra"),
        (lambda m: m["tensors"].update(features=None), "tensors.features must be a set of fields"),
        (lambda m: m["tensors"]["logits"].update(shape=["many"]), "tensors.logits.shape.0 must be a whole number"),
        (lambda m: m["tensors"]["logits"].update(shape=[0, 100]), "tensors.logits.shape.0 must be a whole number >= 1"),
        (lambda m: m["tensors"]["logits"].update(scale=0), "tensors.logits.scale must be a number > 0"),
        (lambda m: m["tensors"]["logits"].update(scale="1"), "tensors.logits.scale must be a number, not '1'"),
        (lambda m: m["tensors"]["logits"].update(axis=1), "there is no field tensors.logits.axis"),
        (lambda m: m["tensors"]["image"].update(zero_point=0.5), "tensors.image.zero_point must be a whole number"),
        (
            lambda m: m["tensors"]["image"].update(zero_point=128),
            "tensors.image.zero_point must be a whole number <= 127",
        ),
        (
            lambda m: m["tensors"]["image"].update(zero_point=-1, dtype="uint8"),
            "tensors.image.zero_point must be a whole number >= 0",
        ),
        (
            lambda m: m["tensors"]["image"].update(zero_point=256, dtype="uint8"),
            "tensors.image.zero_point must be a whole number <= 255",
        ),
        (
            lambda m: m["tensors"]["image"].update(dtype="float16"),
            "tensors.image.dtype must be one of float32, int8, uint8, not 'float16'",
        ),
        (lambda m: m["tensors"]["image"].pop("scale"), "tensors.image.scale must be a number > 0"),
        (lambda m: m["tensors"]["features"].update(shape=[1, 2, 100]), "tensors.features must have four sides"),
        (lambda m: m["tensors"].pop("features"), "files must have head.npz if tensors has features, and only then"),
        (lambda m: m.update(groups=["vehicles"]), "groups must be a set of fields or null"),
        (lambda m: m["groups"].update(rocket=""), "each value in groups must be text of length >= 1"),
        (lambda m: m["groups"].update(rocket=7), "each value in groups must be text"),
        (lambda m: m["groups"].pop("rocket"), "groups must have a group for every label, and for nothing else"),
        (lambda m: m["groups"].update(unicorn="beasts"), "groups must have a group for every label, and for nothing"),
    ],
)
def test_an_invalid_manifest_is_refused_with_the_field_and_what_it_must_be(
    bundle: Path, change: Change, message: str
) -> None:
    change_manifest(bundle, change)
    with pytest.raises(BundleError, match=f"manifest.json is not a litelens manifest: {message}"):
        start(bundle)


def test_a_message_shortens_a_long_value(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m.update(threshold="9" * 1_000_000))
    with pytest.raises(BundleError) as raised:
        load_bundle(bundle)
    assert len(str(raised.value)) < 1000


def test_a_manifest_may_have_more_fields(bundle: Path) -> None:
    change_manifest(
        bundle, lambda m: [part.update(note="of another tool") for part in (m, m["files"], m["quantization"])]
    )
    assert load_bundle(bundle).manifest["note"] == "of another tool"


def test_of_a_field_that_is_there_twice_the_last_one_counts(bundle: Path) -> None:
    path = bundle / "manifest.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + ', "threshold": 0.25}')
    loaded = load_bundle(bundle)
    assert loaded.threshold == loaded.manifest["threshold"] == 0.25


def test_whole_numbers_are_accepted_for_numbers(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m.update(temperature=1, threshold=0))
    loaded = load_bundle(bundle)
    assert (loaded.temperature, loaded.threshold) == (1.0, 0.0)


@pytest.mark.parametrize(
    "change", [lambda m: m.pop("groups"), lambda m: m.update(groups={}), lambda m: m.update(groups=None)]
)
def test_groups_are_optional(bundle: Path, change: Change) -> None:
    change_manifest(bundle, change)
    assert load_bundle(bundle).groups == {}


def test_each_label_has_its_group() -> None:
    groups = load_bundle(CIFAR_BUNDLE).groups
    assert len(groups) == 100
    assert groups["rocket"] == "vehicles 2"


def test_more_labels_than_outputs_are_refused(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["labels"].append("unheard_of") or m.pop("groups"))
    with pytest.raises(BundleError, match=r"tensors.logits has the shape \(1, 100\), but there are 101 labels"):
        start(bundle)


def test_an_input_of_another_size_is_refused(bundle: Path) -> None:
    change_manifest(bundle, lambda m: m["preprocessing"].update(height=224))
    with pytest.raises(BundleError, match=r"tensors.image has the shape \(1, 32, 32, 3\), but preprocessing makes"):
        start(bundle)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\0" * 4096])
def test_a_file_that_is_not_a_model_is_refused(bundle: Path, content: bytes) -> None:
    replace_model(bundle, content)
    with pytest.raises(BundleError, match=r"model.tflite is not a model that litert can run here"):
        start(bundle)


FLOAT_IMAGE = {"shape": [1, 32, 32, 3], "dtype": "float32"}
FLOAT_LOGITS = {"shape": [1, 100], "dtype": "float32"}


def make_float(manifest: dict[str, Any]) -> None:
    manifest["tensors"] = {"image": FLOAT_IMAGE, "logits": FLOAT_LOGITS}
    del manifest["files"]["head.npz"], manifest["quantization"]


def test_a_float_model_needs_neither_scales_nor_a_number_of_bits(bundle: Path) -> None:
    change_manifest(bundle, make_float)
    loaded = load_bundle(bundle)
    assert loaded.weight_bits == 32
    assert {tensor.dtype for tensor in loaded.tensors.values()} == {"float32"}
    assert loaded.output == "logits"


def test_a_float_model_may_give_probabilities(bundle: Path) -> None:
    change_manifest(bundle, lambda m: (make_float(m), m.update(output="probabilities")))
    assert load_bundle(bundle).output == "probabilities"


def test_float_tensors_are_written_without_quantization() -> None:
    assert msgspec.to_builtins(Tensor((1, 3), dtype="float32")) == {"shape": (1, 3), "dtype": "float32"}
    assert msgspec.to_builtins(Tensor((1, 3), 0.5, 7)) == {"shape": (1, 3), "scale": 0.5, "zero_point": 7}
