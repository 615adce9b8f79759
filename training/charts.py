"""Charts as inline SVG for an HTML page, which gives them colour through their CSS classes, in light and in dark."""

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

WIDTH, LEFT, RIGHT = 440, 56, 418
LEGEND, MARK_ROW, PLOT, BELOW = 30, 15, 210, 46
MOST_DOTS = 40

MOST_NUMBERED = 25
MATRIX_SIDE = 480
MOST_TICKS = 25
LABEL_START, LABEL_END = 15, 8
LETTER = 6.4
RIGHT_COLOUR, WRONG_COLOUR = (0, 114, 178), (213, 94, 0)


@dataclass(frozen=True)
class Scale:
    """An axis: what it shows, from where to where, and how its numbers are written."""

    label: str
    low: float
    high: float
    percent: bool = False
    whole: bool = False

    def ticks(self) -> list[float]:
        """Four to seven round numbers between the ends."""
        step = _round_step((self.high - self.low) / 6, whole=self.whole)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(n * step, 10) for n in range(first, last + 1)]

    def share(self, value: float) -> float:
        """Where the value is, from 0 at the low end to 1 at the high one."""
        return (value - self.low) / (self.high - self.low)

    def text(self, value: float) -> str:
        return f"{value * 100:.6g}%" if self.percent else f"{value:,.6g}"


