"""Find the images that the arguments name: files, folders, S3 objects and prefixes, standard input."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litelens.aws.s3 import S3_SCHEME, parse_s3_uri
from litelens.core.errors import ImageTooLarge
from litelens.core.formats import SUFFIXES
from litelens_client.answers import Failed
from litelens_client.aws import AwsError, aws_errors, create_client
from litelens_client.output import spinner

# The maximum number of suffixes of skipped files in the message.
_NAMED_SUFFIXES = 5

STANDARD_INPUT = "-"

_URL = re.compile(r"(https?)://.+|[a-z][a-z0-9+.-]*://.*", re.IGNORECASE)

# Files and folders, in lower case, that systems add to folders of photos: thumbnails, trash, snapshots and settings.
_SYSTEM_NAMES = frozenset(
    (
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@synoeastream",
        "@tmp",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "icon\r",
        "lost+found",
        "network trash folder",
        "system volume information",
        "temporary items",
        "thumbs.db",
    )
)
_SYSTEM_PREFIXES = (".", "synofile_thumb_", "synophoto_thumb_")

# Those that a person can have given to a folder of photos. The others hold trash, thumbnails and settings.
_PLAUSIBLE_NAMES = frozenset(("lost+found", "temporary items"))

# The folders in such a folder that are searched for an image.
_MAX_SEARCHED = 100


@dataclass(frozen=True)
class ImageFile:
    """A file on this machine, named by its path."""

    name: str

    @property
    def image(self) -> Path:
        return Path(self.name)


@dataclass(frozen=True)
class ImageObject:
    """An object in S3, named by its URI."""

    name: str

    @property
    def image(self) -> str:
        return self.name


@dataclass(frozen=True)
class ImageBytes:
    """The bytes of an image that was read from standard input."""

    name: str
    image: bytes


Source = ImageFile | ImageObject | ImageBytes


@dataclass
class Inputs:
    """The images that were found, with failures between them, and what was left out.

    `skipped` has the suffixes of other files, such as `.txt`. `ignored` has the names of the folders that is_ignored()
    excludes although they may be folders of photos, see ignored_folders(), by the folder or prefix that contains them.
    """

    images: list[Source | Failed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)


def find_images(arguments: Sequence[str]) -> Inputs:
    """Return the images that these arguments name, in their order.

    An argument is a file, a folder, s3://bucket/key, s3://bucket/prefix/ or - for standard input. A folder or prefix
    stands for all images in it, at any depth, sorted, except where is_ignored() is true of a name; links to folders are
    not followed. An argument that does not exist, cannot be listed or has no images becomes a failure. Files are not
    opened.
    """
    inputs = Inputs()
    for argument in arguments:
        if argument == STANDARD_INPUT:
            inputs.images.append(_read_standard_input())
        elif argument.startswith(S3_SCHEME):
            _add_uri(argument, inputs)
        else:
            add_path(argument, inputs)
    return inputs


def is_ignored(name: str) -> bool:
    """Return whether a file or folder of this name is never a photo or a class: it is hidden, or the system's own."""
    return name.lower() in _SYSTEM_NAMES or name.lower().startswith(_SYSTEM_PREFIXES)


def ignored_folders(root: Path) -> list[str]:
    """Return the sorted names of the folders in `root`, at any depth, that is_ignored() excludes with images in them.

    Hidden folders, trash and thumbnails are not named. Images that is_ignored() excludes by their own names do not
    count.
    """
    found: set[str] = set()
    for parent, folders, _ in os.walk(root):
        found.update(_remove_ignored(parent, folders))
    return sorted(found)


def ignored_sentence(folder: str, names: Sequence[str]) -> str:
    """Return a sentence about the folders of these names in `folder`, which are ignored although they have images."""
    return (
        f"Folders with images in {folder} are ignored, because systems have folders of such names: "
        f"{', '.join(names)}. To use the images, rename the folders."
    )


def _remove_ignored(parent: str, folders: list[str]) -> set[str]:
    """Remove the ignored folders from the list of those in `parent`, and return the names of those with images."""
    ignored = [name for name in folders if is_ignored(name)]
    folders[:] = [name for name in folders if not is_ignored(name)]
    return {name for name in ignored if _is_plausible(name) and _contains_image(os.path.join(parent, name))}


def _is_plausible(name: str) -> bool:
    return name.lower() in _PLAUSIBLE_NAMES


def _contains_image(folder: str) -> bool:
    names = (name for _, _, files in itertools.islice(os.walk(folder), _MAX_SEARCHED) for name in files)
    return any(_has_image_suffix(name) and not is_ignored(name) for name in names)


def add_path(path: str, inputs: Inputs) -> None:
    """Add the image at this path, or all images in the folder there."""
    if os.path.isdir(path):
        _add_folder(path, inputs)
        return
    try:
        os.stat(path)
    except OSError as error:
        inputs.images.append(_url_failure(path) or unreadable(path, error))
    else:
        inputs.images.append(ImageFile(path))


def _url_failure(argument: str) -> Failed | None:
    """Return the failure for a URL, which is not fetched; None for a path."""
    found = _URL.fullmatch(argument)
    if not found:
        return None
    advice = "download it first, for example with curl -fLO" if found[1] else "name a file or a folder"
    return Failed(argument, "unreadable", f"{argument} is a URL, and URLs are not fetched; {advice}.")


def names_one_image(argument: str) -> bool:
    """Return whether an argument names a single image rather than a folder or prefix; true for an invalid S3 URI."""
    if argument.startswith(S3_SCHEME):
        try:
            return _is_image_key(parse_s3_uri(argument).key)
        except ValueError:
            return True
    return argument == STANDARD_INPUT or not os.path.isdir(argument)


