"""The comparison of several runs, as an HTML page and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfnet.experiments.compare import (
    SEED,
    SEED_STATISTICS,
    PairedComparison,
    SeedGroup,
    accuracy_per_class,
    compare_with_first,
    seed_groups,
)
from msfnet.experiments.runs import FinishedRun, read_runs
from msfnet.metrics import wilson_interval
from msfnet.recipe import differing_keys
from msfnet.report import Section, Table, plot_curves, write_page

MOST_CURVES, MOST_COLUMNS = 20, 8
NONE = "–"


@dataclass(frozen=True)
class Comparison:
    """Finished runs, best first, and the folders without one: folder -> reason."""

    runs: Sequence[FinishedRun]
    skipped: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return what `msfnet compare --json` prints."""
        keys = differing_keys(run.recipe for run in self.runs)
        runs = [(run, run.recipe.flat()) for run in self.runs]
        return {
            "runs": [run.to_dict() | {"recipe": {key: recipe.get(key) for key in keys}} for run, recipe in runs],
            "seeds": [group.to_dict() for group in seed_groups(self.runs)],
            "pairs": [comparison.to_dict() for comparison in compare_with_first(self.runs)],
            "skipped": dict(self.skipped),
        }


def compare(patterns: Sequence[str]) -> Comparison:
    """Read the runs to compare.

    Args:
        patterns: Run folders or glob patterns.

    Raises:
        UserError: No folder has a finished run.
    """
    return Comparison(*read_runs(patterns))


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page of a comparison.

    Args:
        path: The HTML file, whose folder is created.
        comparison: The runs.
    """
    runs = comparison.runs
    best = runs[0]
    tiles = {"runs": str(len(runs)), "skipped": str(len(comparison.skipped))}
    if best.test_top1 is not None:
        tiles |= {"best test top-1": f"{best.test_top1:.1%}", "best run": best.name}
    curves = {run.name: run.history for run in runs[:MOST_CURVES]}
    sections = [
        _result_section(runs),
        *_recipe_sections(runs),
        *_seed_sections(seed_groups(runs)),
        *_pair_sections(compare_with_first(runs)),
        Section("Training curves", _restricted(len(runs), MOST_CURVES), figure=plot_curves(curves)),
        _cost_section(runs),
        *_class_sections(runs[:MOST_COLUMNS], len(runs)),
    ]
    if comparison.skipped:
        sections.append(Section("Skipped folders", rows=comparison.skipped))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, f"Comparison of {len(runs)} runs", tiles, sections)


def _result_section(runs: Sequence[FinishedRun]) -> Section:
    columns = (
        "run",
        "best val top-1",
        "test top-1",
        "95% CI",
        "test videos",
        "mean class accuracy",
        "calibration error",
    )
    rows = [
        (
            run.name,
            _percent(run.val_top1),
            _percent(run.test_top1),
            _interval(run),
            str(run.result.n_videos) if run.result else NONE,
            _percent(run.mean_class_accuracy),
            _percent(run.calibration_error),
        )
        for run in runs
    ]
    lead = "Sorted by test top-1."
    if len({run.result.n_videos for run in runs if run.result}) > 1:
        lead += " The runs were evaluated on different numbers of videos, so their accuracies are not comparable."
    return Section("Results", lead, table=Table(columns, rows))


def _interval(run: FinishedRun) -> str:
    if not run.result:
        return NONE
    low, high = wilson_interval(round(run.result.video.top1 * run.result.n_videos), run.result.n_videos)
    return f"{low:.1%} to {high:.1%}"


def _recipe_sections(runs: Sequence[FinishedRun]) -> list[Section]:
    keys = differing_keys(run.recipe for run in runs)
    if not keys:
        return [Section("Recipes", "All recipes are the same.")] if len(runs) > 1 else []
    recipes = [(run.name, run.recipe.flat()) for run in runs]
    rows = [(name, *(_value(recipe.get(key)) for key in keys)) for name, recipe in recipes]
    return [Section("Recipe differences", table=Table(("run", *keys), rows))]


def _seed_sections(groups: Sequence[SeedGroup]) -> list[Section]:
    if not groups:
        return []
    rows = [
        (
            ", ".join(run.name for run in group.runs),
            str(len(group.runs)),
            *(_mean_and_std(*group.mean_and_std(name)) for name in SEED_STATISTICS),
        )
        for group in groups
    ]
    lead = f"Runs whose recipes differ in {SEED} only: mean ± sample standard deviation."
    columns = ("runs", "n", "best val top-1", "test top-1", "mean class accuracy")
    return [Section("Variation over seeds", lead, table=Table(columns, rows))]


def _pair_sections(comparisons: Sequence[PairedComparison]) -> list[Section]:
    if not comparisons:
        return []
    rows = [
        (
            comparison.second.name,
            str(comparison.n_videos),
            str(comparison.both_correct),
            str(comparison.only_first),
            str(comparison.only_second),
            p_text(comparison.p),
            comparison.conclusion,
        )
        for comparison in comparisons
    ]
    lead = (
        f"The best run, {comparisons[0].first.name}, is compared with each other run on the videos that both were "
        "evaluated on, by McNemar's exact test"
        + (", with p corrected for the number of comparisons (Holm)" if len(rows) > 1 else "")
        + ". The test compares these weights; it does not account for the variance between seeds."
    )
    columns = (
        "compared with",
        "videos",
        "both correct",
        "only the best correct",
        "only the other correct",
        "p",
        "conclusion",
    )
    return [Section("Paired comparison", lead, table=Table(columns, rows))]


def _cost_section(runs: Sequence[FinishedRun]) -> Section:
    columns = ("run", "network", "M parameters", "GMACs", "epochs", "seconds per epoch", "peak memory (MiB)")
    rows = [
        (
            run.name,
            run.model.name,
            f"{run.model.params / 1e6:.3f}",
            f"{run.model.macs / 1e9:.3g}",
            str(len(run.history)),
            _number(run.epoch_seconds, lambda seconds: f"{seconds:.3g}"),
            _number(run.peak_memory_mib, lambda mib: f"{mib:,.0f}"),
        )
        for run in runs
    ]
    return Section("Cost", "Seconds are the median over epochs.", table=Table(columns, rows))


def _class_sections(runs: Sequence[FinishedRun], n_runs: int) -> list[Section]:
    rows = accuracy_per_class(runs)
    if not rows:
        return []
    cells = [
        (row.label, str(row.n_videos), *map(_percent, row.top1), f"{100 * row.difference:.1f} points") for row in rows
    ]
    lead = f"Video accuracy, largest difference first. {_restricted(n_runs, MOST_COLUMNS)}"
    columns = ("class", "videos", *(run.name for run in runs), "difference")
    return [Section("Accuracy per class", lead, table=Table(columns, cells))]


def _restricted(n_runs: int, most: int) -> str:
    return f"Only the {most} best runs are shown." if n_runs > most else ""


def _number(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else text(value)


def _percent(value: float | None) -> str:
    return _number(value, lambda share: f"{share:.1%}")


def _mean_and_std(mean: float | None, std: float | None) -> str:
    return NONE if mean is None or std is None or math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f}%"


def p_text(p: float) -> str:
    """Return a p-value as text, with three decimals."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _value(value: Any) -> str:
    """Return a value of a recipe as text without quotes."""
    if value is None or value in ("", [], ()):
        return NONE
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)
