"""`litelens upload`: upload photos to the stack's bucket, where they are classified, and wait for their results."""

import hashlib
import itertools
import json
import os
import time
from argparse import ArgumentError, Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import msgspec
from botocore.exceptions import ClientError

from litelens.api.response_schemas import BulkResult, Failure
from litelens.aws.s3 import RESULTS_PREFIX, S3_SCHEME, is_object_key
from litelens.core.errors import ImageTooLarge
from litelens.core.formats import media_type_of
from litelens_client.answers import Answer, Classified, Failed, Result
from litelens_client.aws import AwsError, aws_errors, create_client, uploads_prefix
from litelens_client.inputs import STANDARD_INPUT, Inputs, add_path, notices, read_file, unreadable
from litelens_client.output import (
    failure_sentence,
    json_lines,
    print_message,
    printable,
    table,
    track,
    write_output,
)
from litelens_client.results import ResultsReader
from litelens_client.settings import local_settings

# Few, because after a long network failure the same command can be repeated.
_ATTEMPTS = 5

# Listing one page costs about as much as requests for ten objects: https://aws.amazon.com/s3/pricing/
_OBJECTS_PER_PAGE_PRICE = 10

# Concurrent queries of the results table, not more than the connections in litelens.aws.clients.
_PARALLEL_QUERIES = 16

# Seconds between two rounds of queries for the missing results.
_POLL_SECONDS = 2.0

# Waiting stops after this many seconds without a new result. After a failure, the queue delivers a message up to two
# more times, each time after six times BulkTimeout, which is one minute by default.
_MAX_WAIT_SECONDS = 1800.0

# An object that was put longer ago, and has no result, gets none any more: its result has expired, or its message has
# moved to the dead letters.
_PENDING = timedelta(seconds=_MAX_WAIT_SECONDS)

_REPEAT = "run the same command again to continue."


@dataclass(frozen=True)
class Photo:
    """A file to upload, named by its path, and its key in the bucket."""

    name: str
    key: str


@dataclass(frozen=True)
class Uploaded:
    """A photo in the bucket, with its revision; `is_new` is false if the same file was already there."""

    name: str
    key: str
    revision: str
    is_new: bool


@dataclass(frozen=True)
class Plan:
    """The photos to upload and the failures, in order, and what was left out, as in Inputs."""

    items: list[Photo | Failed] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    ignored: dict[str, list[str]] = field(default_factory=dict)

    @property
    def photos(self) -> list[Photo]:
        return [item for item in self.items if isinstance(item, Photo)]

    @property
    def failed(self) -> list[Failed]:
        return [item for item in self.items if isinstance(item, Failed)]


@dataclass
class Tally:
    """The photos so far: uploaded, not uploaded (`failed`), and uploaded but not classified.

    `interrupted` is true after Ctrl-C while results were awaited.
    """

    total: int
    uploaded: list[Uploaded] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    unclassified: list[Failed] = field(default_factory=list)
    interrupted: bool = False

    def __str__(self) -> str:
        new = sum(photo.is_new for photo in self.uploaded)
        unchanged, failed = len(self.uploaded) - new, len(self.failed)
        summary = f"{new:,} of {self.total:,} sent, {unchanged:,} were there already, {failed:,} failed"
        return f"{summary}; {len(self.unclassified):,} could not be classified" if self.unclassified else summary

    def count_uploads(self, items: Iterable[Uploaded | Failed]) -> Iterator[Uploaded | Failed]:
        """Yield the outcomes of uploads and record them."""
        for item in items:
            if isinstance(item, Failed):
                self.failed.append(item)
            else:
                self.uploaded.append(item)
            yield item

    def count_results(self, results: Iterable[Result]) -> Iterator[Result]:
        """Yield the results of uploaded photos and record the failures; Ctrl-C ends them, so that they are printed."""
        try:
            for result in results:
                if isinstance(result, Failed):
                    self.unclassified.append(result)
                yield result
        except KeyboardInterrupt:
            self.interrupted = True


@dataclass(frozen=True)
class _StoredObject:
    size: int
    etag: str
    revision: str
    modified: datetime | None = None


def run(arguments: Namespace) -> int:
    """Run the command and return its exit code; raises ArgumentError for paths that cannot be uploaded together."""
    try:
        plan = create_plan(arguments.paths, arguments.prefix)
    except ValueError as error:
        raise ArgumentError(None, printable(str(error))) from error
    for sentence in notices(plan.skipped, plan.ignored):
        print_message(sentence)
    tally = Tally(len(plan.items))
    try:
        printed = (_upload_and_wait if arguments.wait else _upload)(plan, tally, arguments)
    except AwsError as error:
        print_message(f"{error} {tally}; {_REPEAT}" if tally.uploaded else str(error))
        return 1
    except KeyboardInterrupt:
        tally.interrupted = True
    if tally.interrupted:
        print_message(f"Interrupted: {tally}; {_REPEAT}")
        return 130
    print_message(f"{tally}.")
    return 0 if printed and not (tally.failed or tally.unclassified) else 1


