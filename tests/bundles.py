"""Bundles for tests: copies of bundled ones, with links to their large files."""

import json
from pathlib import Path
from typing import Any

from support import CIFAR_BUNDLE

from litelens.core.bundle import MANIFEST


def add_bundle(models: Path, name: str, source: Path = CIFAR_BUNDLE) -> Path:
    """Add a bundle to a folder, with links to the files of another one and a manifest of its own; return its path."""
    folder = models / name
    folder.mkdir(parents=True)
    for file in source.iterdir():
        if file.name == MANIFEST:
            (folder / MANIFEST).write_bytes(file.read_bytes())
        else:
            (folder / file.name).symlink_to(file)
    return folder


def change_manifest(bundle: Path, **fields: Any) -> None:
    """Set fields in a bundle's manifest."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(manifest | fields))
