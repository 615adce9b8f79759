"""Convert the colours of images to sRGB, by the ICC profile that they contain or by the primaries that they declare.

The profile of most photos is sRGB or missing. That is recognized without LittleCMS, which is imported only for other
profiles. A profile that is damaged, too large or of another kind than the image is ignored: the pixels are still there.
"""

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# The maximum size of a profile in bytes. Profiles of displays and cameras have a few kB; those of printing presses,
# which contain tables for four inks, have up to 3 MB.
MAX_PROFILE_BYTES = 4_000_000

# Of profiles up to this size, transforms are kept for several; of larger ones, for one. A phone sends the same profile
# with every photo.
_MAX_SMALL_BYTES = 64_000

# The length of a profile's header, the position of its colour space, and the size of an entry of its table of tags.
_HEADER_BYTES, _SPACE, _ENTRY_BYTES = 128, slice(16, 20), 12

# The kinds of pixels that a profile describes, by its colour space: the mode of the transform, and Pillow's modes of
# images. A grey image has equal amounts of red, green and blue.
_GREY_MODES = frozenset({"1", "L", "LA", "I;16", "I;16B", "I"})
_SPACES = {
    b"RGB ": ("RGB", frozenset({"RGB", "RGBA", "P"}) | _GREY_MODES),
    b"GRAY": ("L", _GREY_MODES),
    b"CMYK": ("CMYK", frozenset({"CMYK"})),
}

# The chromaticities of sRGB: white, red, green, blue, x and y each, as in PNG's cHRM.
_SRGB_CHROMATICITIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
# The white of the profile connection space (D50), and the Bradford matrix, which adapts colours to another white.
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

# The largest differences from sRGB that are ignored: of a colorant (XYZ), and of a curve (0 to 1).
_MAX_COLORANT_DIFFERENCE, _MAX_CURVE_DIFFERENCE = 0.003, 0.004
# The largest relative difference of an exponent from 2.2 that is ignored, which is libpng's.
_MAX_EXPONENT_DIFFERENCE = 0.05
_MIN_EXPONENT, _MAX_EXPONENT = 0.2, 5.0

_LEVELS = np.linspace(0, 1, 17)

# Tags that contain programs of any number of steps, which can share their bytes: a small profile can describe hours of
# work per image. LittleCMS prefers them to all others. Profiles of photos do not have them.
_PROGRAMS = {b"D2B0", b"D2B1", b"D2B2", b"D2B3"}


@dataclass(frozen=True)
class Transform:
    """A conversion of pixels to sRGB. `mode` is that of the profile's pixels: RGB, L or CMYK."""

    mode: str
    _transform: Any

    def apply(self, image: Image.Image) -> Image.Image:
        """Return an image (CMYK if that is the mode, else RGB) converted to sRGB."""
        from PIL import ImageCms

        source = image.getchannel(0) if self.mode == "L" else image
        converted = ImageCms.applyTransform(source, self._transform)
        return image if converted is None else converted


def transform_of(profile: bytes, mode: str) -> Transform | None:
    """Return the transform of a profile to sRGB for an image of this mode; None if the pixels need no conversion.

    They need none if there is no profile, if it is sRGB, or if it cannot be used. A profile with programs
    (multiProcessElements) is not used.
    """
    space, modes = _SPACES.get(profile[_SPACE], ("", frozenset()))
    if mode not in modes or len(profile) > MAX_PROFILE_BYTES:
        return None
    return (_small_transform if len(profile) <= _MAX_SMALL_BYTES else _large_transform)(profile, space)


def chromaticity_profile(gamma: float | None, chromaticities: Sequence[float] | None) -> bytes:
    """Return an ICC profile of RGB with these properties of a PNG; empty if they are missing, impossible, or sRGB's.

    `gamma` is the exponent with which levels were encoded, 0.45455 if it is usual. `chromaticities` are x and y of
    white, red, green and blue.
    """
    exponent = 1 / gamma if gamma else 2.2
    if not _MIN_EXPONENT <= exponent <= _MAX_EXPONENT:
        return b""
    colorants = _colorants(chromaticities or _SRGB_CHROMATICITIES)
    if colorants is None:
        return b""
    if abs(exponent / 2.2 - 1) <= _MAX_EXPONENT_DIFFERENCE and _are_srgb_colorants(colorants):
        return b""
    return _matrix_profile(colorants, _exponent_curve(exponent) if gamma else _srgb_curve())


def _transform(profile: bytes, space: str) -> Transform | None:
    if _has_program(profile) or (space == "RGB" and _is_srgb(profile)):
        return None
    try:
        from PIL import ImageCms
    except ImportError:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, ImportError, MemoryError, OSError, ValueError):
        # Without LittleCMS, Pillow raises ImportError only now.
        return None
    return Transform(space, transform)


_small_transform = functools.lru_cache(maxsize=8)(_transform)
_large_transform = functools.lru_cache(maxsize=1)(_transform)


def _has_program(profile: bytes) -> bool:
    try:
        return not _PROGRAMS.isdisjoint(_tags(profile))
    except struct.error:
        return False


