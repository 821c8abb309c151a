"""Draw the charts of docs/method.md from measurements of msfnet's own layers: python docs/figures.py.

The other method-*.svg files are finished diagrams, edited by hand. tests/test_docs_figures.py checks both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from msfnet.layers.fsam import BASIS_SIZE, TOP16, FrequencyPool, channel_summary
from msfnet.layers.msl import MSL
from msfnet.models.registry import create_model

# Facts. Receptive fields are temporal and in frames


@contextmanager
def seeded() -> Iterator[None]:
    """The same weights and noise each time; the caller's random state is restored afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def output_widths(block: nn.Module) -> list[int]:
    """Channels that each split of the block's MSL contributes to its output: half of what it computes, the last all."""
    (msl,) = (module for module in block.modules() if isinstance(module, MSL))
    widths = [conv.in_channels for conv in msl.modules() if isinstance(conv, nn.Conv3d)]
    return [msl.sizes[0], *(width - width // 2 for width in widths[:-1]), widths[-1]]


def gradient(y: Tensor, x: Tensor) -> Tensor:
    """The summed magnitude of the gradient of y's middle frame with respect to each channel and frame of x: C T."""
    middle = y[:, :, y.shape[2] // 2]
    (grad,) = torch.autograd.grad(middle, x, torch.randn_like(middle), retain_graph=True)
    return grad.abs().sum((0, 3, 4))  # N C T H W -> C T


def gradient_shares(net: nn.Module, widths_in: list[int], widths_out: list[int]) -> Tensor:
    """The share of each input split and frame in the gradient of each output split: O I T, each output sums to one.

    Maps of 3x3 px take the direct convolution: the rounding errors of Winograd's would reach every frame.
    """
    net.eval().double()  # batch statistics would depend on every frame
    x = torch.randn(32, sum(widths_in), 15, 3, 3, dtype=torch.float64, requires_grad=True)
    grads = [gradient(part, x).split(widths_in) for part in net(x).split(widths_out, dim=1)]
    shares = torch.stack([torch.stack([rows.sum(0) for rows in grad]) for grad in grads])
    return shares / shares.sum((1, 2), keepdim=True)


def frames_seen(shares: Tensor) -> list[int]:
    """The temporal receptive field of each output split."""
    return (shares.sum(1) > 0).sum(1).tolist()


@cache
@seeded()
def receptive_fields() -> dict[str, tuple[list[int], Tensor]]:
    """Output widths and gradient shares of the first blocks of R3D-18 and MSF-R3D-18, and of the MSL in the latter."""
    r3d, msf = (create_model(name).get_submodule("layer1.0") for name in ("r3d_18", "msf_r3d_18"))
    splits = output_widths(msf)
    return {
        "R3D block": ([64], gradient_shares(r3d, [64], [64])),
        "MSL": (splits, gradient_shares(msf.get_submodule("conv2.0"), [16] * 4, splits)),
        "MSF block": (splits, gradient_shares(msf, [64], splits)),
    }


@cache
@seeded()
def receptive_field_by_depth(name: str) -> dict[str, tuple[int, int]]:
    """The smallest and the largest receptive field among the splits of each block's output, by the block's name."""
    model = create_model(name, width_mult=0.125).eval().double()  # the width does not matter
    for weight in model.parameters():
        weight.data.abs_()  # no ReLU is zero
    x = torch.ones(1, 3, 256, 8, 8, dtype=torch.float64, requires_grad=True)
    y, found = model.get_submodule("stem")(x), {}
    for key in (f"layer{stage}.{number}" for stage in range(1, 5) for number in range(2)):
        block = model.get_submodule(key)
        y = block(y)
        parts = y.split(output_widths(block) if "msf" in name else y.shape[1], dim=1)
        frames = [int((gradient(part, x).sum(0) > 0).sum()) for part in parts]
        found[key] = min(frames), max(frames)
    return found


def patterns() -> dict[str, Tensor]:
    """Maps T H W with a mean of one: constant, changing over time, and still textures."""
    angles = 2 * math.pi * (torch.arange(BASIS_SIZE) + 0.5) / BASIS_SIZE
    t, y, x = torch.meshgrid(torch.arange(8.0), angles, angles, indexing="ij")
    left = (math.pi - x).round(decimals=3).sign()  # the middle column is zero
    contrasts = {
        "constant": torch.zeros_like(x),
        "flicker": (-1.0) ** t,
        "moving stripes": torch.cos(x + 2 * math.pi * t / 8),
        "vertical stripes, wide": torch.cos(x),
        "vertical stripes, narrow": torch.cos(3 * x),
        "horizontal stripes, wide": torch.cos(y),
        "horizontal stripes, narrow": torch.cos(3 * y),
        "checkerboard, coarse": torch.cos(x) * torch.cos(y),
        "checkerboard, fine": torch.sin(3.5 * x) * torch.sin(3.5 * y) - 1 / BASIS_SIZE**2,
        "left half brighter": left,
        "right half brighter": -left,
    }
    return {name: 1 + contrast for name, contrast in contrasts.items()}


def response(pattern: Tensor) -> tuple[Tensor, float]:
    """FAM's 16 descriptors of a map T H W in all channels, and the mean standard deviation of SAM's input over time."""
    x = pattern.expand(1, len(TOP16), *pattern.shape)
    return FrequencyPool(len(TOP16))(x)[0], float(channel_summary(x)[0].std(1, correction=0).mean())


def frequency_response(cycles: Tensor, *, over_time: bool) -> Tensor:
    """The amplitude with which FAM's frequencies (0, 0) to (0, 6) respond to waves of so many cycles: 7 cycles.

    Waves are vertical stripes on a 14x14 map, or flicker over 8 frames; (0, 0) responds to a constant map with 1.
    """
    n, shape = BASIS_SIZE, (-1, 1, 8, 1, 1) if over_time else (-1, 1, 1, 1, 14)
    size = max(shape)
    pool = FrequencyPool(n, tuple((0, h) for h in range(n)))
    phase = (2 * math.pi * cycles[:, None] * (torch.arange(size) + 0.5) / size).view(shape)  # N C T H W
    quadrature = (pool(part.expand(-1, n, 8, 14, 14)) for part in (phase.cos(), phase.sin()))
    return torch.hypot(*quadrature).T / n


# Charts

STYLE: Any = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 7.5,
    "image.composite_image": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "msfnet",
}
WIDTH_INCHES = 7.3  # 700 px
GRAY = "#5b6474"


def cell_axes(columns: float, rows: float) -> tuple[Figure, Axes]:
    """A page-wide chart measured in square cells, with the origin at the upper left."""
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES * rows / columns))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, columns), ylim=(rows, 0))
    axes.set_axis_off()
    return figure, axes


