"""A reader for torch's legacy weight files that needs no torch and runs no code from the file."""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The first two pickles of a file: MAGIC_NUMBER and PROTOCOL_VERSION in torch/serialization.py.
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001


@dataclass(frozen=True)
class _Storage:
    """A flat array of `size` elements, identified by a key; the elements follow the pickles in the file."""

    key: str
    dtype: np.dtype[Any]
    size: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; `offset` and `strides` are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_weights(path: Path) -> dict[str, NDArray[Any]]:
    """Read the tensors of a state dict that `torch.save` wrote in its format before torch 1.6, by name.

    The tensors are read-only views of the file's content, so that they take no more memory than the file's size. Raises
    OSError if the file cannot be read, and ValueError if it has another format or contains anything but tensors.
    """
    try:
        return _read(path.read_bytes())
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path.name} is not a state dict in torch's legacy format: {error}") from error


def _read(content: bytes) -> dict[str, NDArray[Any]]:
    file = BytesIO(content)
    if [_unpickle(file), _unpickle(file)] != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise ValueError("it does not begin with that format's magic number and version")
    if _unpickle(file)["little_endian"] is not True:
        raise ValueError("its numbers are big-endian")
    tensors = _unpickle(file)
    if not isinstance(tensors, dict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("it contains something other than tensors")
    storages = _read_storages(file, {tensor.storage for tensor in tensors.values()})
    return {name: _view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_storages(file: BytesIO, described: set[_Storage]) -> dict[str, NDArray[Any]]:
    """Read the storages after the tensors' descriptions: a list of keys, then the size and elements of each."""
    by_key = {storage.key: storage for storage in described}
    keys = _unpickle(file)
    if type(keys) is not list or not all(type(key) is str for key in keys):
        raise ValueError("it does not list its storages")
    if len(by_key) != len(described) or sorted(keys) != sorted(by_key):
        raise ValueError("its storages are not those of its tensors")
    content, storages = file.getbuffer().toreadonly(), {}
    for key in keys:
        storage = by_key[key]
        if int.from_bytes(file.read(8), "little") != storage.size:
            raise ValueError("a storage has another size than its tensors say, or is missing")
        # NumPy raises ValueError when the file ends before the storage does.
        storages[key] = np.frombuffer(content, storage.dtype, storage.size, offset=file.tell())
        file.seek(storages[key].nbytes, 1)
    return storages


def _view(tensor: _Tensor, storage: NDArray[Any]) -> NDArray[Any]:
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    if not all(type(number) is int and 0 <= number <= len(storage) for number in numbers) or 0 in tensor.shape:
        raise ValueError("a tensor's shape, strides or offset does not fit its storage")
    end = tensor.offset
    # In order of stride: elements do not overlap if each stride exceeds the span of all dimensions of smaller stride.
    for stride, side in sorted(zip(tensor.strides, tensor.shape, strict=True)):
        if side > 1 and stride <= end - tensor.offset:
            raise ValueError("a tensor's elements overlap")
        end += (side - 1) * stride
    if end >= len(storage):
        raise ValueError("a tensor reaches beyond its storage")
    strides = tuple(stride * storage.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)


def _unpickle(file: BytesIO) -> Any:
    """Read one pickle, with the few opcodes that torch writes for numbers, strings, containers and tensors."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop_from_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    for opcode, argument, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO":
                pass
            case "MARK":
                marks.append(len(stack))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(_CONSTANTS[opcode.name])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [stack.pop() for _ in range(int(opcode.name[-1]))]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                stack.append(tuple(pop_from_mark()))
            case "APPEND":
                _append(stack[-2], [stack.pop()])
            case "APPENDS":
                items = pop_from_mark()
                _append(stack[-1], items)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                items = pop_from_mark()
                _set(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_resolve(str(argument)))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "BUILD":  # an OrderedDict's attributes, such as a state dict's _metadata
                stack.pop()
            case "STOP":
                return stack.pop()
            case _:
                raise ValueError(f"it has the pickle opcode {opcode.name}")
    raise ValueError("it is truncated")


def _append(target: Any, items: list[Any]) -> None:
    if type(target) is not list:
        raise ValueError("it appends to something that is not a list")
    target.extend(items)


def _set(target: Any, items: list[Any]) -> None:
    """Put alternating keys and values into a dictionary; only string keys, as hashing others could take forever."""
    keys, values = items[::2], items[1::2]
    if type(target) is not dict or not all(type(key) is str for key in keys):
        raise ValueError("it sets items of something that is not a dictionary with names as keys")
    target.update(zip(keys, values, strict=True))


def _resolve(name: str) -> Any:
    """Return the replacement for a class or function that a pickle names; only those of tensors are allowed."""
    if name not in _REPLACEMENTS:
        raise ValueError(f"it names {name[:80]}, which is not part of a tensor")
    return _REPLACEMENTS[name]


def _call(function: Any, arguments: Any) -> Any:
    if function not in (_ordered_dict, _rebuild_tensor) or type(arguments) is not tuple:
        raise ValueError("it calls something that does not create a tensor")
    return function(*arguments)


def _ordered_dict() -> dict[str, Any]:
    return {}


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage) or type(shape) is not tuple or type(strides) is not tuple:
        raise ValueError("it describes a tensor in an unknown way")
    return _Tensor(storage, offset, shape, strides)


def _storage(reference: Any) -> _Storage:
    kind, dtype, key, _, size, view = reference
    described = isinstance(dtype, np.dtype) and type(key) is str and type(size) is int
    if kind != "storage" or view is not None or not described:
        raise ValueError("it refers to something that is not a storage")
    return _Storage(key, dtype, size)


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

# By module and name, which genops separates with a space.
_REPLACEMENTS: dict[str, np.dtype[Any] | Callable[..., Any]] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch FloatStorage": np.dtype("<f4"),
    "torch HalfStorage": np.dtype("<f2"),
    "torch LongStorage": np.dtype("<i8"),
    "torch IntStorage": np.dtype("<i4"),
}
