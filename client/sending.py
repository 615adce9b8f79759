"""Photos on their way into the upload bucket: under which keys, and only those that are not there already."""

import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.objects import is_object_key
from adapters.uploads import IMAGES
from client.aws import client, explained
from client.inputs import Inputs, content_type, expand_path, read_file, unreadable
from client.results import Failed
from litelens.errors import ImageTooLarge

# Uploading goes on where it stopped, so that it need not outlast a failure of the network.
_ATTEMPTS = 5

# For as many objects, S3 takes about as much for a page of its listing as for asking for each:
# https://aws.amazon.com/s3/pricing/
_OBJECTS_WORTH_A_PAGE = 10


@dataclass(frozen=True)
class Photo:
    """A file, by its path, and the key that it is to have."""

    name: str
    key: str


@dataclass(frozen=True)
class Sent:
    """A photo that is in the bucket, and its revision there; `is_new` unless it was there unchanged."""

    name: str
    key: str
    revision: str
    is_new: bool


@dataclass(frozen=True)
class Plan:
    """What is to be sent, what cannot be, and the suffixes of other files in the folders, with their dots."""

    items: list[Photo | Failed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def photos(self) -> list[Photo]:
        return [item for item in self.items if isinstance(item, Photo)]

    @property
    def failed(self) -> list[Failed]:
        return [item for item in self.items if isinstance(item, Failed)]


@dataclass(frozen=True)
class _Stored:
    size: int
    etag: str
    revision: str


def in_uploads(prefix: str) -> str:
    """The prefix below uploads/, where it does not begin with that itself, and without a slash before it."""
    prefix = prefix.lstrip("/")
    return prefix if f"{prefix}/".startswith(IMAGES) else IMAGES + prefix


def plan(paths: Sequence[str], prefix: str) -> Plan:
    """The photos that these files and folders hold, to be put below `prefix` by their path within the folder.

    Raises ValueError when two would get the same key, or a path is what only classify takes.
    """
    folder = prefix.strip("/")
    to = in_uploads(f"{folder}/" if folder else "")
    made, by_key = Plan(), dict[str, str]()
    for path in paths:
        if path == "-" or path.startswith("s3://"):
            raise ValueError(f"{path} is neither a file nor a folder, and nothing else can be uploaded")
        inputs = Inputs()
        expand_path(path, inputs)
        made.skipped.extend(inputs.skipped)
        for image in inputs.images:
            if isinstance(image, Failed):
                made.items.append(image)
                continue
            key = to + _relative(image.name, path)
            if key not in by_key:
                by_key[key] = image.name
                made.items.append(_photo(image.name, key))
            elif os.path.realpath(by_key[key]) != os.path.realpath(image.name):
                both = f"{by_key[key]} and {image.name}"
                raise ValueError(f"{both} would both be {key}; upload them apart, each with a --prefix of its own")
    return made


def _relative(name: str, path: str) -> str:
    within = os.path.relpath(name, path) if os.path.isdir(path) else os.path.basename(name)
    return within.replace(os.sep, "/")


def _photo(name: str, key: str) -> Photo | Failed:
    if is_object_key(key):
        return Photo(name, key)
    return Failed(name, "invalid_key", f"{name} cannot be a key in S3: it is too long, or no text in UTF-8.")


class Uploader:
    """A bucket that photos of up to `max_bytes` are put into. May be used by as many threads as `parallel`."""

    def __init__(self, bucket: str, max_bytes: int, parallel: int) -> None:
        """Raises AwsError."""
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._parallel = parallel
        with self._explained():
            self._s3 = client("s3", attempts=_ATTEMPTS, connections=parallel)

    def send_all(self, photos: Sequence[Photo], *, may_list: bool = True) -> Iterator[Sent | Failed]:
        """Put into the bucket what is not there unchanged; results come as soon as they are there, in any order.

        What is there is known by its size and its MD5, which is the etag of what was put at once, unless the bucket
        encrypts with keys of its owner. `may_list` allows to list the bucket where that is cheaper than to ask for
        each, but a listing tells no versions. Raises AwsError, and then it can be done again.
        """
        from multiprocessing.pool import ThreadPool

        with self._explained():
            listed = self._list([photo.key for photo in photos]) if may_list else None
            # Its threads do not keep the process from ending.
            with ThreadPool(self._parallel) as pool:
                yield from pool.imap_unordered(lambda photo: self._send(photo, listed), photos)

    def _send(self, photo: Photo, listed: Mapping[str, _Stored] | None) -> Sent | Failed:
        try:
            data = read_file(Path(photo.name), self._max_bytes)
        except OSError as error:
            return unreadable(photo.name, error)
        except ImageTooLarge as error:
            return Failed(photo.name, "image_too_large", str(error))
        stored = self._find(photo.key) if listed is None else listed.get(photo.key)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if stored and (stored.size, stored.etag) == (len(data), digest):
            return Sent(photo.name, photo.key, stored.revision, is_new=False)
        answer = self._s3.put_object(Bucket=self._bucket, Key=photo.key, Body=data, ContentType=content_type(data))
        return Sent(photo.name, photo.key, _revision(answer), is_new=True)

    def _list(self, keys: Sequence[str]) -> dict[str, _Stored] | None:
        """What is stored where these keys are; None where that is too much to list, or may not be listed."""
        from botocore.exceptions import ClientError

        found: dict[str, _Stored] = {}
        # S3's prefixes need not end with a folder.
        prefix = os.path.commonprefix(keys)  # noqa: RUF071
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            for page in itertools.islice(pages, len(keys) // _OBJECTS_WORTH_A_PAGE):
                for entry in page.get("Contents", ()):
                    etag = entry["ETag"].strip('"')
                    found[entry["Key"]] = _Stored(entry["Size"], etag, etag)
                if not page["IsTruncated"]:
                    return found
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
        return None

    def _find(self, key: str) -> _Stored | None:
        from botocore.exceptions import ClientError

        try:
            found = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            # Without the permission to list, S3 denies access to what is missing. What else is wrong, PutObject says.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return None
            raise
        return _Stored(found["ContentLength"], found["ETag"].strip('"'), _revision(found))

    def _explained(self) -> Any:
        reasons = {"NoSuchBucket": f"There is no bucket {self._bucket}."}
        return explained(f"The bucket {self._bucket} cannot be written to", "s3:PutObject", reasons)


def _revision(answer: Mapping[str, Any]) -> str:
    """What a notification of S3 says of the object that this answer is about."""
    return str(answer.get("VersionId") or answer["ETag"].strip('"'))
