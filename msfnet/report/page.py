"""Parts of a page, and the page: one file, its pictures inside it."""

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


@dataclass(frozen=True)
class Table:
    """Rows of as many cells as there are columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """One part of a page: any of a sentence, a picture, a table and a table of bars (shares from 0 to 1).

    `pictures` are shown one below the other, each over its caption: caption -> H W 3.
    """

    title: str
    lead: str = ""
    figure: Figure | None = None
    rows: Mapping[str, str] = field(default_factory=dict)
    bars: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    table: Table | None = None
    pictures: Mapping[str, Frames] = field(default_factory=dict)

    def to_template(self) -> dict[str, object]:
        bars = {key: {"text": text, "share": share} for key, (text, share) in self.bars.items()}
        picture = base64.b64encode(to_png(self.figure)).decode() if self.figure else None
        pictures = {caption: base64.b64encode(to_jpeg(frame)).decode() for caption, frame in self.pictures.items()}
        parts = {"picture": picture, "rows": self.rows, "bars": bars, "table": self.table, "pictures": pictures}
        return {"title": self.title, "lead": self.lead, **parts}


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    return buffer.getvalue()


def to_jpeg(frame: Frames) -> bytes:
    buffer = io.BytesIO()
    imsave(buffer, np.ascontiguousarray(frame), format="jpeg", pil_kwargs={"quality": 85})
    return buffer.getvalue()


def write_page(path: Path, title: str, tiles: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Write one HTML file, under a temporary name until it is whole."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("msfnet"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template("report.html").render(
        title=title, tiles=tiles, sections=[section.to_template() for section in sections]
    )
    write_text(path, page)
