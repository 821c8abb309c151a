"""The comparison as a page and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msfnet.experiments.compare import (
    SEED,
    Duel,
    Run,
    SeedGroup,
    class_rows,
    differing_keys,
    duels,
    read_runs,
    seed_groups,
    spread,
)
from msfnet.metrics import wilson_interval
from msfnet.report import Section, Table, plot_curves, write_page

MOST_CURVES, MOST_COLUMNS = 20, 8
NONE = "–"


@dataclass(frozen=True)
class Comparison:
    """Runs, best first, what there is to say of them, and the folders that were left out: folder -> reason."""

    runs: Sequence[Run]
    skipped: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        keys = differing_keys(self.runs)
        return {
            "runs": [run.to_dict() | {"differs": {key: run.recipe.get(key) for key in keys}} for run in self.runs],
            "seeds": [group.to_dict() for group in seed_groups(self.runs)],
            "pairs": [duel.to_dict() for duel in duels(self.runs)],
            "skipped": dict(self.skipped),
        }


def compare(named: Sequence[str]) -> Comparison:
    """Read the runs in folders, or in those that patterns match. Raises UserError when there is no finished one."""
    return Comparison(*read_runs(named))


def write_comparison(path: Path, comparison: Comparison) -> None:
    runs = comparison.runs
    best = runs[0]
    tiles = {"runs": str(len(runs)), "left out": str(len(comparison.skipped))}
    if best.test_top1 is not None:
        tiles |= {"best test top-1": f"{best.test_top1:.1%}", "reached by": best.name}
    curves = {run.name: run.history for run in runs[:MOST_CURVES]}
    sections = [
        _results(runs),
        *_recipes(runs),
        *_seeds(seed_groups(runs)),
        *_duels(duels(runs)),
        Section("Learning", _left_out(len(runs), MOST_CURVES, "curves"), figure=plot_curves(curves)),
        _costs(runs),
        *_classes(runs[:MOST_COLUMNS], len(runs)),
    ]
    if comparison.skipped:
        sections.append(Section("Left out", rows=comparison.skipped))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, f"{len(runs)} runs compared", tiles, sections)


def _results(runs: Sequence[Run]) -> Section:
    columns = ("run", "best val top-1", "test top-1", "95 % of it", "videos", "balanced", "calibration error")
    rows = [
        (
            run.name,
            _percent(run.val_top1),
            _percent(run.test_top1),
            _interval(run),
            str(run.scores.n_videos) if run.scores else NONE,
            _percent(run.balanced),
            _percent(run.calibration_error),
        )
        for run in runs
    ]
    sizes = {run.scores.n_videos for run in runs if run.scores}
    lead = "Best first. " + (
        "They were scored on different numbers of videos: mind what is compared." if len(sizes) > 1 else ""
    )
    return Section("Results", lead, table=Table(columns, rows))


def _interval(run: Run) -> str:
    if not run.scores:
        return NONE
    low, high = wilson_interval(round(run.scores.video["top1"] * run.scores.n_videos), run.scores.n_videos)
    return f"{low:.1%} to {high:.1%}"


def _recipes(runs: Sequence[Run]) -> list[Section]:
    keys = differing_keys(runs)
    if not keys:
        return [Section("Recipes", "All recipes are the same.")] if len(runs) > 1 else []
    rows = [(run.name, *(_value(run.recipe.get(key)) for key in keys)) for run in runs]
    return [Section("What differs in their recipes", table=Table(("run", *keys), rows))]


def _seeds(groups: Sequence[SeedGroup]) -> list[Section]:
    if not groups:
        return []
    rows = [
        (
            ", ".join(run.name for run in group.runs),
            str(len(group.runs)),
            *(_mean(*group.mean(name)) for name in ("val_top1", "test_top1", "balanced")),
        )
        for group in groups
    ]
    lead = f"Recipes that differ in {SEED} alone: mean ± standard deviation. What lies within it is luck."
    columns = ("runs", "n", "best val top-1", "test top-1", "balanced")
    return [Section("Seeds", lead, table=Table(columns, rows))]


def _duels(found: Sequence[Duel]) -> list[Section]:
    if not found:
        return []
    rows = [
        (
            duel.second.name,
            *map(str, (duel.n_videos, duel.both, duel.only_first, duel.only_second)),
            _p(duel.p),
            duel.reading,
        )
        for duel in found
    ]
    lead = (
        f"{found[0].first.name} against each other run, video by video: McNemar's exact test"
        + (", p corrected for their number (Holm)." if len(found) > 1 else ".")
        + " It tells whether these weights differ, not whether another seed would: see the seeds for that."
    )
    columns = ("against", "videos", "both correct", "only the first", "only the other", "p", "reading")
    return [Section("Better, or lucky with these videos?", lead, table=Table(columns, rows))]


def _costs(runs: Sequence[Run]) -> Section:
    columns = ("run", "network", "M parameters", "GMACs", "epochs", "seconds an epoch", "peak memory, GB")
    rows = [
        (
            run.name,
            run.summary.name,
            f"{run.summary.params / 1e6:.3f}",
            f"{run.summary.macs / 1e9:.3g}",
            str(len(run.history)),
            _number(run.epoch_seconds, lambda seconds: f"{seconds:.3g}"),
            _number(run.peak_memory_mib, lambda mb: f"{mb / 1024:.2f}"),
        )
        for run in runs
    ]
    return Section("Cost", "Seconds are the median over epochs.", table=Table(columns, rows))


def _classes(runs: Sequence[Run], n_runs: int) -> list[Section]:
    rows = class_rows(runs)
    if not rows:
        return []
    cells = [(label, str(n), *map(_percent, values), f"{100 * spread(values):.1f}") for label, n, values in rows]
    lead = "Video top-1, largest difference first, in points. " + _left_out(n_runs, MOST_COLUMNS, "columns")
    return [Section("Classes", lead, table=Table(("class", "videos", *(r.name for r in runs), "difference"), cells))]


def _left_out(n: int, most: int, what: str) -> str:
    return f"The {most} best runs have {what}." if n > most else ""


def _number(value: float | None, text: Callable[[float], str]) -> str:
    return NONE if value is None else text(value)


def _percent(value: float | None) -> str:
    return _number(value, lambda share: f"{share:.1%}")


def _mean(mean: float | None, std: float | None) -> str:
    return NONE if mean is None or std is None or math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f} %"


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _value(value: Any) -> str:
    """As it stands in a recipe, without quotes."""
    if value is None or value in ("", [], ()):
        return NONE
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)
