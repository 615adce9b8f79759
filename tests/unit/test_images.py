import contextlib
import struct
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile
from support import DATA, ROCKET, encoded, require

from litelens.core.errors import CorruptImage, ImageMissing, ImageTooLarge, InputError, NotAnImage
from litelens.core.formats import FORMAT_NAMES
from litelens.core.images import MAX_PIXELS, DecodedImage, Limits, decode

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "GIF": {}, "BMP": {}}


def decoded(data: bytes, **limits: int) -> DecodedImage:
    return decode(data, Limits(**limits))


def colour(data: bytes, x: int = 0, y: int = 0) -> tuple[int, int, int]:
    return decoded(data).rgb.getpixel((x, y))


def left_red_right_blue() -> Image.Image:
    image = Image.new("RGB", (40, 20), RED)
    image.paste(BLUE, (20, 0, 40, 20))
    return image


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with this size in its header that ends where its pixels would begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 8192) + b"IDAT"


@pytest.mark.parametrize("image_format", LOSSLESS)
def test_lossless_formats_keep_their_pixels(image_format: str) -> None:
    image = left_red_right_blue()
    result = decoded(encoded(image, image_format, **LOSSLESS[image_format]))
    assert result.format == image_format
    assert np.array_equal(np.asarray(result.rgb), np.asarray(image))


def test_jpeg_is_decoded_close_to_its_pixels() -> None:
    image = left_red_right_blue()
    result = decoded(encoded(image, "JPEG", quality=95, subsampling=0))
    assert result.format == "JPEG"
    assert np.abs(np.asarray(result.rgb, np.int16) - np.asarray(image, np.int16)).max() <= 4


# The EXIF orientation, and where the red half of the upright image is.
@pytest.mark.parametrize(
    ("orientation", "size", "red_at"),
    [
        (1, (40, 20), (5, 10)),
        (2, (40, 20), (35, 10)),
        (3, (40, 20), (35, 10)),
        (4, (40, 20), (5, 10)),
        (5, (20, 40), (10, 5)),
        (6, (20, 40), (10, 5)),
        (7, (20, 40), (10, 35)),
        (8, (20, 40), (10, 35)),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_upright_as_exif_says(
    image_format: str, orientation: int, size: tuple[int, int], red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if image_format == "JPEG" else LOSSLESS[image_format]
    result = decoded(encoded(left_red_right_blue(), image_format, exif=exif, **options)).rgb
    red, _, blue = result.getpixel(red_at)
    assert result.size == size
    assert red > 200 > blue


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"MM\0*\xff\xff\xff\xff", id="points beyond its end"),
        pytest.param(b"MM\0*\0\0\0\x08\xff\xff", id="ends before its entries"),
        pytest.param(b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x02A\0\0\0\0\0\0\0", id="orientation is text"),
        pytest.param(b"nonsense", id="no TIFF"),
    ],
)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_an_image_with_damaged_exif_is_decoded(image_format: str, exif: bytes) -> None:
    prefix = b"Exif\0\0" if image_format == "JPEG" else b""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decoded(encoded(left_red_right_blue(), image_format, exif=prefix + exif)).rgb.size == (40, 20)


def test_unusual_exif_besides_the_orientation_is_ignored() -> None:
    width_as_float = b"\x01\0\0\x0b\0\0\0\x01" + struct.pack(">f", 40)
    orientation = b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0"
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02" + width_as_float + orientation + b"\0\0\0\0"
    assert decoded(encoded(left_red_right_blue(), "JPEG", exif=exif)).rgb.size == (20, 40)


def test_a_multi_picture_file_of_a_phone_is_decoded_as_a_jpeg() -> None:
    pictures = encoded(left_red_right_blue(), "MPO", save_all=True, append_images=[Image.new("RGB", (40, 20))])
    assert decoded(pictures).format == "JPEG"
    assert colour(pictures)[0] > 200


def test_transparency_is_flattened_on_white() -> None:
    assert colour(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG")) == WHITE
    assert colour(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG")) == (255, 127, 127)
    assert colour(encoded(Image.new("LA", (4, 4), (0, 0)), "PNG")) == WHITE
    assert colour(encoded(Image.new("RGBA", (4, 4), (0, 0, 255, 0)), "WEBP", lossless=True)) == WHITE


def test_transparent_palette_entries_and_colour_keys_become_white() -> None:
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([*RED, *BLUE])
    assert colour(encoded(palette, "GIF", transparency=1)) == WHITE
    assert colour(encoded(palette, "PNG", transparency=1)) == WHITE
    assert colour(encoded(palette, "PNG")) == BLUE
    assert colour(encoded(Image.new("RGB", (4, 4), RED), "PNG", transparency=RED)) == WHITE


def test_a_cmyk_jpeg_has_the_colours_of_its_print() -> None:
    red, green, blue = colour(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95))
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(("mode", "value"), [("L", 128), ("1", 1)])
def test_grey_and_bilevel_images_become_rgb(mode: str, value: int) -> None:
    expected = 255 if mode == "1" else value
    assert colour(encoded(Image.new(mode, (4, 4), value), "PNG")) == (expected,) * 3


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (32768, 128), (65535, 255)])
def test_16_bit_grey_keeps_its_brightness(value: int, expected: int) -> None:
    assert colour(encoded(Image.fromarray(np.full((4, 4), value, np.uint16)), "PNG")) == (expected,) * 3


