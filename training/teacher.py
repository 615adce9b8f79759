"""The teacher of a distillation: its answers to each view of the training images, stored on disk."""

import dataclasses
import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from litelens.bundle import MANIFEST, MODEL, load_bundle
from litelens.classifier import Classifier
from litelens.errors import LitelensError
from litelens.images import Limits
from litelens.preprocessing import Preprocessing
from training.assemble import fitted_network
from training.brought import load_brought
from training.dataset import Split, resized
from training.errors import TeacherError, TrainingError
from training.preset import Augmentation, Preset
from training.progress import progress
from training.run import DATA, PRESET, WEIGHTS, Run, reopen_run, write_whole
from training.views import Views, draw_views, show

_AT_ONCE = 64
_KEY = "key"
_MODEL_FILES = (MANIFEST, MODEL, WEIGHTS, PRESET, DATA)

# From the student's pixels, uint8 `(n, h, w, 3)`, to logits, float32 `(n, classes)`, in the order of its labels.
Ask = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Lessons:
    """The teacher's answers to `count` views of each of `images` training images; the folder has one file per view."""

    folder: Path
    images: int
    count: int
    augmentation: Augmentation
    seed: int

    def views(self, epoch: int) -> Views:
        """The view of each image in an epoch, counted from 1; the views repeat after `count` epochs."""
        return draw_views(self.images, self.augmentation, _seed(self.seed, self._number(epoch)))

    def answers(self, epoch: int) -> NDArray[np.float16]:
        """The teacher's logits for those views, float16 `(images, classes)`."""
        answers: NDArray[np.float16] = np.load(_file(self.folder, self._number(epoch)))
        return answers

    def _number(self, epoch: int) -> int:
        return (epoch - 1) % self.count


def take_lessons(preset: Preset, labels: Sequence[str], train: Split, folder: Path) -> Lessons | None:
    """Store the teacher's answers to the training images, unless the folder has them; None if there is no teacher.

    An interruption loses the answers to the current view only. Raises TeacherError if the teacher cannot be loaded or
    does not know all labels.
    """
    teacher, recipe = preset.recipe.teacher, preset.recipe
    if not teacher.source:
        return None
    source = Path(teacher.source).expanduser()
    if not source.exists():
        raise TeacherError(_no_teacher(source))
    lessons = Lessons(folder, len(train), teacher.views, recipe.augmentation, recipe.seed)
    key = _key(preset, labels, train)
    is_known = _is_of(folder, key)
    missing = [number for number in range(teacher.views) if not (is_known and _file(folder, number).exists())]
    if missing:
        ask = load_teacher(source, preset, labels)
        if not is_known:
            _start(folder, key)
        for number in missing:
            _answer(ask, train, lessons, number)
    return lessons


def load_teacher(source: Path, preset: Preset, labels: Sequence[str]) -> Ask:
    """Load the teacher as a function of the student's pixels; raises TeacherError."""
    try:
        if (source / MANIFEST).is_file():
            return _bundle(source, labels)
        if source.is_dir():
            return _run(reopen_run(source), labels)
        if source.suffix == ".keras":
            return _network(load_brought(source, len(labels), preset.preprocessing), preset.preprocessing)
    except (LitelensError, TrainingError) as error:
        raise TeacherError(f"recipe.teacher.source: {error}") from error
    raise TeacherError(_no_teacher(source))


def _no_teacher(source: Path) -> str:
    return f"recipe.teacher.source: there is no bundle, run or .keras file {source}"


def _bundle(folder: Path, labels: Sequence[str]) -> Ask:
    bundle = load_bundle(folder)
    order = _order(bundle.labels, labels)
    classifier = Classifier(bundle, Limits(), threads=os.cpu_count() or 1)

    def ask(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.stack([classifier.logits(image)[order] for image in _resized(pixels, bundle.preprocessing)])

    return ask


def _run(run: Run, labels: Sequence[str]) -> Ask:
    order, ask = _order(run.labels, labels), _network(fitted_network(run), run.preset.preprocessing)
    return lambda pixels: ask(pixels)[:, order]


def _network(network: keras.Model, spec: Preprocessing) -> Ask:
    def ask(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = network.predict_on_batch(spec.normalized(_resized(pixels, spec)))["logits"]
        return np.asarray(logits, np.float32)

    return ask


def _resized(pixels: NDArray[np.uint8], spec: Preprocessing) -> NDArray[np.uint8]:
    """Resize whole images to the teacher's input size, without its crop: the student's images are cropped already."""
    return resized(pixels, dataclasses.replace(spec, crop=1.0))


def _order(known: Sequence[str], labels: Sequence[str]) -> list[int]:
    """The index of each label among the teacher's labels."""
    unknown = sorted(set(labels) - set(known))
    if unknown:
        raise TeacherError(f"the teacher does not know the class '{unknown[0]}'; give one that knows all classes")
    return [known.index(label) for label in labels]


def _answer(ask: Ask, train: Split, lessons: Lessons, number: int) -> None:
    """Store the teacher's answers to one view of all images."""
    views, padding = lessons.views(number + 1), lessons.augmentation.crop_padding
    parts = []
    starts = range(0, len(train), _AT_ONCE)
    title = f"The teacher answers view {number + 1} of {lessons.count}, batches"
    for start in progress(starts, len(starts), title):
        chosen = np.arange(start, min(start + _AT_ONCE, len(train)))
        parts.append(ask(show(train.images.pixels(chosen), views.take(chosen), padding)))
    content = BytesIO()
    np.save(content, np.concatenate(parts).astype(np.float16))
    write_whole(_file(lessons.folder, number), content.getvalue())


def _is_of(folder: Path, key: str) -> bool:
    """Tell whether the stored answers are those of this teacher, to these images and views."""
    path = folder / _KEY
    return path.is_file() and path.read_text() == key


def _start(folder: Path, key: str) -> None:
    """Make the folder for answers with that key, in place of any others."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_whole(folder / _KEY, key.encode())


def _key(preset: Preset, labels: Sequence[str], train: Split) -> str:
    """A digest of all that the answers depend on."""
    recipe = preset.recipe
    whole = hashlib.blake2b(digest_size=16)
    for image in train.images.digests:
        whole.update(image)
    source = Path(recipe.teacher.source).expanduser()
    for path in sorted(source.glob("*")) if source.is_dir() else [source]:
        if path.name in _MODEL_FILES or path == source:
            whole.update(path.read_bytes())
    whole.update(repr((tuple(labels), recipe.augmentation, recipe.seed)).encode())
    return whole.hexdigest()


def _file(folder: Path, number: int) -> Path:
    return folder / f"view-{number + 1}.npy"


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
