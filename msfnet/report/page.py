"""Sections of an HTML page, and the page itself: one file with its pictures embedded, which loads nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
import numpy as np
from matplotlib.figure import Figure
from matplotlib.image import imsave

from msfnet.atomic_io import write_text
from msfnet.types import Frames

READABLE_REM_PER_INCH = 4  # a plot that is scaled down further, to the width of a phone, scrolls instead


@dataclass(frozen=True)
class Table:
    """A table of text. Every row has one cell per column."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A section of a page. Parts that are empty are left out.

    Args:
        title: The heading.
        lead: Text below the heading.
        figure: A plot.
        rows: A table of two columns: name -> value.
        bars: A bar chart: name -> (text, length from 0 to 1).
        table: A table with column headings.
        pictures: Caption -> picture, H W 3.
    """

    title: str
    lead: str = ""
    figure: Figure | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    bars: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    table: Table | None = None
    pictures: Mapping[str, Frames] = field(default_factory=dict)

    def to_template(self) -> dict[str, object]:
        """Return the values that the template of the page uses, with pictures as base64."""
        return {
            "title": self.title,
            "lead": self.lead,
            "figure": _base64(to_png(self.figure)) if self.figure else None,
            "figure_min_rem": f"{READABLE_REM_PER_INCH * self.figure.get_figwidth():.0f}" if self.figure else None,
            "rows": self.rows,
            "bars": {name: {"text": text, "share": share} for name, (text, share) in self.bars.items()},
            "table": self.table,
            "pictures": {caption: _base64(to_jpeg(picture)) for caption, picture in self.pictures.items()},
        }


def to_png(figure: Figure) -> bytes:
    """Return a plot as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def to_jpeg(picture: Frames) -> bytes:
    """Return a picture H W 3 as a JPEG file."""
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(picture), format="jpeg", pil_kwargs={"quality": 85})
    return buffer.getvalue()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_page(path: Path, title: str, tiles: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Write a page as one HTML file, atomically.

    Args:
        path: The file.
        title: Title and first heading of the page.
        tiles: The most important numbers, shown large at the top: name -> value.
        sections: The rest of the page, from top to bottom.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("msfnet"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title, tiles=tiles, sections=[section.to_template() for section in sections]
    )
    write_text(path, page)
