"""A bundle's head, and files of arrays that are damaged."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from bundles import add_bundle
from class_folders import BASE, photo
from damage import Arrays, damages, npz, put_file
from hypothesis import given
from hypothesis import strategies as st
from support import encoded

from litelens.core.arrays import load_npz, to_npz
from litelens.core.bundle import FEATURES, LOGITS, load_bundle
from litelens.core.classifier import Classifier, Options
from litelens.core.errors import BundleError
from litelens.core.head import HEAD, Head, load_head
from litelens.core.images import Limits

DAMAGES = damages("weights")

ANY_ARRAY = st.tuples(
    st.sampled_from(["float32", "float64", "int8", "bool", "U3"]), st.lists(st.integers(0, 3), max_size=3)
).map(lambda kind: np.zeros(kind[1], kind[0]))


@pytest.fixture
def head(noise: np.random.Generator) -> Head:
    return Head(noise.normal(size=(3, 5)).astype(np.float32), noise.normal(size=3).astype(np.float32))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a head that a test may damage."""
    return add_bundle(tmp_path, "pets", BASE)


def head_arrays() -> Arrays:
    head = load_bundle(BASE).head
    assert head
    return {"weights": head.weights, "bias": head.bias}


def error_of(bundle: Path) -> str:
    with pytest.raises(BundleError) as raised:
        load_bundle(bundle)
    return str(raised.value)


def test_the_mean_of_an_activation_map_is_the_class_score(head: Head, noise: np.random.Generator) -> None:
    features = noise.normal(size=(4, 6, 5)).astype(np.float32)
    scores = head.logits(features.mean(axis=(0, 1)))
    for index in range(3):
        activations = head.activation_map(features, index)
        assert activations.shape == (4, 6)
        assert activations.mean() == pytest.approx(scores[index], abs=1e-5)


def test_a_head_that_was_saved_is_loaded_exactly(head: Head, tmp_path: Path) -> None:
    path = tmp_path / HEAD
    path.write_bytes(head.to_bytes())
    loaded = load_head(path, classes=3, channels=5)
    assert np.array_equal(loaded.weights, head.weights)
    assert np.array_equal(loaded.bias, head.bias)


def test_the_same_arrays_give_the_same_file(head: Head) -> None:
    assert head.to_bytes() == Head(head.weights.copy(), head.bias.copy()).to_bytes()


def test_the_head_decides_the_answer(bundle: Path) -> None:
    arrays = head_arrays()
    put_file(bundle, HEAD, npz(arrays | {"bias": np.where(np.arange(100) == 42, 1e3, 0).astype(np.float32)}))
    classifier = Classifier(load_bundle(bundle), Limits(), threads=1)
    (best,) = classifier.classify(encoded(photo("cat", 1), "PNG"), Options(top_k=1)).candidates
    assert best.index == 42


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_head_is_refused_by_name(damage: str, bundle: Path) -> None:
    path = put_file(bundle, HEAD, DAMAGES[damage](head_arrays()))
    assert str(path) in error_of(bundle)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["weights", "bias"])
def test_a_head_with_numbers_that_are_not_finite_is_refused(name: str, value: float, bundle: Path) -> None:
    arrays = head_arrays()
    arrays[name].flat[-1] = value
    path = put_file(bundle, HEAD, npz(arrays))
    assert str(path) in error_of(bundle)


def test_a_head_of_other_classes_is_refused(bundle: Path) -> None:
    arrays = {name: array[:-1] for name, array in head_arrays().items()}
    assert HEAD in error_of(put_file(bundle, HEAD, npz(arrays)).parent)


def test_a_head_with_another_checksum_or_none_at_all_is_refused(bundle: Path) -> None:
    path = put_file(bundle, HEAD, npz(head_arrays()))
    path.write_bytes(npz(head_arrays() | {"bias": np.zeros(100, np.float32)}))
    assert str(path) in error_of(bundle)
    path.unlink()
    assert str(path) in error_of(bundle)


@pytest.mark.parametrize("part", [("files", HEAD), ("tensors", FEATURES)])
def test_a_manifest_with_a_head_but_no_features_or_the_reverse_is_refused(part: tuple[str, str], bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest[part[0]][part[1]]
    path.write_text(json.dumps(manifest))
    message = error_of(bundle)
    assert str(path) in message
    assert HEAD in message


def test_a_model_without_features_needs_no_head(bundle: Path) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"][HEAD], manifest["tensors"][FEATURES]
    path.write_text(json.dumps(manifest))
    loaded = load_bundle(bundle)
    assert loaded.head is None
    assert loaded.familiarity is None
    assert set(loaded.tensors) == {"image", LOGITS}


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_with_the_name_of_the_file(content: bytes) -> None:
    assert_refused_or_right(content)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_changes_nothing(position: int, difference: int) -> None:
    content = bytearray(to_npz(numbers=np.arange(6, dtype=np.float32).reshape(2, 3)))
    content[position % len(content)] ^= difference
    assert_refused_or_right(bytes(content))


@given(ANY_ARRAY)
def test_an_array_of_another_type_or_shape_is_refused(array: np.ndarray) -> None:
    assert_refused_or_right(npz({"numbers": array}))


def assert_refused_or_right(content: bytes) -> None:
    """Load the array `numbers`, float32 with three columns: it is that, or an error names the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "numbers.npz")
        path.write_bytes(content)
        found, message = None, ""
        try:
            found = load_npz(path, numbers=(np.float32, (None, 3)))["numbers"]
        except BundleError as error:
            message = str(error)
        if found is None:
            assert str(path) in message
            return
    assert found.dtype == np.float32
    assert found.ndim == 2
    assert found.shape[1] == 3
    assert np.isfinite(found).all()
