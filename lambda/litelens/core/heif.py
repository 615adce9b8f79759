"""Remove from HEIC files what their decoder copies, and refuse files that would make it work without end.

The decoder opens all images of a file, and copies the metadata and the profile of each. A file of 1 MB can contain
hundreds of images that share them.

An image of a HEIC can be composed of other images, and those of others again. A few kB of overlays of overlays describe
more work than a decoder can do in a day. Cameras use one kind of composition: a grid of coded tiles.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from litelens.core.errors import CorruptImage, ImageTooLarge, NotAnImage
from litelens.core.stripped import StrippedImage, count_part

# Types of items that are composed of other images, and that are refused: overlays and rotated copies.
_REFUSED = {b"iovl", b"iden"}
_GRID = b"grid"
# Types of items that are composed of other images; a grid must not contain them.
_COMPOSED = {_GRID, b"tmap", *_REFUSED}

# Types of items that are images. The decoder reads the content of all other items.
_IMAGES = {b"hvc1", b"hev1", b"av01", b"avc1", b"vvc1", b"jpeg", b"j2k1", b"unci", b"mski", *_COMPOSED}
_MAX_OTHERS = 100

# The pixels that each tile counts as at least: the decoder starts anew for each.
_MIN_TILE_PIXELS = 128 * 128

# The pixels that a grid's tiles may have in addition to twice those of the grid. Its last row and column of tiles may
# lie outside of it for the most part, which counts in a small image.
_SPARE_PIXELS = 2048 * 2048

# The ends of the names of transparency, which is decoded with its image.
_ALPHA_NAMES = (b":alpha", b":auxid:1")

# What boxes and items are renamed to, so that the decoder ignores them.
_IGNORED = b"free"


class _Box(NamedTuple):
    """A box: its type, its content, and the four bytes of its type in the file, which can be changed."""

    kind: bytes
    body: memoryview
    name: memoryview


@dataclass(frozen=True)
class _Items:
    """The items of a HEIC by their numbers: types, pixels and properties, and references from one item to others."""

    types: Mapping[int, bytes]
    pixels: Mapping[int, int]
    alphas: frozenset[int]
    parts: Mapping[int, list[int]]
    auxiliaries: Mapping[int, list[int]]


@dataclass
class _Counter:
    """Counts boxes, so that a file cannot contain millions of them."""

    parts: int = field(default=0)

    def count(self) -> None:
        self.parts = count_part(self.parts, "HEIC", "boxes")


def strip_heif(data: bytes) -> StrippedImage:
    """Return the file without metadata and sequences, and with only its primary image visible.

    EXIF has no orientation that counts: that of a HEIC is a property of its image.

    Raises NotAnImage if images are composed in another way than as a grid of coded tiles, ImageTooLarge if the tiles
    have far more pixels than their grid, or if there are too many boxes, and CorruptImage if boxes are damaged.
    """
    try:
        file = bytearray(data)
        items = _read_items(memoryview(file), _Counter())
    except struct.error as error:
        raise CorruptImage("The HEIC's boxes are damaged or incomplete.") from error
    for item, kind in items.types.items():
        if kind in _REFUSED:
            raise NotAnImage("The HEIC is composed of overlaid images, which is not supported; export it as JPEG.")
        if kind == _GRID:
            _check_grid(items, item)
    for item, images in items.auxiliaries.items():
        if item in items.alphas:
            _check_transparency(items, item, images)
    return StrippedImage(bytes(file))


def _check_grid(items: _Items, grid: int) -> None:
    tiles = items.parts.get(grid, [])
    if any(items.types.get(tile, _GRID) in _COMPOSED for tile in tiles):
        raise NotAnImage("The HEIC is a grid of images that are not simple tiles; export it as JPEG.")
    if sum(max(_MIN_TILE_PIXELS, _pixels(items, tile)) for tile in tiles) > _most_pixels(items, grid):
        raise ImageTooLarge("The HEIC's tiles have far more pixels than the image. Export it as JPEG.")


def _check_transparency(items: _Items, alpha: int, images: list[int]) -> None:
    """Refuse transparency that has a transparency itself or is a tile's, and that is much larger than its image."""
    tiles = {tile for parts in items.parts.values() for tile in parts}
    for image in images:
        if image in items.alphas or image in tiles:
            raise NotAnImage("The HEIC has transparency of an unusual kind, which is not supported; export it as PNG.")
        if _pixels(items, alpha) > _most_pixels(items, image):
            raise ImageTooLarge("The HEIC's transparency has far more pixels than the image. Export it as PNG.")


