"""Weight files in torch's legacy format, written here opcode by opcode as torch's pickles are."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.torch_weights import read_torch_weights

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
SYSTEM_INFO = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclass(frozen=True)
class Global:
    name: str


@dataclass(frozen=True)
class Call:
    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Reference:
    """A persistent id, in pickle's terms."""

    value: Any


ORDERED_DICT = Call(Global("collections\nOrderedDict"), ())


def opcodes(value: Any) -> bytes:
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return pickle.dumps(value, protocol=2)[2:-1]
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case tuple():
            return b"(" + b"".join(map(opcodes, value)) + b"t"
        case list():
            return b"](" + b"".join(map(opcodes, value)) + b"e"
        case dict():
            return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
        case Global(name):
            return b"c" + name.encode() + b"\n"
        case Call(function, arguments):
            return opcodes(function) + opcodes(arguments) + b"R"
        case Reference(inner):
            return opcodes(inner) + b"Q"
    raise TypeError(value)


def pickled(value: Any) -> bytes:
    return b"\x80\x02" + opcodes(value) + b"."


def storage(key: str, size: int, kind: str = "FloatStorage") -> Reference:
    return Reference(("storage", Global(f"torch\n{kind}"), key, "cpu", size, None))


def tensor(of: Reference, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Call:
    return Call(Global("torch._utils\n_rebuild_tensor_v2"), (of, offset, shape, strides, False, ORDERED_DICT))


def file_of(
    tensors: Any, storages: dict[str, NDArray[Any]], info: Any = SYSTEM_INFO, magic: Any = MAGIC_NUMBER
) -> bytes:
    begin = [pickled(magic), pickled(1001), pickled(info), pickled(tensors), pickled(list(storages))]
    return b"".join(begin) + b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())


NUMBERS = np.arange(24, dtype=np.float32)
COUNT = np.array([7], np.int64)
FLOATS = storage("1", 24)
TENSORS = {
    "whole": tensor(FLOATS, 0, (4, 6), (6, 1)),
    "transposed": tensor(FLOATS, 0, (6, 4), (1, 6)),
    "part": tensor(FLOATS, 7, (2, 3), (12, 2)),
    "kernel": tensor(FLOATS, 0, (24, 1, 1), (1, 24, 24)),
    "count": tensor(storage("2", 1, "LongStorage"), 0, (), ()),
    "halves": tensor(storage("3", 3, "HalfStorage"), 0, (3,), (1,)),
}
STORAGES = {"1": NUMBERS, "2": COUNT, "3": np.array([0.5, 1, 2], np.float16)}
WHOLE = file_of(TENSORS, STORAGES)

Read = Callable[[bytes], dict[str, NDArray[Any]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def read(content: bytes) -> dict[str, NDArray[Any]]:
        path = tmp_path / "weights.pth"
        path.write_bytes(content)
        return read_torch_weights(path)

    return read


def test_tensors_share_storages_at_any_offset_and_strides(read: Read) -> None:
    tensors = read(WHOLE)
    assert tensors.keys() == TENSORS.keys()
    assert np.array_equal(tensors["whole"], NUMBERS.reshape(4, 6))
    assert np.array_equal(tensors["transposed"], NUMBERS.reshape(4, 6).T)
    assert np.array_equal(tensors["part"], [[7, 9, 11], [19, 21, 23]])
    assert tensors["kernel"].shape == (24, 1, 1)
    assert (tensors["count"].shape, int(tensors["count"])) == ((), 7)
    assert (tensors["halves"].dtype, tensors["halves"].tolist()) == (np.float16, [0.5, 1, 2])


def test_the_attributes_of_a_state_dict_are_passed_over(read: Read) -> None:
    one = tensor(storage("1", 24), 0, (24,), (1,))
    entries = b"(" + opcodes("weight") + opcodes(one) + b"u"
    metadata = opcodes({"_metadata": {"": {"version": 1}}}) + b"b"
    state = b"\x80\x02" + opcodes(ORDERED_DICT) + entries + metadata + b"."
    content = file_of({}, {"1": NUMBERS}).replace(pickled({}), state)
    assert np.array_equal(read(content)["weight"], NUMBERS)


def test_tensors_cost_no_memory_beside_the_file(read: Read) -> None:
    views = {f"view {number}": FLOATS for number in range(1000)}
    tensors = read(file_of({name: tensor(of, 0, (24,), (1,)) for name, of in views.items()}, {"1": NUMBERS}))
    first, *others = tensors.values()
    assert len(tensors) == 1000
    assert all(np.shares_memory(first, other) for other in others)


@pytest.mark.parametrize("size", [0, 1, 14, 100, len(WHOLE) - 200, len(WHOLE) - 1])
def test_a_truncated_file_is_refused(size: int, read: Read) -> None:
    with pytest.raises(ValueError, match=r"^weights.pth is not a state dict in torch's legacy format: "):
        read(WHOLE[:size])


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps({"weight": [1.0]}, protocol=2),
        pickle.dumps(TENSORS, protocol=4),
        file_of(TENSORS, STORAGES, magic=MAGIC_NUMBER + 1),
        file_of(TENSORS, STORAGES, info={"little_endian": False}),
        file_of(TENSORS, STORAGES, info=[]),
        file_of([1, 2], {}),
        file_of({"weight": 1}, {}),
        file_of({"weight": FLOATS}, STORAGES),
        file_of({(1, 2): tensor(FLOATS, 0, (24,), (1,))}, {"1": NUMBERS}),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
    ],
)
def test_other_files_are_refused(content: bytes, read: Read) -> None:
    with pytest.raises(ValueError, match="is not a state dict in torch's legacy format"):
        read(content)