def test_of_an_animation_the_first_frame_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    for image_format in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], lossless=True)
        assert colour(data)[0] > 250


def test_no_bytes_are_a_missing_image() -> None:
    with pytest.raises(ImageMissing):
        decoded(b"")


@pytest.mark.parametrize("image_format", FORMAT_NAMES)
@pytest.mark.parametrize("kept", [0.002, 0.01, 0.3, 0.6, 0.9])
def test_truncated_images_are_corrupt(image_format: str, kept: float, noise: np.random.Generator) -> None:
    image = Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(image, image_format)
    with pytest.raises(CorruptImage):
        decoded(data[: max(12, int(len(data) * kept))])


def test_the_limit_of_pixels_applies_to_the_header_before_any_pixel_is_decoded() -> None:
    with pytest.raises(ImageTooLarge, match=f"more than {MAX_PIXELS:,} pixels"):
        decoded(png_header(60_000, 60_000))
    with pytest.raises(CorruptImage):
        decoded(png_header(5000, 5000))
    with pytest.raises(ImageTooLarge):
        decoded(encoded(left_red_right_blue(), "PNG"), pixels=799)
    assert decoded(encoded(left_red_right_blue(), "PNG"), pixels=800)


def test_the_limit_of_pixels_applies_to_the_header_of_a_webp() -> None:
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (59_999).to_bytes(3, "little") * 2
    with pytest.raises(ImageTooLarge):
        decoded(b"RIFF" + struct.pack("<I", len(canvas) + 4) + b"WEBP" + canvas)


@pytest.mark.parametrize("size", [(4000, 4000), (1, 60_000)])
@pytest.mark.parametrize("image_format", ["JPEG", "MPO"])
def test_a_jpeg_that_repeats_its_scans_is_refused(size: tuple[int, int], image_format: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("L", (8, 8))]} if image_format == "MPO" else {}
    data = encoded(Image.new("L", size), image_format, progressive=True, **options)
    end = data.index(b"\xff\xd9")
    last_scan = data[data.rindex(b"\xff\xda", 0, end) : end]
    assert decoded(data).rgb.size == size
    with pytest.raises(ImageTooLarge, match="more scans"):
        decoded(data[:end] + last_scan * 4000 + data[end:])


@pytest.mark.parametrize("progressive", [False, True])
def test_a_photo_of_a_phone_with_a_video_after_it_is_decoded(progressive: bool, noise: np.random.Generator) -> None:
    photo = encoded(Image.new("RGB", (8000, 6000)), "JPEG", progressive=progressive)
    video = noise.integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
    assert video.count(b"\xff\xda") > 20
    assert decoded(photo + video).rgb.size == ((4000, 3000) if progressive else (8000, 6000))


@pytest.mark.parametrize(("compression", "bits"), [(1, 8), (2, 4)])
def test_run_length_encoded_bmp_is_refused(compression: int, bits: int) -> None:
    header = struct.pack("<IiiHHIIiiII", 40, 8, 1, 1, bits, compression, 2, 2835, 2835, 16, 0)
    data = b"BM" + struct.pack("<IHHI", 14 + 40 + 64 + 2, 0, 0, 14 + 40 + 64) + header + bytes(64) + b"\x00\x01"
    with pytest.raises(NotAnImage, match="run-length"):
        decoded(data)


@pytest.mark.parametrize("header_size", [12, 40, 52, 56, 64, 108, 124])
def test_bmp_of_every_version_is_decoded(header_size: int) -> None:
    if header_size == 12:
        header = struct.pack("<IHHHH", 12, 1, 1, 1, 24)
    else:
        header = struct.pack("<IiiHHIIiiII", header_size, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0).ljust(header_size, b"\0")
    data = b"BM" + struct.pack("<IHHI", 14 + header_size + 4, 0, 0, 14 + header_size) + header + b"\0\0\xff\0"
    assert colour(data) == RED


