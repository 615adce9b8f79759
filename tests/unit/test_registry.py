"""The models of a deployment, in folders that change while it runs."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import add_bundle, change_manifest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE

from litelens.core.bundle import MANIFEST, MODEL, Bundle
from litelens.core.errors import BundleError, ModelNotFound, ModelUnusable
from litelens.core.images import Limits
from litelens.core.registry import MAX_LOADED, ModelRegistry, find_bundles, model_name


def registry_of(models: Path, default: Path = DEFAULT_BUNDLE) -> ModelRegistry:
    return ModelRegistry(default, models, Limits(), threads=1)


def error_of(call: Callable[[], object], kind: type[Exception]) -> str:
    with pytest.raises(kind) as raised:
        call()
    return str(raised.value)


def test_a_model_has_the_name_of_its_folder(tmp_path: Path) -> None:
    add_bundle(tmp_path, "pets")
    assert registry_of(tmp_path).get("pets").bundle.name == "pets"


@pytest.mark.parametrize("name", [None, "everyday"])
def test_the_default_model_needs_no_name(tmp_path: Path, name: str | None) -> None:
    registry = registry_of(tmp_path)
    assert registry.default_name == "everyday"
    assert registry.get(name) is registry.default
    assert registry.default.warm_up_ms > 0


def test_without_a_folder_of_models_there_is_only_the_default_one() -> None:
    registry = ModelRegistry(DEFAULT_BUNDLE, None, Limits(), threads=1)
    assert list(registry.bundles()) == ["everyday"]


def test_a_model_stays_loaded(tmp_path: Path) -> None:
    add_bundle(tmp_path, "pets")
    registry = registry_of(tmp_path)
    assert registry.get("pets") is registry.get("pets")


def test_a_bundle_that_appears_later_is_a_model_at_once(tmp_path: Path) -> None:
    registry = registry_of(tmp_path / "models")
    assert list(registry.bundles()) == ["everyday"]
    add_bundle(tmp_path / "models", "pets")
    assert list(registry.bundles()) == ["everyday", "pets"]
    assert len(registry.get("pets").bundle.labels) == 100


def test_a_bundle_that_disappears_is_no_model_any_more(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    registry = registry_of(tmp_path)
    registry.get("pets")
    shutil.rmtree(bundle)
    assert list(registry.bundles()) == ["everyday"]
    error_of(lambda: registry.get("pets"), ModelNotFound)


def test_a_model_whose_manifest_has_changed_is_loaded_again(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    registry = registry_of(tmp_path)
    before = registry.get("pets")
    change_manifest(bundle, version="9.9.9")
    assert registry.get("pets") is not before
    assert registry.get("pets").bundle.version == "9.9.9"


def test_a_bundle_that_is_unpacked_again_with_its_old_time_is_loaded_again(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    change_manifest(bundle, version="1.0.0")
    registry = registry_of(tmp_path)
    assert registry.get("pets").bundle.version == "1.0.0"
    manifest = bundle / "manifest.json"
    made = manifest.stat()
    manifest.write_bytes(manifest.read_bytes().replace(b"1.0.0", b"2.0.0"))
    os.utime(manifest, ns=(made.st_atime_ns, made.st_mtime_ns))
    assert registry.get("pets").bundle.version == "2.0.0"


def test_the_default_model_is_loaded_again_too(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    registry = registry_of(tmp_path, bundle)
    change_manifest(bundle, version="9.9.9")
    assert registry.get().bundle.version == registry.default.bundle.version == "9.9.9"


def test_the_number_of_loaded_models_is_limited_and_the_least_recently_used_is_dropped(tmp_path: Path) -> None:
    names = [f"pets-{number}" for number in range(MAX_LOADED)]
    for name in names:
        add_bundle(tmp_path, name)
    registry = registry_of(tmp_path)
    default, first, second = registry.default, registry.get(names[0]), registry.get(names[1])
    for name in names[2:-1]:
        registry.get(name)
    assert registry.get(names[0]) is first
    registry.get(names[-1])
    assert registry.get(names[0]) is first
    assert registry.get() is default
    assert registry.get(names[1]) is not second
    assert registry.get() is default


def test_a_broken_bundle_affects_only_its_own_model(tmp_path: Path) -> None:
    broken = add_bundle(tmp_path, "broken")
    (broken / MANIFEST).write_text("{")
    add_bundle(tmp_path, "pets")
    registry = registry_of(tmp_path)
    assert str(tmp_path) not in error_of(lambda: registry.get("broken"), ModelUnusable)
    assert len(registry.get("pets").bundle.labels) == 100
    found = registry.bundles()
    assert list(found) == ["everyday", "broken", "pets"]
    assert isinstance(found["broken"], BundleError)
    assert isinstance(found["pets"], Bundle)


def test_a_bundle_whose_model_is_damaged_is_listed_with_its_error(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    (bundle / MODEL).unlink()
    (bundle / MODEL).write_bytes(b"damaged")
    assert MODEL in str(registry_of(tmp_path).bundles()["pets"])


def test_a_broken_bundle_works_as_soon_as_it_is_repaired(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    (bundle / MODEL).unlink()
    registry = registry_of(tmp_path)
    error_of(lambda: registry.get("pets"), ModelUnusable)
    (bundle / MODEL).symlink_to(CIFAR_BUNDLE / MODEL)
    assert registry.get("pets").bundle.name == "pets"


def test_a_default_model_whose_bundle_breaks_later_still_answers(tmp_path: Path) -> None:
    default = add_bundle(tmp_path, "first")
    add_bundle(tmp_path, "second")
    registry = registry_of(tmp_path, default)
    loaded = registry.get()
    (default / MANIFEST).unlink()
    assert registry.get() is loaded
    assert registry.get("second").bundle.name == "second"


def test_a_list_keeps_no_arrays_and_forgets_bundles_that_are_gone(tmp_path: Path) -> None:
    for name in ("first", "second"):
        add_bundle(tmp_path, name)
    registry = registry_of(tmp_path)
    assert all(isinstance(found, Bundle) and found.head is None for found in registry.bundles().values())
    shutil.rmtree(tmp_path / "second")
    assert list(registry.bundles()) == list(registry._listed) == ["everyday", "first"]


def test_an_empty_name_stands_for_the_default_model(tmp_path: Path) -> None:
    registry = registry_of(tmp_path)
    assert registry.get("") is registry.get()


def test_a_default_bundle_that_is_broken_from_the_start_is_refused(tmp_path: Path) -> None:
    error_of(lambda: registry_of(tmp_path, tmp_path / "nothing"), BundleError)


@pytest.mark.parametrize(
    "name",
    [
        "../everyday",
        "models/../pets",
        "./pets",
        "/pets",
        "pets/",
        "pets/.",
        "PETS",
        "pets\0",
        "..",
        ".",
        "~",
        "pets\n",
    ],
)
def test_a_name_is_never_a_path(tmp_path: Path, name: str) -> None:
    models = tmp_path / "models"
    add_bundle(models, "pets")
    add_bundle(tmp_path, "everyday")
    message = error_of(lambda: registry_of(models).get(name), ModelNotFound)
    assert "everyday, pets" in message


def test_an_absolute_path_is_not_a_name(tmp_path: Path) -> None:
    bundle = add_bundle(tmp_path, "pets")
    error_of(lambda: registry_of(tmp_path).get(str(bundle)), ModelNotFound)


def test_a_long_name_is_not_repeated_in_full(tmp_path: Path) -> None:
    assert len(error_of(lambda: registry_of(tmp_path).get("x" * 5000), ModelNotFound)) < 200


def test_only_visible_folders_with_a_manifest_are_models(tmp_path: Path) -> None:
    for name in ("pets", ".publish-1", "two\nlines"):
        add_bundle(tmp_path, name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").touch()
    assert list(find_bundles(DEFAULT_BUNDLE, tmp_path)) == ["everyday", "pets"]


def test_the_default_bundle_hides_another_one_of_the_same_name(tmp_path: Path) -> None:
    add_bundle(tmp_path, "everyday")
    assert find_bundles(DEFAULT_BUNDLE, tmp_path) == {"everyday": DEFAULT_BUNDLE}


def test_a_link_to_a_model_is_that_model(tmp_path: Path) -> None:
    """The image has such a link, lambda/build/add_models.py makes it."""
    add_bundle(tmp_path / "models", "pets")
    (tmp_path / "model").symlink_to("models/pets")
    assert find_bundles(tmp_path / "model", tmp_path / "models") == {"pets": tmp_path / "model"}


def test_a_model_whose_folder_is_a_link_has_the_name_of_the_link(tmp_path: Path) -> None:
    add_bundle(tmp_path, "bundle-7")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "pets").symlink_to(tmp_path / "bundle-7")
    assert model_name(tmp_path / "models" / "pets", tmp_path / "models") == "pets"


def test_a_path_that_ends_in_a_dot_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(add_bundle(tmp_path, "pets"))
    assert model_name(Path("."), None) == "pets"
