"""Files of arrays in a bundle (.npz), which are checked when they are loaded."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelens.core.errors import BundleError

# An array's data type and shape; None stands for any length.
_Type = tuple[type[np.generic], tuple[int | None, ...]]


def to_npz(**arrays: NDArray[Any]) -> bytes:
    """Return the content of a .npz file; equal arrays give equal bytes."""
    file = BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def load_npz(path: Path, **types: _Type) -> dict[str, NDArray[Any]]:
    """Load the named arrays of a .npz file; raises BundleError if one is missing or has another type or shape."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in types}
    # A damaged file fails anywhere inside numpy or zipfile, with errors of any type.
    except Exception as error:
        raise BundleError(f"{path} is damaged ({error}); make the bundle again") from error
    for name, (kind, shape) in types.items():
        found = arrays[name]
        if found.dtype != kind or not _has_shape(found, shape) or not np.isfinite(found).all():
            sides = ", ".join("any" if side is None else str(side) for side in shape)
            raise BundleError(f"{path}: {name} must be finite numbers of the type {kind.__name__} and shape ({sides})")
    return arrays


def _has_shape(array: NDArray[Any], shape: tuple[int | None, ...]) -> bool:
    return array.ndim == len(shape) and all(
        expected in (None, found) for expected, found in zip(shape, array.shape, strict=True)
    )
