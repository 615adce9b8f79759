"""Tensors from torch's legacy weight files, read without torch and without running what a pickle may hold."""

import pickle
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

# The first two of the pickles that make up a file: torch/serialization.py, MAGIC_NUMBER and PROTOCOL_VERSION.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001

_STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}


@dataclass(frozen=True)
class _Storage:
    """A flat array by its key in the file; its elements follow the pickles."""

    key: str
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; `offset` and `strides` are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict that `torch.save` wrote in its format before torch 1.6, by name.

    Raises OSError when the file cannot be read, and ValueError when it is not such a file or holds anything but
    tensors.
    """
    with path.open("rb") as file:
        try:
            return _read(file)
        except (pickle.UnpicklingError, EOFError, AttributeError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"it is not a state dict in torch's legacy format: {error}") from error


def _read(file: BinaryIO) -> dict[str, NDArray[Any]]:
    header = [_TensorUnpickler(file).load() for _ in range(2)]
    if header != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise ValueError("it is not a state dict in torch's legacy format: it begins differently")
    if not _TensorUnpickler(file).load()["little_endian"]:
        raise ValueError("its numbers are big-endian")
    tensors: dict[str, _Tensor] = _TensorUnpickler(file).load()
    dtypes = {tensor.storage.key: tensor.storage.dtype for tensor in tensors.values()}
    storages = {key: _read_storage(file, dtypes[key]) for key in _TensorUnpickler(file).load()}
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storage(file: BinaryIO, dtype: np.dtype[Any]) -> NDArray[Any]:
    size = int.from_bytes(file.read(8), "little") * dtype.itemsize
    content = file.read(size)
    if len(content) != size:
        raise EOFError("it is truncated")
    return np.frombuffer(content, dtype)


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.strides, strict=True))
    if min(tensor.shape, default=1) < 1 or min((tensor.offset, *tensor.strides)) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(step * storage.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides).copy()


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries and tensors, and refuses every other class and function that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, reference: Any) -> _Storage:
        kind, dtype, key, *_ = reference
        if kind != "storage" or not isinstance(dtype, np.dtype):
            raise pickle.UnpicklingError("it refers to something that is no storage")
        return _Storage(str(key), dtype)


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))
