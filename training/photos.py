"""Photos in class folders: found, read by several processes, and those that cannot be read listed."""

import functools
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from litelens.errors import InputError
from litelens.images import Limits, decode
from litelens.preprocessing import Preprocessing
from training.errors import DatasetError
from training.progress import progress

# One's own photos may be larger than what an API takes.
LIMITS = Limits(bytes=200_000_000, pixels=200_000_000, memory=3_000_000_000)

_SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}
_FEW = 500
_AT_ONCE = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Unreadable:
    """A file that was left out, by its path below the folder, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Photos:
    """Image files, each read when it is asked for, so that there may be more of them than fit in memory.

    `digests` are of the pixels that the network takes: equal ones are the same image to it.
    """

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    spec: Preprocessing
    in_parallel: bool

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Photos":
        return Photos(
            tuple(self.paths[i] for i in indices),
            tuple(self.digests[i] for i in indices),
            self.spec,
            self.in_parallel,
        )

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """What the network takes of these photos, uint8 `(n, height, width, 3)`; raises DatasetError."""
        read = _map(functools.partial(_pixels, self.spec), [self.paths[i] for i in indices], self.in_parallel)
        return np.stack(list(read))

    def encoded(self, index: int) -> bytes:
        """The file, as a client would send it."""
        return self.paths[index].read_bytes()

    def name(self, index: int) -> str:
        """The file's name and its folder's, but not where they lie on this disk."""
        return _readable("/".join(self.paths[index].parts[-2:]))


@dataclass(frozen=True)
class ClassFolders:
    """Photos and their class indices, int64, by split: `train`, and `validation` and `test` where there are such."""

    labels: tuple[str, ...]
    splits: dict[str, tuple[Photos, NDArray[np.int64]]]
    unreadable: tuple[Unreadable, ...]


def read_class_folders(root: Path, spec: Preprocessing, labels: tuple[str, ...] = ()) -> ClassFolders:
    """The photos below `root/CLASS`, or `root/train/CLASS` with `validation` and `test` beside `train`.

    The folders' names are the labels, in alphabetical order, unless `labels` gives them; then every folder must be
    one of those. Each file is decoded once as serving would decode it, and left out when that fails. Raises
    DatasetError when there are no two classes, or no photo of one that a folder names.
    """
    folders = _split_folders(root)
    names = {split: _class_names(folder) for split, folder in folders.items()}
    known = labels or names["train"]
    _check_classes(root, folders, names, known, labels_given=bool(labels))
    files = {split: _files(folder, names[split]) for split, folder in folders.items()}
    paths = [path for listed in files.values() for path, _ in listed]
    digests, unreadable = _scan(root, paths, spec)
    splits = {}
    for split, listed in files.items():
        kept = [(path, known.index(name)) for path, name in listed if path in digests]
        photos = Photos(
            tuple(path for path, _ in kept),
            tuple(digests[path] for path, _ in kept),
            spec,
            in_parallel=len(paths) >= _FEW,
        )
        splits[split] = (photos, np.array([index for _, index in kept], np.int64))
    if not labels:
        _require_photos(folders["train"], splits["train"][1], known)
    return ClassFolders(known, splits, unreadable)


def read_photos(root: Path, spec: Preprocessing) -> tuple[Photos, tuple[Unreadable, ...]]:
    """All photos below a folder, whose classes are not known; raises DatasetError when there are none."""
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}")
    paths = _files_below(root)
    digests, unreadable = _scan(root, paths, spec)
    if not digests:
        raise DatasetError(f"{root} holds no photo that can be read")
    return Photos(tuple(digests), tuple(digests.values()), spec, in_parallel=len(paths) >= _FEW), unreadable


def _split_folders(root: Path) -> dict[str, Path]:
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}")
    present = {folder.name.lower(): folder for folder in _folders(root)}
    found = {split: present[name] for split, names in _SPLIT_NAMES.items() for name in names if name in present}
    found = {split: folder for split, folder in found.items() if split != "train" or _folders(folder)}
    if not any(_folders(folder) for folder in found.values()):
        return {"train": root}
    if "train" not in found:
        raise DatasetError(f"{root} has a folder '{min(found)}' with classes in it, but no 'train' beside it")
    strange = sorted(folder.name for folder in present.values() if folder not in found.values())
    if strange:
        raise DatasetError(
            f"{root} has '{strange[0]}' beside '{found['train'].name}', which holds the classes; put a class there, "
            "and anything else elsewhere"
        )
    return found


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(inner.name for inner in _folders(folder))
    for name in names:
        if _readable(name) != name:
            raise DatasetError(f"{folder} has a folder '{_readable(name)}' whose name is not UTF-8; rename it")
    return tuple(names)


def _readable(name: str) -> str:
    """A file's name with what is not UTF-8 in it replaced."""
    return os.fsencode(name).decode(errors="replace")


