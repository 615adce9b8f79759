"""What the command is given, made into a list of images: files, folders, S3 objects and prefixes, standard input."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from client.aws import AwsError, client, explained
from client.results import Failed
from litelens.errors import ImageTooLarge

# Only in folders and under prefixes: what is named itself is taken whatever it is called.
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp")

_CONTENT_TYPES = (
    (re.compile(rb"\x89PNG"), "image/png"),
    (re.compile(rb"RIFF.{4}WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"GIF8"), "image/gif"),
    (re.compile(rb"BM"), "image/bmp"),
)

# Of other files, so many suffixes are named.
_TOLD_KINDS = 5

STANDARD_INPUT = "-"
_S3 = "s3://"


@dataclass(frozen=True)
class ImageFile:
    """A file on this machine, by its path as it was given or found."""

    name: str

    @property
    def image(self) -> Path:
        return Path(self.name)


@dataclass(frozen=True)
class ImageObject:
    """An object in S3, by its URI."""

    name: str

    @property
    def image(self) -> str:
        return self.name


@dataclass(frozen=True)
class ImageBytes:
    """What came by standard input."""

    name: str
    image: bytes


Source = ImageFile | ImageObject | ImageBytes


@dataclass
class Inputs:
    """The images that were found, with failures among them, and the suffixes of other files, with their dots."""

    images: list[Source | Failed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def expand(arguments: Sequence[str]) -> Inputs:
    """The images that these arguments name, in their order.

    An argument is a file, a folder, s3://bucket/key, s3://bucket/prefix/ or - for standard input. Folders and prefixes
    give the images in them and in the folders within, sorted, without what is hidden; links to folders are not
    followed. What is not there, cannot be listed, or has no images, is among the images as a failure. Files are not
    opened here.
    """
    inputs = Inputs()
    for argument in arguments:
        _expand(argument, inputs)
    return inputs


def about_skipped(suffixes: Sequence[str]) -> str:
    """A sentence on files that were skipped, by their suffixes with their dots."""
    files = "1 other file was" if len(suffixes) == 1 else f"{len(suffixes):,} other files were"
    kinds = sorted({suffix.lower() or "no extension" for suffix in suffixes})
    more = ["..."] if len(kinds) > _TOLD_KINDS else []
    return f"{files} skipped ({', '.join(kinds[:_TOLD_KINDS] + more)})."


def names_one_image(argument: str) -> bool:
    """Whether an argument is for one image, rather than for those in a folder or under a prefix."""
    if argument.startswith(_S3):
        return _is_image_key(argument.removeprefix(_S3).partition("/")[2])
    return argument == STANDARD_INPUT or not os.path.isdir(argument)


def read_file(path: Path, max_bytes: int) -> bytes:
    """The file's bytes; raises ImageTooLarge before they are read, and OSError."""
    size = path.stat().st_size
    if size > max_bytes:
        raise ImageTooLarge(f"The image has {size:,} bytes; at most {max_bytes:,} are accepted.")
    return path.read_bytes()


def content_type(image: bytes) -> str:
    """The content type that these bytes begin like; of what is no image, whoever classifies it says so."""
    return next((name for beginning, name in _CONTENT_TYPES if beginning.match(image)), "image/jpeg")


def _expand(argument: str, inputs: Inputs) -> None:
    if argument == STANDARD_INPUT:
        inputs.images.append(_standard_input())
    elif argument.startswith(_S3):
        _expand_uri(argument, inputs)
    else:
        expand_path(argument, inputs)


def expand_path(path: str, inputs: Inputs) -> None:
    """Add the image at this path, or those in a folder, to the inputs."""
    if os.path.isdir(path):
        _add_folder(path, inputs)
        return
    try:
        os.stat(path)
    except OSError as error:
        inputs.images.append(unreadable(path, error))
    else:
        inputs.images.append(ImageFile(path))


def _standard_input() -> Source | Failed:
    # Read here, in the main thread: one that waits for it could not be ended.
    try:
        with open(0, "rb", closefd=False) as file:
            return ImageBytes("standard input", file.read())
    except OSError as error:
        return unreadable("standard input", error)


def unreadable(name: str, error: OSError) -> Failed:
    """The failure that is this error."""
    return Failed(name, "unreadable", f"{name} cannot be read: {error.strerror or type(error).__name__}.")


def _add_folder(folder: str, inputs: Inputs) -> None:
    unlistable: list[OSError] = []
    files = sorted(_walk(folder, unlistable))
    images: list[Source | Failed] = [ImageFile(path) for path in files if _has_image_suffix(path)]
    inputs.skipped += [os.path.splitext(path)[1] for path in files if not _has_image_suffix(path)]
    failures = [unreadable(str(error.filename), error) for error in unlistable]
    inputs.images += [*images, *failures] or [_no_images(folder)]


def _walk(folder: str, unlistable: list[OSError]) -> Iterator[str]:
    for place, folders, files in os.walk(folder, onerror=unlistable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(place, name)
            # A pipe would keep the reader waiting; a broken link is for the reader to complain about.
            if not name.startswith(".") and (os.path.isfile(path) or os.path.islink(path)):
                yield path


def _has_image_suffix(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _expand_uri(uri: str, inputs: Inputs) -> None:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not bucket:
        inputs.images.append(
            Failed(uri, "unreadable", f"{uri} names no bucket; it must be like s3://bucket/photo.jpg.")
        )
    elif _is_image_key(key):
        inputs.images.append(ImageObject(uri))
    else:
        _add_prefix(bucket, key, inputs)


def _is_image_key(key: str) -> bool:
    return bool(key) and not key.endswith("/")


def _add_prefix(bucket: str, prefix: str, inputs: Inputs) -> None:
    uri = f"{_S3}{bucket}/{prefix}"
    reasons = {"NoSuchBucket": f"{uri} cannot be listed: there is no such bucket."}
    try:
        with explained(f"{uri} cannot be listed", "s3:ListBucket", reasons):
            pages = client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))
    except AwsError as error:
        inputs.images.append(Failed(uri, "unreadable", str(error)))
        return
    shown = [key for key in keys if _is_image_key(key) and not _is_hidden(key.removeprefix(prefix))]
    inputs.images += [ImageObject(f"{_S3}{bucket}/{key}") for key in shown if _has_image_suffix(key)] or [
        _no_images(uri)
    ]
    inputs.skipped += [os.path.splitext(key)[1] for key in shown if not _has_image_suffix(key)]


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _no_images(name: str) -> Failed:
    return Failed(name, "no_images", f"{name} has no images in it; they are told by {', '.join(SUFFIXES)}.")
