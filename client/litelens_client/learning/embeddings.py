"""Embeddings of photos: the pooled features that a bundle's model computes, kept in a cache.

The cache is an SQLite file, which can be deleted at any time. Its keys are checksums of the photo and the model, so a
renamed photo is found again, and a changed one is not.
"""

import contextlib
import functools
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from litelens.core.bundle import FEATURES, Bundle, load_bundle
from litelens.core.classifier import Classifier
from litelens.core.preprocessing import Preprocessing
from litelens_client.learning.photos import (
    LIMITS,
    Unreadable,
    digest,
    end_processes,
    map_photos,
    printable_path,
    try_decode,
)
from litelens_client.learning.progress import progress
from litelens_client.output import print_message

# With fewer photos, starting other processes takes longer than it saves.
_MIN_PARALLEL = 200

# Rows are stored each time there are this many, so that an interruption loses little.
_ROWS = 50

# The time to wait for another process that writes to the cache.
_LOCK_SECONDS = 60.0

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Embedding:
    """A photo's pooled features, float32 `(channels,)`, and the digest of its pixels at the model's input size."""

    pooled: NDArray[np.float32]
    digest: bytes

    def to_bytes(self) -> bytes:
        """Return the row of the cache."""
        return self.digest + self.pooled.tobytes()

    @classmethod
    def from_bytes(cls, row: bytes, channels: int) -> "Embedding | None":
        """Return the embedding in a row of the cache; None if the row is damaged."""
        if not isinstance(row, bytes) or len(row) != _DIGEST_BYTES + channels * np.float32().nbytes:
            return None
        pooled = np.frombuffer(row[_DIGEST_BYTES:], np.float32)
        return cls(pooled, row[:_DIGEST_BYTES]) if np.isfinite(pooled).all() else None


@dataclass(frozen=True)
class EmbeddedPhotos:
    """The embeddings of the photos that can be read, by path, and the files that cannot be read."""

    embeddings: Mapping[Path, Embedding]
    unreadable: tuple[Unreadable, ...]


class EmbeddingCache:
    """Stored embeddings of photos. If reading or writing the file fails, embeddings are computed again."""

    def __init__(self, file: Path | None = None) -> None:
        """Open or create the file; without one, keep embeddings in memory. Raises OSError or sqlite3.Error."""
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
        self._can_write = True
        self._database = sqlite3.connect(file or ":memory:", timeout=_LOCK_SECONDS)
        self._database.execute("CREATE TABLE IF NOT EXISTS embeddings (key BLOB PRIMARY KEY, row BLOB) WITHOUT ROWID")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def find(self, key: bytes, channels: int) -> Embedding | None:
        """Return the embedding of this key; None if it is not stored or is damaged."""
        try:
            found = self._database.execute("SELECT row FROM embeddings WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error:
            return None
        return Embedding.from_bytes(found[0], channels) if found else None

    def save(self, rows: Iterable[tuple[bytes, Embedding]]) -> None:
        """Store embeddings by key; if that fails, say so once."""
        if not self._can_write:
            return
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO embeddings VALUES (?, ?)", [(key, row.to_bytes()) for key, row in rows]
                )
        except sqlite3.Error as error:
            self._can_write = False
            print_message(f"The next run must compute embeddings again, because the cache cannot be written: {error}.")


@contextlib.contextmanager
def default_cache() -> Iterator[EmbeddingCache]:
    """Open the user's cache, in XDG_CACHE_HOME or ~/.cache; if that fails, say so and keep embeddings in memory."""
    file = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litelens" / "embeddings.sqlite"
    try:
        cache = EmbeddingCache(file)
    except (OSError, sqlite3.Error) as error:
        print_message(f"The next run must compute embeddings again, because {file} cannot be used: {error}.")
        cache = EmbeddingCache()
    with contextlib.closing(cache):
        yield cache


def embed_photos(
    root: Path, paths: Sequence[Path], bundle: Bundle, cache: EmbeddingCache, *, mirrored: bool = False
) -> EmbeddedPhotos:
    """Compute the embeddings of the photos, or of their mirror images, with the serving code.

    Embeddings in the cache are not computed again. Raises DatasetError if a process that reads photos is killed.
    """
    keys = {path: key for path in paths if (key := _key(path, bundle, mirrored))}
    channels = bundle.tensors[FEATURES].shape[3]
    found = {path: embedding for path, key in keys.items() if (embedding := cache.find(key, channels))}
    missing = [path for path in paths if path not in found]
    unreadable: list[Unreadable] = []
    new: list[tuple[bytes, Embedding]] = []
    in_parallel = len(missing) >= _MIN_PARALLEL
    threads = 1 if in_parallel else os.cpu_count() or 1
    compute = functools.partial(_embed, bundle.folder, bundle.sha256, bundle.preprocessing, threads, mirrored)
    results = map_photos(compute, missing, in_parallel=in_parallel)
    for path, result in zip(missing, progress(results, len(missing), "Computing embeddings"), strict=True):
        if isinstance(result, str):
            unreadable.append(Unreadable(printable_path(path, root), result))
            continue
        found[path] = result
        if path in keys:
            new.append((keys[path], result))
        if len(new) >= _ROWS:
            cache.save(new)
            new.clear()
    cache.save(new)
    # Each process holds a model, and `litelens serve` may run for long.
    end_processes()
    return EmbeddedPhotos({path: found[path] for path in paths if path in found}, tuple(unreadable))


def _key(path: Path, bundle: Bundle, mirrored: bool) -> bytes | None:
    """Return the key of a photo in the cache, or None if the file is too large or cannot be read."""
    try:
        if path.stat().st_size > LIMITS.bytes:
            return None
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return None
    settings = repr((bundle.backbone, bundle.preprocessing, mirrored)).encode()
    return hashlib.sha256(content + settings).digest()


def _embed(folder: Path, sha256: str, spec: Preprocessing, threads: int, mirrored: bool, path: Path) -> Embedding | str:
    """Return the photo's embedding, or the reason why it cannot be read."""
    classifier = _classifier(folder, sha256, spec, threads)
    pixels = try_decode(spec, path)
    if isinstance(pixels, str):
        return pixels
    features = classifier.features(np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels)
    return Embedding(features.pooled, digest(pixels))


@functools.lru_cache(maxsize=1)
def _classifier(folder: Path, sha256: str, spec: Preprocessing, threads: int) -> Classifier:
    """Load the bundle once in each process, and again if its model or its preprocessing has changed."""
    return Classifier(load_bundle(folder), LIMITS, threads)
