"""Scores and histories to pictures and pages. A page is one file: its pictures are inside it."""

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
from matplotlib.ticker import MaxNLocator, PercentFormatter

from msfnet.arrays import Frames
from msfnet.files import write_text
from msfnet.types import Scores

Rows = Sequence[Mapping[str, float]]

INK, TRAIN_COLOUR, VAL_COLOUR = "#1d2330", "#9db7e8", "#2f6fde"


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


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    history: Rows,
    scores: Scores | None,
    problems: Mapping[str, str],
    extra: Sequence[Section] = (),
) -> None:
    """The page of a run: what it was, how it learned, how it scored, and every file that gave trouble."""
    tiles = score_tiles(scores) if scores else {}
    sections = [Section("The run", rows=facts), Section("Learning", figure=plot_history(history))]
    sections += [*time_sections(history), *extra]
    if scores:
        sections += score_sections(scores)
    if problems:
        sections.append(
            Section("Files that could not be read", "Skipped in training, counted as wrong in scores.", rows=problems)
        )
    write_page(path, title, tiles, sections)


# Parts of a training epoch, as the columns of its history name them, and what to do when one takes much of it.
PARTS = {
    "network": ("the network", ""),
    "wait": ("reading and decoding videos", "raise data.workers, or data.cache_gb until all frames are kept"),
    "augment": ("augmentation", "turn off what the recipe can spare, or train on a GPU"),
    "transfer": ("moving batches to the device", "use fewer frames or pixels"),
}
SLOW_SHARE = 0.03  # of an epoch: what data may cost before the page says what to do


def time_shares(history: Rows) -> dict[str, float]:
    """Where the time of all epochs went: part -> share of what was counted. Empty when nothing was."""
    seconds = {part: sum(row.get(f"{part}_seconds", 0.0) for row in history) for part in PARTS}
    total = sum(seconds.values())
    return {part: s / total for part, s in seconds.items()} if total else {}


def bottleneck(shares: Mapping[str, float]) -> str:
    """One sentence: whether the network had to wait for its data, for what most of all, and what helps."""
    part = max(("wait", "augment", "transfer"), key=lambda p: shares[p])
    what, remedy = PARTS[part]
    if shares[part] < SLOW_SHARE:
        return f"The network hardly waited: most for {what}, {shares[part]:.1%} of the time."
    return f"The network waited most for {what}, {shares[part]:.0%} of the time: {remedy}."


def time_sections(history: Rows) -> list[Section]:
    """Waiting, augmentation and transfer against the network's own time. Nothing for a history without times."""
    shares = time_shares(history)
    if not shares:
        return []
    read_seconds = sum(row.get("read_seconds", 0.0) for row in history)
    lead = f"{bottleneck(shares)} Reading and decoding took {read_seconds:.0f} s in all processes, mostly meanwhile."
    bars = {PARTS[part][0]: (f"{share:.1%}", share) for part, share in shares.items()}
    return [Section("Where the time went", lead, bars=bars)]


def write_scores_report(path: Path, title: str, scores: Scores) -> None:
    """The page of an evaluation."""
    sections = score_sections(scores)
    if scores.failed:
        sections.append(Section("Files that could not be read", "Each counts as wrong.", rows=scores.failed))
    write_page(path, title, score_tiles(scores), sections)


def score_tiles(scores: Scores) -> dict[str, str]:
    return {
        "video top-1": f"{scores.video['top1']:.1%}",
        "video top-5": f"{scores.video['top5']:.1%}",
        "clip top-1": f"{scores.clip['top1']:.1%}",
        "mean top-1 of classes": f"{scores.balanced_top1:.1%}",
        f"videos, {scores.views} views": str(scores.n_videos),
        "could not be read": str(len(scores.failed)),
    }


def score_sections(scores: Scores) -> list[Section]:
    worst_first = sorted(scores.per_class.items(), key=lambda pair: pair[1]["top1"])
    bars = {label: (f"{row['top1']:.1%} of {row['n']:.0f}", row["top1"]) for label, row in worst_first}
    return [
        Section("Confusion", "Rows are true, columns recognised.", figure=plot_confusion(scores)),
        Section("Classes", "Video top-1, worst first.", bars=bars),
    ]


def scores_markdown(scores: Scores) -> str:
    """The scores as a table to paste."""
    lines = [
        f"{scores.n_videos} videos, {scores.views} views, {len(scores.failed)} failed",
        "",
        "| | top-1 | top-5 |",
        "|---|---|---|",
        f"| clip | {scores.clip['top1']:.1%} | {scores.clip['top5']:.1%} |",
        f"| video | {scores.video['top1']:.1%} | {scores.video['top5']:.1%} |",
        f"| video, mean of classes | {scores.balanced_top1:.1%} | |",
        "",
        "| class | videos | top-1 |",
        "|---|---|---|",
        *(f"| {label} | {row['n']:.0f} | {row['top1']:.1%} |" for label, row in scores.per_class.items()),
    ]
    return "\n".join(lines) + "\n"


# Pictures


def plot_history(history: Rows) -> Figure:
    """Loss and top-1 of training and validation videos over epochs."""
    figure = Figure(figsize=(9, 3), layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    for axes, quantity in ((loss, "loss"), (top1, "top1")):
        for part, colour in (("train", TRAIN_COLOUR), ("val", VAL_COLOUR)):
            key = f"{part}_{quantity}"
            points = [(row["epoch"], row[key]) for row in history if key in row]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=".", label=part)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    loss.set_title("loss", loc="left")
    top1.set_title("top-1", loc="left")
    top1.set_ylim(0, 1.02)
    top1.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def plot_confusion(scores: Scores) -> Figure:
    """The confusion matrix, each row as shares of its class; numbers where there is room for them."""
    counts = scores.confusion
    n = len(scores.classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.32 * n)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= 40:
        axes.set_xticks(range(n), scores.classes, rotation=90)
        axes.set_yticks(range(n), scores.classes)
    if n <= 25:
        for row, column in np.argwhere(counts):
            colour = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    axes.set_xlabel("recognised")
    axes.set_ylabel("true")
    return figure


def plot_strips(strips: Mapping[str, Frames]) -> Figure:
    """Frames of several videos side by side, a row each: label -> T H W 3."""
    rows: list[Frames] = [np.concatenate(list(frames), axis=1) for frames in strips.values()]
    height, width = rows[0].shape[:2]
    figure = Figure(figsize=(9, 9 * height * len(rows) / width * 1.12), layout="constrained")
    for axes, (label, row) in zip(
        np.atleast_1d(figure.subplots(len(rows), 1)), zip(strips, rows, strict=True), strict=True
    ):
        axes.imshow(row)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    return figure
