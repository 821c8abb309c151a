"""Pictures of what was measured: reach in time, groups, cosine basis, responses, SAM's kernel."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from drawing.canvas import (
    BLUES,
    DIVERGING,
    GREYS,
    LINE,
    MUTED,
    PALE,
    REACH_COLORS,
    SMALL,
    TEXT,
    TINY,
    WARM,
    WIDTH_INCHES,
    bar,
    cells,
    outline,
    sheet,
    write,
)
from drawing.facts import (
    FRAMES,
    Reach,
    block_reaches,
    depth_reaches,
    fsam_places,
    group_frames,
    lanes,
    msl_reaches,
    parts,
    patterns,
    responses,
    sam_taps,
    saving,
    size_of,
    tuning,
)
from msfnet.experiments.paper import read_paper
from msfnet.layers.fsam import BASIS_SIZE, TOP16, FrequencyPool
from msfnet.layers.msl import MSL
from msfnet.models.registry import summarize
from msfnet.report import INK, VAL_COLOR

# Reach in time

NEAR = range(-4, 5)  # frames around the one looked at
STRIP_LEFT, CELL, ROW = 1.28, 0.3, 0.25  # inches


def draw_reach() -> Figure:
    """Strips of gradients of an R3D block, MSL and an MSF block; beside them, who sees how much of whom in MSL."""
    figure, axes = sheet(3.75)
    groups = [f"group {number + 1}" for number in range(len(msl_reaches()))]
    y = 3.62
    for title, names, found in (
        ("R3D block", ["all"], block_reaches("r3d_18")),
        ("MSL", groups, msl_reaches()),
        ("MSF block", groups, block_reaches("msf_r3d_18")),
    ):
        write(axes, (0.08, y), title, size=TEXT, bold=True, ha="left")
        for number, (name, reach) in enumerate(zip(names, found, strict=True)):
            _strip(axes, y - 0.38 - ROW * number, name, reach)
        y -= 0.4 + ROW * len(found)
    for offset in NEAR:
        write(axes, (STRIP_LEFT + CELL * (offset - NEAR[0] + 0.5), 0.22), signed(offset), color=MUTED)
    write(
        axes, (STRIP_LEFT + CELL * len(NEAR) / 2, 0.07), "frame of the input; numbers: % of the gradient", color=MUTED
    )
    _who_sees_whom(axes, left=5.3, top=2.9, side=0.46)
    return figure


def signed(offset: int) -> str:
    return f"{offset:+d}".replace("-", "−") if offset else "0"


def _strip(axes: Axes, bottom: float, name: str, reach: Reach) -> None:
    write(axes, (0.08, bottom + ROW / 2 - 0.015), f"{name}, {reach.channels} ch.", ha="left")
    middle = FRAMES // 2
    shares = reach.shares.sum(0)[middle + NEAR[0] : middle + NEAR[-1] + 1].numpy()
    size = CELL * len(NEAR), ROW - 0.03
    cells(axes, np.where(shares > 0, shares, np.nan)[None], (STRIP_LEFT, bottom), size, BLUES, Normalize(0, 0.5))
    outline(axes, (STRIP_LEFT, bottom), size)
    for number, share in enumerate(shares):
        if share > 0:
            at = STRIP_LEFT + CELL * (number + 0.5), bottom + (ROW - 0.03) / 2
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            write(axes, at, text, color="white" if share > 0.25 else INK)
    at = STRIP_LEFT + size[0] + 0.08, bottom + ROW / 2 - 0.015
    write(axes, at, f"{reach.frames} frame{'s' * (reach.frames > 1)}", bold=True, ha="left")


def _who_sees_whom(axes: Axes, left: float, top: float, side: float) -> None:
    """Frames that each group of the output, a row, sees of each group of the input, a column."""
    found = msl_reaches()
    write(axes, (left - 0.3, 3.62), "In MSL: how many frames", size=TEXT, bold=True, ha="left")
    write(axes, (left - 0.3, 3.45), "an output sees of each input", size=TEXT, bold=True, ha="left")
    for row, reach in enumerate(found):
        y = top - side * (row + 1)
        write(axes, (left - 0.1, y + side / 2), f"out {row + 1}", ha="right")
        write(axes, (left + side * (row + 0.5), top + 0.14), f"$x_{row + 1}$", size=TEXT)
        for column, frames in enumerate(reach.by_input):
            fill = REACH_COLORS[frames] if frames else "#ffffff"
            bar(axes, (left + side * column, y), (side, side), fill, f"{frames}" if frames else "", lw=0.5)


def draw_depth() -> Figure:
    """Frames of the clip that the channels after each block see: R3D as dots, MSF from fewest to most."""
    figure = Figure(figsize=(WIDTH_INCHES, 2.5), layout="constrained")
    axes = figure.subplots()
    msf, r3d = depth_reaches("msf_r3d_18"), depth_reaches("r3d_18")
    block_channels = [parts("msf_r3d_18")[block].shape[0] for block in msf]
    x = np.arange(len(msf))
    fewest, most = (np.array(counts) for counts in zip(*msf.values(), strict=True))
    axes.bar(x, most - fewest, 0.34, bottom=fewest, color=VAL_COLOR, label="MSF-R3D: from its group 1 to its group 4")
    axes.plot(x, [frames for frames, _ in r3d.values()], "o", color=WARM, markersize=5, label="R3D-18")
    axes.axhline(8, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.text(x[-1] + 0.45, 8.4, "a clip of 8 frames", color=MUTED, fontsize=SMALL, ha="right", va="bottom")
    for one, low, high in zip(x, fewest, most, strict=True):
        axes.text(one + 0.21, high, f"{high}", color=VAL_COLOR, fontsize=SMALL, va="center")
        axes.text(one + 0.21, low, f"{low}", color=VAL_COLOR, fontsize=SMALL, va="center")
    for one, (frames, _) in zip(x, r3d.values(), strict=True):
        axes.text(one - 0.24, frames, f"{frames}", color=WARM, fontsize=SMALL, va="center", ha="right")
    axes.set_yscale("log", base=2)
    axes.set(ylim=(4, 320), xlim=(-0.5, x[-1] + 0.5), ylabel="frames seen")
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set_xticks(x, [f"block {one + 1}\n{channels} ch." for one, channels in zip(x, block_channels, strict=True)])
    axes.legend(frameon=False, loc="upper left", fontsize=SMALL)
    return figure


def draw_groups() -> Figure:
    """MSL's output by the frames that its channels see, for each S; weights, parameters and the paper's accuracy."""
    figure, axes = sheet(2.2)
    left, width, high = 0.72, 3.5, 0.22
    columns = {
        "weights, of\na dense conv": 4.72,
        "M params,\ncounted": 5.5,
        "M params,\npaper": 6.2,
        "top-1, %,\npaper": 6.87,
    }
    for label, x in columns.items():
        for line, y in zip(label.split("\n"), (2.03, 1.89), strict=True):
            write(axes, (x, y), line, color=MUTED, va="baseline")
    write(axes, (left, 1.89), "output channels, by the frames they see", color=MUTED, ha="left", va="baseline")
    printed = {row.label: row.printed for row in read_paper().row if row.table == "2"}
    for number, groups in enumerate(range(2, 7)):
        y = 1.58 - 0.37 * number
        label = f"S = {groups}"
        write(axes, (0.08, y + high / 2), label, size=TEXT, bold=groups == 4, ha="left")
        x, own = left, lanes(MSL(64, groups))
        for lane, frames in zip(own, group_frames(groups), strict=True):
            share = width * lane.kept / sum(one.kept for one in own)
            bar(axes, (x, y), (share, high), REACH_COLORS[frames], f"{frames}")
            x += share
        params = f"{summarize('msf_r3d_18', num_splits=groups).params / 1e6:.3f}"
        paper = (printed[label].params, printed[label].top1) if label in printed else ("", "")
        for text, at in zip((f"{100 * saving(groups):.0f} %", params, *paper), columns.values(), strict=True):
            write(axes, (at, y + high / 2), text, bold=groups == 4)
    return figure


# The cosine basis

SIZES = (14, 7, 4, 3, 2, 1)
SHOWN = ((0, 1), (2, 2), (3, 5), (0, 6))


def draw_dct() -> Figure:
    """All 49 frequencies with the sixteen in color, and four of them as the weights of other map sizes."""
    figure, axes = sheet(3.5)
    side, left, top = 0.4, 0.3, 2.95
    write(axes, (0.08, 3.38), "Sixteen of the 49 frequencies of a 7×7 map", size=TEXT, bold=True, ha="left")
    write(axes, (left + 3.5 * side, top + 0.19), "horizontal", color=MUTED)
    axes.text(0.02, top - 3.5 * side, "vertical", color=MUTED, fontsize=SMALL, rotation=90, va="center")
    every = [(v, h) for v in range(BASIS_SIZE) for h in range(BASIS_SIZE)]
    weights = FrequencyPool(len(every), tuple(every)).weight(BASIS_SIZE, BASIS_SIZE).numpy()
    for (v, h), weight in zip(every, weights, strict=True):
        corner = left + side * h + 0.02, top - side * (v + 1) + 0.02
        colors = DIVERGING if (v, h) in TOP16 else PALE
        cells(axes, weight, corner, (side - 0.04, side - 0.04), colors, Normalize(-0.29, 0.29))
        outline(axes, corner, (side - 0.04, side - 0.04), INK if (v, h) in TOP16 else LINE, 0.8)
    for number in range(BASIS_SIZE):
        write(axes, (left + side * (number + 0.5), top + 0.06), f"{number}", color=MUTED)
        write(axes, (left - 0.07, top - side * (number + 0.5)), f"{number}", color=MUTED)
    _sizes(axes, left=4.05, top=2.95)
    return figure


def _sizes(axes: Axes, left: float, top: float) -> None:
    """What a few frequencies multiply maps of other sizes by, and how many of the sixteen are independent there."""
    tile, step = 0.46, 0.53
    write(axes, (left - 0.55, 3.38), "The same, as weights of maps of other sizes", size=TEXT, bold=True, ha="left")
    for row, pair in enumerate(SHOWN):
        write(axes, (left - 0.12, top - step * row - tile / 2), f"{pair[0]}, {pair[1]}", ha="right")
    for column, size in enumerate(SIZES):
        x = left + step * column
        write(axes, (x + tile / 2, top + 0.12), f"{size}×{size}", color=MUTED)
        for row, weight in enumerate(FrequencyPool(len(SHOWN), SHOWN).weight(size, size).numpy()):
            corner, peak = (x, top - step * row - tile), 0.29 * (BASIS_SIZE / size) ** 2
            cells(axes, weight, corner, (tile, tile), DIVERGING, Normalize(-peak, peak))
            outline(axes, corner, (tile, tile), INK, 0.8)
        rank = int(torch.linalg.matrix_rank(FrequencyPool(len(TOP16)).weight(size, size).flatten(1)))
        write(axes, (x + tile / 2, top - step * len(SHOWN) - 0.1), f"{rank}", bold=True)
    write(axes, (left - 0.12, top + 0.12), "v, h", color=MUTED, ha="right")
    text = "so many of the sixteen are independent"
    write(axes, (left + step * len(SIZES) / 2, top - step * len(SHOWN) - 0.3), text, color=MUTED)


# Responses


def draw_fam() -> Figure:
    """A row for each pattern: three of its frames, what SE is told, FAM's sixteen numbers, what changes for SAM."""
    figure, axes = sheet(4.1)
    top, step, cell, fam, se, sam = 3.42, 0.305, 0.25, 2.66, 2.42, 6.84
    for x, text in ((se, "SE"), (fam + 8 * cell, "FAM: one number a frequency"), (sam + cell / 2, "SAM")):
        write(axes, (x, top + 0.57), text, size=TEXT, bold=True)
    write(axes, (se, top + 0.09), "mean", color=MUTED)
    write(axes, (sam + cell / 2, top + 0.22), "over\ntime", color=MUTED)
    weights = FrequencyPool(len(TOP16)).weight(BASIS_SIZE, BASIS_SIZE).numpy()
    for number, (pair, weight) in enumerate(zip(TOP16, weights, strict=True)):
        corner, size = (fam + cell * number + 0.02, top + 0.2), (cell - 0.04, cell - 0.04)
        cells(axes, weight, corner, size, DIVERGING, Normalize(-0.29, 0.29))
        outline(axes, corner, size, INK, 0.6)
        write(axes, (fam + cell * (number + 0.5), top + 0.09), f"{pair[0]},{pair[1]}", size=TINY, color=MUTED)
    for number, (name, pattern) in enumerate(patterns().items()):
        y, found = top - step * (number + 1), responses()[name]
        write(axes, (0.06, y + cell / 2), name, ha="left")
        for shown, frame in enumerate(pattern.expand(-1, BASIS_SIZE, BASIS_SIZE)[:3].numpy()):
            corner, size = (1.42 + 0.255 * shown, y + 0.01), (cell - 0.02, cell - 0.02)
            cells(axes, frame, corner, size, GREYS, Normalize(0, 2))
            outline(axes, corner, size, MUTED)
        write(axes, (se, y + cell / 2), f"{found.se:.1f}")
        _numbers(axes, found.fam.numpy(), (fam, y), cell)
        _numbers(axes, np.array([found.sam_time]), (sam, y), cell)
    return figure


