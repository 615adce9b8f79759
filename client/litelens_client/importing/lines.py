"""Lines that the summaries of all kinds of imported models share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from litelens.core.bundle import IMAGE, Tensor

_SHOWN_LABELS = 5


def row(title: str, text: str) -> str:
    """Return a line with a title in a column of its own."""
    return f"{title + ':':12} {text}"


def input_row(manifest: Mapping[str, Any]) -> str:
    """Return the line about the model's input."""
    spec = manifest["preprocessing"]
    return row("Input", f"{spec['width']}x{spec['height']} pixels, {input_type(manifest)}")


def classes_row(labels: Sequence[str]) -> str:
    """Return the line with the first labels."""
    return row("Classes", ", ".join(labels[:_SHOWN_LABELS]) + (", ..." if len(labels) > _SHOWN_LABELS else ""))


def next_steps(target: Path) -> list[str]:
    """Return the lines that say what to do with the bundle."""
    return [
        f"Try it:      litelens classify --model {target.name} photo.jpg",
        f"Serve it:    make run BUNDLE={target}  (or litelens serve --model {target.name})",
        f"Deploy it:   set Model={target.name} in samconfig.toml, then make deploy ENV=dev",
    ]


def input_type(manifest: Mapping[str, Any]) -> str:
    """Return the data type of the model's input."""
    return msgspec.convert(manifest["tensors"][IMAGE], Tensor).dtype
