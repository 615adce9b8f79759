"""HEIC files whose boxes would take the decoder endless time or memory are refused, and those of phones are not."""

import io
import struct
import subprocess
import sys
from pathlib import Path

import hostile
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import AvifImagePlugin, Image
from support import ROOT, encoded, require

from litelens.core.codecs import load_codec
from litelens.core.errors import CorruptImage, ImageError, ImageTooLarge, NotAnImage
from litelens.core.formats import AVIF, HEIF
from litelens.core.heif import strip_heif
from litelens.core.images import Limits, decode

GAIN_MAP = b"urn:com:apple:photo:2020:aux:hdrgainmap"
ALPHA = b"urn:mpeg:hevc:2015:auxid:1"
SIZE, TILE, GRID, AUXILIARY = 4, 5, (4,), 6


def photo_of_phone(
    width: int, height: int, tile: int, *, auxiliary: bytes = GAIN_MAP, references: tuple[tuple[bytes, int], ...] = ()
) -> bytes:
    """A HEIC like those of an iPhone: a grid of tiles with a thumbnail, EXIF, and an auxiliary image of tiles.

    `references` are further ones, from the auxiliary image, by type.
    """
    rows, columns = -(-height // tile), -(-width // tile)
    content = struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)
    tiles = list(range(2, rows * columns + 2))
    thumbnail, exif, extra = (tiles[-1] + number for number in (1, 2, 3))
    coded = (b"hvc1", hostile.TILE, (0x81, 2, TILE))
    items = [
        (b"grid", content, GRID),
        *[coded] * len(tiles),
        hostile.CODED,
        (b"Exif", bytes(4) + hostile.ORIENTATION_6, ()),
        (b"grid", content, (SIZE, AUXILIARY)),
        *[coded] * len(tiles),
    ]
    return hostile.heic(
        items,
        [
            hostile.size_property(width, height),
            hostile.size_property(tile, tile),
            hostile.full_box(b"auxC", 0, auxiliary + b"\0"),
        ],
        [
            (b"dimg", 1, tiles),
            (b"dimg", extra, [each + extra - 1 for each in tiles]),
            (b"thmb", thumbnail, [1]),
            (b"cdsc", exif, [1]),
            (b"auxl", extra, [1]),
            *((kind, extra, [to]) for kind, to in references),
        ],
    )


@pytest.fixture
def decoder() -> None:
    try:
        load_codec(HEIF)
    except NotAnImage:
        require(False, "pi-heif is not installed")


@pytest.mark.parametrize("size", [(4032, 3024), (3024, 4032), (8064, 6048), (600, 20), (1, 1)])
@pytest.mark.parametrize("auxiliary", [GAIN_MAP, ALPHA])
def test_photos_of_phones_pass(size: tuple[int, int], auxiliary: bytes) -> None:
    data = photo_of_phone(*size, 512, auxiliary=auxiliary)
    assert len(strip_heif(data).data) == len(data)


def test_a_grid_of_tiles_is_decoded(decoder: None) -> None:
    image = decode(hostile.heic_grid(2, 3, 350, 150), Limits())
    assert image.rgb.size == (350, 150)
    first, second = (image.rgb.crop((left, 0, left + 110, 70)) for left in (0, 120))
    assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (hostile.composed_heic(b"iovl", 1), NotAnImage),
        (hostile.composed_heic(b"iden", 1), NotAnImage),
        (hostile.composed_heic(b"grid", 2), NotAnImage),
        (hostile.heic([(b"grid", b"", (3,))], references=[(b"dimg", 1, [1])]), NotAnImage),
        (hostile.heic([(b"grid", b"", (3,))], references=[(b"dimg", 1, [2])]), NotAnImage),
        (hostile.heic_grid(20, 20, 1, 1), ImageTooLarge),
        (hostile.heic_grid(40, 40, 120, 80), ImageTooLarge),
        (photo_of_phone(4032, 3024, 512, auxiliary=ALPHA, references=((b"auxl", 2),)), NotAnImage),
        (hostile.heic([hostile.CODED]) + hostile.box(b"free") * 20_000, ImageTooLarge),
    ],
)
def test_compositions_that_would_take_long_are_refused(data: bytes, error: type[ImageError]) -> None:
    with pytest.raises(error):
        strip_heif(data)


def test_images_are_composed_as_usual_up_to_one_level(decoder: None) -> None:
    assert decode(hostile.composed_heic(b"grid", 1), Limits()).rgb.size == (120, 80)


@pytest.mark.parametrize("name", ["overlays of overlays", "grids of grids", "tiles on a canvas of a pixel"])
def test_hostile_compositions_are_refused(name: str, decoder: None) -> None:
    with pytest.raises((NotAnImage, ImageTooLarge)):
        decode(hostile.HEICS[name](), Limits())


