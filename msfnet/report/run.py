"""The page of a run: what it was, how it learned, how it scored, and every file that gave trouble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msfnet.report.epochs import cost_sections, learning_sections, time_sections
from msfnet.report.examples import Strips, no_strips
from msfnet.report.page import Section, write_page
from msfnet.report.plots import Rows
from msfnet.report.scores import score_sections, score_tiles
from msfnet.types import Scores


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    history: Rows,
    scores: Scores | None,
    problems: Mapping[str, str],
    trained: Mapping[str, int] | None = None,
    steps: int | None = None,
    strips: Strips = no_strips,
) -> None:
    """`problems` are files that could not be read, with the reason; `trained` the training videos of each class;
    `steps` those of an epoch. Sections that there is nothing for are left out.
    """
    sections = [Section("The run", rows=facts), *learning_sections(history)]
    if scores:
        sections += score_sections(scores, trained=trained, strips=strips)
    sections += [*time_sections(history, steps), *cost_sections(history)]
    if problems:
        sections.append(
            Section("Files that could not be read", "Skipped in training, counted as wrong in scores.", rows=problems)
        )
    write_page(path, title, score_tiles(scores) if scores else {}, sections)