def write(axes: Axes, x: float, y: float, text: str, ha: str = "center", **style: Any) -> None:
    axes.text(x, y, text, ha=ha, va="center_baseline", **style)


def draw_cells(
    axes: Axes, values: Tensor, x: float, y: float, side: float, limit: float, form: str = "", cmap: str = "RdBu"
) -> None:
    """A matrix as colored cells from its upper left corner, with the numbers that do not round to zero."""
    rows, columns = values.shape
    extent = x, x + columns * side, y + rows * side, y
    axes.imshow(values, cmap, extent=extent, vmin=-limit, vmax=limit, interpolation="none")
    axes.add_patch(Rectangle((x, y), columns * side, rows * side, fill=False, edgecolor=GRAY, linewidth=0.6))
    for (row, column), value in np.ndenumerate(values.numpy()):
        if form and abs(value) >= 0.05:
            color = "white" if abs(value) > 0.6 * limit else "black"
            write(axes, x + (column + 0.5) * side, y + (row + 0.5) * side, form.format(value), color=color)


def draw_receptive_field() -> Figure:
    figure, axes = cell_axes(26, 14.6)
    y = 0.6
    for title, (widths, shares) in receptive_fields().items():
        write(axes, 0.3, y, title, "left", weight="bold")
        for split, frames in enumerate(frames_seen(shares)):
            y += 1
            name = f"split {split + 1}" if len(widths) > 1 else "all"
            write(axes, 0.3, y, f"{name}, {widths[split]} channels", "left")
            draw_cells(axes, 100 * shares[split].sum(0)[None, 3:12], 5.2, y - 0.5, 1, 60, "{:.0f}")
            write(axes, 14.6, y, f"{frames} frame{'s' * (frames > 1)}", "left", weight="bold")
        y += 1.2
    for offset in range(-4, 5):
        write(axes, 9.7 + offset, y - 0.2, f"{offset:+d}" if offset else "0", color=GRAY)
    write(axes, 9.7, y + 0.6, "input frame relative to the output frame; numbers: % of the gradient", color=GRAY)
    write(axes, 18.3, 2.6, "MSL: receptive field (frames)", "left", weight="bold")
    write(axes, 18.3, 3.3, "row: output split, column: input split", "left", color=GRAY)
    draw_cells(axes, (receptive_fields()["MSL"][1] > 0).sum(2), 19.6, 5.5, 1.5, 12, "{}")
    for split in range(4):
        write(axes, 19.3, 6.25 + 1.5 * split, f"{split + 1}", color=GRAY)
        write(axes, 20.35 + 1.5 * split, 5.1, f"{split + 1}", color=GRAY)
    return figure


def draw_depth() -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 2.5), layout="constrained")
    axes = figure.subplots()
    r3d, msf = (receptive_field_by_depth(name) for name in ("r3d_18", "msf_r3d_18"))
    low, high = np.array(list(msf.values())).T
    axes.bar(list(msf), high - low, 0.34, low, label="MSF-R3D-18, smallest to largest split")
    axes.plot([frames for frames, _ in r3d.values()], "o", color="tab:orange", label="R3D-18")
    for x, (frames, _) in enumerate(r3d.values()):
        write(axes, x - 0.22, frames, f"{frames}", "right")
        write(axes, x + 0.21, low[x], f"{low[x]}", "left")
        write(axes, x + 0.21, high[x], f"{high[x]}", "left")
    axes.axhline(8, color=GRAY, lw=0.9, ls="--")
    axes.text(7.45, 8.6, "clip of 8 frames", ha="right", color=GRAY)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.set(ylim=(4, 320), xlim=(-0.5, 7.5), ylabel="temporal receptive field (frames)")
    axes.legend(frameon=False, loc="upper left")
    return figure