def _numbers(axes: Axes, values: np.ndarray, corner: tuple[float, float], cell: float) -> None:
    """A row of colored cells with their numbers; nothing is written where there is nothing."""
    size = cell * len(values), cell
    cells(axes, values[None], corner, size, DIVERGING, Normalize(-7, 7))
    outline(axes, corner, size)
    for number, value in enumerate(values):
        if abs(value) >= 0.05:
            at = corner[0] + cell * (number + 0.5), corner[1] + cell / 2
            write(axes, at, f"{value:.1f}".replace("-", "−"), size=TINY, color="white" if abs(value) > 3 else INK)


def draw_tuning() -> Figure:
    """Answers of FAM's upright frequencies to stripes of every width and to flicker of every rate."""
    figure = Figure(figsize=(WIDTH_INCHES, 2.35), layout="constrained")
    still, flicker = figure.subplots(1, 2, sharey=True, width_ratios=(7, 4))
    pairs = tuple((0, h) for h in range(BASIS_SIZE))
    for axes, end, over_time in ((still, 7.0, False), (flicker, 4.0, True)):
        cycles = np.linspace(0, end, 141)
        answers = tuning(pairs, list(cycles), over_time=over_time).numpy()
        for h, answer in enumerate(answers):
            color = BLUES(0.45 + 0.55 * h / 6) if h else MUTED
            axes.plot(cycles, answer, color=color, linewidth=1.4, linestyle="-" if h else (0, (3, 2)))
            if not over_time and h:
                peak = int(answer.argmax())
                axes.text(cycles[peak], answer[peak] + 0.03, f"0,{h}", color=color, fontsize=SMALL, ha="center")
        axes.text(0.03 * end, 1.0, "0,0", color=MUTED, fontsize=SMALL)
        axes.set_xlim(0, end)
    others = f"0,1 to 0,{h}: {answers[1:].max():.1f} at every rate"
    flicker.text(2.4, 0.45, others, color=VAL_COLOR, fontsize=SMALL, ha="center")
    still.set(title="Upright stripes", xlabel="stripes across a 14×14 map", ylabel="answer", ylim=(-0.03, 1.12))
    flicker.set(title="Flicker", xlabel="cycles in 8 frames")
    return figure


