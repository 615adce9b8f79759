"""The bundles in the container image, as lambda/build/add_models.py puts them there."""

from pathlib import Path

import pytest
from support import CIFAR_BUNDLE, DEFAULT_BUNDLE, ROOT

from add_models import add_models
from litelens.core.registry import find_bundles

MODELS = ROOT / "models"


def test_the_image_contains_exactly_the_named_models_and_the_first_one_is_the_default(tmp_path: Path) -> None:
    add_models(MODELS, tmp_path, "litert", f"{CIFAR_BUNDLE.name},{DEFAULT_BUNDLE.name}")
    assert {path.name for path in (tmp_path / "models").iterdir()} == {CIFAR_BUNDLE.name, DEFAULT_BUNDLE.name}
    assert list(find_bundles(tmp_path / "model", tmp_path / "models")) == [CIFAR_BUNDLE.name, DEFAULT_BUNDLE.name]
    copied = {path.name for path in (tmp_path / "models" / CIFAR_BUNDLE.name).rglob("*")}
    assert copied == {path.name for path in CIFAR_BUNDLE.rglob("*")}


def test_each_model_is_compiled_ahead_for_openvino(tmp_path: Path) -> None:
    add_models(MODELS, tmp_path, "openvino", f"{DEFAULT_BUNDLE.name},{CIFAR_BUNDLE.name}")
    assert len(list(tmp_path.glob("models/*/*.openvino"))) == 2


def test_the_default_model_still_works_after_the_folder_moves(tmp_path: Path) -> None:
    """The image's folder has another path than that of the build."""
    (tmp_path / "build").mkdir()
    add_models(MODELS, tmp_path / "build", "litert", DEFAULT_BUNDLE.name)
    (tmp_path / "build").rename(tmp_path / "task")
    assert (tmp_path / "task" / "model" / "manifest.json").is_file()


def test_a_model_that_is_named_twice_is_there_once(tmp_path: Path) -> None:
    add_models(MODELS, tmp_path, "litert", f"{DEFAULT_BUNDLE.name},{DEFAULT_BUNDLE.name}")
    assert list(find_bundles(tmp_path / "model", tmp_path / "models")) == [DEFAULT_BUNDLE.name]


@pytest.mark.parametrize("names", ["nothing", "everyday,nothing", "", "everyday,", "../models/everyday", "."])
def test_a_model_that_does_not_exist_fails_the_build(tmp_path: Path, names: str) -> None:
    with pytest.raises(SystemExit, match=DEFAULT_BUNDLE.name):
        add_models(MODELS, tmp_path, "litert", names)


def test_a_broken_bundle_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "models" / "broken").mkdir(parents=True)
    (tmp_path / "models" / "broken" / "manifest.json").write_text("{")
    with pytest.raises(SystemExit, match=r"manifest\.json"):
        add_models(tmp_path / "models", tmp_path / "task", "litert", "broken")


def test_the_dockerfile_gives_the_models_to_the_functions() -> None:
    dockerfile = (ROOT / "lambda" / "Dockerfile").read_text()
    assert 'python3 /tmp/add_models.py /tmp/models . "${ENGINE}" "${MODEL}"' in dockerfile
    variables = "LITELENS_BUNDLE=${LAMBDA_TASK_ROOT}/model LITELENS_MODELS=${LAMBDA_TASK_ROOT}/models"
    assert f"ENV {variables} " in dockerfile.rpartition("\nFROM ")[2]
