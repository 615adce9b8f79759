"""Charts as inline SVG for an HTML page, whose style sheet colours them by their CSS classes."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

Shares = NDArray[np.float64]

# Sizes of a line chart in pixels: the width and the ends of the x axis, then heights from top to bottom.
WIDTH, LEFT, RIGHT = 440, 56, 418
LEGEND_HEIGHT, MARK_HEIGHT, PLOT_HEIGHT, AXIS_HEIGHT = 30, 15, 210, 46
MAX_DOTS = 40

# Sizes of a confusion matrix; labels are shortened to their first and last letters.
MAX_NUMBERED = 25
MATRIX_SIDE = 480
MAX_TICKS = 25
LABEL_START, LABEL_END = 15, 8
LETTER_WIDTH = 6.4
CORRECT_COLOUR, WRONG_COLOUR = (0, 114, 178), (213, 94, 0)


@dataclass(frozen=True)
class Scale:
    """An axis: its label, its ends and the format of its numbers."""

    label: str
    low: float
    high: float
    percent: bool = False
    whole: bool = False

    def ticks(self) -> list[float]:
        """Return four to seven round numbers between the ends."""
        step = _round_step((self.high - self.low) / 6, whole=self.whole)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 10) for n in range(first, last + 1)]

    def position(self, value: float) -> float:
        """Return the position of a value, from 0 at the low end to 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def format(self, value: float) -> str:
        return f"{value * 100:.6g}%" if self.percent else f"{value:,.6g}"


@dataclass(frozen=True)
class Series:
    """A line, with a dot at each point if there are few; `style` is its CSS class, for colour and dash."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    dots: bool = True


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x` with a label."""

    x: float
    label: str


def scale_to(label: str, values: Sequence[float], percent: bool = False) -> Scale:
    """Create an axis from 0 to the next round number above all values."""
    most = max([value for value in values if math.isfinite(value)], default=0.0) or 1.0
    step = _round_step(most / 6)
    return Scale(label, 0.0, math.ceil(most / step - 1e-9) * step, percent)


def line_chart(title: str, x: Scale, y: Scale, lines: Sequence[Series], marks: Sequence[Mark] = ()) -> Markup:
    """Draw lines over two labelled axes, with a legend; points that are not finite are omitted."""
    plot = _Plot(x, y, top=LEGEND_HEIGHT + MARK_HEIGHT * min(len(marks), 2))
    parts = [_axes(plot), *(_mark(plot, mark, row % 2) for row, mark in enumerate(marks))]
    parts += [_line(plot, series) for series in lines]
    parts.append(_legend(lines))
    return _svg("plot", WIDTH, plot.bottom + AXIS_HEIGHT, title, parts)


def confusion_table(counts: NDArray[np.int64], labels: Sequence[str]) -> Markup:
    """Draw a confusion matrix, int `(classes, classes)`, with its numbers; for at most `MAX_NUMBERED` classes."""
    cell = min(80.0, max(26.0, 340 / len(labels)))
    strength = row_shares(counts)
    cells = [
        _cell(column * cell, row * cell, cell, int(counts[row, column]), strength[row, column], row == column)
        for row in range(len(labels))
        for column in range(len(labels))
    ]
    ticks = [((index + 0.5) * cell, label) for index, label in enumerate(labels)]
    return _matrix(cell * len(labels), ticks, cells)