def _is_srgb(profile: bytes) -> bool:
    """Return whether the matrix and the curves of an RGB profile are those of sRGB, up to rounding."""
    try:
        tags = _tags(profile)
        if b"A2B0" in tags:
            return False
        colorants = np.array([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")])
        curves = {tags[name] for name in (b"rTRC", b"gTRC", b"bTRC")}
        expected = _srgb_levels(_LEVELS)
        return _are_srgb_colorants(colorants) and all(
            np.abs(_evaluate(curve, _LEVELS) - expected).max() <= _MAX_CURVE_DIFFERENCE for curve in curves
        )
    except (struct.error, KeyError, ValueError):
        return False


def _tags(profile: bytes) -> dict[bytes, memoryview]:
    """Return the contents of a profile's tags by their signatures, without copies: they may overlap."""
    (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
    content = memoryview(profile)
    table = content[_HEADER_BYTES + 4 :][: min(count, 100) * _ENTRY_BYTES]
    entries = struct.iter_unpack(">4sII", table[: len(table) // _ENTRY_BYTES * _ENTRY_BYTES])
    return {name: content[start : start + size] for name, start, size in entries}


def _xyz(tag: memoryview) -> tuple[float, ...]:
    if bytes(tag[:4]) != b"XYZ ":
        raise ValueError("not a colour")
    return tuple(value / 65536 for value in struct.unpack_from(">3i", tag, 8))


def _evaluate(curve: memoryview, levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply a tone curve to levels from 0 to 1; raises ValueError or struct.error if it cannot be sRGB's."""
    if bytes(curve[:4]) == b"curv":
        (count,) = struct.unpack_from(">I", curve, 8)
        if not 2 <= count <= 65536:
            raise ValueError("an exponent, which sRGB's curve is not")
        table = np.array(struct.unpack_from(f">{count}H", curve, 12)) / 65535
        return np.interp(levels, np.linspace(0, 1, count), table)
    if bytes(curve[:4]) != b"para" or struct.unpack_from(">H", curve, 8)[0] != 3:
        raise ValueError("another curve")
    exponent, a, b, c, d = (value / 65536 for value in struct.unpack_from(">5i", curve, 12))
    light: NDArray[np.float64] = np.where(levels >= d, np.maximum(a * levels + b, 0) ** exponent, c * levels)
    return light


def _srgb_levels(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the light, 0 to 1, of levels of sRGB, 0 to 1."""
    return np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)


def _are_srgb_colorants(colorants: NDArray[np.float64]) -> bool:
    expected = _colorants(_SRGB_CHROMATICITIES)
    return expected is not None and bool(np.abs(colorants - expected).max() <= _MAX_COLORANT_DIFFERENCE)


def _colorants(chromaticities: Sequence[float]) -> NDArray[np.float64] | None:
    """Return the XYZ of red, green and blue, adapted to D50, float64 `(3, 3)`; None if they are impossible."""
    points = np.array(chromaticities, np.float64).reshape(4, 2)
    if (points[:, 1] < 1e-3).any() or (points < 0).any() or (points > 1).any():
        return None
    xyz = np.column_stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1:]
    white, primaries = xyz[0], xyz[1:]
    if abs(np.linalg.det(primaries)) < 1e-3:
        return None
    scaled = primaries * np.linalg.solve(primaries.T, white)[:, np.newaxis]
    cones = _BRADFORD @ white
    if (cones <= 1e-3).any():
        return None
    adaptation = np.linalg.solve(_BRADFORD, np.diag(_BRADFORD @ _D50 / cones) @ _BRADFORD)
    colorants: NDArray[np.float64] = scaled @ adaptation.T
    return colorants if np.abs(colorants).max() < 10 else None


def _matrix_profile(colorants: NDArray[np.float64], curve: bytes) -> bytes:
    """Return an ICC profile, version 2, of RGB with these colorants (XYZ, adapted to D50) and one curve."""
    tags = {
        b"desc": b"desc".ljust(8, b"\0") + struct.pack(">I", 4) + b"png\0" + bytes(78),
        b"cprt": b"text".ljust(8, b"\0") + b"-\0",
        b"wtpt": _xyz_tag(_D50),
        **{name: _xyz_tag(xyz) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants, strict=True)},
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve),
    }
    start = _HEADER_BYTES + 4 + _ENTRY_BYTES * len(tags)
    table, contents = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, start + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s28x3i",
        start + len(contents),
        b"",
        0x02400000,
        b"mntr",
        b"RGB ",
        b"XYZ ",
        b"acsp",
        *_fixed(_D50),
    )
    return header.ljust(_HEADER_BYTES, b"\0") + table + contents


def _fixed(xyz: NDArray[np.float64]) -> list[int]:
    return [round(float(value) * 65536) for value in xyz]


def _xyz_tag(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ ".ljust(8, b"\0") + struct.pack(">3i", *_fixed(xyz))


def _exponent_curve(exponent: float) -> bytes:
    return b"curv".ljust(8, b"\0") + struct.pack(">IH", 1, round(exponent * 256))


def _srgb_curve() -> bytes:
    levels = np.rint(_srgb_levels(np.linspace(0, 1, 1024)) * 65535).astype(">u2")
    return b"curv".ljust(8, b"\0") + struct.pack(">I", len(levels)) + levels.tobytes()
