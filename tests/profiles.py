"""ICC profiles for tests: of cameras and displays, from their primaries, of grey, and of a press with four inks."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

D50 = np.array([0.9642, 1.0, 0.8249])
D65, D50_XY = (0.3127, 0.329), (0.3457, 0.3585)

# The chromaticities of red, green and blue, and of white.
PRIMARIES = {
    "sRGB": ((0.64, 0.33), (0.3, 0.6), (0.15, 0.06), D65),
    "Display P3": ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06), D65),
    "Adobe RGB": ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), D65),
    "ProPhoto": ((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001), D50_XY),
}
# The exponents of their curves; 0 is sRGB's curve.
EXPONENTS = {"sRGB": 0, "Display P3": 0, "Adobe RGB": 563 / 256, "ProPhoto": 1.8}

_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def rgb_profile(name: str) -> bytes:
    curve = srgb_curve() if EXPONENTS[name] == 0 else exponent_curve(EXPONENTS[name])
    xyz = {tag: xyz_tag(value) for tag, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix(name).T, strict=True)}
    return profile(b"RGB ", b"XYZ ", {**xyz, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def grey_profile(exponent: float) -> bytes:
    return profile(b"GRAY", b"XYZ ", {b"kTRC": exponent_curve(exponent)})


def ink_profile(grid: int = 9) -> bytes:
    """Return a profile of inks that absorb as much light as they cover paper, with a table of `grid` points per ink."""
    cover = np.stack(np.meshgrid(*[np.linspace(0, 1, grid)] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    light = (1 - cover[:, :3]) * (1 - cover[:, 3:])
    table = np.rint(lab(light @ matrix("sRGB").T)).clip(0, 255).astype(np.uint8)
    straight = bytes(range(256))
    head = struct.pack(">4B9i", 4, 3, grid, 0, *(65536 if index % 4 == 0 else 0 for index in range(9)))
    tag = b"mft1".ljust(8, b"\0") + head + straight * 4 + table.tobytes() + straight * 3
    return profile(b"CMYK", b"Lab ", {b"A2B0": tag, b"A2B1": tag})


def profile(space: bytes, connection: bytes, tags: Mapping[bytes, bytes]) -> bytes:
    """Return an ICC profile, version 2."""
    description = b"desc".ljust(8, b"\0") + struct.pack(">I", 2) + b"x\0" + bytes(80)
    every = {b"desc": description, b"cprt": b"text".ljust(8, b"\0") + b"x\0", b"wtpt": xyz_tag(D50), **tags}
    position, table, contents = 132 + 12 * len(every), struct.pack(">I", len(every)), b""
    for tag, content in every.items():
        table += struct.pack(">4sII", tag, position + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    fields = (position + len(contents), b"", 0x02400000, kind, space, connection, b"acsp")
    header = struct.pack(">I4sI4s4s4s12x4s28x3i", *fields, *fixed(D50))
    return header.ljust(128, b"\0") + table + contents


def matrix(name: str) -> NDArray[np.float64]:
    """Return the matrix from light in red, green and blue to XYZ under D50, float64 `(3, 3)`."""
    *primaries, white = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in PRIMARIES[name])
    columns = np.stack(primaries, axis=1)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag((_BRADFORD @ D50) / (_BRADFORD @ white)) @ _BRADFORD
    return adaptation @ columns @ np.diag(np.linalg.solve(columns, white))


def lab(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert XYZ under D50 to CIELAB in the levels of an 8-bit profile, float64 `(n, 3)`."""
    scaled = xyz / D50
    roots = np.where(scaled > 216 / 24389, np.cbrt(scaled), (24389 / 27 * scaled + 16) / 116)
    lightness = (116 * roots[:, 1] - 16) * 2.55
    return np.stack(
        [lightness, 500 * (roots[:, 0] - roots[:, 1]) + 128, 200 * (roots[:, 1] - roots[:, 2]) + 128], axis=1
    )


def light_of(levels: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return the light of levels, both 0 to 1; an exponent of 0 is sRGB's curve."""
    if exponent:
        return levels**exponent
    return np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92)


def levels_of(light: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """Return the levels of light, both 0 to 1; an exponent of 0 is sRGB's curve."""
    light = light.clip(0, 1)
    if exponent:
        return light ** (1 / exponent)
    return np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, light * 12.92)


def convert(pixels: NDArray[np.uint8], source: str, target: str) -> NDArray[np.uint8]:
    """Convert RGB between two colour spaces of PRIMARIES, uint8 `(..., 3)`; colours outside are clipped."""
    xyz = light_of(pixels / 255, EXPONENTS[source]) @ matrix(source).T
    light = xyz @ np.linalg.inv(matrix(target)).T
    return np.rint(levels_of(light, EXPONENTS[target]) * 255).astype(np.uint8)


def xyz_tag(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ ".ljust(8, b"\0") + struct.pack(">3i", *fixed(xyz))


def exponent_curve(exponent: float) -> bytes:
    return b"curv".ljust(8, b"\0") + struct.pack(">IH", 1, round(exponent * 256))


def srgb_curve() -> bytes:
    """Return sRGB's curve as a formula."""
    values: Sequence[float] = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para".ljust(8, b"\0") + struct.pack(">HH5i", 3, 0, *(round(value * 65536) for value in values))


def fixed(values: NDArray[np.float64]) -> list[int]:
    return [round(float(value) * 65536) for value in values]
