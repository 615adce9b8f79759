"""Photos in class folders: find them, decode them in several processes, and list those that cannot be read."""

import functools
import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from litelens.core.errors import InputError
from litelens.core.images import Limits, decode
from litelens.core.preprocessing import Preprocessing
from litelens_client.inputs import ignored_folders, ignored_sentence, is_ignored, read_file
from litelens_client.learning.duplicates import THUMBNAIL_SIDE, thumbnail
from litelens_client.learning.errors import DatasetError
from litelens_client.learning.progress import progress
from litelens_client.output import print_message

# Photos on your own disk may be larger than images that the API accepts.
LIMITS = Limits(bytes=200_000_000, pixels=200_000_000, memory=3_000_000_000)

_SPLIT_NAMES = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}
_MIN_PARALLEL = 500
_MAX_CHUNK = 8

Result = TypeVar("Result")


@dataclass(frozen=True)
class Unreadable:
    """A file that cannot be read: its path relative to the folder, and the reason."""

    file: str
    reason: str


@dataclass(frozen=True)
class Photos:
    """Image files, each read when it is needed, because all of them may not fit into memory.

    `digests` are of the pixels at the network's input size; equal digests mean equal images. `thumbnails` are those of
    duplicates.thumbnail(), uint8 `(n, side, side, 3)`.
    """

    paths: tuple[Path, ...]
    digests: tuple[bytes, ...]
    thumbnails: NDArray[np.uint8]
    spec: Preprocessing
    in_parallel: bool

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> "Photos":
        return Photos(
            tuple(self.paths[i] for i in indices),
            tuple(self.digests[i] for i in indices),
            self.thumbnails[np.asarray(indices, np.int64)],
            self.spec,
            self.in_parallel,
        )

    def pixels(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the photos at the network's input size, uint8 `(n, height, width, 3)`; raises DatasetError."""
        images = map_photos(
            functools.partial(read_pixels, self.spec), [self.paths[i] for i in indices], in_parallel=self.in_parallel
        )
        return np.stack(list(images))

    def encoded(self, index: int) -> bytes:
        """Return the file, as a client would send it."""
        return self.paths[index].read_bytes()

    def name(self, index: int) -> str:
        """Return the names of the file and its folder, without the path on this disk."""
        return _printable("/".join(self.paths[index].parts[-2:]))


@dataclass(frozen=True)
class ListedFolders:
    """The files in class folders, with their class indices, by split: `train`, and `validation` and `test` if they
    exist. `folder`, in `root` or the same, is the one that contains the classes for training.
    """

    root: Path
    folder: Path
    labels: tuple[str, ...]
    files: dict[str, tuple[tuple[Path, int], ...]]


@dataclass(frozen=True)
class ClassFolders:
    """Photos and their class indices, int64, by split: `train`, and `validation` and `test` if they exist."""

    labels: tuple[str, ...]
    splits: dict[str, tuple[Photos, NDArray[np.int64]]]
    unreadable: tuple[Unreadable, ...]


def read_class_folders(root: Path, spec: Preprocessing, labels: tuple[str, ...] = ()) -> ClassFolders:
    """Find the photos as list_class_folders() does, and decode each file once as serving would decode it.

    Files that cannot be decoded are left out. Raises DatasetError as list_class_folders() does, or if a class folder
    has no readable photo.
    """
    listed = list_class_folders(root, labels)
    paths = [path for files in listed.files.values() for path, _ in files]
    found, unreadable = _scan(root, paths, spec)
    in_parallel = len(paths) >= _MIN_PARALLEL
    splits = {}
    for split, files in listed.files.items():
        kept = {path: index for path, index in files if path in found}
        photos = _photos({path: found[path] for path in kept}, spec, in_parallel=in_parallel)
        splits[split] = (photos, np.array(list(kept.values()), np.int64))
    if not labels:
        require_photos(listed, splits["train"][1], unreadable)
    return ClassFolders(listed.labels, splits, unreadable)


def list_class_folders(root: Path, labels: tuple[str, ...] = ()) -> ListedFolders:
    """List the files in `root/CLASS`, or in `root/train/CLASS` and the folders `validation` and `test` next to `train`.

    The folders' names are the labels, in alphabetical order, unless `labels` gives them; then every folder must be
    one of those. Folders that are ignored although they contain images are named on standard error. Raises DatasetError
    if there are fewer than two classes.
    """
    _require_folder(root)
    _name_ignored(root)
    folders = _split_folders(root)
    names = {split: _class_names(folder) for split, folder in folders.items()}
    known = labels or names["train"]
    _check_classes(root, folders, names, known, labels_given=bool(labels))
    files = {
        split: tuple((path, known.index(name)) for path, name in _files(folder, names[split]))
        for split, folder in folders.items()
    }
    return ListedFolders(root, folders["train"], known, files)


def require_photos(
    listed: ListedFolders, classes: NDArray[np.int64], unreadable: Sequence[Unreadable], least: int = 1
) -> None:
    """Raise DatasetError if a class has fewer than `least` photos, with the reason why one of its files is unreadable.

    `classes` are the indices of the readable photos.
    """
    for label, count in zip(listed.labels, np.bincount(classes, minlength=len(listed.labels)), strict=True):
        if count >= least:
            continue
        folder = listed.folder / label
        why = _reason(unreadable, f"{printable_path(folder, listed.root)}{os.sep}")
        if not count:
            raise DatasetError(f"the class folder {folder} contains no readable photo{why}")
        raise DatasetError(
            f"the class folder {folder} contains {count} readable photo; {least} or more are needed{why}"
        )


def _reason(unreadable: Sequence[Unreadable], prefix: str = "") -> str:
    """Name the first unreadable file whose path begins with this, with the reason; empty if there is none."""
    found = [file for file in unreadable if file.file.startswith(prefix)]
    if not found:
        return ""
    return f"; {len(found):,} cannot be read, such as {found[0].file}: {found[0].reason}"


def read_photos(root: Path, spec: Preprocessing) -> tuple[Photos, tuple[Unreadable, ...]]:
    """Find all photos in a folder, at any depth, regardless of classes; raises DatasetError if there are none.

    Folders that are ignored although they contain images are named on standard error.
    """
    _require_folder(root)
    _name_ignored(root)
    paths = list_files(root)
    found, unreadable = _scan(root, paths, spec)
    if not found:
        raise DatasetError(f"{root} contains no readable photo{_reason(unreadable)}")
    return _photos(found, spec, in_parallel=len(paths) >= _MIN_PARALLEL), unreadable


def _require_folder(root: Path) -> None:
    if not root.is_dir():
        # A path has no double slash.
        advice = "; photos on the web must be downloaded first" if root.parts[:1] in (("http:",), ("https:",)) else ""
        raise DatasetError(f"there is no folder {root}{advice}")


def _name_ignored(root: Path) -> None:
    if names := ignored_folders(root):
        print_message(ignored_sentence(str(root), names))


def _split_folders(root: Path) -> dict[str, Path]:
    present = {folder.name.lower(): folder for folder in _folders(root)}
    found = {split: present[name] for split, names in _SPLIT_NAMES.items() for name in names if name in present}
    found = {split: folder for split, folder in found.items() if split != "train" or _folders(folder)}
    if not any(_folders(folder) for folder in found.values()):
        return {"train": root}
    if "train" not in found:
        raise DatasetError(f"{root} has a folder '{min(found)}' with classes in it, but no folder 'train'")
    other = sorted(folder.name for folder in present.values() if folder not in found.values())
    if other:
        raise DatasetError(
            f"{root} has '{other[0]}' next to '{found['train'].name}', which contains the classes; move it into "
            f"'{found['train'].name}' if it is a class, and out of {root.name} if it is not"
        )
    return found


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(inner.name for inner in _folders(folder))
    for name in names:
        if _printable(name) != name:
            raise DatasetError(f"{folder} has a folder '{_printable(name)}' whose name is not UTF-8; rename it")
    return tuple(names)


def _printable(name: str) -> str:
    """Replace bytes that are not UTF-8 in a file's name."""
    return os.fsencode(name).decode(errors="replace")


def _folders(folder: Path) -> list[Path]:
    return [inner for inner in folder.iterdir() if inner.is_dir() and not is_ignored(inner.name)]


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
        other = sorted(set(listed) - set(known))
        if other and labels_given:
            raise DatasetError(f"{folders[split]} has the class folder '{other[0]}', which is not one of the labels")
        if other:
            raise DatasetError(f"{folders[split]} has the class '{other[0]}', which {folders['train']} lacks")


def _files(folder: Path, names: tuple[str, ...]) -> list[tuple[Path, str]]:
    return [(path, name) for name in names for path in list_files(folder / name)]


def list_files(folder: Path) -> list[Path]:
    """Return the files in a folder, at any depth, without those that systems add."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [path for path in found if not any(map(is_ignored, path.relative_to(folder).parts))]


@dataclass(frozen=True)
class _Scanned:
    """The digest of a photo's pixels, and its thumbnail."""

    digest: bytes
    thumbnail: NDArray[np.uint8]


def _photos(found: Mapping[Path, _Scanned], spec: Preprocessing, *, in_parallel: bool) -> Photos:
    thumbnails = np.array([each.thumbnail for each in found.values()], np.uint8)
    thumbnails = thumbnails.reshape(len(found), THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    return Photos(tuple(found), tuple(each.digest for each in found.values()), thumbnails, spec, in_parallel)


def _scan(root: Path, paths: list[Path], spec: Preprocessing) -> tuple[dict[Path, _Scanned], tuple[Unreadable, ...]]:
    """Scan each readable photo, and list the other files with the reason."""
    results = map_photos(functools.partial(_examine, spec), paths, in_parallel=len(paths) >= _MIN_PARALLEL)
    found, unreadable = {}, []
    for path, result in zip(paths, progress(results, len(paths), "Reading photos"), strict=True):
        if isinstance(result, str):
            unreadable.append(Unreadable(printable_path(path, root), result))
        else:
            found[path] = result
    return found, tuple(unreadable)


def _examine(spec: Preprocessing, path: Path) -> _Scanned | str:
    """Return the digest and the thumbnail of the photo, or the reason why it cannot be read."""
    pixels = try_decode(spec, path)
    return pixels if isinstance(pixels, str) else _Scanned(digest(pixels), thumbnail(pixels))


def try_decode(spec: Preprocessing, path: Path) -> NDArray[np.uint8] | str:
    """Return the photo's pixels at the network's input size, or the reason why it cannot be read, in a sentence."""
    try:
        return _decode(spec, path)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be read: {error.strerror}."


def printable_path(path: Path, root: Path) -> str:
    """Return the path relative to a folder, with bytes that are not UTF-8 replaced."""
    return _printable(str(path.relative_to(root)))


def digest(pixels: NDArray[np.uint8]) -> bytes:
    """Compute a digest of an image's pixels."""
    return hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()


def read_pixels(spec: Preprocessing, path: Path) -> NDArray[np.uint8]:
    """Return the pixels of a photo that was read before, at the network's input size; raises DatasetError."""
    try:
        return _decode(spec, path)
    except (InputError, OSError) as error:
        raise DatasetError(f"{path} can no longer be read ({error}); run the command again") from error


def _decode(spec: Preprocessing, path: Path) -> NDArray[np.uint8]:
    return decode(read_file(path, LIMITS.bytes), LIMITS, spec).pixels(spec)


def map_photos(function: Callable[[Path], Result], paths: Sequence[Path], *, in_parallel: bool) -> Iterator[Result]:
    """Yield the function's result for each path, in the same order.

    With `in_parallel`, there is a process for each core, and the function must be picklable. Raises DatasetError if a
    process is killed.
    """
    if not in_parallel:
        yield from map(function, paths)
        return
    chunk = max(1, min(_MAX_CHUNK, len(paths) // (os.cpu_count() or 1)))
    try:
        yield from _process_pool().map(function, paths, chunksize=chunk)
    except BrokenProcessPool as error:
        _process_pool.cache_clear()
        raise DatasetError("the system ended a process that reads photos, perhaps because memory ran out") from error


def end_processes() -> None:
    """End the processes that read photos in parallel; the next call starts others."""
    if _process_pool.cache_info().currsize:
        _process_pool().shutdown()
        _process_pool.cache_clear()


@functools.cache
def _process_pool() -> ProcessPoolExecutor:
    """Start a process for each core."""
    # Processes, because decoding is not thread-safe. Spawned, because fork is not safe with frameworks' threads.
    context = multiprocessing.get_context("spawn")
    # Only the main process reports Ctrl-C.
    ignore = (signal.SIGINT, signal.SIG_IGN)
    return ProcessPoolExecutor(os.cpu_count(), context, initializer=signal.signal, initargs=ignore)