def test_a_bug_is_not_reported_as_a_corrupt_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Image.Image:
        raise AttributeError("a bug")

    monkeypatch.setattr("litelens.core.images._to_rgb", broken)
    with pytest.raises(AttributeError):
        decoded(encoded(left_red_right_blue(), "PNG"))


def test_bmp_with_nonzero_reserved_bytes_is_decoded() -> None:
    data = bytearray(encoded(left_red_right_blue(), "BMP"))
    data[6:10] = b"GIMP"
    assert colour(bytes(data)) == RED


def test_decoding_restores_the_pixel_limit_of_pillow() -> None:
    before = Image.MAX_IMAGE_PIXELS
    decoded(encoded(left_red_right_blue(), "PNG"), pixels=800)
    assert before == Image.MAX_IMAGE_PIXELS


# The bytes per pixel that decoding takes: Pillow's image, what the decoder keeps, and 4 for RGB.
@pytest.mark.parametrize(
    ("mode", "image_format", "options", "bytes_per_pixel"),
    [
        ("RGB", "PNG", {}, 4),
        ("RGBA", "PNG", {}, 8),
        ("LA", "PNG", {}, 8),
        ("RGB", "PNG", {"transparency": BLUE}, 8),
        ("P", "PNG", {}, 5),
        ("P", "PNG", {"transparency": 0}, 5),
        ("1", "PNG", {}, 5),
        ("I;16", "PNG", {}, 6),
        ("P", "GIF", {}, 5),
        ("L", "BMP", {}, 5),
        ("RGB", "WEBP", {}, 17),
        ("RGBA", "WEBP", {"lossless": True}, 17),
    ],
)
def test_an_image_that_would_take_too_much_memory_is_refused(
    mode: str, image_format: str, options: dict[str, object], bytes_per_pixel: int
) -> None:
    data = encoded(Image.new(mode, (64, 48)), image_format, **options)
    assert decoded(data, memory=64 * 48 * bytes_per_pixel).rgb.size == (64, 48)
    with pytest.raises(ImageTooLarge, match=r"bytes of memory. Send a smaller image, or a baseline JPEG."):
        decoded(data, memory=64 * 48 * bytes_per_pixel - 1)


# At half its size, a progressive JPEG still has all its coefficients, of 2 bytes each.
@pytest.mark.parametrize(
    ("mode", "options", "bytes_per_pixel", "bytes_at_half_size"),
    [
        ("RGB", {}, 4, 1),
        ("L", {}, 5, 1.25),
        ("CMYK", {}, 8, 2),
        ("RGB", {"progressive": True, "subsampling": 2}, 7, 4),
        ("RGB", {"progressive": True, "subsampling": 0}, 10, 7),
        ("CMYK", {"progressive": True, "subsampling": 0}, 12, 9),
    ],
)
def test_a_jpeg_that_would_take_too_much_memory_is_decoded_at_half_its_size(
    mode: str, options: dict[str, object], bytes_per_pixel: float, bytes_at_half_size: float
) -> None:
    data = encoded(Image.new(mode, (64, 48)), "JPEG", **options)
    assert decoded(data, memory=int(64 * 48 * bytes_per_pixel)).rgb.size == (64, 48)
    assert decoded(data, memory=int(64 * 48 * bytes_per_pixel) - 1).rgb.size == (32, 24)
    assert decoded(data, memory=int(64 * 48 * bytes_at_half_size)).rgb.size == (32, 24)
    with pytest.raises(ImageTooLarge, match="Send a smaller image"):
        decoded(data, memory=int(64 * 48 * bytes_at_half_size) - 1)


def test_turning_an_image_takes_memory_for_another_copy() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    png = encoded(left_red_right_blue(), "PNG", exif=exif)
    assert decoded(png, memory=40 * 20 * 8).rgb.size == (20, 40)
    with pytest.raises(ImageTooLarge):
        decoded(png, memory=40 * 20 * 8 - 1)
    jpeg = encoded(left_red_right_blue(), "JPEG", exif=exif)
    assert decoded(jpeg, memory=40 * 20 * 8).rgb.size == (20, 40)
    assert decoded(jpeg, memory=40 * 20 * 8 - 1).rgb.size == (10, 20)