def confusion_picture(counts: NDArray[np.int64], labels: Sequence[str], groups: Mapping[str, str]) -> Markup:
    """Draw a confusion matrix, int `(classes, classes)`, with one pixel for each cell; classes are sorted by group.

    If there are more classes than pixels, a pixel shows the largest share of several cells.
    """
    names = [groups.get(label, "") for label in labels]
    order = sorted(range(len(labels)), key=lambda index: (names[index], index))
    pixels = _max_pool(row_shares(counts)[np.ix_(order, order)], MATRIX_SIDE)
    unit = MATRIX_SIDE / len(labels)
    picture = Markup('<image class="pixels" width="{0}" height="{0}" preserveAspectRatio="none" href="{1}"/>').format(
        MATRIX_SIDE, data_url(_two_colours(pixels))
    )
    if not any(names):
        return _matrix(MATRIX_SIDE, [((row + 0.5) * unit, labels[index]) for row, index in enumerate(order)], [picture])
    ticks: list[tuple[float, str]] = []
    blocks: list[Markup] = []
    start = 0
    for name, members in groupby(names[index] for index in order):
        size = len(list(members))
        ticks.append(((start + size / 2) * unit, name))
        blocks.append(
            Markup('<rect class="block" x="{0:.2f}" y="{0:.2f}" width="{1:.2f}" height="{1:.2f}"/>').format(
                start * unit, size * unit
            )
        )
        start += size
    return _matrix(MATRIX_SIDE, ticks, [picture, *blocks])


def row_shares(counts: NDArray[np.int64]) -> Shares:
    """Divide each count by the sum of its row; the shares of an empty row are 0."""
    totals = counts.sum(axis=1, keepdims=True)
    shares: Shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return shares


def data_url(image: Image.Image) -> str:
    """Encode an image as a PNG in a data URL."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _round_step(step: float, whole: bool = False) -> float:
    """Round up to 1, 2, 2.5, 5 or 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    rounded = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))
    return float(max(1, math.ceil(rounded))) if whole else rounded


def _svg(style: str, width: float, height: float, title: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>"
    ).format(style, width, height, width, title, title, Markup("").join(parts))


@dataclass(frozen=True)
class _Plot:
    """The area between the axes of a line chart."""

    x: Scale
    y: Scale
    top: int

    @property
    def bottom(self) -> int:
        return self.top + PLOT_HEIGHT

    def x_pixel(self, value: float) -> float:
        return LEFT + self.x.position(value) * (RIGHT - LEFT)

    def y_pixel(self, value: float) -> float:
        return self.bottom - self.y.position(value) * PLOT_HEIGHT


def _axes(plot: _Plot) -> Markup:
    parts = []
    for value in plot.y.ticks():
        y = plot.y_pixel(value)
        parts.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, y, RIGHT))
        parts.append(_text(LEFT - 7, y + 4, plot.y.format(value), "end"))
    for value in plot.x.ticks():
        parts.append(_text(plot.x_pixel(value), plot.bottom + 18, plot.x.format(value), "middle"))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, plot.bottom, RIGHT))
    parts.append(_text((LEFT + RIGHT) / 2, plot.bottom + 38, plot.x.label, "middle", "name"))
    parts.append(_vertical_text(plot.top + PLOT_HEIGHT / 2, plot.y.label))
    return Markup("").join(parts)


