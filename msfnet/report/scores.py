"""Scores as a page, as sections of one, and as text to paste."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from msfnet import metrics
from msfnet.report.examples import Strips, confused_section, no_strips, sure_sections
from msfnet.report.page import Section, Table, write_page
from msfnet.report.plots import plot_calibration, plot_confusion
from msfnet.types import Scores

MOST_PAIRS = 12


def write_scores_report(path: Path, title: str, scores: Scores, strips: Strips = no_strips) -> None:
    """The page of an evaluation."""
    sections = score_sections(scores, strips=strips)
    if scores.failed:
        sections.append(Section("Files that could not be read", "Each counts as wrong.", rows=scores.failed))
    write_page(path, title, score_tiles(scores), sections)


def score_tiles(scores: Scores) -> dict[str, str]:
    return {
        "video top-1": f"{scores.video['top1']:.1%}",
        "balanced over classes": f"{scores.balanced_top1:.1%}",
        "video top-5": f"{scores.video['top5']:.1%}",
        "clip top-1": f"{scores.clip['top1']:.1%}",
        f"videos, {scores.views} views": str(scores.n_videos),
        "could not be read": str(len(scores.failed)),
    }


def score_sections(
    scores: Scores, *, trained: Mapping[str, int] | None = None, strips: Strips = no_strips
) -> list[Section]:
    """Classes, confusions and confidence. `trained` says of how many videos each class was learned."""
    return [
        _classes(scores, trained or {}),
        Section("Confusion", "Rows are true, columns recognised.", figure=plot_confusion(scores)),
        *_pairs(scores),
        *confused_section(scores, strips),
        *_calibration(scores),
        *sure_sections(scores, strips),
    ]


def _classes(scores: Scores, trained: Mapping[str, int]) -> Section:
    """A row a class, worst first."""
    n_videos = np.array([int(scores.per_class.get(label, {"n": 0})["n"]) for label in scores.classes])
    precision, f1 = metrics.precision_and_f1(scores.confusion, n_videos)
    right = round(scores.video["top1"] * scores.n_videos)
    low, high = metrics.wilson(right, scores.n_videos)
    worst_first = sorted(scores.per_class, key=lambda label: scores.per_class[label]["top1"])
    rows = []
    for label in worst_first:
        i, row = scores.classes.index(label), scores.per_class[label]
        learned = (str(trained.get(label, 0)),) if trained else ()
        rows.append((label, *learned, f"{row['n']:.0f}", f"{row['top1']:.1%}", _share(precision[i]), _share(f1[i])))
    columns = ("class", *(["trained on"] if trained else []), "scored", "top-1 (recall)", "precision", "F1")
    lead = (
        f"Video top-1, worst class first. Of {scores.n_videos} videos {right} are right; with so many, "
        f"the true share lies between {low:.1%} and {high:.1%} (95 %)."
    )
    return Section("Classes", lead, table=Table(columns, rows))


def _share(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.1%}"


def _pairs(scores: Scores) -> list[Section]:
    pairs = metrics.confused_pairs(scores.confusion, MOST_PAIRS)
    if not pairs:
        return []
    totals = scores.confusion.sum(1)
    rows = [(scores.classes[i], scores.classes[j], f"{n} of {totals[i]}", f"{n / totals[i]:.0%}") for i, j, n in pairs]
    return [Section("Most confused", table=Table(("true class", "taken for", "videos", "share"), rows))]


def _calibration(scores: Scores) -> list[Section]:
    answered = [video for video in scores.videos if video.predicted is not None]
    if not answered:
        return []
    binned = metrics.calibration(np.array([v.score for v in answered]), np.array([v.right for v in answered]))
    sure, right = np.mean([v.score for v in answered]), np.mean([v.right for v in answered])
    leaning = "too sure of itself" if sure > right else "not sure enough of itself"
    verdict = f"it is {leaning}" if abs(sure - right) >= 0.01 else "on the whole it is as sure as it should be"
    lead = (
        f"Expected calibration error {binned.error:.1%} over {len(answered)} videos in {len(binned.n)} bins (Guo et "
        f"al., 2017; with few videos a bin it comes out too high). It claims {sure:.1%} on average and reaches "
        f"{right:.1%}: {verdict}."
    )
    return [Section("Can its confidence be believed?", lead, figure=plot_calibration(binned))]


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
