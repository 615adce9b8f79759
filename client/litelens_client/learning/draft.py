"""A draft of a model: classes and photos that are being collected, and the bundle that was learned from them.

A draft is a folder with photos/CLASS/ID.SUFFIX and, once something was learned, the bundle draft/.
"""

import contextlib
import io
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec

from litelens.core.bundle import METRICS, Bundle, load_bundle
from litelens.core.classifier import Classifier, Prediction
from litelens.core.errors import BundleError
from litelens.core.formats import JPEG, format_of
from litelens.core.images import Limits, decode
from litelens_client.learning.embeddings import EmbeddingCache
from litelens_client.learning.errors import DatasetError, TrainingError
from litelens_client.learning.files import write_file, write_json
from litelens_client.learning.learn import MIN_PHOTOS, check_name, learn, load_base
from litelens_client.learning.learned_bundle import check_target, write_learned_bundle
from litelens_client.learning.progress import observed

MAX_CLASSES = 100
MAX_PHOTOS = 4000
MAX_PHOTO_BYTES = 25_000_000
MAX_BYTES = 2_000_000_000
_MIN_CLASSES = 2

# How long a request waits for another one that changes the draft. During learning it does not wait.
_WAIT_SECONDS = 2.0

# The file with the photos that the draft was learned from.
_LEARNED = "learned.json"

_ID = re.compile(r"[0-9a-f]{32}")
# 60 characters are at most 240 bytes; the name of a folder can have 255.
_LABEL = re.compile(r"[^\\/:*?\"<>|.\x00-\x1f\x7f][^\\/:*?\"<>|\x00-\x1f\x7f]{0,59}")


class DraftError(DatasetError):
    """The draft does not allow what was asked for; the message says why."""


class DraftBusy(DraftError):
    """The draft is being changed or learned from; try again in a moment."""


class NameTaken(DraftError):
    """The name of the class, or of the model to keep, belongs to another one that is not replaced."""


class NotInDraft(DraftError):
    """The draft has no such class or photo, or nothing was learned yet."""


@dataclass(frozen=True)
class DraftClass:
    """A class of a draft, and the ids of its photos, oldest first."""

    name: str
    photos: tuple[str, ...]


@dataclass(frozen=True)
class DraftProgress:
    """The photos that were read while a draft is learned from, and those to read; others are known from before."""

    done: int
    total: int