def test_a_jpeg_at_half_its_size_has_the_same_colours() -> None:
    red, _, blue = decoded(encoded(left_red_right_blue(), "JPEG", quality=95), memory=1000).rgb.getpixel((4, 5))
    assert red > 200 > 50 > blue


# Phones with 50 megapixels make photos of both sizes.
@pytest.mark.parametrize("size", [(8160, 6144), (8192, 6144)])
def test_the_largest_photo_of_a_phone_is_accepted_in_any_orientation(size: tuple[int, int]) -> None:
    photo = encoded(Image.new("RGB", size, RED), "JPEG")
    assert decoded(photo).rgb.size == size
    turned = decoded(hostile.after_start(photo, hostile.exif_segment(hostile.ORIENTATION_6)))
    assert turned.rgb.size == (size[1] // 2, size[0] // 2)
    assert turned.rgb.getpixel((0, 0))[0] > 250


def test_a_jpeg_with_one_scan_per_channel_takes_the_memory_of_a_progressive_one() -> None:
    data = hostile.channels_apart(64, 48)
    assert decoded(data, memory=64 * 48 * 10).rgb.size == (64, 48)
    assert decoded(data, memory=64 * 48 * 10 - 1).rgb.size == (32, 24)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can limit the memory of a process while it decodes")
def test_memory_that_no_header_announces_is_limited_too() -> None:
    data = hostile.prefix_code_groups(65_536)
    with pytest.raises(CorruptImage):
        decoded(data)
    assert decoded(hostile.prefix_code_groups(2)).rgb.size == (1024, 1024)
    assert decoded(data, memory=2_000_000_000).rgb.size == (1024, 1024)


def test_decoding_restores_the_memory_limit_of_the_process() -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    decoded(encoded(left_red_right_blue(), "PNG"))
    with pytest.raises(CorruptImage):
        decoded(ROCKET.read_bytes()[:5000])
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


@pytest.mark.parametrize("size", [(1, 65_536), (65_536, 1)])
def test_images_longer_than_any_photo_are_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageTooLarge, match="65,536 pixels long"):
        decoded(encoded(Image.new("L", size), "PNG"))
    shorter = (min(size[0], 65_535), min(size[1], 65_535))
    assert decoded(encoded(Image.new("L", shorter), "PNG")).rgb.size == shorter


def test_the_pixels_of_a_png_are_limited_in_bytes_too() -> None:
    with pytest.raises(ImageTooLarge, match="more than 75,000,000 bytes"):
        decoded(hostile.png(4000, 3126, 16, 2))


@pytest.mark.parametrize("transparency", [b"", hostile.TRANSPARENT])
def test_the_canvas_of_a_gif_around_its_frame_is_white(transparency: bytes) -> None:
    data = hostile.gif(transparency, hostile.gif_frame(4, 2, 10, 5))
    assert decoded(data).rgb.size == (40, 20)
    inside = WHITE if transparency else RED
    assert {colour(data, *at) for at in ((10, 5), (13, 6))} == {inside}
    assert {colour(data, *at) for at in ((0, 0), (9, 5), (14, 6), (10, 7), (39, 19))} == {WHITE}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "PNG more than a MB of text",
            "PNG colour profile",
            "PNG most chunks",
            "PNG IDATs of a byte",
            "PNG many EXIFs",
        ),
        *("JPEG comments", "JPEG colour profile", "JPEG padding", "JPEG junk", "JPEG EXIF without end"),
        *("JPEG many EXIFs", "GIF comments", "GIF controls", "GIF junk", "GIF a comment in blocks of a byte"),
        *("WEBP XMP", "WEBP EXIF", "WEBP colour profile", "WEBP chunks without end"),
    ],
)
def test_an_image_with_any_amount_of_metadata_is_decoded(name: str) -> None:
    assert decoded(hostile.MAKERS[name]()).format == name.split()[0]


@pytest.mark.parametrize(
    "name",
    ["JPEG comments without end", "PNG chunks without end", "PNG empty IDATs without end", "GIF controls without end"],
)
def test_a_file_with_far_too_many_parts_is_refused(name: str) -> None:
    with pytest.raises(ImageTooLarge, match=r"more than 20,000 \w+. Save it without metadata."):
        decoded(hostile.MAKERS[name]())


@pytest.mark.parametrize("frame", [0xC3, 0xC9, 0xCA])
def test_lossless_and_arithmetic_coded_jpegs_are_refused(frame: int) -> None:
    with pytest.raises(NotAnImage, match="send a baseline JPEG"):
        decoded(hostile.with_frame(frame))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
