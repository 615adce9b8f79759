from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from litelens.core.heatmaps import to_png

SLOPE = np.array([[-3.0, 1.0], [2.0, 7.0]], np.float32)


def channels(png: bytes) -> NDArray[np.uint8]:
    """Return the pixels of the PNG, uint8 `(h, w, 4)`."""
    with Image.open(BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        return np.asarray(image)


@pytest.mark.parametrize(
    ("aspect", "width", "height"),
    [(1, 256, 256), (2, 256, 128), (0.5, 128, 256), (4 / 3, 256, 192), (1000, 256, 1), (0.001, 1, 256)],
)
def test_the_longer_side_has_256_pixels(aspect: float, width: int, height: int) -> None:
    assert channels(to_png(SLOPE, aspect)).shape == (height, width, 4)


def test_the_highest_score_is_opaque_red_and_the_lowest_transparent() -> None:
    pixels = channels(to_png(SLOPE, 1))
    assert pixels[-1, -1].tolist() == [255, 0, 0, 255]
    assert pixels[0, 0].tolist() == [255, 255, 0, 0]


def test_the_first_row_is_the_top_and_the_first_column_the_left() -> None:
    alpha = channels(to_png(np.array([[0, 0, 0], [9, 0, 0]], np.float32), 1.5))[:, :, 3]
    row, column = np.unravel_index(np.argmax(alpha), alpha.shape)
    assert row > alpha.shape[0] / 2
    assert column < alpha.shape[1] / 3


def test_scores_are_interpolated_between_the_cells() -> None:
    alpha = channels(to_png(SLOPE, 1))[:, :, 3].astype(int)
    assert max(np.abs(np.diff(alpha, axis=axis)).max() for axis in (0, 1)) <= 4


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("score", [0.0, -7.5, 1e30])
def test_equal_scores_are_transparent(score: float) -> None:
    assert not channels(to_png(np.full((7, 7), score, np.float32), 1))[:, :, 3].any()


def test_scale_and_offset_of_the_scores_do_not_matter() -> None:
    assert to_png(SLOPE, 1) == to_png(SLOPE * 8, 1) == to_png(SLOPE + 16, 1)


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1000, 1000, width=32))
)
def test_any_scores_can_be_drawn(scores: NDArray[np.float32]) -> None:
    pixels = channels(to_png(scores, 1))
    assert pixels.shape == (256, 256, 4)
    assert (pixels[:, :, 0] == 255).all()
    assert (pixels[:, :, 1] == 255 - pixels[:, :, 3]).all()