def _pixels(items: _Items, item: int) -> int:
    if item not in items.pixels:
        raise CorruptImage("The HEIC does not say which size its images have.")
    return items.pixels[item]


def _most_pixels(items: _Items, image: int) -> int:
    return 2 * _pixels(items, image) + _SPARE_PIXELS


def _read_items(data: memoryview, counter: _Counter) -> _Items:
    """Read the items of the file, and hide what decoding does not need.

    Raises struct.error or CorruptImage if boxes are damaged.
    """
    top = list(_boxes(data, counter))
    for box in top:
        if box.kind in (b"moov", b"mini"):
            box.name[:] = _IGNORED
    boxes = _unique(top, {b"meta"})
    boxes = _unique(_boxes(_body(boxes, b"meta")[4:], counter), {b"pitm", b"iinf", b"iref", b"iprp", b"iloc"})
    _check_locations(_body(boxes, b"iloc"), len(data), counter)
    pitm = _body(boxes, b"pitm")
    (primary,) = struct.unpack_from(">I" if _version(pitm) else ">H", pitm, 4)
    types = _read_types(_body(boxes, b"iinf"), primary, counter)
    properties = list(_boxes(_body(boxes, b"iprp"), counter))
    contents = list(_boxes(_body(_unique(properties, {b"ipco"}), b"ipco"), counter))
    owned = _read_associations([box.body for box in properties if box.kind == b"ipma"], counter)
    pixels, alphas = {}, set()
    for item, indices in owned.items():
        own = [contents[index - 1] for index in indices if 1 <= index <= len(contents)]
        sizes = [struct.unpack_from(">II", box.body, 4) for box in own if box.kind == b"ispe"]
        if sizes:
            pixels[item] = max(width * height for width, height in sizes)
        names = (bytes(box.body[4:]).partition(b"\0")[0] for box in own if box.kind == b"auxC")
        if any(name.endswith(_ALPHA_NAMES) for name in names):
            alphas.add(item)
    references = _read_references(boxes.get(b"iref"), counter)
    return _Items(types, pixels, frozenset(alphas), references[b"dimg"], references[b"auxl"])


def _boxes(data: memoryview, counter: _Counter) -> Iterator[_Box]:
    """Yield each box; raises CorruptImage if one is longer than what contains it."""
    position = 0
    while position + 8 <= len(data):
        counter.count()
        size, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        elif size == 0:
            size = len(data) - position
        if not head <= size <= len(data) - position:
            raise CorruptImage("The HEIC's boxes are damaged or incomplete.")
        yield _Box(kind, data[position + head : position + size], data[position + 4 : position + 8])
        position += size


def _unique(boxes: Iterable[_Box], kinds: set[bytes]) -> dict[bytes, memoryview]:
    """Return the boxes of these types; raises CorruptImage if there are two of a type, of which a decoder takes one."""
    found: dict[bytes, memoryview] = {}
    for box in boxes:
        if box.kind in found:
            raise CorruptImage(f"The HEIC has two boxes of the type {box.kind.decode()}.")
        if box.kind in kinds:
            found[box.kind] = box.body
    return found


def _body(boxes: Mapping[bytes, memoryview], kind: bytes) -> memoryview:
    if kind not in boxes:
        raise CorruptImage(f"The HEIC has no box of the type {kind.decode()}.")
    return boxes[kind]


def _version(body: memoryview) -> int:
    """Return the version of a box that begins with a version and flags."""
    (version,) = struct.unpack_from(">B", body)
    return int(version)


