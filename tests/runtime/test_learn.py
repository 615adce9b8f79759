"""`litelens learn` as people run it, in an empty folder, with real photos of cats and dogs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from servers import ENVIRONMENT
from support import DATA, require

from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits

PETS = DATA / "dogs-vs-cats"
LABELS = ("cat", "dog")
TRAINING, TESTED = 20, 150
# ImageNet's numbers of its things; those of animals are lower.
FIRST_THING = "n027"


def photos_of(split: str, label: str, count: int) -> list[Path]:
    return sorted((PETS / split / label).iterdir())[:count]


def litelens(folder: Path, *arguments: str) -> str:
    """Run the command in this folder and return what it prints."""
    environment = {**ENVIRONMENT, "XDG_CACHE_HOME": str(folder / "cache"), "LITELENS_MODELS": ""}
    command = [sys.executable, "-m", "litelens_client", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a model has been learned from photos that are elsewhere."""
    require(PETS.is_dir(), f"the photos of cats and dogs are not at {DATA}")
    photos = tmp_path_factory.mktemp("pets")
    for split, count in (("train", TRAINING), ("test", TESTED)):
        for label in LABELS:
            (photos / split / label).mkdir(parents=True)
            for path in photos_of(split, label, count):
                (photos / split / label / path.name).symlink_to(path)
    work = tmp_path_factory.mktemp("work")
    (work / "measured.json").write_text(litelens(work, "learn", str(photos), "--name", "pets", "--json"))
    return work


def test_twenty_photos_of_each_class_reach_96_percent(folder: Path) -> None:
    document = json.loads((folder / "measured.json").read_text())
    assert document["distribution"] == {"train": [TRAINING] * 2, "test": [TESTED] * 2}
    assert document["metrics"]["int8_top1"] >= 0.96
    assert document["metrics"]["unfamiliar_share"] <= 0.1


def test_only_the_bundle_and_the_cache_are_written(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"models", "cache", "measured.json"}
    assert [path.name for path in (folder / "models").iterdir()] == ["pets"]


def test_the_model_classifies_by_its_name(folder: Path) -> None:
    photos = [photos_of("test", label, TESTED + 1)[-1] for label in LABELS]
    printed = litelens(folder, "classify", "--model", "pets", *map(str, photos), "--json")
    answers = [json.loads(line) for line in printed.splitlines()]
    assert [answer["predictions"][0]["label"] for answer in answers] == list(LABELS)
    assert [answer["model"]["name"] for answer in answers] == ["pets", "pets"]


def test_photos_of_other_things_are_unfamiliar_and_uncertain(folder: Path) -> None:
    things = [path for path in sorted((DATA / "everyday").glob("*.jpg")) if path.name >= FIRST_THING][:20]
    require(things, f"there are no photos of everyday things at {DATA}")
    classifier = Classifier(load_bundle(folder / "models" / "pets"), Limits(bytes=10**8), threads=1)
    predictions = [classifier.classify(path.read_bytes()) for path in things]
    assert sum(prediction.unfamiliar is True for prediction in predictions) >= 18
    assert all(prediction.uncertain for prediction in predictions if prediction.unfamiliar)