def create_plan(paths: Sequence[str], prefix: str) -> Plan:
    """Return the photos in these files and folders. Their keys are `prefix` and the path within the folder.

    Raises ValueError if two photos would have the same key, or for standard input and S3 URIs, which cannot be
    uploaded.
    """
    folder = prefix.strip("/")
    key_prefix = uploads_prefix(f"{folder}/" if folder else "")
    plan, by_key = Plan(), dict[str, str]()
    for path in paths:
        if path == STANDARD_INPUT or path.startswith(S3_SCHEME):
            raise ValueError(f"{path} is neither a file nor a folder; only those can be uploaded")
        inputs = Inputs()
        add_path(path, inputs)
        plan.skipped.extend(inputs.skipped)
        plan.ignored.update(inputs.ignored)
        for image in inputs.images:
            if isinstance(image, Failed):
                plan.items.append(image)
                continue
            key = key_prefix + _relative(image.name, path)
            if key not in by_key:
                by_key[key] = image.name
                plan.items.append(_photo(image.name, key))
            elif os.path.realpath(by_key[key]) != os.path.realpath(image.name):
                both = f"{by_key[key]} and {image.name}"
                raise ValueError(
                    f"{both} would both be uploaded as {key}; upload them separately, each with its own --prefix"
                )
    return plan


def _relative(name: str, path: str) -> str:
    relative = os.path.relpath(name, path) if os.path.isdir(path) else os.path.basename(name)
    return relative.replace(os.sep, "/")


def _photo(name: str, key: str) -> Photo | Failed:
    if is_object_key(key):
        return Photo(name, key)
    return Failed(name, "invalid_key", f"{name} cannot be a key in S3: it is too long, or not valid UTF-8.")


class Uploader:
    """Uploads photos of up to `max_bytes` to a bucket, in `parallel` threads."""

    def __init__(
        self, bucket: str, max_bytes: int, parallel: int, has_result: Callable[[str, str], bool] | None = None
    ) -> None:
        """Create an S3 client; raises AwsError.

        `has_result` tells whether an object has a result, from its key and its revision. If it is given, photos that
        are in the bucket but have lost their results are uploaded again. It may raise AwsError.
        """
        self._has_result = has_result
        self._bucket = bucket
        self._max_bytes = max_bytes
        self._parallel = parallel
        with self._errors():
            self._s3 = create_client("s3", attempts=_ATTEMPTS, connections=parallel)

    def upload_all(self, photos: Sequence[Photo], *, may_list: bool = True) -> Iterator[Uploaded | Failed]:
        """Upload photos, except those that are already in the bucket; yields each outcome as soon as it is known.

        A photo is already there if the object has the same size and MD5. The MD5 is the ETag of an object uploaded in
        one request, unless the bucket encrypts with customer keys. `may_list` allows listing the bucket if that is
        cheaper than a request for each object; a listing has no version ids. Raises AwsError; the upload can then be
        repeated.
        """
        with self._errors():
            listed = self._list([photo.key for photo in photos]) if may_list else None
            # The threads of a ThreadPool do not keep the process alive.
            with ThreadPool(self._parallel) as pool:
                yield from pool.imap_unordered(lambda photo: self._upload(photo, listed), photos)

    def _upload(self, photo: Photo, listed: Mapping[str, _StoredObject] | None) -> Uploaded | Failed:
        try:
            data = read_file(Path(photo.name), self._max_bytes)
        except OSError as error:
            return unreadable(photo.name, error)
        except ImageTooLarge as error:
            return Failed(photo.name, error.code, str(error))
        stored = self._find(photo.key) if listed is None else listed.get(photo.key)
        digest = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if stored and (stored.size, stored.etag) == (len(data), digest) and not self._is_lost(photo.key, stored):
            return Uploaded(photo.name, photo.key, stored.revision, is_new=False)
        response = self._s3.put_object(Bucket=self._bucket, Key=photo.key, Body=data, ContentType=media_type_of(data))
        return Uploaded(photo.name, photo.key, _revision(response), is_new=True)

    def _is_lost(self, key: str, stored: _StoredObject) -> bool:
        """Return whether the object has no result and gets none any more."""
        if self._has_result is None or not stored.modified or datetime.now(UTC) - stored.modified < _PENDING:
            return False
        return not self._has_result(key, stored.revision)

    def _list(self, keys: Sequence[str]) -> dict[str, _StoredObject] | None:
        """List objects that include these keys; returns None if there are too many or they cannot be listed."""
        found: dict[str, _StoredObject] = {}
        # A prefix in S3 need not end with a slash.
        prefix = os.path.commonprefix(keys)  # noqa: RUF071
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        try:
            for page in itertools.islice(pages, len(keys) // _OBJECTS_PER_PAGE_PRICE):
                for entry in page.get("Contents", ()):
                    etag = entry["ETag"].strip('"')
                    found[entry["Key"]] = _StoredObject(entry["Size"], etag, etag)
                if not page["IsTruncated"]:
                    return found
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] != 403:
                raise
        return None

    def _find(self, key: str) -> _StoredObject | None:
        try:
            head = self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            # Without the permission to list, S3 responds with 403 for missing objects. PutObject reports other errors.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return None
            raise
        return _StoredObject(head["ContentLength"], head["ETag"].strip('"'), _revision(head), head["LastModified"])

    def _errors(self) -> AbstractContextManager[None]:
        reasons = {"NoSuchBucket": f"The bucket {self._bucket} does not exist."}
        return aws_errors(f"The bucket {self._bucket} cannot be written to", "s3:PutObject", reasons)