def _folders(folder: Path) -> list[Path]:
    return [inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith(".")]


def _check_classes(
    root: Path, folders: dict[str, Path], names: dict[str, tuple[str, ...]], known: tuple[str, ...], labels_given: bool
) -> None:
    if not names["train"]:
        raise DatasetError(
            f"{folders['train']} has no class folders; put the photos of each class into a folder of its own, "
            f"such as {root}/cat and {root}/dog"
        )
    if len(known) < 2:
        raise DatasetError(f"{folders['train']} has a single class, '{known[0]}'; a classifier needs two or more")
    for split, listed in names.items():
        strange = sorted(set(listed) - set(known))
        if strange and labels_given:
            raise DatasetError(f"{folders[split]} has the class folder '{strange[0]}', which is none of the labels")
        if strange:
            raise DatasetError(f"{folders[split]} has the class '{strange[0]}', which {folders['train']} lacks")


def _require_photos(folder: Path, classes: NDArray[np.int64], labels: tuple[str, ...]) -> None:
    for index, count in enumerate(np.bincount(classes, minlength=len(labels))):
        if not count:
            raise DatasetError(f"the class folder {folder / labels[index]} holds no photo that can be read")


def _files(folder: Path, names: tuple[str, ...]) -> list[tuple[Path, str]]:
    return [(path, name) for name in names for path in _files_below(folder / name)]


def _files_below(folder: Path) -> list[Path]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def _scan(root: Path, paths: list[Path], spec: Preprocessing) -> tuple[dict[Path, bytes], tuple[Unreadable, ...]]:
    """The digest of each photo that can be read, and the others with the reason."""
    results = _map(functools.partial(_examine, spec), paths, in_parallel=len(paths) >= _FEW)
    digests, unreadable = {}, []
    for path, result in zip(paths, progress(results, len(paths), "Reading photos"), strict=True):
        if isinstance(result, bytes):
            digests[path] = result
        else:
            unreadable.append(Unreadable(_readable(str(path.relative_to(root))), result))
    return digests, tuple(unreadable)


def _examine(spec: Preprocessing, path: Path) -> bytes | str:
    """The digest of the photo's pixels, or why it cannot be read."""
    try:
        return digest(_decode(spec, path))
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def digest(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def _pixels(spec: Preprocessing, path: Path) -> NDArray[np.uint8]:
    try:
        return _decode(spec, path)
    except (InputError, OSError) as error:
        raise DatasetError(f"{path} could be read before, but no more ({error}); begin anew") from error


def _decode(spec: Preprocessing, path: Path) -> NDArray[np.uint8]:
    return decode(path.read_bytes(), LIMITS, spec).pixels(spec)


def _map(function: Callable[[Path], Result], paths: list[Path], in_parallel: bool) -> Iterator[Result]:
    if not in_parallel:
        yield from map(function, paths)
        return
    shares = max(1, min(_AT_ONCE, len(paths) // (os.cpu_count() or 1)))
    try:
        yield from _processes().map(function, paths, chunksize=shares)
    except BrokenProcessPool as error:
        raise DatasetError("a process that reads photos was ended by the system, perhaps for want of memory") from error


@functools.cache
def _processes() -> ProcessPoolExecutor:
    """Decoding is not safe in threads, and the frameworks' threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    # On Ctrl-C the main process says what there is to say.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(os.cpu_count(), context, initializer=signal.signal, initargs=ignore)