def draw_dct() -> Figure:
    figure, axes = cell_axes(18.2, 8.8)
    write(axes, 0.2, 0.4, "The 16 of 49 DCT frequencies that FAM uses", "left", weight="bold")
    write(axes, 0.2, 0.95, "row: vertical, column: horizontal frequency", "left", color=GRAY)
    grid = tuple((v, h) for v in range(BASIS_SIZE) for h in range(BASIS_SIZE))
    for (v, h), weight in zip(grid, FrequencyPool(len(grid), grid).weight(7, 7), strict=True):
        draw_cells(axes, weight, 0.65 + h, 1.75 + v, 0.9 / 7, 0.35 if (v, h) in TOP16 else 1.2)
    for u in range(BASIS_SIZE):
        write(axes, 1.1 + u, 1.5, f"{u}", color=GRAY)
        write(axes, 0.35, 2.2 + u, f"{u}", color=GRAY)
    write(axes, 9, 0.4, "Weights on feature maps of other sizes", "left", weight="bold")
    shown = ((0, 1), (2, 2), (3, 5), (0, 6))
    for column, size in enumerate((14, 7, 4, 3, 2, 1)):
        x = 10.2 + 1.33 * column
        write(axes, x + 0.6, 1.5, f"{size}×{size}", color=GRAY)
        for row, weight in enumerate(FrequencyPool(len(shown), shown).weight(size, size)):
            draw_cells(axes, weight, x, 1.75 + 1.35 * row, 1.2 / size, 0.35 * (7 / size) ** 2)
        rank = torch.linalg.matrix_rank(FrequencyPool(len(TOP16)).weight(size, size).flatten(1))
        write(axes, x + 0.6, 7.5, f"{rank}", weight="bold")
    for row, pair in enumerate(shown):
        write(axes, 9.9, 2.35 + 1.35 * row, f"{pair}", "right", color=GRAY)
    write(axes, 14.1, 8.1, "linearly independent frequencies of the 16", color=GRAY)
    return figure


def draw_fam() -> Figure:
    figure, axes = cell_axes(29, 16.2)
    write(axes, 18, 0.7, "FAM: descriptor of each frequency", weight="bold")
    write(axes, 27.6, 0.7, "SAM input", weight="bold")
    write(axes, 27.6, 2.4, "std over t", color=GRAY)
    write(axes, 0.2, 2.4, "pattern; its mean, all that SE sees, is 1", "left", color=GRAY)
    for column, (pair, weight) in enumerate(zip(TOP16, FrequencyPool(16).weight(7, 7), strict=True)):
        draw_cells(axes, weight, 10.05 + column, 1.1, 0.9 / 7, 0.35)
        write(axes, 10.5 + column, 2.4, "{},{}".format(*pair), color=GRAY)
    for row, (name, pattern) in enumerate(patterns().items()):
        y, (fam, sam) = 2.9 + 1.2 * row, response(pattern)
        write(axes, 0.2, y + 0.5, name, "left")
        for frame in range(3):
            draw_cells(axes, pattern[frame] - 1, 6.3 + 1.1 * frame, y, 1 / 7, 1, cmap="gray")
        draw_cells(axes, fam[None], 10, y, 1, 9, "{:.1f}")
        draw_cells(axes, torch.tensor([[sam]]), 27.1, y, 1, 9, "{:.1f}")
    return figure


def draw_frequency_response() -> Figure:
    figure = Figure(figsize=(WIDTH_INCHES, 2.4), layout="constrained")
    both = figure.subplots(1, 2, sharey=True, width_ratios=(7, 4))
    for axes, end, over_time in zip(both, (7, 4), (False, True), strict=True):
        cycles = torch.linspace(0, end, 141)
        for h, amplitude in enumerate(frequency_response(cycles, over_time=over_time)):
            color = colormaps["viridis"](h / 7) if h else GRAY
            axes.plot(cycles, amplitude, color=color, lw=1.4, ls="-" if h else "--", label=f"(0, {h})")
        axes.set_xlim(0, end)
    both[0].set(title="Vertical stripes", xlabel="stripes across a 14×14 map", ylabel="response amplitude")
    both[1].set(title="Flicker", xlabel="cycles in 8 frames")
    both[0].legend(frameon=False, ncols=2, title="frequency (v, h)")
    return figure


CHARTS = {
    "method-receptive-field.svg": draw_receptive_field,
    "method-depth.svg": draw_depth,
    "method-dct.svg": draw_dct,
    "method-fam.svg": draw_fam,
    "method-frequency-response.svg": draw_frequency_response,
}


def write_charts(folder: Path) -> None:
    for name, draw in CHARTS.items():
        with rc_context(STYLE):
            draw().savefig(folder / name, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    write_charts(Path(__file__).parent / "assets")