def test_the_decoder_gets_no_metadata_and_only_the_primary_image(decoder: None) -> None:
    data = strip_heif(hostile.heic_of_copies(9, 1000)).data
    with Image.open(io.BytesIO(data), formats=[HEIF.name]) as image:
        assert (image.info["metadata"], image.info["exif"], image.n_frames) == ([], None, 1)


def test_the_primary_image_is_decoded_wherever_it_is(decoder: None) -> None:
    small = (b"grid", struct.pack(">BBBBHH", 0, 0, 0, 0, 50, 40), (4,))
    properties, references = [hostile.size_property(50, 40)], [(b"dimg", 2, [1])]
    for primary, size in ((1, (120, 80)), (2, (50, 40))):
        data = hostile.heic([hostile.CODED, small, hostile.CODED], properties, references, primary)
        assert decode(data, Limits()).rgb.size == size


def test_metadata_that_every_image_has_does_not_hinder(decoder: None) -> None:
    assert decode(hostile.heic_of_copies(400, 1_000_000), Limits()).rgb.size == (120, 80)


def test_a_heic_of_many_pieces_of_metadata_is_refused() -> None:
    usual, many = (hostile.heic([hostile.CODED, *[(b"mime", b"", ())] * count]) for count in (100, 101))
    assert strip_heif(usual).data
    with pytest.raises(ImageTooLarge):
        strip_heif(many)


def test_references_that_do_not_fill_their_box_are_corrupt() -> None:
    data = hostile.heic([hostile.CODED, hostile.CODED], references=[(b"thmb", 2, [1, 1])])
    assert strip_heif(data).data
    at = data.index(b"thmb") + 6
    with pytest.raises(CorruptImage):
        strip_heif(data[:at] + struct.pack(">H", 1) + data[at + 2 :])


OPEN_IN_PROCESS = r"""
import re, sys
from pathlib import Path
from litelens.core.errors import ImageError
from litelens.core.images import Limits, decode
for path in sys.argv[1:]:
    try:
        decode(Path(path).read_bytes(), Limits())
    except ImageError:
        pass
    # Not ru_maxrss, which begins with the memory of the process that started this one.
    print(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


# The first ones took so much memory that no thread could start, which ended the process; the last took 446 MB.
def test_no_file_ends_the_process(tmp_path: Path) -> None:
    require(sys.platform == "linux", "only Linux limits the memory of a process")
    heics = {f"{count}.heic": hostile.heic_of_copies(count, 1_000_000) for count in (30, 345, 400)}
    files = heics | {"frames.avif": hostile.endless_avif(2_500_000)}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    program = [sys.executable, "-c", OPEN_IN_PROCESS, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(
        program, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT / "lambda")}, check=False
    )
    assert done.returncode == 0, done.stderr
    peaks = [int(kilobytes) for kilobytes in done.stdout.split()]
    assert len(peaks) == len(files)
    assert max(peaks) < 250_000


def test_damaged_boxes_are_corrupt() -> None:
    good = hostile.heic([hostile.CODED])
    meta = good.index(b"meta")
    second = hostile.full_box(b"meta", 0)
    for data in (good[: meta + 20], good.replace(b"iinf", b"free"), good.replace(b"iprp", b"free"), good + second):
        with pytest.raises(CorruptImage):
            strip_heif(data)


def test_an_image_without_a_size_is_corrupt() -> None:
    with pytest.raises(CorruptImage):
        strip_heif(hostile.heic_grid(2, 2, 240, 160).replace(b"ispe", b"free"))


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=4)), max_size=5))
def test_any_change_of_the_boxes_gives_an_image_error(patches: list[tuple[int, bytes]]) -> None:
    data = bytearray(hostile.heic_grid(2, 2, 240, 160))
    end = data.index(b"mdat")
    for position, patch in patches:
        position %= end
        data[position : position + len(patch)] = patch
    try:
        assert len(strip_heif(bytes(data)).data) == len(data)
    except ImageError:
        return


def test_the_decoder_of_heic_has_one_thread(decoder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import pi_heif

    monkeypatch.setattr(pi_heif.options, "DECODE_THREADS", 4)
    decode(hostile.heic([hostile.CODED]), Limits())
    assert pi_heif.options.DECODE_THREADS == 1


def test_the_decoder_of_avif_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AvifImagePlugin, "DEFAULT_MAX_THREADS", 4)
    decode(encoded(Image.new("RGB", (40, 20)), AVIF.name), Limits())
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


def test_an_item_that_is_longer_than_the_file_is_corrupt() -> None:
    file = bytearray((ROOT / "tests" / "images" / "rocket.heic").read_bytes())
    # The box has one item with one part, whose length is its last field.
    box = file.index(b"iloc")
    assert struct.unpack_from(">H", file, box + 10) == (1,)
    strip_heif(bytes(file))
    struct.pack_into(">I", file, box + 26, len(file) + 1)
    with pytest.raises(CorruptImage):
        strip_heif(bytes(file))
