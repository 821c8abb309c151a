"""Plots of training histories and of evaluation results, as matplotlib figures."""

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

EpochRows = Sequence[Mapping[str, float]]  # the rows of metrics.csv, one for each epoch

INK, TRAIN_COLOR, VAL_COLOR = "#1d2330", "#9db7e8", "#2f6fde"

# Columns of metrics.csv that add up to the time of training steps: color and label of each.
STEP_PARTS = {
    "forward": ("#2f6fde", "forward"),
    "backward": ("#9db7e8", "backward and optimizer"),
    "data": ("#d9822b", "data loading"),
    "augment": ("#8f6bd1", "augmentation"),
    "h2d": ("#4aa37a", "host-to-device copy"),
}
LARGEST_LABELED, LARGEST_NUMBERED = 40, 25  # classes of a confusion matrix that still has class names, and counts


def plot_history(history: EpochRows) -> Figure:
    """Plot loss and top-1 accuracy of training and validation, and the learning rate, over epochs."""
    figure = Figure(figsize=(10, 3), layout="constrained")
    loss, top1, lr = figure.subplots(1, 3, width_ratios=(4, 4, 3))
    for axes, quantity in ((loss, "loss"), (top1, "top1")):
        for split, color in (("train", TRAIN_COLOR), ("val", VAL_COLOR)):
            _curve(axes, history, f"{split}_{quantity}", color, split)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False)
    _curve(lr, history, "lr", VAL_COLOR)
    _over_epochs(loss, "loss")
    _over_epochs(top1, "top-1 accuracy")
    _over_epochs(lr, "learning rate")
    _as_accuracy(top1)
    lr.set_ylim(bottom=0)
    lr.yaxis.set_major_formatter("{x:.2g}")
    return figure


def plot_cost(history: EpochRows) -> Figure:
    """Plot the seconds of each epoch by part, and the peak memory in MiB if it is known."""
    memory_mib = [(row["epoch"], row["peak_memory_mib"]) for row in history if "peak_memory_mib" in row]
    figure = Figure(figsize=(10, 3), layout="constrained")
    time, *others = figure.subplots(1, 2 if memory_mib else 1, squeeze=False)[0]
    epochs = np.array([row["epoch"] for row in history])
    bottom = np.zeros(len(history))
    for part, (color, label) in STEP_PARTS.items():
        seconds = np.array([row.get(f"{part}_seconds", 0.0) for row in history])
        if seconds.any():
            time.bar(epochs, seconds, bottom=bottom, color=color, label=label, width=0.9)
            bottom += seconds
    rest = np.maximum(np.array([row.get("seconds", 0.0) for row in history]) - bottom, 0)
    time.bar(epochs, rest, bottom=bottom, color="#c9ced8", label="validation, checkpoints", width=0.9)
    handles, labels = time.get_legend_handles_labels()
    time.legend(handles[::-1], labels[::-1], frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _over_epochs(time, "seconds per epoch")
    for memory in others:
        _over_epochs(memory, "peak memory (MiB)")
        memory.plot(*zip(*memory_mib, strict=True), color=VAL_COLOR, marker=".")
        memory.set_ylim(0, 1.15 * max(mib for _, mib in memory_mib))
    return figure


def plot_curves(histories: Mapping[str, EpochRows]) -> Figure:
    """Plot training loss and top-1 accuracy of several runs over epochs.

    The accuracy is that of the validation set if any of the runs has one, else that of the training set.

    Args:
        histories: Name of a run -> its history.
    """
    figure = Figure(figsize=(10, 3.6 + 0.1 * len(histories)), layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    split = "val" if any("val_top1" in row for history in histories.values() for row in history) else "train"
    colors = matplotlib.color_sequences["tab10" if len(histories) <= 10 else "tab20"]
    for number, (name, history) in enumerate(histories.items()):
        color = colors[number % len(colors)]
        _curve(loss, history, "train_loss", color, name)
        _curve(top1, history, f"{split}_top1", color)
    _over_epochs(loss, "training loss")
    _over_epochs(top1, "validation top-1 accuracy" if split == "val" else "training top-1 accuracy")
    _as_accuracy(top1)
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)
    return figure


def _curve(axes: Axes, history: EpochRows, key: str, color: ColorType, label: str | None = None) -> None:
    """Draw a line through the epochs that have a value; a single epoch is a dot."""
    points = [(row["epoch"], row[key]) for row in history if key in row]
    if points:
        axes.plot(*zip(*points, strict=True), color=color, marker=".", label=label)


def _over_epochs(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)


def _as_accuracy(axes: Axes) -> None:
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def plot_calibration(binned: Calibration) -> Figure:
    """Plot a reliability diagram: accuracy against confidence, above the number of videos in each bin."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    accuracy, counts = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    bins = len(binned.n)
    left, filled = np.arange(bins) / bins, binned.n > 0
    accuracy.plot((0, 1), (0, 1), color=INK, linewidth=1, linestyle=":")
    accuracy.bar(left, np.nan_to_num(binned.accuracy), 1 / bins, align="edge", color=VAL_COLOR, edgecolor="white")
    accuracy.plot(binned.confidence[filled], binned.accuracy[filled], ".", color=INK)
    counts.bar(left, binned.n, 1 / bins, align="edge", color=TRAIN_COLOR, edgecolor="white")
    accuracy.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy")
    counts.set(xlabel="confidence", ylabel="videos")
    for axes in (accuracy, counts):
        axes.spines[["top", "right"]].set_visible(False)
    for axis in (accuracy.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    counts.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def plot_confusion(result: EvalResult) -> Figure:
    """Plot the confusion matrix, normalized over the true class; cells show counts where there is room."""
    counts = result.confusion
    n = len(result.classes)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(12.0, 3.0 + 0.32 * n)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= LARGEST_LABELED:
        axes.set_xticks(range(n), result.classes, rotation=90)
        axes.set_yticks(range(n), result.classes)
    if n <= LARGEST_NUMBERED:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.55 else INK
            axes.text(column, row, counts[row, column], ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    return figure


def plot_frames(videos: Mapping[str, Frames]) -> Figure:
    """Plot frames of several videos side by side, one row per video.

    Args:
        videos: Label of a row -> frames T H W 3.
    """
    rows: list[Frames] = [np.concatenate(list(frames), axis=1) for frames in videos.values()]  # T H W 3 -> H T*W 3
    height, width = rows[0].shape[:2]
    figure = Figure(figsize=(9, 9 * height * len(rows) / width * 1.12), layout="constrained")
    axes_of_rows = np.atleast_1d(figure.subplots(len(rows), 1))
    for axes, label, row in zip(axes_of_rows, videos, rows, strict=True):
        axes.imshow(row)
        axes.set_ylabel(label, rotation=0, ha="right", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    return figure
