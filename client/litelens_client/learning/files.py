"""Files that are written completely or not at all."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def sha256(content: bytes) -> str:
    """Compute the SHA-256 checksum in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file completely or not at all."""
    write_file(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)
