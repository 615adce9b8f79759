"""Measure `litelens learn` on photos of cats and dogs: seconds, accuracy, and recognition of unfamiliar photos.

The photos are in the folder LITELENS_DATA: dogs-vs-cats/train, dogs-vs-cats/test, and everyday, without its photos of
cats and dogs. Unfamiliar photos are measured twice: as they are, and after all photos, familiar or not, were brought to
the same size and JPEG quality, because these could tell the two kinds apart.
"""

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from benchmarks.photos import ROOT
from benchmarks.report import Options, in_brackets, percent, table
from litelens.core.bundle import load_bundle
from litelens.core.classifier import Classifier
from litelens.core.images import Limits

LABELS = ("cat", "dog")
PHOTOS_PER_CLASS = (20, 40, 200, 2000)

# ImageNet's ids of breeds of dogs and of domestic cats, by which the names of the photos in `everyday` begin.
_PETS = (range(2085620, 2113979), range(2123045, 2124076))

_SIDE, _QUALITY = 200, 75
_LIMITS = Limits(bytes=100_000_000)


def missing() -> str:
    """Return the instruction to set LITELENS_DATA, or nothing if it names a folder with the photos."""
    folder = Path(os.environ.get("LITELENS_DATA") or ".")
    if all((folder / name).is_dir() for name in ("dogs-vs-cats/train", "dogs-vs-cats/test", "everyday")):
        return ""
    return "To measure learning, set LITELENS_DATA to a folder with dogs-vs-cats/train, dogs-vs-cats/test and everyday."


def measure(options: Options) -> dict[str, Any]:
    """Learn from different numbers of photos, chosen anew in each round."""
    assert options.data is not None
    others = [path for path in sorted((options.data / "everyday").glob("n*.*")) if not _shows_pet(path.name)]
    rows = []
    for count in PHOTOS_PER_CLASS:
        # There is only one way to choose all photos.
        rounds = options.rounds if count < max(PHOTOS_PER_CLASS) else 1
        print(f"Learning from {count} photos a class, {rounds} times ...", file=sys.stderr)
        results = [_round(options.data / "dogs-vs-cats", others, count, seed) for seed in range(rounds)]
        rows.append({"photos": 2 * count, **{name: _spread([r[name] for r in results]) for name in results[0]}})
    return {"rounds": options.rounds, "others": len(others), "rows": rows}


def render(results: Mapping[str, Any]) -> str:
    """Render accuracy, seconds and unfamiliar photos as Markdown."""
    learn = results["learn"]
    rows = [
        [
            f"{row['photos']:,}",
            _shares(row["accuracy"]),
            in_brackets(row["seconds"]),
            in_brackets(row["seconds_again"]),
            _shares(row["false_alarms"]),
            _shares(row["false_alarms_alike"]),
            _shares(row["caught"]),
            _shares(row["caught_alike"]),
        ]
        for row in learn["rows"]
    ]
    heads = (
        "Photos",
        "Accuracy",
        "Seconds",
        "Seconds, again",
        "Cats and dogs called unfamiliar",
        "The same, made alike",
        "Other photos called unfamiliar",
        "The same, made alike",
    )
    return "\n\n".join(
        [
            "## litelens learn, cats and dogs",
            "The whole command, from start to end, on photos of which half are cats. Accuracy and the share of cats "
            "and dogs called unfamiliar are those of 1,000 test photos. The other photos are "
            f"{learn['others']} of everyday things and animals. "
            '"Again" is the same command a second time, when all embeddings are in the cache. '
            'Photos are "made alike" by cropping, resizing and encoding all of them in the same way.',
            table(heads, rows),
        ]
    )


def _round(data: Path, others: Sequence[Path], count: int, seed: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label in LABELS:
            photos = sorted((data / "train" / label).iterdir())
            (folder / "photos" / label).mkdir(parents=True)
            for photo in random.Random(seed).sample(photos, count):
                shutil.copy(photo, folder / "photos" / label)
        seconds, again = _learn(folder), _learn(folder)
        return {"seconds": seconds, "seconds_again": again, **_test(folder / "models" / "pets", data / "test", others)}


def _learn(folder: Path) -> float:
    """Run the command with its own cache; return the seconds that it took."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "litelens_client", "learn", "photos", "--name", "pets", "--json"]
    command += ["--base", str(ROOT / "models" / "everyday")]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def _test(bundle: Path, test: Path, others: Sequence[Path]) -> dict[str, float]:
    classifier = Classifier(load_bundle(bundle), _LIMITS, threads=os.cpu_count() or 1)
    photos = [(label, photo) for label in LABELS for photo in sorted((test / label).iterdir())]
    found = [(label, classifier.classify(photo.read_bytes())) for label, photo in photos]
    return {
        "accuracy": statistics.mean(prediction.candidates[0].label == label for label, prediction in found),
        "false_alarms": statistics.mean(bool(prediction.unfamiliar) for _, prediction in found),
        "false_alarms_alike": _unfamiliar_share(classifier, [_alike(photo) for _, photo in photos]),
        "caught": _unfamiliar_share(classifier, [photo.read_bytes() for photo in others]),
        "caught_alike": _unfamiliar_share(classifier, [_alike(photo) for photo in others]),
    }


def _unfamiliar_share(classifier: Classifier, photos: Sequence[bytes]) -> float:
    return statistics.mean(bool(classifier.classify(photo).unfamiliar) for photo in photos)


def _alike(path: Path) -> bytes:
    """Bring a photo to the size and JPEG quality of the photos of cats and dogs."""
    with Image.open(path) as image:
        square = ImageOps.fit(image.convert("RGB"), (_SIDE, _SIDE), Image.Resampling.BICUBIC)
    file = BytesIO()
    square.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _shows_pet(name: str) -> bool:
    found = re.match(r"n(\d{8})_", name)
    return found is not None and any(int(found[1]) in ids for ids in _PETS)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _shares(value: Mapping[str, float]) -> str:
    if value["min"] == value["max"]:
        return percent(value["median"])
    return f"{percent(value['median'])} ({percent(value['min'])} to {percent(value['max'])})"
