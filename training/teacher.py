"""Soft labels for distillation: a teacher's logits for views of the training images, stored in the run's folder."""

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import keras
import msgspec
import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import MANIFEST, MODEL, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.errors import LitelensError
from litelens.core.images import Limits
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.errors import TrainingError
from litelens_client.learning.files import write_file
from litelens_client.learning.progress import progress
from training.augmentation import Views, apply_views, draw_views
from training.dataset import Split, resize_images
from training.errors import TeacherError
from training.keras_import import import_classifier
from training.preset import Augmentation, Preset
from training.run import DATA, PRESET, WEIGHTS, Run, load_fitted_network, reopen_run

_BATCH = 64
_KEY = "key"
_MODEL_FILES = (MANIFEST, MODEL, WEIGHTS, PRESET, DATA)

# A function from the student's pixels, uint8 `(n, h, w, 3)`, to the teacher's logits, float32 `(n, classes)`, in the
# order of the student's labels.
Predict = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class SoftLabels:
    """A teacher's logits for `count` views of each training image, of which there are `images`; one file per view."""

    folder: Path
    images: int
    count: int
    augmentation: Augmentation
    seed: int

    def views(self, epoch: int) -> Views:
        """Return the view of each image in an epoch, counted from 1; the views repeat after `count` epochs."""
        return draw_views(self.images, self.augmentation, _seed(self.seed, self._number(epoch)))

    def logits(self, epoch: int) -> NDArray[np.float16]:
        """Load the teacher's logits for these views, float16 `(images, classes)`."""
        logits: NDArray[np.float16] = np.load(_file(self.folder, self._number(epoch)))
        return logits

    def _number(self, epoch: int) -> int:
        return (epoch - 1) % self.count


def compute_soft_labels(preset: Preset, labels: Sequence[str], train: Split, folder: Path) -> SoftLabels | None:
    """Compute and store the teacher's logits, except those that are already in the folder; return None if there is no
    teacher.

    After an interruption, only the logits for the current view are computed again. Raises TeacherError if the teacher
    cannot be loaded or lacks some of the labels.
    """
    teacher, recipe = preset.recipe.teacher, preset.recipe
    if not teacher.source:
        return None
    source = Path(teacher.source).expanduser()
    if not source.exists():
        raise TeacherError(_no_teacher(source))
    soft_labels = SoftLabels(folder, len(train), teacher.views, recipe.augmentation, recipe.seed)
    key = _key(preset, labels, train)
    is_current = _has_key(folder, key)
    missing = [number for number in range(teacher.views) if not (is_current and _file(folder, number).exists())]
    if missing:
        predict = load_teacher(source, preset, labels)
        if not is_current:
            _clear(folder, key)
        for number in missing:
            _store_logits(predict, train, soft_labels, number)
    return soft_labels


def load_teacher(source: Path, preset: Preset, labels: Sequence[str]) -> Predict:
    """Load the teacher as a function of the student's pixels; raises TeacherError."""
    try:
        if (source / MANIFEST).is_file():
            return _load_bundle(source, labels)
        if source.is_dir():
            return _load_run(reopen_run(source), labels)
        if source.suffix == ".keras":
            network = import_classifier(source, len(labels), preset.preprocessing)
            return _predict_with(network, preset.preprocessing)
    except (LitelensError, TrainingError) as error:
        raise TeacherError(f"recipe.teacher.source: {error}") from error
    raise TeacherError(_no_teacher(source))


def _no_teacher(source: Path) -> str:
    return f"recipe.teacher.source: there is no bundle, run or .keras file {source}"


def _load_bundle(folder: Path, labels: Sequence[str]) -> Predict:
    bundle = load_bundle(folder)
    order = _order(bundle.labels, labels)
    classifier = Classifier(bundle, Limits(), threads=os.cpu_count() or 1)

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([classifier.logits(image)[order] for image in _resize(pixels, bundle.preprocessing)])

    return predict


def _load_run(run: Run, labels: Sequence[str]) -> Predict:
    order = _order(run.labels, labels)
    predict = _predict_with(load_fitted_network(run), run.preset.preprocessing)
    return lambda pixels: predict(pixels)[:, order]


def _predict_with(network: keras.Model, spec: Preprocessing) -> Predict:
    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = network.predict_on_batch(spec.normalize(_resize(pixels, spec)))["logits"]
        return np.asarray(logits, np.float32)

    return predict


def _resize(pixels: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Resize images to the teacher's input size, without cropping: the student's images are already cropped."""
    return resize_images(pixels, msgspec.structs.replace(spec, crop=1.0))


def _order(teacher_labels: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return the index of each label among the teacher's labels."""
    unknown = sorted(set(labels) - set(teacher_labels))
    if unknown:
        raise TeacherError(f"the teacher does not have the class '{unknown[0]}'; choose one that has all classes")
    return [teacher_labels.index(label) for label in labels]


def _store_logits(predict: Predict, train: Split, soft_labels: SoftLabels, number: int) -> None:
    """Store the teacher's logits for one view of all images."""
    views, padding = soft_labels.views(number + 1), soft_labels.augmentation.crop_padding
    parts = []
    starts = range(0, len(train), _BATCH)
    title = f"The teacher classifies view {number + 1} of {soft_labels.count}, batches"
    for start in progress(starts, len(starts), title):
        chosen = np.arange(start, min(start + _BATCH, len(train)))
        parts.append(predict(apply_views(train.images.pixels(chosen), views.take(chosen), padding)))
    content = BytesIO()
    np.save(content, np.concatenate(parts).astype(np.float16))
    write_file(_file(soft_labels.folder, number), content.getvalue())


def _has_key(folder: Path, key: str) -> bool:
    """Return True if the stored logits are those of this teacher, these images and these views."""
    path = folder / _KEY
    return path.is_file() and path.read_text() == key


def _clear(folder: Path, key: str) -> None:
    """Empty the folder, and store the new key in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_file(folder / _KEY, key.encode())


def _key(preset: Preset, labels: Sequence[str], train: Split) -> str:
    """Compute a digest of everything that determines the logits."""
    recipe = preset.recipe
    digest = hashlib.blake2b(digest_size=16)
    for image in train.images.digests:
        digest.update(image)
    source = Path(recipe.teacher.source).expanduser()
    for path in sorted(source.glob("*")) if source.is_dir() else [source]:
        if path.name in _MODEL_FILES or path == source:
            digest.update(path.read_bytes())
    digest.update(repr((tuple(labels), recipe.augmentation, recipe.seed)).encode())
    return digest.hexdigest()


def _file(folder: Path, number: int) -> Path:
    return folder / f"view-{number + 1}.npy"


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
