"""Resources of a fit: memory does not grow with the number of images, and several devices share the batches."""

import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
from PIL import Image
from support import DATA, ROOT, encoded, require

from litelens_client.learning.photos import read_photos
from training.batches import all_batches
from training.dataset import Split
from training.preset import load_preset

MEASURED = (
    "import re, sys; from training.__main__ import main; main(sys.argv[1:]); "
    "print('kilobytes', re.search(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read())[1])"
)


def python(code: str, *arguments: str, **environment: str) -> str:
    """Run code in another Python process, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'lambda'}"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_photos_are_loaded_one_batch_at_a_time(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    photo = encoded(Image.fromarray(generator.integers(0, 256, (224, 224, 3), dtype=np.uint8)), "JPEG")
    for index in range(400):
        (tmp_path / f"{index}.jpg").write_bytes(photo)
    tracemalloc.start()
    photos, _ = read_photos(tmp_path, load_preset("folder").preprocessing)
    batches = all_batches(Split(photos, np.zeros(400, np.int64)), 2, 16)
    read = sum(len(batches[index][0]["images"]) for index in range(len(batches)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    a_batch = 16 * 224 * 224 * 3
    assert read == 400
    assert peak < 5 * a_batch, "all 400 photos would be 25 batches"


def test_fitting_resnet50_on_photos_takes_less_than_four_gigabytes(tmp_path: Path) -> None:
    """The preset `cats-vs-dogs` with both phases, but without pretrained weights."""
    require((DATA / "dogs-vs-cats").is_dir(), f"the photos of cats and dogs are not at {DATA}")
    for name in ("cat", "dog"):
        (tmp_path / "few" / name).mkdir(parents=True)
        for photo in sorted((DATA / "dogs-vs-cats" / "train" / name).iterdir())[:24]:
            shutil.copy(photo, tmp_path / "few" / name)
    where = [f"--data={tmp_path / 'few'}", f"--run={tmp_path / 'run'}"]
    changes = ["--set=network.weights=none", "--set=recipe.phases.1.epochs=1"]
    printed = python(MEASURED, "fit", "cats-vs-dogs", *where, *changes)
    assert int(printed.split("kilobytes ")[1]) < 4_000_000


def test_two_devices_share_the_batches(tmp_path: Path) -> None:
    """Keras' distribution API on jax, with a CPU that acts as two devices."""
    classes = np.arange(96) % 10
    noise = np.random.default_rng(3).integers(0, 20, (96, 32, 32, 3))
    images = (classes[:, None, None, None] * 23 + noise).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x_train=images, y_train=classes, x_test=images[:20], y_test=classes[:20])
    changes = ["network.architecture=cnn", "network.weights=none", "preprocessing.height=32", "preprocessing.width=32"]
    changes += ["validation_share=0.3", "recipe.batch_size=16"]
    changes += ["recipe.phases.0.epochs=1", "recipe.phases.0.warmup_epochs=0", "recipe.steps_per_execution=1"]
    printed = python(
        "import sys; from training.__main__ import main; main(sys.argv[1:]); "
        "import keras; print(keras.config.backend(), keras.distribution.distribution().device_mesh.shape)",
        *("fit", "cifar10", f"--data={tmp_path / 'data.npz'}", f"--run={tmp_path / 'run'}"),
        *(f"--set={change}" for change in changes),
        KERAS_BACKEND="jax",
        XLA_FLAGS="--xla_force_host_platform_device_count=2",
        NPROC="8",
    )
    assert printed.splitlines()[-1] == "jax (2,)"
    assert (tmp_path / "run" / "network.weights.h5").is_file()
