"""What the command is given, made into a list of images: files, folders, S3 objects and prefixes, standard input."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from client.results import Failed

# Only in folders and under prefixes: what is named itself is taken whatever it is called.
SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp")

STANDARD_INPUT = "-"
_S3 = "s3://"


@dataclass(frozen=True)
class ImageFile:
    """A file on this machine, by its path as it was given or found."""

    name: str

    def read(self) -> bytes:
        """Its bytes; raises OSError."""
        with open(self.name, "rb") as file:
            return file.read()


@dataclass(frozen=True)
class ImageObject:
    """An object in S3, by its URI."""

    name: str


@dataclass(frozen=True)
class ImageBytes:
    """What came by standard input."""

    name: str
    data: bytes

    def read(self) -> bytes:
        return self.data


Source = ImageFile | ImageObject | ImageBytes


def expand(arguments: Sequence[str]) -> list[Source | Failed]:
    """The images that these arguments name, in their order.

    An argument is a file, a folder, s3://bucket/key, s3://bucket/prefix/ or - for standard input. Folders and prefixes
    give the images in them and in the folders within, sorted, without what is hidden; links to folders are not
    followed. What cannot be listed, or has no images, is among the results as a failure. Files are not opened here.
    """
    return [item for argument in arguments for item in _expand(argument)]


def _expand(argument: str) -> list[Source | Failed]:
    if argument == STANDARD_INPUT:
        return [_standard_input()]
    if argument.startswith(_S3):
        return _in_s3(argument)
    if os.path.isdir(argument):
        return _in_folder(argument)
    return [ImageFile(argument)]


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


def _in_folder(folder: str) -> list[Source | Failed]:
    unlistable: list[OSError] = []
    images: list[Source] = [ImageFile(path) for path in sorted(_walk(folder, unlistable))]
    failures = [unreadable(str(error.filename), error) for error in unlistable]
    return [*images, *failures] or [_no_images(folder)]


def _walk(folder: str, unlistable: list[OSError]) -> Iterator[str]:
    for place, folders, files in os.walk(folder, onerror=unlistable.append):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(place, name)
            # A pipe would keep the reader waiting; a broken link is for the reader to complain about.
            if _is_image(name) and (os.path.isfile(path) or os.path.islink(path)):
                yield path


def _is_image(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(SUFFIXES)


def _in_s3(uri: str) -> list[Source | Failed]:
    bucket, _, key = uri.removeprefix(_S3).partition("/")
    if not bucket:
        return [Failed(uri, "unreadable", f"{uri} names no bucket; it must be like s3://bucket/photo.jpg.")]
    if key and not key.endswith("/"):
        return [ImageObject(uri)]
    return _under_prefix(bucket, key)


def _under_prefix(bucket: str, prefix: str) -> list[Source | Failed]:
    from boto3.session import Session
    from botocore.exceptions import BotoCoreError, ClientError

    uri = f"{_S3}{bucket}/{prefix}"
    try:
        pages = Session().client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
    except (BotoCoreError, ClientError) as error:
        return [Failed(uri, "unreadable", f"{uri} cannot be listed: {_aws_reason(error)}.")]
    images: list[Source | Failed] = [
        ImageObject(f"{_S3}{bucket}/{key}")
        for key in sorted(keys)
        if not _is_hidden(key.removeprefix(prefix)) and _is_image(key)
    ]
    return images or [_no_images(uri)]


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _aws_reason(error: Exception) -> str:
    """AWS's code for what went wrong, such as NoSuchBucket, or boto3's, such as NoCredentialsError."""
    response = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def _no_images(name: str) -> Failed:
    return Failed(name, "no_images", f"There are no images in {name}; they are told by {', '.join(SUFFIXES)}.")
