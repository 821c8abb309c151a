"""Numbers to pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from matplotlib.typing import ColorType

from msfnet.metrics import Calibration
from msfnet.types import EvalResult, Frames

Rows = Sequence[Mapping[str, float]]  # of a history, one an epoch

INK, TRAIN_COLOR, VAL_COLOR = "#1d2330", "#9db7e8", "#2f6fde"


def plot_history(history: Rows) -> Figure:
    """Loss and top-1 of training and validation videos, and the learning rate, over epochs."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, top1, lr = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    for axes, quantity in ((loss, "loss"), (top1, "top1")):
        for part, color in (("train", TRAIN_COLOR), ("val", VAL_COLOR)):
            _curve(axes, history, f"{part}_{quantity}", color, part)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    _curve(lr, history, "lr", VAL_COLOR)
    _over_epochs(loss, "loss")
    _over_epochs(top1, "top-1")
    _over_epochs(lr, "learning rate")
    top1.set_ylim(0, 1.02)
    top1.yaxis.set_major_formatter(PercentFormatter(1))
    lr.set_ylim(bottom=0)
    lr.yaxis.set_major_formatter("{x:.2g}")
    return figure


COST_COLORS = {
    "forward": "#2f6fde",
    "backward": "#9db7e8",
    "network": "#6391e3",
    "wait": "#d9822b",
    "augment": "#8f6bd1",
    "transfer": "#4aa37a",
}


def plot_cost(history: Rows) -> Figure:
    """Seconds of each epoch by their parts, the rest (validation, checkpoints) in gray; peak memory in GB if known."""
    points = [(row["epoch"], row["peak_memory_mib"] / 1024) for row in history if "peak_memory_mib" in row]
    figure = Figure(figsize=(10, 3), layout="constrained")
    time, *others = figure.subplots(1, 2 if points else 1, squeeze=False)[0]
    epochs = np.array([row["epoch"] for row in history])
    bottom = np.zeros(len(history))
    for part, color in COST_COLORS.items():
        seconds = np.array([row.get(f"{part}_seconds", 0.0) for row in history])
        if seconds.any():
            time.bar(epochs, seconds, bottom=bottom, color=color, label=part, width=0.9)
            bottom += seconds
    rest = np.maximum(np.array([row.get("seconds", 0.0) for row in history]) - bottom, 0)
    time.bar(epochs, rest, bottom=bottom, color="#c9ced8", label="validation and the rest", width=0.9)
    handles, labels = time.get_legend_handles_labels()
    time.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _over_epochs(time, "seconds")
    for memory in others:
        _over_epochs(memory, "peak memory, GB")
        memory.plot(*zip(*points, strict=True), color=VAL_COLOR, marker=".")
        memory.set_ylim(0, 1.15 * max(gb for _, gb in points))
    return figure


def plot_curves(histories: Mapping[str, Rows]) -> Figure:
    """Training loss and top-1 (validation, if any run has it) of several runs over epochs: name -> history."""
    figure = Figure(figsize=(10, 3.6 + 0.1 * len(histories)), layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    validated = any("val_top1" in row for history in histories.values() for row in history)
    colors = matplotlib.color_sequences["tab10" if len(histories) <= 10 else "tab20"]
    for number, (name, history) in enumerate(histories.items()):
        color = colors[number % len(colors)]
        _curve(loss, history, "train_loss", color, name)
        _curve(top1, history, "val_top1" if validated else "train_top1", color)
    _over_epochs(loss, "training loss")
    _over_epochs(top1, "validation top-1" if validated else "training top-1")
    top1.set_ylim(0, 1.02)
    top1.yaxis.set_major_formatter(PercentFormatter(1))
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return figure


def _curve(axes: Axes, history: Rows, key: str, color: ColorType, label: str | None = None) -> None:
    """A line through the epochs that have the number; a lone epoch is a dot."""
    points = [(row["epoch"], row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, marker=".", label=label)


def _over_epochs(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def plot_calibration(binned: Calibration) -> Figure:
    """A reliability diagram: what was claimed against what was reached, and how many videos lie in each bin."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    reached, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    bins = len(binned.n)
    left, filled = np.arange(bins) / bins, binned.n > 0
    reached.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=":")
    reached.bar(left, np.nan_to_num(binned.accuracy), 1 / bins, align="edge", color=VAL_COLOR, edgecolor="white")
    reached.plot(binned.confidence[filled], binned.accuracy[filled], ".", color=INK)
    counts.bar(left, binned.n, 1 / bins, align="edge", color=TRAIN_COLOR, edgecolor="white")
    reached.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="share that is right")
    counts.set(xlabel="confidence", ylabel="videos")
    for axes in (reached, counts):
        axes.spines[["top", "right"]].set_visible(False)
    for axis in (reached.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def plot_confusion(scores: EvalResult) -> Figure:
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
            color = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("recognized")
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
