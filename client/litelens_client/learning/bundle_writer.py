"""Write or replace a bundle, completely or not at all."""

import contextlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from litelens.core.bundle import MANIFEST
from litelens_client.learning.errors import TrainingError

FIRST_VERSION = "1.0.0"

_NAMED_LABELS = 4


@contextlib.contextmanager
def new_bundle(target: Path) -> Iterator[Path]:
    """Yield an empty folder, which becomes the bundle `target` when the block ends without an error.

    Raises TrainingError if `target` exists and is not a bundle; then nothing changes.
    """
    target = target.resolve()  # so that "." has a parent, and a link to a bundle stays a link
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-", ignore_cleanup_errors=True) as workspace:
        bundle, replaced = Path(workspace) / "bundle", Path(workspace) / "replaced"
        bundle.mkdir()
        yield bundle
        try:
            if target.exists():
                check_is_bundle(target)
                target.rename(replaced)
            bundle.rename(target)
        except BaseException:
            if replaced.exists() and not target.exists():
                replaced.rename(target)
            raise


def check_is_bundle(folder: Path) -> None:
    """Raise TrainingError if the folder is not a bundle, so that no other folder is replaced."""
    if not (folder / MANIFEST).is_file():
        raise TrainingError(
            f"{folder} exists but is not a bundle, so it is not replaced; move it away, or choose another name"
        )


def require_replaceable(target: Path, field: str, command: str) -> None:
    """Raise TrainingError or OSError if next_version() or writing the bundle would fail, before time is spent on it."""
    next_version(target, field, command)
    is_new = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".new-"):
        pass
    if is_new:
        target.parent.rmdir()


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of these packages by name, without those that are not installed."""
    found = {}
    for package in packages:
        # A checkout need not be installed.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def describe_labels(labels: Sequence[str], *, is_multi_label: bool) -> str:
    """Return a sentence about what a model with these labels says, which names the first of them."""
    others = len(labels) - _NAMED_LABELS
    named = [*labels[:_NAMED_LABELS], f"{others:,} more"] if others > 1 else labels
    listed = f"{', '.join(named[:-1])} and {named[-1]}" if len(named) > 1 else named[0]
    return f"Says for {listed} whether a photo has it." if is_multi_label else f"Tells {listed} apart."


def next_version(target: Path, field: str, command: str) -> str:
    """Return the version after that of the bundle in a folder, or the first version if there is no folder.

    Raises TrainingError if the folder has something else than a bundle that `command` wrote, which its manifest shows
    by this field, so that nothing else is replaced.
    """
    if not target.exists():
        return FIRST_VERSION
    check_is_bundle(target)
    # Not load_bundle(), which fails if the model is damaged: such a bundle may be replaced too.
    try:
        manifest = json.loads((target / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        manifest = None
    if not isinstance(manifest, dict) or field not in manifest:
        raise TrainingError(f"{target} was not written by {command}, so it is not replaced; choose another --name")
    found = re.fullmatch(r"1\.(\d{1,9})\.0", str(manifest.get("version")), re.ASCII)
    return f"1.{int(found[1]) + 1}.0" if found else FIRST_VERSION