def test_the_format_of_newer_torch_releases_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", WHOLE)
    with pytest.raises(ValueError, match=r"^weights.pth is not a state dict"):
        read_torch_weights(path)


@pytest.mark.parametrize(
    "name",
    [
        "os\nsystem",
        "posix\nsystem",
        "builtins\neval",
        "builtins\ngetattr",
        "torch\nload",
        "torch._utils\n_rebuild_tensor",
    ],
)
def test_nothing_that_a_file_names_is_run(name: str, read: Read, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    harmful = {"weight": Call(Global(name), (f"touch {witness}",))}
    for content in (file_of(harmful, {}), file_of(TENSORS, STORAGES, info=harmful), pickled(harmful)):
        with pytest.raises(ValueError, match=r"it names .*, which is not part of a tensor"):
            read(content)
    assert not witness.exists()


def test_a_pickle_that_would_run_a_command_runs_none(read: Read, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path / 'witness'}",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(ValueError, match="is not a state dict"):
            read(pickle.dumps(Harmful(), protocol=protocol))
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("size", [25, 2**40, 2**62, -1, -(2**63)])
def test_a_storage_that_claims_more_than_the_file_holds_is_refused(size: int, read: Read) -> None:
    claimed = file_of({"weight": tensor(storage("1", size), 0, (2,), (1,))}, {"1": NUMBERS})
    content = claimed.replace(struct.pack("<q", 24) + NUMBERS.tobytes(), struct.pack("<q", size) + NUMBERS.tobytes())
    with pytest.raises(ValueError, match="is not a state dict"):
        read(content)


@pytest.mark.parametrize(
    ("storages", "reason"),
    [
        ({}, "its storages are not those of its tensors"),
        ({"1": NUMBERS, "4": NUMBERS}, "its storages are not those of its tensors"),
        ({"1": NUMBERS[:20]}, "a storage has another size than its tensors say"),
    ],
)
def test_storages_that_are_not_those_of_the_tensors_are_refused(
    storages: dict[str, NDArray[Any]], reason: str, read: Read
) -> None:
    with pytest.raises(ValueError, match=reason):
        read(file_of({"weight": tensor(FLOATS, 0, (24,), (1,))}, storages))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (1, (24,), (1,)),
        (24, (), ()),
        (0, (5, 6), (6, 1)),
        (-1, (4,), (1,)),
        (4, (4,), (-1,)),
        (0, (-4,), (1,)),
        (0, (0,), (1,)),
        (0, (4,), (1, 1)),
        (0, (2**40,), (0,)),
        (0, (4, 6), (0, 1)),
        (0, (4, 6), (1, 1)),
        (0, (4, 6), (5, 1)),
        (0, (2**62, 2**62), (2**62, 1)),
        (0, (1,), (2**100,)),
        (0, (1,) * 200, (1,) * 200),
        (0, (True,), (1,)),
        ("0", (4,), (1,)),
        (0, ("4",), (1,)),
        (0, [4], [1]),
    ],
)
def test_a_tensor_that_its_storage_cannot_hold_is_refused(offset: Any, shape: Any, strides: Any, read: Read) -> None:
    with pytest.raises(ValueError, match="is not a state dict"):
        read(file_of({"weight": tensor(FLOATS, offset, shape, strides)}, {"1": NUMBERS}))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_torch_weights(tmp_path / "weights.pth")


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_refused_or_holds_tensors(read: Read, data: st.DataObject) -> None:
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        end = place + data.draw(st.integers(0, 3))
        content[place:end] = data.draw(st.binary(max_size=6))
    try:
        tensors = read(bytes(content))
    except ValueError:
        return
    assert sum(array.size for array in tensors.values()) <= len(TENSORS) * len(content)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([bytes([code]) for code in range(256)] + [b"\x8a\x01\x05", b"X\x01\x00\x00\x00a"])))
def test_any_opcodes_are_refused_or_hold_tensors(read: Read, codes: list[bytes]) -> None:
    begin = pickled(MAGIC_NUMBER) + pickled(1001) + pickled(SYSTEM_INFO)
    with pytest.raises(ValueError, match="is not a state dict"):
        read(begin + b"".join(codes))
