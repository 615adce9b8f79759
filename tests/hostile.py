"""Hostile image files by name: they try to exhaust a decoder's time or memory, or to make it fail.

All are below 4.4 MB, the default limit of a file.

The files called "largest" are just within the default limits, those called "too large" just beyond.
"""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

import profiles
from PIL import Image
from support import ROOT, encoded

Maker = Callable[[], bytes]

# The size of files with many small parts, just below the accepted maximum.
FULL = 4_300_000
ORIENTATION_6 = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)


def small(image_format: str = "JPEG") -> bytes:
    return encoded(Image.linear_gradient("L").resize((40, 20)).convert("RGB"), image_format)


def noise(count: int) -> bytes:
    return random.Random(7).randbytes(count)


# JPEG


def segment(marker: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def after_start(jpeg: bytes, inserted: bytes) -> bytes:
    """Insert bytes before a JPEG's first segment."""
    return jpeg[:2] + inserted + jpeg[2:]


def without_profile(jpeg: bytes) -> bytes:
    """Rename the segments of a JPEG's colour profile, so that it is ignored."""
    return jpeg.replace(b"ICC_PROFILE\0", b"ICC_IGNORED\0")


def flat_jpeg(mode: str, width: int, height: int, **options: object) -> bytes:
    return encoded(
        Image.new(mode, (width, height), 77 if mode == "L" else (200, 90, 30, 10)[: len(mode)]), "JPEG", **options
    )


def exif_segment(tiff: bytes) -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff)


def turned_jpeg(*size: int, mode: str = "RGB", **options: object) -> bytes:
    return after_start(flat_jpeg(mode, *size, **options), exif_segment(ORIENTATION_6))


def exif_of_copies(entries: int, copied: int) -> bytes:
    """EXIF whose entries all refer to the same bytes, so that reading them copies the bytes once per entry."""
    start = 8 + 2 + 12 * entries + 4
    table = b"".join(struct.pack(">HHII", tag, 7, copied, start) for tag in range(1, entries + 1))
    return struct.pack(">2sHIH", b"MM", 42, 8, entries) + table + bytes(4) + bytes(copied)


def exif_in_segments(tiff: bytes) -> bytes:
    return b"".join(exif_segment(tiff[start : start + 65_000]) for start in range(0, len(tiff), 65_000))


def endless_exif() -> bytes:
    """EXIF whose directories contain each other."""
    return struct.pack(">2sHIHHHIIHHIII", b"MM", 42, 8, 2, 0x8769, 4, 1, 8, 0x8825, 4, 1, 8, 8)


def channels_apart(width: int, height: int) -> bytes:
    """A baseline JPEG with one scan per channel, for which a decoder keeps all coefficients."""
    grey = flat_jpeg("L", width, height)
    frame, scan = grey.index(b"\xff\xc0"), grey.index(b"\xff\xda")
    data = grey[scan + 10 : -2]
    parts = b"".join(bytes([channel, 0x11, 0]) for channel in (1, 2, 3))
    head = grey[:frame] + segment(0xC0, struct.pack(">BHHB", 8, height, width, 3) + parts)
    tables = grey[frame + 13 : scan]
    scans = b"".join(segment(0xDA, bytes([1, channel, 0, 0, 63, 0])) + data for channel in (1, 2, 3))
    return head + tables + scans + b"\xff\xd9"


def only_first_scan(width: int, height: int) -> bytes:
    """A progressive JPEG that ends after its first scan, so that a decoder smooths over what is missing."""
    jpeg = flat_jpeg("RGB", width, height, progressive=True)
    first = jpeg.index(b"\xff\xda")
    return jpeg[: jpeg.index(b"\xff\xda", first + 2)] + b"\xff\xd9"


def repeated_scans(width: int, height: int, scans: int, mode: str = "L") -> bytes:
    jpeg = flat_jpeg(mode, width, height, progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + last * (scans - jpeg.count(b"\xff\xda")) + b"\xff\xd9"


def with_frame(marker: int) -> bytes:
    return small().replace(b"\xff\xc0", bytes([0xFF, marker]))


def lying_jpeg(width: int, height: int) -> bytes:
    jpeg = small()
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def profile_segments(profile: bytes) -> bytes:
    """Split a colour profile into segments of a JPEG."""
    parts = [profile[start : start + 65_000] for start in range(0, len(profile), 65_000)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part) for number, part in enumerate(parts, 1)
    )


