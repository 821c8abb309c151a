"""A run's epochs as sections of its page: how it learned, where the time went, what memory it took.

The page of a run: what it was, how it learned, how it scored, and every file that gave trouble."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msfnet.report.page import Section, write_page
from msfnet.report.plots import Rows, plot_cost, plot_history
from msfnet.report.scores import Strips, no_strips, score_sections, score_tiles
from msfnet.types import EvalResult

# Parts of a training epoch, as the columns of its history name them, and what to do when one takes much of it.
PARTS = {
    "network": ("the network", ""),  # in histories of older versions: forward, backward and optimizer in one
    "forward": ("forward", ""),
    "backward": ("backward and optimizer", ""),
    "wait": ("reading and decoding videos", "raise data.num_workers, or data.cache_gib until all frames are kept"),
    "augment": ("augmentation", "turn off what the recipe can spare, or train on a GPU"),
    "transfer": ("moving batches to the device", "use fewer frames or pixels"),
}
DATA_PARTS = ("wait", "augment", "transfer")
SLOW_SHARE = 0.03  # of an epoch: what data may cost before the page says what to do


def learning_sections(history: Rows) -> list[Section]:
    """Loss, top-1 and learning rate over epochs. Nothing before the first epoch has ended."""
    if not history:
        return []
    chosen = max(
        (row for row in history if "val_top1" in row), key=lambda row: (row["val_top1"], row["epoch"]), default=None
    )
    lead = f"Best on validation: {chosen['val_top1']:.1%} after epoch {chosen['epoch']:.0f}." if chosen else ""
    return [Section("Learning", lead, figure=plot_history(history))]


def seconds_by_part(history: Rows) -> dict[str, float]:
    """What each part took in all epochs: those parts that the history counts."""
    return {
        part: sum(row.get(f"{part}_seconds", 0.0) for row in history)
        for part in PARTS
        if any(f"{part}_seconds" in row for row in history)
    }


def time_shares(history: Rows) -> dict[str, float]:
    """Where the time of all epochs went: part -> share of what was counted. Empty when nothing was."""
    seconds = seconds_by_part(history)
    total = sum(seconds.values())
    return {part: s / total for part, s in seconds.items()} if total else {}


def bottleneck(shares: Mapping[str, float]) -> str:
    """One sentence: whether the network had to wait for its data, for what most of all, and what helps."""
    part = max(DATA_PARTS, key=lambda p: shares.get(p, 0.0))
    (what, remedy), share = PARTS[part], shares.get(part, 0.0)
    if share < SLOW_SHARE:
        return f"The network hardly waited: most for {what}, {share:.1%} of the time."
    return f"The network waited most for {what}, {share:.0%} of the time: {remedy}."


def time_sections(history: Rows, steps: int | None = None) -> list[Section]:
    """Waiting, augmentation and transfer against the network's own time, and each of `steps` of an epoch.

    Nothing for a history without times.
    """
    shares = time_shares(history)
    if not shares:
        return []
    read_seconds = sum(row.get("read_seconds", 0.0) for row in history)
    lead = f"{bottleneck(shares)} Reading and decoding took {read_seconds:.0f} s in all processes, mostly meanwhile."
    timed = sum(any(f"{part}_seconds" in row for part in PARTS) for row in history)
    per_step = {part: s / (timed * steps) for part, s in seconds_by_part(history).items()} if steps else {}
    if steps:
        lead += f" An epoch has {steps} steps, each of {_milliseconds(sum(per_step.values()))}."
    bars = {
        PARTS[part][0]: (f"{share:.1%}" + (f", {_milliseconds(per_step[part])} a step" if steps else ""), share)
        for part, share in shares.items()
    }
    return [Section("Where the time went", lead, bars=bars)]


def cost_sections(history: Rows) -> list[Section]:
    """Seconds and peak memory of each epoch. Nothing for a history that has neither."""
    peak_mb = max((row["peak_memory_mib"] for row in history if "peak_memory_mib" in row), default=None)
    if peak_mb is None and not any("seconds" in row for row in history):
        return []
    title, lead = "Time of each epoch", ""
    if peak_mb is not None:
        title, lead = "Time and memory of each epoch", f"At most {peak_mb / 1024:.2f} GB were in use."
    return [Section(title, lead, figure=plot_cost(history))]


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def write_run_report(
    path: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    history: Rows,
    scores: EvalResult | None,
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