@dataclass(frozen=True)
class Series:
    """A line, with a dot at each of its points when they are few; `style` is its CSS class, for colour and dash."""

    name: str
    style: str
    points: Sequence[tuple[float, float]]
    dots: bool = True


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x` with a few words beside it."""

    x: float
    label: str


def scale_to(label: str, values: Sequence[float], percent: bool = False) -> Scale:
    """An axis from 0 to the first round number that none of the values exceeds."""
    most = max([value for value in values if math.isfinite(value)], default=0.0) or 1.0
    step = _round_step(most / 6)
    return Scale(label, 0.0, math.ceil(most / step - 1e-9) * step, percent)


def line_chart(title: str, x: Scale, y: Scale, lines: Sequence[Series], marks: Sequence[Mark] = ()) -> Markup:
    """Lines over two labelled axes with a legend; points that are not finite are left out."""
    plot = _Plot(x, y, top=LEGEND + MARK_ROW * min(len(marks), 2))
    drawn = [_axes(plot), *(_mark(plot, mark, row % 2) for row, mark in enumerate(marks))]
    drawn += [_line(plot, series) for series in lines]
    drawn.append(_legend(lines))
    return _svg("plot", WIDTH, plot.bottom + BELOW, title, drawn)


def confusion_numbers(counts: NDArray[np.int64], labels: Sequence[str]) -> Markup:
    """A confusion matrix, int `(classes, classes)`, with its numbers; for at most `MOST_NUMBERED` classes."""
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
    """A confusion matrix, int `(classes, classes)`, as a picture of one pixel for each cell, groups side by side.

    More classes than pixels share a pixel, which shows the strongest of its cells.
    """
    names = [groups.get(label, "") for label in labels]
    order = sorted(range(len(labels)), key=lambda index: (names[index], index))
    pixels = _strongest(row_shares(counts)[np.ix_(order, order)], MATRIX_SIDE)
    unit = MATRIX_SIDE / len(labels)
    picture = Markup('<image class="pixels" width="{0}" height="{0}" preserveAspectRatio="none" href="{1}"/>').format(
        MATRIX_SIDE, data_url(_two_colours(pixels))
    )
    if not any(names):
        return _matrix(MATRIX_SIDE, [((at + 0.5) * unit, labels[index]) for at, index in enumerate(order)], [picture])
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
    """Each count as a share of its row; 0 in a row without any."""
    totals = counts.sum(axis=1, keepdims=True)
    shares: Shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    return shares


def data_url(image: Image.Image) -> str:
    """The image as a PNG in a data URL."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _round_step(step: float, whole: bool = False) -> float:
    """The next of 1, 2, 2.5, 5 and 10 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    rounded = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= step * (1 - 1e-9))
    return float(max(1, math.ceil(rounded))) if whole else rounded


def _svg(style: str, width: float, height: float, title: str, drawn: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" role="img" aria-label="{}">'
        "<title>{}</title>{}</svg>"
    ).format(style, width, height, width, title, title, Markup("").join(drawn))


@dataclass(frozen=True)
class _Plot:
    x: Scale
    y: Scale
    top: int

    @property
    def bottom(self) -> int:
        return self.top + PLOT

    def across(self, value: float) -> float:
        return LEFT + self.x.share(value) * (RIGHT - LEFT)

    def down(self, value: float) -> float:
        return self.bottom - self.y.share(value) * PLOT


def _axes(plot: _Plot) -> Markup:
    drawn = []
    for value in plot.y.ticks():
        at = plot.down(value)
        drawn.append(Markup('<path class="grid" d="M{} {:.1f}H{}"/>').format(LEFT, at, RIGHT))
        drawn.append(_text(LEFT - 7, at + 4, plot.y.text(value), "end"))
    for value in plot.x.ticks():
        drawn.append(_text(plot.across(value), plot.bottom + 18, plot.x.text(value), "middle"))
    drawn.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, plot.bottom, RIGHT))
    drawn.append(_text((LEFT + RIGHT) / 2, plot.bottom + 38, plot.x.label, "middle", "name"))
    drawn.append(_upright(plot.top + PLOT / 2, plot.y.label))
    return Markup("").join(drawn)


def _line(plot: _Plot, series: Series) -> Markup:
    points = [(plot.across(x), plot.down(y)) for x, y in series.points if math.isfinite(x) and math.isfinite(y)]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    drawn = Markup('<path class="line {}" d="{}"/>').format(series.style, f"M{path}" if path else "")
    if not series.dots or len(points) > MOST_DOTS:
        return drawn
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>')
    return drawn + Markup("").join(dot.format(series.style, x, y) for x, y in points)


def _mark(plot: _Plot, mark: Mark, row: int) -> Markup:
    at = plot.across(mark.x)
    top = plot.top - MARK_ROW * row
    beside, anchor = (at + 4, "start") if plot.x.share(mark.x) < 0.7 else (at - 4, "end")
    line = Markup('<path class="mark" d="M{0:.1f} {1}V{2}"/>').format(at, top - 12, plot.bottom)
    return line + _text(beside, top - 4, mark.label, anchor, "note")


def _legend(lines: Sequence[Series]) -> Markup:
    drawn = []
    across = float(LEFT)
    for series in lines:
        sample = Markup('<path class="line {}" d="M{:.0f} 13h24"/>').format(series.style, across)
        drawn += [sample, _text(across + 30, 17, series.name, "start")]
        across += 30 + len(series.name) * 6.6 + 18
    return Markup("").join(drawn)


def _text(x: float, y: float, words: str, anchor: str, style: str = "number") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        style, x, y, anchor, words
    )


def _upright(y: float, words: str) -> Markup:
    """The name of an axis at the left edge, read from below."""
    return Markup(
        '<text class="name" text-anchor="middle" transform="translate(13 {:.1f}) rotate(-90)">{}</text>'
    ).format(y, words)


def _cell(x: float, y: float, side: float, count: int, strength: float, right: bool) -> Markup:
    style = "strong" if strength > 0.65 else "weak" if count else "none"
    square = Markup(
        '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}"/>'
    )
    number = Markup('<text class="count {}" x="{:.1f}" y="{:.1f}" font-size="{:.1f}" text-anchor="middle">{}</text>')
    size = min(13.0, side * 0.42)
    return square.format("right" if right else "wrong", x, y, side, side, strength) + number.format(
        style, x + side / 2, y + side / 2 + size * 0.36, size, count
    )


def _matrix(side: float, ticks: Sequence[tuple[float, str]], drawn: Sequence[Markup]) -> Markup:
    """What is drawn from (0, 0) to (side, side), with labelled axes: the truth down, what was said across."""
    shown = [(at, label, _shortened(label)) for at, label in ticks[:: -(-len(ticks) // MOST_TICKS)]]
    room = max(len(short) for _, _, short in shown) * LETTER
    left, slant = max(room, 40) + 34, room * 0.72 + 14
    rows = Markup('<text class="tick" x="-7" y="{:.1f}" text-anchor="end">{}<title>{}</title></text>')
    columns = Markup('<text class="tick" transform="translate({:.1f} -7) rotate(-45)">{}<title>{}</title></text>')
    inside = Markup("").join(
        [
            *drawn,
            Markup('<rect class="frame" width="{0:.1f}" height="{0:.1f}"/>').format(side),
            *(rows.format(at + 4, short, label) for at, label, short in shown),
            *(columns.format(at + 3, short, label) for at, label, short in shown),
        ]
    )
    top = slant + 26
    words = [
        Markup('<g transform="translate({:.1f} {:.1f})">{}</g>').format(left, top, inside),
        _text(left + side / 2, 14, "What the model said", "middle", "name"),
        _upright(top + side / 2, "What it is"),
    ]
    title = "Confusion matrix: rows are what the images show, columns what the model said"
    style = "matrix" if side < 300 else "matrix large"
    return _svg(style, left + max(side + slant, side / 2 + 75), top + side + 2, title, words)


def _shortened(label: str) -> str:
    """A long label without its middle, as long labels tend to begin or to end alike."""
    if len(label) <= LABEL_START + 1 + LABEL_END:
        return label
    return f"{label[:LABEL_START].rstrip()}…{label[-LABEL_END:].lstrip()}"


def _strongest(shares: Shares, most: int) -> Shares:
    """The matrix in at most `most` rows and columns, each the maximum of a block."""
    block = -(-len(shares) // most)
    padded = np.pad(shares, (0, -len(shares) % block))
    side = len(padded) // block
    strongest: Shares = padded.reshape(side, block, side, block).max(axis=(1, 3))
    return strongest


def _two_colours(shares: Shares) -> Image.Image:
    """One colour on the diagonal and another off it, as opaque as the square root of the share."""
    level = np.ceil(np.sqrt(shares) * 127).astype(np.uint8)
    off_diagonal = 128 * ~np.eye(len(shares), dtype=bool)
    image = Image.fromarray(level + off_diagonal.astype(np.uint8))
    image.putpalette([*RIGHT_COLOUR * 128, *WRONG_COLOUR * 128])
    image.info["transparency"] = bytes(round(index % 128 / 127 * 255) for index in range(256))
    return image