def inks_of_noise(width: int, height: int, grid: int) -> bytes:
    """A JPEG of noise in four inks, with a colour profile of this many points per ink."""
    levels = Image.frombytes("CMYK", (width // 8, height // 8), noise(width * height // 16))
    photo = encoded(levels.resize((width, height), Image.Resampling.NEAREST), "JPEG", quality=50)
    return after_start(photo, profile_segments(profiles.ink_profile(grid)))


def endless_tags() -> bytes:
    """A colour profile whose table has millions of tags, of which all are the whole profile."""
    profile = profiles.rgb_profile("Display P3")[:128] + struct.pack(">I", 2**32 - 1)
    return profile + b"".join(struct.pack(">4sII", b"rXYZ", 0, 3_000_000) for _ in range(250_000))


def shared_programs(steps: int) -> bytes:
    """A colour profile with a program (multiProcessElements) of this many steps, which all are the same bytes."""
    step = b"matf" + bytes(4) + struct.pack(">HH12f", 3, 3, 0.9, 0.1, 0, 0, 0.9, 0.1, 0.1, 0, 0.9, 0, 0, 0)
    positions = struct.pack(">II", 16 + 8 * steps, len(step)) * steps
    program = b"mpet" + bytes(4) + struct.pack(">HHI", 3, 3, steps) + positions + step
    tags = dict.fromkeys((b"D2B0", b"D2B1"), program)
    colours = profiles.matrix("Display P3")
    curve = profiles.exponent_curve(1.8)
    for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colours, strict=True):
        tags |= {name: profiles.xyz_tag(xyz), name[:1] + b"TRC": curve}
    return profiles.profile(b"RGB ", b"XYZ ", tags)


JPEGS: dict[str, Maker] = {
    "largest": lambda: flat_jpeg("RGB", 8192, 6144),
    "largest and turned": lambda: turned_jpeg(8192, 6144),
    "largest grey": lambda: flat_jpeg("L", 8192, 6144),
    "largest CMYK": lambda: flat_jpeg("CMYK", 8192, 6144),
    "too large": lambda: flat_jpeg("L", 8192, 6145),
    "largest progressive": lambda: flat_jpeg("RGB", 8192, 6144, progressive=True),
    "largest progressive at full size": lambda: flat_jpeg("RGB", 8000, 5714, progressive=True),
    "large progressive without subsampling": lambda: flat_jpeg("RGB", 7000, 6530, progressive=True, subsampling=0),
    "too large progressive without subsampling": lambda: flat_jpeg("RGB", 8192, 6145, progressive=True, subsampling=0),
    "largest progressive CMYK": lambda: turned_jpeg(5000, 7111, mode="CMYK", progressive=True),
    "too large progressive CMYK": lambda: flat_jpeg("CMYK", 6000, 6000, progressive=True),
    "large with channels apart": lambda: channels_apart(7000, 6530),
    "too large with channels apart": lambda: channels_apart(8192, 6145),
    "progressive with one scan": lambda: only_first_scan(8192, 6144),
    "most scans": lambda: repeated_scans(6000, 4000, 41),
    "most scans in colour": lambda: repeated_scans(6000, 4000, 41, "RGB"),
    "most scans of a small image": lambda: repeated_scans(100, 100, 15_000),
    "too many scans": lambda: repeated_scans(6000, 4000, 42),
    "a pixel wide": lambda: flat_jpeg("RGB", 1, 65_500, progressive=True),
    "a pixel high": lambda: flat_jpeg("RGB", 65_500, 1, progressive=True),
    "lies about its size": lambda: lying_jpeg(7000, 7000),
    "lies beyond the limit": lambda: lying_jpeg(65_535, 65_535),
    "without a height": lambda: lying_jpeg(40, 0),
    "arithmetic coded": lambda: with_frame(0xC9),
    "arithmetic coded progressive": lambda: with_frame(0xCA),
    "lossless": lambda: with_frame(0xC3),
    "comments without end": lambda: after_start(small(), segment(0xFE) * (FULL // 4)),
    "comments": lambda: after_start(small(), segment(0xFE, bytes(200)) * 19_000),
    "profiles without end": lambda: after_start(small(), segment(0xE2, b"ICC_PROFILE\0\1\xff") * (FULL // 18)),
    "colour profile": lambda: after_start(
        small(), b"".join(segment(0xE2, b"ICC_PROFILE\0" + bytes([n, 61]) + bytes(65_000)) for n in range(1, 62))
    ),
    "largest profile": lambda: inks_of_noise(160, 120, 28),
    "most inks": lambda: inks_of_noise(4000, 3000, 17),
    "profile of shared programs": lambda: after_start(small(), profile_segments(shared_programs(50_000))),
    "profile without end": lambda: after_start(small(), profile_segments(endless_tags())),
    "half with an end": lambda: flat_jpeg("L", 8192, 6144)[:200_000] + b"\xff\xd9",
    "Huffman tables": lambda: after_start(small(), segment(0xC4, bytes(17)) * (FULL // 21)),
    "quantization tables": lambda: after_start(small(), segment(0xDB, (b"\0" + bytes([1] * 64)) * 1000) * 66),
    "padding": lambda: after_start(small(), b"\xff" * FULL),
    "junk": lambda: after_start(small(), segment(0xFE) + bytes(FULL)),
    "stuffed zeros": lambda: after_start(small(), segment(0xFE) + b"\xff\0" * (FULL // 2)),
    "EXIF of copies": lambda: after_start(small(), exif_segment(exif_of_copies(4000, 17_000))),
    "EXIF of copies in segments": lambda: after_start(small(), exif_in_segments(exif_of_copies(60_000, 3_500_000))),
    "EXIF without end": lambda: after_start(small(), exif_segment(endless_exif())),
    "many EXIFs": lambda: after_start(small(), exif_segment(ORIENTATION_6) * 19_000),
    "and a page": lambda: after_start(small(), segment(0xFE, b"<script>alert(1)</script><!--")) + b"-->",
    "and a ZIP": lambda: small() + b"PK\x05\x06" + bytes(18),
    "and itself": lambda: small() * 5500,
}


# PNG


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int, colours: int, *, before: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG with chunks before its pixels, which pack well and are noise to the Paeth filter, the slowest to undo."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, interlaced))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    packed = zlib.compressobj(1)
    pixels = []
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    for left, top, across, down in passes if interlaced else [(0, 0, 1, 1)]:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0:
            size = -(-columns * bits * channels // 8)
            row = b"\4" + (noise(4096) * (size // 4096 + 1))[:size]
            pixels.extend(packed.compress(row) for _ in range(rows))
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", b"".join([*pixels, packed.flush()])) + chunk(b"IEND")


def png_header(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def many_idats(side: int, size: int) -> bytes:
    """A PNG whose pixels, which do not compress, come in chunks of this many bytes."""
    pixels = zlib.compress(b"".join(b"\0" + noise(side) for _ in range(side)), 0)
    pieces = [pixels[start : start + size] for start in range(0, len(pixels), size)]
    return png_header(side, side) + b"".join(chunk(b"IDAT", piece) for piece in pieces) + chunk(b"IEND")


def texts(kind: bytes, before: bytes, text: bytes, count: int) -> bytes:
    content = before + zlib.compress(text, 9)
    return b"".join(chunk(kind, b"%d" % number + content) for number in range(count))


def animated_png(frames: int) -> bytes:
    header, pixels = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)), zlib.compress(bytes(20))
    control = struct.pack(">IIIIHHBB", 4, 4, 0, 0, 1, 10, 0, 0)
    parts = [chunk(b"acTL", struct.pack(">II", frames, 0)), chunk(b"fcTL", bytes(4) + control), chunk(b"IDAT", pixels)]
    for number in range(1, frames):
        parts.append(chunk(b"fcTL", struct.pack(">I", 2 * number - 1) + control))
        parts.append(chunk(b"fdAT", struct.pack(">I", 2 * number) + pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(parts) + chunk(b"IEND")


PALETTE = chunk(b"PLTE", bytes(range(256)) * 3)
TURNED = chunk(b"eXIf", ORIENTATION_6)

PNGS: dict[str, Maker] = {
    "largest": lambda: png(8000, 3125, 8, 2),
    "largest interlaced": lambda: png(8000, 3125, 8, 2, interlaced=True),
    "too large in colour": lambda: png(8000, 3126, 8, 2),
    "largest of 16 bits": lambda: png(8000, 1562, 16, 2),
    "largest of 16 bits interlaced": lambda: png(8000, 1562, 16, 2, interlaced=True),
    "too large of 16 bits": lambda: png(8000, 1563, 16, 2),
    "largest grey": lambda: png(8192, 6144, 8, 0),
    "largest grey of 16 bits": lambda: png(8000, 4687, 16, 0),
    "largest bilevel": lambda: png(8192, 6144, 1, 0),
    "largest palette": lambda: png(8192, 6144, 8, 3, before=PALETTE),
    "largest transparent palette": lambda: png(8192, 6144, 8, 3, before=PALETTE + chunk(b"tRNS", b"\x80" * 256)),
    "largest and turned": lambda: png(8000, 5000, 8, 3, before=PALETTE + TURNED),
    "too large and turned": lambda: png(8000, 5001, 8, 3, before=PALETTE + TURNED),
    "largest transparent": lambda: png(8000, 2343, 8, 6),
    "largest transparent interlaced": lambda: png(8000, 2343, 8, 6, interlaced=True),
    "largest transparent of 16 bits": lambda: png(8000, 1171, 16, 6, interlaced=True),
    "largest transparent grey": lambda: png(8000, 2343, 16, 4),
    "largest with a colour key": lambda: png(8000, 3125, 8, 2, before=chunk(b"tRNS", bytes(6))),
    "too large with a colour key": lambda: png(8000, 3126, 8, 2, before=chunk(b"tRNS", bytes(6))),
    "too large transparent": lambda: png(8000, 2344, 8, 6),
    "too large": lambda: png(8192, 6145, 1, 0),
    "a pixel wide": lambda: png(1, 65_535, 8, 6),
    "a pixel high": lambda: png(65_535, 1, 8, 6, interlaced=True),
    "a pixel wide and too high": lambda: png_header(1, 2**25) + chunk(b"IDAT"),
    "a pixel high and too wide": lambda: png_header(2**25, 1) + chunk(b"IDAT"),
    "lies about its size": lambda: png_header(7000, 7000) + chunk(b"IDAT", zlib.compress(bytes(9))),
    "lies beyond the limit": lambda: png_header(2**31 - 1, 2**31 - 1) + chunk(b"IDAT"),
    "one row of thousands": lambda: (
        png_header(4000, 6000) + chunk(b"IDAT", zlib.compress(b"\0" + noise(4000))) + chunk(b"IEND")
    ),
    "most black pixels": lambda: (
        png_header(8192, 6144) + chunk(b"IDAT", zlib.compress(bytes(8193 * 6144), 9)) + chunk(b"IEND")
    ),
    "largest with a gamma": lambda: png(8000, 3125, 8, 2, before=chunk(b"gAMA", struct.pack(">I", 100_000))),
    "more than a MB of text": lambda: png(40, 20, 8, 2, before=texts(b"zTXt", b"\0\0", bytes(3_000_000), 1)),
    "texts": lambda: png(40, 20, 8, 2, before=texts(b"zTXt", b"\0\0", bytes(1_000_000), 4000)),
    "wide texts": lambda: png(
        40, 20, 8, 2, before=texts(b"iTXt", b"\0\1\0\0\0", "\U0001f4a3".encode() + b"a" * 1_000_000, 60)
    ),
    "XMP": lambda: png(40, 20, 8, 2, before=chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + b"<" * 4_200_000)),
    "colour profile": lambda: png(40, 20, 8, 2, before=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(10**8), 9))),
    "EXIF of copies": lambda: png(40, 20, 8, 2, before=chunk(b"eXIf", exif_of_copies(60_000, 3_500_000))),
    "many EXIFs": lambda: png(40, 20, 8, 2, before=TURNED * 19_000),
    "chunks without end": lambda: png(40, 20, 8, 2, before=chunk(b"prVt") * (FULL // 12)),
    "most chunks": lambda: png(40, 20, 8, 2, before=chunk(b"prVt", bytes(200)) * 19_900),
    "empty IDATs without end": lambda: png_header(4, 4) + chunk(b"IDAT") * (FULL // 12),
    "IDATs of a byte": lambda: many_idats(130, 1),
    "IDATs of a byte without end": lambda: many_idats(570, 1),
    "IDATs of 20 bytes": lambda: many_idats(600, 20),
    "palettes": lambda: png(40, 20, 8, 3, before=PALETTE * 5500),
    "animation": lambda: animated_png(9000),
    "animation without end": lambda: animated_png(60_000),
    "and a ZIP": lambda: small("PNG") + b"PK\x05\x06" + bytes(18),
    "and a JPEG": lambda: small("PNG") + small(),
}


# WebP


def riff(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(*chunks: bytes) -> bytes:
    return riff(b"RIFF", b"WEBP" + b"".join(chunks))


def first_chunk(file: bytes) -> bytes:
    """Return the image chunk of a simple WebP."""
    return file[12:]


def webp_size(width: int, height: int) -> bytes:
    return (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def canvas(width: int, height: int, flags: int) -> bytes:
    return riff(
        b"VP8X", struct.pack("<I", flags) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


def flat_webp(mode: str, width: int, height: int, **options: object) -> bytes:
    colour = (200, 90, 30, 128)[: len(mode)]
    return encoded(Image.new(mode, (width, height), colour), "WEBP", method=0, **options)


def metadata_webp(flags: int, *chunks: bytes) -> bytes:
    picture = first_chunk(encoded(Image.new("RGB", (40, 20)), "WEBP", lossless=True))
    profile = [part for part in chunks if part.startswith(b"ICCP")]
    return webp(canvas(40, 20, flags), *profile, picture, *(part for part in chunks if part not in profile))


def animated_webp(width: int, height: int, frames: int) -> bytes:
    picture = first_chunk(flat_webp("RGB", width, height, lossless=True))
    frame = riff(b"ANMF", bytes(6) + webp_size(width, height) + bytes([10, 0, 0, 0]) + picture)
    return webp(canvas(width, height, 2), riff(b"ANIM", bytes(6)), *[frame] * frames)


class Bits:
    """Bits written least significant first, as in lossless WebP."""

    def __init__(self) -> None:
        self._value, self._count, self._bytes = 0, 0, bytearray()

    def put(self, value: int, count: int) -> None:
        self._value |= value << self._count
        self._count += count
        while self._count >= 8:
            self._bytes.append(self._value & 255)
            self._value >>= 8
            self._count -= 8

    def done(self) -> bytes:
        return bytes(self._bytes) + bytes([self._value]) + bytes(8)


def prefix_codes(bits: Bits, *lengths_of_eight: bool) -> None:
    """Write five prefix codes: for 256 levels with eight bits each if the flag is true, else for the symbol 0 only."""
    for long in lengths_of_eight:
        if not long:
            bits.put(0b0001, 4)
            continue
        bits.put(0, 1)
        # The code lengths' own code has the symbols 0 and 8, a bit each; in the order 17, 18, 0, 1, ... 8.
        bits.put(12 - 4, 4)
        for symbol in (17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8):
            bits.put(1 if symbol in (0, 8) else 0, 3)
        # Only the first 256 of the symbols have a code.
        bits.put(1, 1)
        bits.put(3, 3)
        bits.put(256 - 2, 8)
        for _ in range(256):
            bits.put(1, 1)


def prefix_code_groups(groups: int) -> bytes:
    """A lossless WebP of one megapixel with one group of prefix codes per block of 4x4 pixels."""
    bits = Bits()
    bits.put(0x2F, 8)
    bits.put(1024 - 1, 14)
    bits.put(1024 - 1, 14)
    bits.put(0, 1 + 3)
    bits.put(0, 1)  # no transform
    bits.put(0, 1)  # no colour cache
    bits.put(1, 1)  # several groups
    bits.put(0, 3)  # for blocks of 4x4 pixels
    bits.put(0, 1)
    prefix_codes(bits, True, True, False, False, False)
    for block in range(256 * 256):
        number = block % groups
        for level in (number & 255, number >> 8):
            bits.put(int(f"{level:08b}"[::-1], 2), 8)
    for _ in range(groups):
        prefix_codes(bits, False, False, False, False, False)
    return webp(riff(b"VP8L", bits.done()))


WEBPS: dict[str, Maker] = {
    "largest": lambda: flat_webp("RGB", 4000, 4700),
    "largest lossless": lambda: flat_webp("RGB", 4000, 4700, lossless=True),
    "largest transparent": lambda: flat_webp("RGBA", 4000, 4700),
    "largest transparent lossless": lambda: flat_webp("RGBA", 4000, 4700, lossless=True, exif=ORIENTATION_6),
    "too large": lambda: flat_webp("RGB", 4000, 4710),
    "too large lossless": lambda: flat_webp("RGBA", 7000, 7000, lossless=True),
    "a pixel wide": lambda: flat_webp("RGBA", 1, 16_383, lossless=True),
    "a pixel high": lambda: flat_webp("RGBA", 16_383, 1),
    "lies about its size": lambda: webp(canvas(4000, 4700, 16), first_chunk(flat_webp("RGB", 40, 20, lossless=True))),
    "lies beyond the limit": lambda: webp(canvas(2**24, 2**24, 16)),
    "animation": lambda: animated_webp(4000, 4700, 1000),
    "animation without end": lambda: animated_webp(4, 4, FULL // 70),
    "colour profile": lambda: metadata_webp(32, riff(b"ICCP", bytes(FULL))),
    "EXIF": lambda: metadata_webp(8, riff(b"EXIF", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(FULL))),
    "EXIF of copies": lambda: metadata_webp(8, riff(b"EXIF", exif_of_copies(60_000, 3_500_000))),
    "XMP": lambda: metadata_webp(4, riff(b"XMP ", b"<" * FULL)),
    "chunks without end": lambda: metadata_webp(0, riff(b"prVt", b"") * (FULL // 8)),
    "groups of prefix codes": lambda: prefix_code_groups(65_536),
    "and a page": lambda: small("WEBP") + b"<script>alert(1)</script>",
}


# GIF


def gif(*parts: bytes, width: int = 40, height: int = 20) -> bytes:
    """A GIF with two colours."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\xff\0\0\0\0\xff" + b"".join(parts) + b";"


def blocks(content: bytes, size: int = 255) -> bytes:
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def gif_frame(width: int, height: int, left: int = 0, top: int = 0) -> bytes:
    descriptor = struct.pack("<HHHHB", left, top, width, height, 0)
    data = encoded(Image.new("L", (width, height)), "GIF", interlace=False, optimize=False)
    return b"," + descriptor + data[data.rindex(struct.pack("<HHHHB", 0, 0, width, height, 0)) + 9 : -1]


def flat_gif(width: int, height: int, **options: object) -> bytes:
    return encoded(Image.new("P", (width, height)), "GIF", optimize=False, **options)


TRANSPARENT = b"!\xf9\x04\1\0\0\0\0"

GIFS: dict[str, Maker] = {
    "largest": lambda: flat_gif(8192, 6144),
    "largest transparent": lambda: flat_gif(8192, 6144, transparency=0),
    "too large": lambda: gif(gif_frame(4, 4), width=8192, height=6145),
    "a dot on the largest": lambda: gif(TRANSPARENT, gif_frame(1, 1, 4000, 3000), width=8192, height=6144),
    "frame beyond its canvas": lambda: gif(gif_frame(4, 4, 65_000, 700)),
    "frame far beyond its canvas": lambda: gif(gif_frame(4, 4, 65_000, 65_000)),
    "a pixel wide": lambda: flat_gif(1, 65_535),
    "a pixel high": lambda: flat_gif(65_535, 1),
    "lies about its size": lambda: flat_gif(7000, 7000)[:900],
    "animation": lambda: gif(gif_frame(40, 20) * 50_000)[:FULL],
    "comments without end": lambda: gif(b"!\xfe\0" * (FULL // 3), gif_frame(40, 20)),
    "comments": lambda: gif((b"!\xfe" + blocks(bytes(200))) * 19_000, gif_frame(40, 20)),
    "a comment in blocks of a byte": lambda: gif(b"!\xfe" + b"\1a" * (FULL // 2) + b"\0", gif_frame(40, 20)),
    "applications without end": lambda: gif(b"!\xff\1a\0" * (FULL // 5), gif_frame(40, 20)),
    "controls": lambda: gif(TRANSPARENT * 19_000, gif_frame(40, 20)),
    "controls without end": lambda: gif(TRANSPARENT * (FULL // 8), gif_frame(40, 20)),
    "junk": lambda: gif(bytes(FULL), gif_frame(40, 20)),
    "only junk": lambda: gif(bytes(FULL)),
    "pixels in blocks of a byte": lambda: gif(gif_frame(40, 20)[:11] + b"\1\4" * (FULL // 2) + b"\0"),
    "and a page": lambda: gif(b"!\xfe" + blocks(b"*/=1;alert(1)//"), gif_frame(40, 20)) + b"<script>",
}


# BMP


USUAL_MASKS = (0xFF0000, 0xFF00, 0xFF)


def bmp(
    width: int,
    height: int,
    bits: int,
    compression: int = 0,
    content: bytes | None = None,
    masks: tuple[int, int, int] = USUAL_MASKS,
) -> bytes:
    row = -(-width * bits // 32) * 4
    pixels = bytes(row * abs(height)) if content is None else content
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 2835, 2835, 0, 0)
    fields = struct.pack("<III", *masks) if compression == 3 else b""
    palette = b"\x10\x20\x30\0" * 2**bits if bits <= 8 else b""
    start = 14 + len(header) + len(fields) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(pixels), 0, 0, start) + header + fields + palette + pixels


BMPS: dict[str, Maker] = {
    "largest": lambda: bmp(7900, 4350, 1),
    "largest of 4 bits": lambda: bmp(4000, 2150, 4),
    "largest palette": lambda: bmp(2150, 2000, 8),
    "largest in colour": lambda: bmp(1400, 1020, 24),
    "largest from the top": lambda: bmp(1400, -760, 32),
    "bit fields": lambda: bmp(1400, 760, 32, 3),
    "largest bit fields": lambda: bmp(1400, 1530, 16, 3, masks=(0xF00, 0xF0, 0xF)),
    "most narrow bit fields": lambda: bmp(1, 65_535, 16, 3, masks=(0xF00, 0xF0, 0xF)),
    "run-length encoded": lambda: bmp(7000, 7000, 8, 1, b"\xff\0" * 100_000),
    "run-length encoded in 4 bits": lambda: bmp(7000, 7000, 4, 2, b"\0\2\xff\xff" * 100_000),
    "a pixel wide": lambda: bmp(1, 65_535, 32),
    "a pixel high": lambda: bmp(65_535, 1, 32),
    "a pixel wide and too high": lambda: bmp(1, 1_050_000, 24),
    "a pixel high and too wide": lambda: bmp(1_400_000, 1, 24),
    "lies about its size": lambda: bmp(7000, 7000, 24, content=bytes(100)),
    "lies beyond the limit": lambda: bmp(2**31 - 1, 2**31 - 1, 24, content=b""),
    "of no size": lambda: bmp(0, -1, 24, content=b""),
}


# HEIC


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def full_box(kind: bytes, version: int, *contents: bytes) -> bytes:
    return box(kind, struct.pack(">I", version << 24), *contents)


# A coded image of 120 x 80 pixels, and its properties: the decoder's settings, and the colours.
_ROCKET = (ROOT / "tests" / "images" / "rocket.heic").read_bytes()
TILE = _ROCKET[378:]
TILE_PROPERTIES = (_ROCKET[172:292], _ROCKET[292:311])


def size_property(width: int, height: int) -> bytes:
    return full_box(b"ispe", 0, struct.pack(">II", width, height))


def heic(
    items: Sequence[tuple[bytes, bytes, Sequence[int]]],
    properties: Sequence[bytes] = (),
    references: Sequence[tuple[bytes, int, Sequence[int]]] = (),
    primary: int = 1,
) -> bytes:
    """A HEIC of items (type, content, positions of their properties), which are numbered from 1.

    The properties 1 to 3 are those of a coded image of 120 x 80 pixels; others follow. References are a type, the item
    that refers, and those to which it refers. Items of the same content share it.
    """
    contents = [*TILE_PROPERTIES, size_property(120, 80), *properties]
    infe = [full_box(b"infe", 2, struct.pack(">HH4s", n, 0, kind), b"\0") for n, (kind, _, _) in enumerate(items, 1)]
    owned = [struct.pack(">HB", n, len(own)) + bytes(own) for n, (_, _, own) in enumerate(items, 1)]
    associations = full_box(b"ipma", 0, struct.pack(">I", len(items)), *owned)
    boxes = [
        full_box(b"hdlr", 0, bytes(4), b"pict", bytes(13)),
        full_box(b"pitm", 0, struct.pack(">H", primary)),
        full_box(b"iinf", 0, struct.pack(">H", len(items)), *infe),
        box(b"iprp", box(b"ipco", *contents), associations),
        full_box(
            b"iref", 0, *[box(kind, struct.pack(f">HH{len(to)}H", n, len(to), *to)) for kind, n, to in references]
        ),
    ]
    first = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    shared = list(dict.fromkeys(content for _, content, _ in items))
    start = len(first) + 12 + sum(map(len, boxes)) + 16 + 14 * len(items) + 8
    at = {content: start + sum(map(len, shared[:number])) for number, content in enumerate(shared)}
    places = [struct.pack(">HHHII", n, 0, 1, at[content], len(content)) for n, (_, content, _) in enumerate(items, 1)]
    iloc = full_box(b"iloc", 0, b"\x44\0", struct.pack(">H", len(items)), *places)
    return first + full_box(b"meta", 0, *boxes, iloc) + box(b"mdat", *shared)


CODED = (b"hvc1", TILE, (0x81, 2, 3))


def heic_grid(rows: int, columns: int, width: int, height: int) -> bytes:
    """A HEIC of a grid of tiles with 120 x 80 pixels each."""
    content = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    tiles = range(2, rows * columns + 2)
    items = [(b"grid", content, (4,)), *[CODED] * len(tiles)]
    return heic(items, [size_property(width, height)], [(b"dimg", 1, tiles)])


def composed_heic(kind: bytes, depth: int) -> bytes:
    """A HEIC of images that are composed of two images of the previous level each, this many levels deep."""
    content = (
        struct.pack(">BBBBHH", 0, 0, 0, 1, 120, 80)
        if kind == b"grid"
        else struct.pack(">BB4HHHhhhh", 0, 0, 0, 0, 0, 0xFFFF, 120, 80, 0, 0, 0, 0)
    )
    items = [CODED, CODED, *[(kind, content, (3,))] * 2 * depth]
    references = [
        (b"dimg", number, ((number - 3) // 2 * 2 + 1, (number - 3) // 2 * 2 + 2)) for number in range(3, 3 + 2 * depth)
    ]
    return heic(items, references=references, primary=len(items))


def heic_of_copies(images: int, metadata: int) -> bytes:
    """A HEIC of many images, which all have the same EXIF."""
    exif = bytes(4) + b"MM\0*" + bytes(metadata)
    return heic([*[CODED] * images, (b"Exif", exif, ())], references=[(b"cdsc", images + 1, range(1, images + 1))])


HEICS: dict[str, Maker] = {
    "overlays of overlays": lambda: composed_heic(b"iovl", 30),
    "grids of grids": lambda: composed_heic(b"grid", 30),
    "tiles on a canvas of a pixel": lambda: heic_grid(20, 20, 1, 1),
    "images with one EXIF": lambda: heic_of_copies(400, 1_000_000),
    "images with a long EXIF": lambda: heic_of_copies(8, 4_000_000),
    "boxes without end": lambda: heic([CODED]) + box(b"free") * (FULL // 8),
}


# AVIF


def endless_avif(frames: int) -> bytes:
    """An AVIF sequence of this many frames of one byte."""
    images = [Image.new("RGB", (16, 16), (level, 0, 0)) for level in (0, 20, 40)]
    data = bytearray(encoded(images[0], "AVIF", save_all=True, append_images=images[1:], speed=10))
    sizes, chunks, times = (data.index(kind) for kind in (b"stsz", b"stsc", b"stts"))
    struct.pack_into(">II", data, sizes + 8, 1, frames)
    struct.pack_into(">I", data, chunks + 16, frames)
    struct.pack_into(">I", data, times + 12, frames)
    pixels = data.rindex(b"mdat") - 4
    struct.pack_into(">I", data, pixels, len(data) - pixels + frames)
    return bytes(data) + bytes(frames)


AVIFS: dict[str, Maker] = {
    "frames without end": lambda: endless_avif(2_500_000),
}


MAKERS: dict[str, Maker] = {
    f"{image_format} {name}": maker
    for image_format, makers in (
        ("JPEG", JPEGS),
        ("PNG", PNGS),
        ("WEBP", WEBPS),
        ("GIF", GIFS),
        ("BMP", BMPS),
        ("HEIC", HEICS),
        ("AVIF", AVIFS),
    )
    for name, maker in makers.items()
}
