"""The page of a run: what was trained, training curves, evaluation, step time, memory and unreadable files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msfnet.report.evaluation import Thumbnails, evaluation_sections, evaluation_tiles, no_thumbnails
from msfnet.report.page import Section, write_page
from msfnet.report.plots import STEP_PARTS, EpochRows, plot_cost, plot_history
from msfnet.types import EvalResult

# What to do when one of these parts takes much of a training step.
REMEDIES = {
    "data": "raise data.num_workers, or raise data.cache_gib until all frames fit in the cache",
    "augment": "use less augmentation, or train on a GPU",
    "h2d": "use fewer frames or a smaller crop",
}
ACCEPTABLE_SHARE = 0.03  # share of the step time that data may take before the page recommends a remedy


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    history: EpochRows,
    result: EvalResult | None,
    unreadable: Mapping[str, str],
    n_train: Mapping[str, int] | None = None,
    steps_per_epoch: int | None = None,
    thumbnails: Thumbnails = no_thumbnails,
) -> None:
    """Write the page of a run. Sections without content are left out.

    Args:
        path: The HTML file.
        title: Title of the page.
        facts: What was trained: name -> value.
        history: The rows of metrics.csv.
        result: Evaluation on the test set; None if there is none yet.
        unreadable: Path -> reason, of files that could not be read.
        n_train: Number of training videos of each class.
        steps_per_epoch: Number of training steps of an epoch.
        thumbnails: Returns pictures of videos by their paths.
    """
    sections = [Section("Run", rows=facts), *curve_sections(history)]
    if result:
        sections += evaluation_sections(result, n_train=n_train, thumbnails=thumbnails)
    sections += [*step_time_sections(history, steps_per_epoch), *cost_sections(history)]
    if unreadable:
        lead = "Skipped in training, counted as wrong in the evaluation."
        sections.append(Section("Unreadable files", lead, rows=unreadable))
    write_page(path, title, evaluation_tiles(result) if result else {}, sections)


def curve_sections(history: EpochRows) -> list[Section]:
    """Return loss, accuracy and learning rate over epochs; nothing before the first epoch has ended."""
    if not history:
        return []
    validated = [row for row in history if "val_top1" in row]
    lead = ""
    if validated:
        best = max(validated, key=lambda row: (row["val_top1"], row["epoch"]))
        lead = f"Best validation top-1: {best['val_top1']:.1%}, after epoch {best['epoch']:.0f}."
    return [Section("Training curves", lead, figure=plot_history(history))]


def step_time_sections(history: EpochRows, steps_per_epoch: int | None = None) -> list[Section]:
    """Return how the time of training steps divides into parts; nothing for a history without these times.

    Args:
        history: The rows of metrics.csv.
        steps_per_epoch: Number of training steps of an epoch; with it, milliseconds per step are shown as well.
    """
    shares = time_shares(history)
    if not shares:
        return []
    worker_seconds = sum(row.get("worker_seconds", 0.0) for row in history)
    lead = (
        f"{data_bottleneck(shares)} Reading and decoding took {worker_seconds:.0f} s, added up over all worker "
        "processes and mostly in parallel with training."
    )
    n_steps = steps_per_epoch * sum(_is_timed(row) for row in history) if steps_per_epoch else 0
    seconds = _seconds_by_part(history)
    if n_steps:
        lead += f" An epoch has {steps_per_epoch} steps of {_duration(sum(seconds.values()) / n_steps)} each."
    bars = {
        STEP_PARTS[part][1]: (
            f"{share:.1%}" + (f", {_duration(seconds[part] / n_steps)} per step" if n_steps else ""),
            share,
        )
        for part, share in shares.items()
    }
    return [Section("Step time", lead, bars=bars)]


def time_shares(history: EpochRows) -> dict[str, float]:
    """Return the share of each part in the time of all training steps; empty if no time was recorded."""
    seconds = _seconds_by_part(history)
    total = sum(seconds.values())
    return {part: own / total for part, own in seconds.items()} if total else {}


def data_bottleneck(shares: Mapping[str, float]) -> str:
    """Return one sentence on the most expensive part of preparing data, with a remedy if it takes much time.

    Args:
        shares: What `time_shares` returns.
    """
    part = max(REMEDIES, key=lambda part: shares.get(part, 0.0))
    label, share = STEP_PARTS[part][1].capitalize(), shares.get(part, 0.0)
    if share < ACCEPTABLE_SHARE:
        return f"Data is no bottleneck: {label.lower()} took {share:.1%} of the step time."
    return f"{label} took {share:.0%} of the step time: {REMEDIES[part]}."


def cost_sections(history: EpochRows) -> list[Section]:
    """Return seconds and peak memory of each epoch; nothing for a history that has neither."""
    memory_mib = [row["peak_memory_mib"] for row in history if "peak_memory_mib" in row]
    if memory_mib:
        lead = f"Peak memory was {max(memory_mib):,.0f} MiB."
        return [Section("Time and memory per epoch", lead, figure=plot_cost(history))]
    if any("seconds" in row for row in history):
        return [Section("Time per epoch", figure=plot_cost(history))]
    return []


def _seconds_by_part(history: EpochRows) -> dict[str, float]:
    """Return the seconds of all epochs for each part that the history has."""
    return {
        part: sum(row.get(f"{part}_seconds", 0.0) for row in history)
        for part in STEP_PARTS
        if any(f"{part}_seconds" in row for row in history)
    }


def _is_timed(row: Mapping[str, float]) -> bool:
    return any(f"{part}_seconds" in row for part in STEP_PARTS)


def _duration(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"
