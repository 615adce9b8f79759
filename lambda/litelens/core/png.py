"""Remove metadata from PNG files, and normalize the transparency and the colours that they declare."""

import struct
import zlib
from collections.abc import Mapping

from litelens.core.colour import MAX_PROFILE_BYTES, chromaticity_profile
from litelens.core.stripped import StrippedImage, count_part

_SIGNATURE_BYTES = 8
_KEPT = {b"IHDR", b"PLTE"}
# The chunks that become something else: transparency, orientation and colours.
_READ = {b"tRNS", b"eXIf", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}

_GREY, _RGB, _PALETTE = 0, 2, 3
# Compressed bytes that are decompressed in one step, to 4 MB at most.
_INFLATED_BYTES = 4096
# The number of channels of each colour type.
_CHANNELS = {_GREY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}


def strip_png(data: bytes) -> StrippedImage:
    """Keep one chunk of each type that decoding needs, and join all pixel data into one chunk.

    An animation keeps only its default image.
    """
    chunks: dict[bytes, bytes] = {}
    pixels: list[bytes] = []
    position, parts = _SIGNATURE_BYTES, 0
    while position + 8 <= len(data):
        parts = count_part(parts, "PNG", "chunks")
        length, kind = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            pixels.append(data[start:end])
        elif kind in _KEPT:
            # With its checksum, so that damage is found.
            chunks.setdefault(kind, data[position : end + 4])
        elif kind in _READ:
            chunks.setdefault(kind, data[start:end])
        position = end + 4
    bits, colours = chunks.get(b"IHDR", b"")[16:18].ljust(2, b"\0")
    palette = len(chunks.get(b"PLTE", b"")) // 3 - 4
    transparency = _transparency(chunks.get(b"tRNS", b""), bits, colours, palette)
    kept = [chunks[kind] for kind in chunks if kind in _KEPT]
    if transparency:
        kept.append(_chunk(b"tRNS", transparency))
    head = b"".join([data[:_SIGNATURE_BYTES], *kept])
    return StrippedImage(
        b"".join([head, _chunk(b"IDAT", b"".join(pixels)), _chunk(b"IEND", b"")]),
        exif=chunks.get(b"eXIf", b""),
        profile=_profile(chunks),
        pixel_bits=bits * _CHANNELS.get(colours, 0),
        pixels_at=len(head) + 8,
    )


def missing_share(stripped: StrippedImage, width: int, height: int) -> float:
    """Return the share of rows, 0 to 1, that the compressed data of a PNG that is not interlaced do not contain."""
    expected = (1 + -(-width * stripped.pixel_bits // 8)) * height
    found, inflater = 0, zlib.decompressobj()
    compressed = memoryview(stripped.data)[stripped.pixels_at :]
    for start in range(0, len(compressed), _INFLATED_BYTES):
        try:
            found += len(inflater.decompress(compressed[start : start + _INFLATED_BYTES]))
        except zlib.error:
            break
        if inflater.eof or found >= expected:
            break
    return max(0, expected - found) / expected


def _transparency(content: bytes, bits: int, colours: int, palette: int) -> bytes:
    """Return the content of a tRNS chunk as Pillow compares it with its pixels; empty if nothing is transparent.

    A tRNS chunk contains the transparent grey level or colour in 16 bits per channel, of which the lowest `bits`
    count. Pillow compares it with pixels that it has scaled to 8 bits, except grey of 16 bits. Like libpng, this
    ignores a chunk of the wrong length, such as one with more levels than the palette has colours.
    """
    if colours == _PALETTE:
        return content if len(content) <= palette else b""
    if len(content) != {_GREY: 2, _RGB: 6}.get(colours) or bits not in (1, 2, 4, 8, 16):
        return b""
    levels = [level & (1 << bits) - 1 for (level,) in struct.iter_unpack(">H", content)]
    if bits < 8:
        levels = [level * 255 // ((1 << bits) - 1) for level in levels]
    elif bits == 16 and colours == _RGB:
        levels = [level >> 8 for level in levels]
    return struct.pack(f">{len(levels)}H", *levels)


def _profile(chunks: Mapping[bytes, bytes]) -> bytes:
    """Return the ICC profile that a PNG contains, or one of the colours that it declares; empty if they are sRGB."""
    if b"iCCP" in chunks:
        # The name and a zero byte, the number of the compression, and the compressed profile.
        compressed = chunks[b"iCCP"].partition(b"\0")[2][1:]
        try:
            profile = zlib.decompressobj().decompress(compressed, MAX_PROFILE_BYTES + 1)
        except zlib.error:
            return b""
        return profile if len(profile) <= MAX_PROFILE_BYTES else b""
    if b"sRGB" in chunks:
        return b""
    gamma, chromaticities = chunks.get(b"gAMA", b""), chunks.get(b"cHRM", b"")
    return chromaticity_profile(
        struct.unpack(">I", gamma)[0] / 100_000 if len(gamma) == 4 else None,
        [value / 100_000 for value in struct.unpack(">8I", chromaticities)] if len(chromaticities) == 32 else None,
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