def _revision(response: Mapping[str, Any]) -> str:
    """Return the revision of this object in S3's notification: the version id, or else the ETag."""
    return str(response.get("VersionId") or response["ETag"].strip('"'))


def _upload(plan: Plan, tally: Tally, arguments: Namespace) -> bool:
    """Upload the photos and print the outcome of each; return whether the output could be written."""
    return write_output(_outcome_lines(_uploads(plan, tally, arguments, None), as_json=arguments.json))


def _upload_and_wait(plan: Plan, tally: Tally, arguments: Namespace) -> bool:
    """Upload the photos, wait for their results and print them; return whether the output could be written."""
    reader = ResultsReader(arguments.table)
    # Checked first, so that nothing is uploaded if the table is wrong.
    reader.check()
    for _ in _uploads(plan, tally, arguments, reader):
        pass
    results = _results(tally, reader, arguments)
    if arguments.json:
        return write_output(json_lines(results))
    positions = {item.name: position for position, item in enumerate(plan.items)}
    return write_output(table(sorted(results, key=lambda result: positions[result.name])))


def _uploads(
    plan: Plan, tally: Tally, arguments: Namespace, reader: ResultsReader | None
) -> Iterator[Uploaded | Failed]:
    """Upload the photos, also those that have lost their results if there is a reader; count and yield the outcomes."""
    items = tally.count_uploads(_upload_plan(plan, arguments, reader))
    return track(items, tally.total, "Uploading", as_lines=arguments.json and not arguments.wait)


def _upload_plan(plan: Plan, arguments: Namespace, reader: ResultsReader | None) -> Iterator[Uploaded | Failed]:
    def has_result(key: str, revision: str) -> bool:
        return reader is not None and reader.find(arguments.bucket, key, revision) is not None

    yield from plan.failed
    if plan.photos:
        max_bytes = local_settings().max_upload_bytes
        uploader = Uploader(arguments.bucket, max_bytes, arguments.parallel, has_result if reader else None)
        # Results are found by version id, which a listing does not have.
        yield from uploader.upload_all(plan.photos, may_list=not arguments.wait)


def _outcome_lines(items: Iterable[Uploaded | Failed], *, as_json: bool) -> Iterator[str]:
    """Yield a line of JSON for each photo; without `as_json`, print only failures, on standard error."""
    for item in items:
        if isinstance(item, Failed):
            if as_json:
                yield from json_lines([item])
            else:
                print_message(failure_sentence(item))
        elif as_json:
            status = "sent" if item.is_new else "skipped"
            yield json.dumps({"source": item.name, "status": status, "key": item.key, "revision": item.revision}) + "\n"


def _results(tally: Tally, reader: ResultsReader, arguments: Namespace) -> Iterator[Result]:
    """Yield the photos that could not be uploaded, then the results of the others as they arrive."""
    yield from tally.failed
    results = tally.count_results(wait_for_results(reader, arguments.bucket, tally.uploaded))
    yield from track(results, len(tally.uploaded), "Classifying", as_lines=arguments.json)


def wait_for_results(reader: ResultsReader, bucket: str, uploaded: Sequence[Uploaded]) -> Iterator[Result]:
    """Yield the result of each photo as soon as it is in the table, in any order.

    Raises AwsError, including if no result arrives for half an hour.
    """
    # The threads of a ThreadPool do not keep the process alive.
    with ThreadPool(_PARALLEL_QUERIES) as pool:
        missing, last_arrival = list(uploaded), time.monotonic()
        while missing:
            found = pool.imap(lambda photo: reader.find(bucket, photo.key, photo.revision), missing)
            still_missing = []
            for photo, result in zip(missing, found, strict=True):
                if result is None:
                    still_missing.append(photo)
                else:
                    last_arrival = time.monotonic()
                    yield _result(photo.name, result)
            missing = still_missing
            if missing:
                _pause(len(missing), last_arrival)


def _pause(missing: int, last_arrival: float) -> None:
    if time.monotonic() - last_arrival > _MAX_WAIT_SECONDS:
        raise AwsError(
            f"No result has arrived for {_MAX_WAIT_SECONDS / 60:.0f} minutes, and {missing:,} are missing. Uploads "
            "that could not be processed are in the queue that the stack's output ImagesDeadLettersUrl names. With "
            f"Results=objects, results are in the bucket under {RESULTS_PREFIX}."
        )
    time.sleep(_POLL_SECONDS)


def _result(name: str, stored: BulkResult) -> Result:
    if isinstance(stored.result, Failure):
        problem = stored.result.problem
        return Failed(name, problem.code, problem.detail, problem.request_id)
    return Classified(name, Answer(model=stored.model, **msgspec.structs.asdict(stored.result)))