def _line(plot: _Plot, series: Series) -> Markup:
    points = [(plot.x_pixel(x), plot.y_pixel(y)) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    parts = Markup('<path class="line {}" d="{}"/>').format(series.style, f"M{path}" if path else "")
    if not series.dots or len(points) > MAX_DOTS:
        return parts
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
    return parts + Markup("").join(dot.format(series.style, x, y) for x, y in points)


def _mark(plot: _Plot, mark: Mark, row: int) -> Markup:
    x = plot.x_pixel(mark.x)
    top = plot.top - MARK_HEIGHT * row
    label_x, anchor = (x + 4, "start") if plot.x.position(mark.x) < 0.7 else (x - 4, "end")
    line = Markup('<path class="mark" d="M{0:.1f} {1}V{2}"/>').format(x, top - 12, plot.bottom)
    return line + _text(label_x, top - 4, mark.label, anchor, "note")


def _legend(lines: Sequence[Series]) -> Markup:
    parts = []
    x = float(LEFT)
    for series in lines:
        sample = Markup('<path class="line {}" d="M{:.0f} 13h24"/>').format(series.style, x)
        parts += [sample, _text(x + 30, 17, series.name, "start")]
        x += 30 + len(series.name) * 6.6 + 18
    return Markup("").join(parts)


def _text(x: float, y: float, text: str, anchor: str, style: str = "number") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(style, x, y, anchor, text)


def _vertical_text(y: float, text: str) -> Markup:
    """Write the name of an axis vertically at the left edge."""
    return Markup(
        '<text class="name" text-anchor="middle" transform="translate(13 {:.1f}) rotate(-90)">{}</text>'
    ).format(y, text)


def _cell(x: float, y: float, side: float, count: int, strength: float, correct: bool) -> Markup:
    style = "strong" if strength > 0.65 else "weak" if count else "none"
    square = Markup(
        '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>'
    )
    number = Markup('<text class="count {}" x="{:.1f}" y="{:.1f}" font-size="{:.1f}" text-anchor="middle">{}</text>')
    size = min(13.0, side * 0.42)
    return square.format("right" if correct else "wrong", x, y, side, side, strength) + number.format(
        style, x + side / 2, y + side / 2 + size * 0.36, size, count
    )


def _matrix(side: float, ticks: Sequence[tuple[float, str]], parts: Sequence[Markup]) -> Markup:
    """Draw labelled axes around parts that cover (0, 0) to (side, side): true classes down, predicted ones across."""
    labels = [(position, label, _shorten(label)) for position, label in ticks[:: -(-len(ticks) // MAX_TICKS)]]
    label_width = max(len(short) for _, _, short in labels) * LETTER_WIDTH
    left, slant = max(label_width, 40) + 34, label_width * 0.72 + 14
    rows = Markup('<text class="tick" x="-7" y="{:.1f}" text-anchor="end">{}<title>{}</title></text>')
    columns = Markup('<text class="tick" transform="translate({:.1f} -7) rotate(-45)">{}<title>{}</title></text>')
    inside = Markup("").join(
        [
            *parts,
            Markup('<rect class="frame" width="{0:.1f}" height="{0:.1f}"/>').format(side),
            *(rows.format(position + 4, short, label) for position, label, short in labels),
            *(columns.format(position + 3, short, label) for position, label, short in labels),
        ]
    )
    top = slant + 26
    labelled = [
        Markup('<g transform="translate({:.1f} {:.1f})">{}</g>').format(left, top, inside),
        _text(left + side / 2, 14, "Predicted class", "middle", "name"),
        _vertical_text(top + side / 2, "True class"),
    ]
    title = "Confusion matrix: rows are true classes, columns are predicted classes"
    style = "matrix" if side < 300 else "matrix large"
    return _svg(style, left + max(side + slant, side / 2 + 75), top + side + 2, title, labelled)


def _shorten(label: str) -> str:
    """Remove the middle of a long label, as similar labels tend to share their beginning or their end."""
    if len(label) <= LABEL_START + 1 + LABEL_END:
        return label
    return f"{label[:LABEL_START].rstrip()}…{label[-LABEL_END:].lstrip()}"


def _max_pool(shares: Shares, max_side: int) -> Shares:
    """Reduce a matrix to at most `max_side` rows and columns; each cell is the maximum of a block."""
    block = -(-len(shares) // max_side)
    padded = np.pad(shares, (0, -len(shares) % block))
    side = len(padded) // block
    pooled: Shares = padded.reshape(side, block, side, block).max(axis=(1, 3))
    return pooled


def _two_colours(shares: Shares) -> Image.Image:
    """Draw shares in one colour on the diagonal and another off it; the opacity is the square root of the share."""
    level = np.ceil(np.sqrt(shares) * 127).astype(np.uint8)
    off_diagonal = 128 * ~np.eye(len(shares), dtype=bool)
    image = Image.fromarray(level + off_diagonal.astype(np.uint8))
    image.putpalette([*CORRECT_COLOUR * 128, *WRONG_COLOUR * 128])
    image.info["transparency"] = bytes(round(index % 128 / 127 * 255) for index in range(256))
    return image