def _read_types(iinf: memoryview, primary: int, counter: _Counter) -> dict[int, bytes]:
    """Return the types of items by their numbers. Hides all items except the primary image.

    Items that are not images, such as XMP, are renamed, because the decoder would decompress them.
    """
    types: dict[int, bytes] = {}
    others = 0
    for kind, body, _ in _boxes(iinf[8 if _version(iinf) else 6 :], counter):
        if kind != b"infe":
            continue
        start = 10 if _version(body) > 2 else 8
        item, name = struct.unpack_from(">I2x4s" if _version(body) > 2 else ">H2x4s", body, 4)
        if item in types or _version(body) not in (2, 3):
            raise CorruptImage("The HEIC's list of images is damaged.")
        types[item] = name
        if item != primary:
            body[3] |= 1
        if name not in _IMAGES:
            others += 1
            body[start : start + 4] = _IGNORED
        if others > _MAX_OTHERS:
            raise ImageTooLarge(f"The HEIC has more than {_MAX_OTHERS} pieces of metadata. Save it without metadata.")
    return types


def _check_locations(iloc: memoryview, file_bytes: int, counter: _Counter) -> None:
    """Raise CorruptImage if the content of an item is longer than the file, because its parts overlap."""
    version, sizes = _version(iloc), int.from_bytes(iloc[4:6])
    offset, length, base = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index = sizes & 15 if version else 0
    wide = 4 if version == 2 else 2
    count, position, is_valid = int.from_bytes(iloc[6 : 6 + wide]), 6 + wide, version <= 2
    for _ in range(count):
        position += wide + (2 if version else 0) + 2 + base
        extents, total = int.from_bytes(iloc[position : position + 2]), 0
        position += 2
        for _ in range(extents):
            counter.count()
            position += index + offset
            # A part without a length is the rest of the file.
            total += int.from_bytes(iloc[position : position + length]) or file_bytes
            position += length
        is_valid = is_valid and total <= file_bytes and position <= len(iloc)
        if not is_valid:
            raise CorruptImage("The HEIC's boxes are damaged or incomplete.")


def _read_associations(tables: list[memoryview], counter: _Counter) -> dict[int, list[int]]:
    """Return the positions, from 1, of the properties of each item."""
    owned: dict[int, list[int]] = defaultdict(list)
    for table in tables:
        item_format, item_bytes = (">I", 4) if _version(table) else (">H", 2)
        index_format, index_bytes, mask = ("H", 2, 0x7FFF) if table[3:4] and table[3] & 1 else ("B", 1, 0x7F)
        (count,) = struct.unpack_from(">I", table, 4)
        position = 8
        for _ in range(count):
            counter.count()
            (item,) = struct.unpack_from(item_format, table, position)
            (number,) = struct.unpack_from(">B", table, position + item_bytes)
            position += item_bytes + 1
            owned[item] += [index & mask for index in struct.unpack_from(f">{number}{index_format}", table, position)]
            position += number * index_bytes
    return owned


def _read_references(iref: memoryview | None, counter: _Counter) -> dict[bytes, dict[int, list[int]]]:
    """Return the items to which items refer as their parts (dimg), and as the images that they belong to (auxl).

    References of metadata are renamed.
    """
    found: dict[bytes, dict[int, list[int]]] = {b"dimg": defaultdict(list), b"auxl": defaultdict(list)}
    if iref is None:
        return found
    item_format, item_bytes = ("I", 4) if _version(iref) else ("H", 2)
    for kind, body, name in _boxes(iref[4:], counter):
        item, count = struct.unpack_from(f">{item_format}H", body)
        # The decoder takes what follows for the next box.
        if len(body) != item_bytes + 2 + count * item_bytes:
            raise CorruptImage("The HEIC's references are damaged.")
        if kind in found:
            found[kind][item] += struct.unpack_from(f">{count}{item_format}", body, item_bytes + 2)
        elif kind == b"cdsc":
            name[:] = _IGNORED
    return found