def notices(skipped: Sequence[str], ignored: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield sentences about the files that were skipped and the folders that were ignored."""
    if skipped:
        yield skipped_sentence(skipped)
    for folder, names in ignored.items():
        yield ignored_sentence(folder, names)


def skipped_sentence(suffixes: Sequence[str]) -> str:
    """Return a sentence about files that were skipped, given the suffix of each."""
    files = "1 other file was" if len(suffixes) == 1 else f"{len(suffixes):,} other files were"
    return f"{files} skipped ({_kinds(suffixes)})."


def _kinds(suffixes: Iterable[str]) -> str:
    """Return the different suffixes, with commas between them; no more than the first few."""
    kinds = sorted({suffix.lower() or "no extension" for suffix in suffixes})
    return ", ".join(kinds[:_NAMED_SUFFIXES] + (["..."] if len(kinds) > _NAMED_SUFFIXES else []))


def read_file(path: Path, max_bytes: int) -> bytes:
    """Return the bytes of a file; raises OSError, and ImageTooLarge before anything is read."""
    size = path.stat().st_size
    if size > max_bytes:
        raise ImageTooLarge(f"The image has {size:,} bytes; at most {max_bytes:,} are accepted.")
    return path.read_bytes()


def unreadable(name: str, error: OSError) -> Failed:
    """Return the failure for a file or folder that cannot be read."""
    return Failed(name, "unreadable", f"{name} cannot be read: {error.strerror or type(error).__name__}.")


def _read_standard_input() -> Source | Failed:
    # Read in the main thread, because Ctrl-C does not end another thread that waits for input.
    try:
        with open(0, "rb", closefd=False) as file:
            return ImageBytes("standard input", file.read())
    except OSError as error:
        return unreadable("standard input", error)


def _add_folder(folder: str, inputs: Inputs) -> None:
    unlistable: list[OSError] = []
    ignored: set[str] = set()
    files = sorted(_walk(folder, unlistable, ignored))
    failures = [unreadable(str(error.filename), error) for error in unlistable]
    _add_found(folder, [ImageFile(path) for path in files], failures, ignored, inputs)


def _add_found(
    folder: str, files: Sequence[Source], failures: Sequence[Failed], ignored: set[str], inputs: Inputs
) -> None:
    """Add the images among the files of a folder or prefix and its failures, or the failure that there are no images.

    `ignored` has the names of the ignored folders that contain images.
    """
    images = [file for file in files if _has_image_suffix(file.name)]
    suffixes = [os.path.splitext(file.name)[1] for file in files if not _has_image_suffix(file.name)]
    if ignored:
        inputs.ignored[folder] = sorted(ignored)
    if images or failures:
        inputs.images += [*images, *failures]
        inputs.skipped += suffixes
    else:
        inputs.images.append(_no_images(folder, suffixes))


def _walk(folder: str, unlistable: list[OSError], ignored: set[str]) -> Iterator[str]:
    """Yield the files in a folder; add errors, and the names of ignored folders that contain images."""
    for parent, folders, files in os.walk(folder, onerror=unlistable.append):
        ignored.update(_remove_ignored(parent, folders))
        for name in files:
            path = os.path.join(parent, name)
            # Reading a pipe would block forever; a broken link is reported when it is read.
            if not is_ignored(name) and (os.path.isfile(path) or os.path.islink(path)):
                yield path


def _has_image_suffix(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _add_uri(uri: str, inputs: Inputs) -> None:
    try:
        location = parse_s3_uri(uri)
    except ValueError:
        inputs.images.append(Failed(uri, "unreadable", f"{uri} names no bucket; write it as s3://bucket/photo.jpg."))
        return
    if _is_image_key(location.key):
        inputs.images.append(ImageObject(uri))
    else:
        _add_prefix(location.bucket, location.key, inputs)


def _is_image_key(key: str) -> bool:
    return bool(key) and not key.endswith("/")


def _add_prefix(bucket: str, prefix: str, inputs: Inputs) -> None:
    uri = f"{S3_SCHEME}{bucket}/{prefix}"
    reasons = {"NoSuchBucket": f"{uri} cannot be listed: the bucket does not exist."}
    try:
        with spinner(f"Listing {uri}"), aws_errors(f"{uri} cannot be listed", "s3:ListBucket", reasons):
            pages = create_client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
            keys = sorted(entry["Key"] for page in pages for entry in page.get("Contents", ()))
    except AwsError as error:
        inputs.images.append(Failed(uri, "unreadable", str(error)))
        return
    files: list[Source] = []
    ignored: set[str] = set()
    for key in filter(_is_image_key, keys):
        *folders, file = key.removeprefix(prefix).split("/")
        folder = next(filter(is_ignored, folders), None)
        if folder is None and not is_ignored(file):
            files.append(ImageObject(f"{S3_SCHEME}{bucket}/{key}"))
        elif folder is not None and _is_plausible(folder) and _has_image_suffix(file) and not is_ignored(file):
            ignored.add(folder)
    _add_found(uri, files, (), ignored, inputs)


def _no_images(name: str, suffixes: Sequence[str]) -> Failed:
    """Return the failure of a folder or prefix without images, given the suffix of each of its files."""
    found = f"{len(suffixes):,} other file{'' if len(suffixes) == 1 else 's'} ({_kinds(suffixes)})"
    reason = f"it has only {found}" if suffixes else "no files were found in it"
    return Failed(
        name, "no_images", f"{name} contains no images: {reason}. Names of images end in {', '.join(SUFFIXES)}."
    )