def test_a_webp_is_turned_by_exif_of_either_byte_order(order: str, prefix: bytes) -> None:
    mark = {"<": b"II", ">": b"MM"}[order]
    exif = prefix + mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    assert decoded(hostile.metadata_webp(8, hostile.riff(b"EXIF", exif))).rgb.size == (20, 40)


def test_a_png_is_turned_by_exif_after_its_pixels() -> None:
    file = hostile.small("PNG")
    assert decoded(file[:-12] + hostile.TURNED + file[-12:]).rgb.size == (20, 40)


@pytest.mark.parametrize("path", [ROCKET, *sorted((DATA / "photos").rglob("*.jpg"))[:20]], ids=lambda path: path.name)
def test_a_photo_without_its_metadata_has_the_pixels_that_pillow_decodes(path: Path) -> None:
    with Image.open(path) as photo:
        # The pixels without a profile are compared, because Pillow does not apply it.
        file = hostile.without_profile(path.read_bytes())
        expected = np.asarray(ImageOps.exif_transpose(photo).convert("RGB"))
    assert np.array_equal(np.asarray(decoded(file).rgb), expected)


@pytest.mark.parametrize("path", sorted((DATA / "hostile").rglob("*.*")), ids=lambda path: path.name)
def test_a_hostile_file_gives_an_image_or_an_input_error(path: Path) -> None:
    with contextlib.suppress(InputError):
        assert decoded(path.read_bytes()).rgb.mode == "RGB"


def test_hostile_files_and_photos_are_available() -> None:
    require((DATA / "hostile").is_dir() and (DATA / "photos").is_dir(), f"there are no hostile files in {DATA}")


@pytest.mark.parametrize("path", sorted((DATA / "photos").rglob("*.jpg")), ids=lambda path: path.name)
def test_a_real_photo_is_decoded(path: Path) -> None:
    with Image.open(path) as photo:
        assert decoded(path.read_bytes()).rgb.size in (photo.size, photo.size[::-1])


def test_bytes_are_limited() -> None:
    data = encoded(left_red_right_blue(), "PNG")
    with pytest.raises(ImageTooLarge, match=f"{len(data) - 1:,}"):
        decoded(data, bytes=len(data) - 1)
    assert decoded(data, bytes=len(data))


def test_messages_contain_neither_bytes_of_the_image_nor_a_path() -> None:
    for data in (b"SECRET" * 10, ROCKET.read_bytes()[:5000] + b"SECRET"):
        with pytest.raises(InputError) as caught:
            decoded(data)
        assert "SECRET" not in str(caught.value)
        assert "/" not in str(caught.value)


SMALL_FILES = [encoded(left_red_right_blue(), name) for name in FORMAT_NAMES]


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(SMALL_FILES), st.lists(st.tuples(st.integers(0, 5000), st.binary(max_size=8)), max_size=6))
def test_damaged_files_give_an_image_or_an_input_error(data: bytes, patches: list[tuple[int, bytes]]) -> None:
    damaged = bytearray(data)
    for position, patch in patches:
        position %= len(damaged)
        damaged[position : position + len(patch)] = patch
    try:
        result = decoded(bytes(damaged), pixels=1_000_000)
    except InputError:
        return
    assert result.rgb.mode == "RGB"


@settings(deadline=None)
@given(
    st.binary(max_size=2000), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"\x89PNG\r\n\x1a\n", b"RIFF"])
)
def test_any_bytes_give_an_image_or_an_input_error(data: bytes, magic: bytes) -> None:
    with contextlib.suppress(InputError):
        assert decoded(magic + data, pixels=1_000_000).rgb.mode == "RGB"


def test_a_jpeg_of_millions_of_fill_bytes_is_refused_quickly() -> None:
    """A search for the next marker that starts anew at each fill byte would take hours."""
    with pytest.raises(CorruptImage):
        decode(b"\xff\xd8" + b"\xff" * 4_000_000, Limits())


def test_threads_decode_one_after_the_other_because_limits_apply_to_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    meeting, load = threading.Barrier(2), JpegImageFile.load

    def meet(image: JpegImageFile) -> Any:
        with pytest.raises(threading.BrokenBarrierError):
            meeting.wait(timeout=0.1)
        return load(image)

    monkeypatch.setattr(JpegImageFile, "load", meet)
    before = Image.MAX_IMAGE_PIXELS
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pixels: decoded(ROCKET.read_bytes(), pixels=pixels), (1_000_000, 2_000_000)))
    assert [image.width for image in found] == [640, 640]
    assert before == Image.MAX_IMAGE_PIXELS