class Draft:
    """The draft in a folder. Safe for concurrent use: one change at a time, and none during learning."""

    def __init__(self, folder: Path, base: Path, models: Path) -> None:
        """Use the features of the bundle in the folder `base`, and keep models in the folder `models`."""
        self._folder, self._base, self._models = folder, base, models
        self._lock = threading.Lock()
        self._is_learning = threading.Event()
        self._progress: DraftProgress | None = None
        self._classifier: Classifier | None = None

    def classes(self) -> list[DraftClass]:
        """Return the classes in alphabetical order."""
        folders = sorted(path for path in _children(self._photos) if path.is_dir())
        return [DraftClass(folder.name, tuple(path.stem for path in _files(folder))) for folder in folders]

    def measurements(self) -> dict[str, Any] | None:
        """Return the content of the learned bundle's metrics.json, or None if nothing was learned."""
        try:
            document = (self._bundle / METRICS).read_bytes()
        except FileNotFoundError:
            return None
        return msgspec.json.decode(document, type=dict[str, Any])

    def is_outdated(self) -> bool:
        """Return whether classes or photos have changed since the draft was learned from."""
        try:
            return bool(msgspec.json.decode((self._folder / _LEARNED).read_bytes()) != self._content())
        except (OSError, msgspec.MsgspecError):
            return True

    @property
    def is_learning(self) -> bool:
        """True while learn() or keep() runs."""
        return self._is_learning.is_set()

    @property
    def progress(self) -> DraftProgress | None:
        """The photos that learn() or keep() has read; None if they do not run, or know all photos from before."""
        return self._progress

    def add_class(self, name: str) -> None:
        """Add a class, unless it exists; raises DraftError if a folder cannot have this name."""
        _check_label(name)
        with self._exclusive():
            if len(self.classes()) >= MAX_CLASSES and not (self._photos / name).is_dir():
                raise DraftError(f"A draft has at most {MAX_CLASSES} classes; remove one first.")
            (self._photos / name).mkdir(parents=True, exist_ok=True)

    def rename_class(self, name: str, new_name: str) -> None:
        """Rename a class; raises NotInDraft, NameTaken, or DraftError if a folder cannot have this name."""
        _check_label(new_name)
        with self._exclusive():
            folder = self._class_folder(name)
            # Some systems do not tell upper from lower case in the names of folders.
            others = {each.name.casefold() for each in self.classes() if each.name != name}
            if new_name.casefold() in others:
                raise NameTaken(f"There is already a class {new_name!r}; choose another name.")
            folder.rename(self._photos / new_name)

    def remove_class(self, name: str) -> None:
        """Remove a class and its photos; raises NotInDraft."""
        with self._exclusive():
            shutil.rmtree(self._class_folder(name))

    def add_photo(self, class_name: str, data: bytes) -> str:
        """Add a photo and return its id; raises DraftError or NotInDraft, and ImageError if it cannot be decoded."""
        decode(data, Limits(bytes=MAX_PHOTO_BYTES))
        suffix = (format_of(data) or JPEG).suffixes[0]
        with self._exclusive():
            folder = self._class_folder(class_name)
            if sum(len(each.photos) for each in self.classes()) >= MAX_PHOTOS:
                raise DraftError(f"A draft has at most {MAX_PHOTOS:,} photos; use litelens learn for more.")
            if self._size() + len(data) > MAX_BYTES:
                raise DraftError(f"A draft has at most {MAX_BYTES:,} bytes of photos; use litelens learn for more.")
            identifier = uuid4().hex
            write_file(folder / f"{identifier}{suffix}", data)
            return identifier

    def read_photo(self, class_name: str, identifier: str) -> tuple[bytes, str]:
        """Return a photo's bytes and the suffix of its file, such as .jpg; raises NotInDraft."""
        path = self._photo(class_name, identifier)
        try:
            return path.read_bytes(), path.suffix
        except FileNotFoundError as error:  # it was removed meanwhile
            raise _no_photo() from error

    def move_photo(self, class_name: str, identifier: str, other_class: str) -> None:
        """Move a photo to another class; raises NotInDraft."""
        with self._exclusive():
            path = self._photo(class_name, identifier)
            path.rename(self._class_folder(other_class) / path.name)

    def remove_photo(self, class_name: str, identifier: str) -> None:
        """Remove a photo; raises NotInDraft."""
        with self._exclusive():
            self._photo(class_name, identifier).unlink()

    def learn(self, cache: EmbeddingCache) -> dict[str, Any]:
        """Learn from the photos, so that classify() can be used, and return the content of metrics.json.

        Raises DatasetError if there are too few classes or photos.
        """
        with self._learning():
            self._classifier = None
            document = self._write(self._bundle, cache)
            write_json(self._folder / _LEARNED, self._content())
            return document

    def keep(self, name: str, cache: EmbeddingCache) -> dict[str, Any]:
        """Learn from the photos and write the bundle `models/NAME`; return the content of metrics.json.

        Raises DatasetError as learn() does or if a bundle cannot have this name, and NameTaken if something that was
        not learned from photos has it.
        """
        check_name(name)
        try:
            check_target(self._models / name)
        except TrainingError as error:
            raise NameTaken(f"{name!r} was not learned from photos, so it is not replaced; choose another.") from error
        with self._learning():
            return self._write(self._models / name, cache)

    def discard(self) -> None:
        """Remove all classes, photos and what was learned."""
        with self._exclusive():
            self._classifier = None
            shutil.rmtree(self._folder, ignore_errors=True)

    def classify(self, data: bytes) -> tuple[Bundle, Prediction]:
        """Classify a photo; return the learned bundle and its prediction.

        Raises NotInDraft if nothing was learned yet, and InputError if the photo cannot be decoded.
        """
        # One photo at a time, because a classifier is not safe for concurrent use.
        with self._exclusive():
            if self._classifier is None:
                try:
                    bundle = load_bundle(self._bundle)
                except BundleError as error:
                    raise NotInDraft("Nothing was learned yet.") from error
                self._classifier = Classifier(bundle, Limits(bytes=MAX_PHOTO_BYTES), threads=1)
            return self._classifier.bundle, self._classifier.classify(data)

    def archive(self) -> bytes:
        """Return a .zip file with the learned bundle; raises NotInDraft if nothing was learned yet."""
        with self._exclusive():
            files = sorted(path for path in self._bundle.rglob("*") if path.is_file())
            if not files:
                raise NotInDraft("Nothing was learned yet.")
            file = io.BytesIO()
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                for path in files:
                    archive.write(path, path.relative_to(self._bundle))
            return file.getvalue()

    @property
    def _photos(self) -> Path:
        return self._folder / "photos"

    @property
    def _bundle(self) -> Path:
        # The last part is the name in the learned bundle's manifest.
        return self._folder / "draft"

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=0 if self._is_learning.is_set() else _WAIT_SECONDS):
            raise DraftBusy("The draft is being learned from; try again in a moment.")
        try:
            yield
        finally:
            self._lock.release()

    @contextlib.contextmanager
    def _learning(self) -> Iterator[None]:
        with self._exclusive():
            self._is_learning.set()
            try:
                with observed(self._observe):
                    yield
            finally:
                self._progress = None
                self._is_learning.clear()

    def _observe(self, done: int, total: int) -> None:
        self._progress = DraftProgress(done, total) if total else None

    def _content(self) -> dict[str, list[str]]:
        """Return the ids of the photos of each class."""
        return {each.name: list(each.photos) for each in self.classes()}

    def _size(self) -> int:
        """Return the bytes of all photos."""
        return sum(path.stat().st_size for folder in _children(self._photos) for path in _files(folder))

    def _write(self, target: Path, cache: EmbeddingCache) -> dict[str, Any]:
        if len(self.classes()) < _MIN_CLASSES:
            raise DraftError("A classifier needs two or more classes; add another one.")
        for each in self.classes():
            if len(each.photos) < MIN_PHOTOS:
                raise DraftError(f"The class '{each.name}' has too few photos; each class needs {MIN_PHOTOS} or more.")
        learned = learn(self._photos, load_base(self._base), cache)
        return write_learned_bundle(learned, target, "POST /v1/draft/learn")

    def _class_folder(self, name: str) -> Path:
        """Return the folder of a class; raises NotInDraft. A name that does not exist never becomes a path."""
        if name not in {each.name for each in self.classes()}:
            raise NotInDraft(f"The draft has no class {name!r}.")
        return self._photos / name

    def _photo(self, class_name: str, identifier: str) -> Path:
        folder = self._class_folder(class_name)
        found = [path for path in _files(folder) if path.stem == identifier]
        if not found:
            raise _no_photo()
        return found[0]


def _check_label(name: str) -> None:
    """Raise DraftError if a folder cannot have the name of this class on every system."""
    if not _LABEL.fullmatch(name) or name != name.strip() or not name.isprintable():
        raise DraftError(
            "A class's name has 1 to 60 characters, none of \\ / : * ? \" < > |, and no dot or blank at the start."
        )


def _no_photo() -> NotInDraft:
    return NotInDraft("The draft has no such photo.")


# The draft can be read while it is changed, so a file can be gone after it was listed.


def _files(folder: Path) -> list[Path]:
    """Return the photos in a class's folder, oldest first."""
    ages = {}
    for path in _children(folder):
        with contextlib.suppress(FileNotFoundError):
            ages[path] = path.stat().st_mtime_ns
    return sorted((path for path in ages if _ID.fullmatch(path.stem)), key=lambda path: (ages[path], path.name))


def _children(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
