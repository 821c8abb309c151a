"""Paper, pen and colors: sheets measured in inches, boxes, arrows, cells, and SVG that is the same each time.

Knows nothing of networks.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path

from msfnet.report import INK, VAL_COLOR

Point = tuple[float, float]

WIDTH_INCHES = 7.3  # 700 px of a page
TEXT, SMALL, TINY = 8.5, 7.5, 7  # points: 11, 10 and 9 px
FAINT, LINE, MUTED, WARM = "#eef1f6", "#c9ced8", "#5b6474", "#d9822b"
PURPLE = "#8f6bd1"

# How many frames something sees: the longer the darker.
REACH_COLORS = {
    1: "#dfe8f8", 3: "#b3c9f1", 5: "#7ea5ea", 7: "#4a80e0", 9: "#2857b0", 11: "#173770",
}  # fmt: skip
LEVELS = 33  # of a color map; odd, so that one of them is the middle


def _colors(*stops: str) -> Colormap:
    return LinearSegmentedColormap.from_list("msfnet", list(stops), N=LEVELS)


BLUES = _colors("#ffffff", "#b3c9f1", VAL_COLOR, "#173770")
DIVERGING = _colors("#a85a10", WARM, "#ffffff", VAL_COLOR, "#173770")
PALE = _colors("#f0ddc8", "#f8eadb", "#ffffff", "#dde8fa", "#cfd7e6")
GREYS = _colors(INK, "#ffffff")

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlesize": TEXT,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "svg.fonttype": "path",
    "svg.hashsalt": "msfnet",
}


def to_svg(figure: Figure) -> bytes:
    """Within STYLE letters are outlines, the same everywhere, and their text stays in comments. No date.

    Points of paths have two decimals: a hundredth of a pixel, and half the size.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), buffer.getvalue())


def sheet(height_inches: float) -> tuple[Figure, Axes]:
    """A page-wide figure and its only axes, whose unit is an inch; the origin is at the lower left."""
    figure = Figure(figsize=(WIDTH_INCHES, height_inches))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH_INCHES), ylim=(0, height_inches))
    axes.set_axis_off()
    return figure, axes


def dark(color: str) -> bool:
    """Whether white text is easier to read on it."""
    red, green, blue = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.55


def box(axes: Axes, center: Point, size: Point, text: str = "", fill: str = FAINT, bold: bool = False) -> None:
    """A rounded box with a few lines of text at the most."""
    (x, y), (width, height) = center, size
    corner = (x - width / 2, y - height / 2)
    rounded = f"round,pad=0,rounding_size={min(0.05, height / 3)}"
    axes.add_patch(FancyBboxPatch(corner, width, height, boxstyle=rounded, facecolor=fill, edgecolor=INK, lw=0.7))
    write(axes, center, text, color="white" if dark(fill) else INK, bold=bold)


def bar(axes: Axes, corner: Point, size: Point, fill: str, text: str = "", lw: float = 0.7) -> None:
    """A plain rectangle from its lower left corner."""
    (x, y), (width, height) = corner, size
    axes.add_patch(PathPatch(_rectangle(x, y, width, height), facecolor=fill, edgecolor=INK, lw=lw))
    write(axes, (x + width / 2, y + height / 2), text, color="white" if dark(fill) else INK)


def write(
    axes: Axes,
    at: Point,
    text: str,
    *,
    size: float = SMALL,
    color: str = INK,
    bold: bool = False,
    ha: str = "center",
    va: str = "center",
) -> None:
    """Text centered on a point, unless `ha` and `va` say otherwise; a line's middle is that of its capitals."""
    if not text:
        return
    x, y = at
    if va == "center" and "\n" not in text:
        va, y = "center_baseline", y + 0.0016 * size  # matplotlib's middle is a pixel too low
    weight = "bold" if bold else "normal"
    axes.text(x, y, text, fontsize=size, color=color, fontweight=weight, ha=ha, va=va, linespacing=1.25)


def arrow(axes: Axes, *points: Point, color: str = INK, head: bool = True) -> None:
    """A line through the points with a head at the last."""
    axes.add_patch(
        FancyArrowPatch(
            path=Path(points),
            arrowstyle="-|>" if head else "-",
            mutation_scale=7,
            color=color,
            lw=0.9,
            joinstyle="miter",
            capstyle="butt",
            shrinkA=0,
            shrinkB=0,
        )
    )


def plus(axes: Axes, center: Point, radius: float = 0.11) -> None:
    """The sign of an addition in a circle."""
    box(axes, center, (2 * radius, 2 * radius), fill="#ffffff")
    x, y = center
    for way in ((radius / 2, 0), (0, radius / 2)):
        arrow(axes, (x - way[0], y - way[1]), (x + way[0], y + way[1]), head=False)


Cells = npt.NDArray[np.floating]


def cells(axes: Axes, values: Cells, corner: Point, size: Point, cmap: Colormap, norm: Normalize) -> None:
    """A matrix as colored cells, its first row on top, from the lower left `corner`: one path for each color.

    Values are rounded to the colors there are; not a number leaves its cell empty.
    """
    rows, columns = values.shape
    (left, bottom), (width, height) = corner, (size[0] / columns, size[1] / rows)
    levels = np.round(np.clip(np.ma.filled(norm(values), np.nan), 0, 1) * (LEVELS - 1))
    found: dict[float, list[Path]] = {}
    for row, line in enumerate(levels):
        column, y = 0, bottom + (rows - 1 - row) * height
        for level, run in groupby(line):
            length = len(list(run))
            if not np.isnan(level):
                found.setdefault(level, []).append(_rectangle(left + column * width, y, length * width, height))
            column += length
    for level, rectangles in found.items():
        color = cmap(level / (LEVELS - 1))
        axes.add_patch(PathPatch(Path.make_compound_path(*rectangles), facecolor=color, edgecolor=color, lw=0.3))


def outline(axes: Axes, corner: Point, size: Point, color: str = LINE, lw: float = 0.6) -> None:
    """A rectangle from its lower left corner, empty."""
    axes.add_patch(PathPatch(_rectangle(*corner, *size), facecolor="none", edgecolor=color, lw=lw))


def _rectangle(x: float, y: float, width: float, height: float) -> Path:
    return Path([(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)], closed=True)


def evenly(count: int, start: float, end: float) -> Sequence[float]:
    """The middles of `count` equal intervals."""
    return [start + (end - start) * (i + 0.5) / count for i in range(count)]