# SAM

PLACES = {"msf_r3d_18_fsam": "MSF-R3D", "msf_c3d_fsam": "MSF-C3D"}


def draw_sam() -> Figure:
    """A row for each place of FSAM: how often each tap of the 7x7x7 kernel meets a value, a tile for each frame."""
    figure, axes = sheet(2.75)
    tile, step, left, top = 0.42, 0.47, 1.95, 2.55
    for offset in range(7):
        write(axes, (left + step * offset + tile / 2, top + 0.1), signed(offset - 3), color=MUTED)
    write(axes, (left - 0.12, top + 0.1), "frame", color=MUTED, ha="right")
    write(axes, (left + step * 7 + 0.08, top + 0.1), "taps that meet a value", color=MUTED, ha="left")
    places = [(network, shape) for network in PLACES for shape in fsam_places(network).values()]
    for row, (network, (channels, *map_size)) in enumerate(places):
        y = top - (step + 0.14) * row - tile - 0.05
        write(axes, (0.08, y + tile / 2 + 0.08), f"{PLACES[network]}, {channels} channels", ha="left")
        write(axes, (0.08, y + tile / 2 - 0.1), size_of(map_size), color=MUTED, ha="left")
        taps = sam_taps(*map_size).numpy()
        for offset, values in enumerate(taps):
            corner = left + step * offset, y
            cells(axes, np.where(values > 0, values, np.nan), corner, (tile, tile), BLUES, Normalize(0, 1))
            outline(axes, corner, (tile, tile))
        text = f"{100 * (taps > 0).mean():.0f} % ever, {100 * taps.mean():.0f} % on average"
        write(axes, (left + step * 7 + 0.08, y + tile / 2), text, ha="left")
    return figure
