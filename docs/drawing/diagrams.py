"""Boxes and arrows, walked from real networks: the MSF block and its MSL, the networks, the placements of Table 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from torch import nn

from drawing.canvas import (
    BLUES,
    FAINT,
    MUTED,
    PURPLE,
    REACH_COLORS,
    TEXT,
    WIDTH_INCHES,
    arrow,
    bar,
    box,
    evenly,
    outline,
    plus,
    sheet,
    write,
)
from drawing.facts import (
    Lane,
    Part,
    described,
    input_shape,
    lanes,
    msl_of,
    msl_reaches,
    parts,
    size_of,
    steps,
    stride_of,
)
from msfnet.experiments.paper import read_paper
from msfnet.layers.fsam import FSAM
from msfnet.layers.msl import MSL
from msfnet.models.blocks import MSFBlock
from msfnet.models.c3d import Halve
from msfnet.report import INK

FRAME_INCHES = 0.02  # from a frame of a map to the next
LANE_TOP, LANE_END, LANE_STEP, LANE_GAP = 4.2, 0.52, 1.12, 0.27  # of MSL, in inches
BAR, CONV_INCHES = 0.2, 0.62  # how high channels are drawn, how wide a convolution at least
NETWORK, BLOCK = "msf_r3d_18_fsam", "layer2.0"  # a block that changes the shape: all its paths have something on them


# The MSF block, and MSL


def draw_block() -> Figure:
    figure, axes = sheet(5.0)
    left, main = 3.1, 1.72
    corners = [(main + 0.57, 2.86), (left - 0.24, 4.92), (left - 0.24, 0.08), (main + 0.57, 2.46)]
    axes.add_patch(Polygon(corners, facecolor=FAINT, zorder=0))  # MSL, enlarged
    _block(axes, main)
    _msl(axes, left, inch=0.0178)
    return figure


def _words(step: nn.Module, *more: str) -> str:
    what, channels = described(step)
    return "\n".join(filter(None, (what, channels, *more)))


def _block(axes: Axes, main: float) -> None:
    """Path A down the middle, B beside it on the left, C on the right, with what the modules of the block are."""
    block, found = parts(NETWORK)[BLOCK].module, parts(NETWORK)
    assert isinstance(block, MSFBlock)
    side, right = 0.55, 2.62
    before = size_of(found["layer1"].shape)
    after = size_of(found[BLOCK].shape)
    write(axes, (0.08, 4.88), "MSF block", size=TEXT, bold=True, ha="left")
    write(axes, (main, 4.62), f"input  {before}", color=MUTED)
    arrow(axes, (main, 4.52), (main, 4.18))
    (first,) = steps(block.conv1)
    box(axes, (main, 3.92), (1.15, 0.52), _words(first, "norm, ReLU"))
    arrow(axes, (main, 3.66), (main, 2.86))
    write(axes, (main + 0.07, 3.4), "X", size=TEXT, bold=True, ha="left")
    (second,) = steps(block.conv2)
    box(axes, (main, 2.66), (1.15, 0.4), described(second)[0], fill=REACH_COLORS[3], bold=True)
    arrow(axes, (main, 2.46), (main, 2.18))
    box(axes, (main, 2.07), (1.15, 0.22), "norm")
    arrow(axes, (main, 1.96), (main, 1.39))
    write(axes, (main + 0.07, 1.7), "Y", size=TEXT, bold=True, ha="left")
    plus(axes, (main, 1.28))
    arrow(axes, (main, 1.17), (main, 0.92))
    box(axes, (main, 0.81), (1.15, 0.22), "ReLU")
    arrow(axes, (main, 0.7), (main, 0.42))
    write(axes, (main, 0.3), f"output  {after}", color=MUTED)
    assert block.downsample is not None
    pool, project = steps(block.downsample)
    arrow(axes, (main, 4.36), (side, 4.36), (side, 3.3))
    box(axes, (side, 3.15), (0.95, 0.3), f"{described(pool)[0]}, {described(pool)[1]}")
    arrow(axes, (side, 3.0), (side, 2.72))
    box(axes, (side, 2.46), (0.95, 0.52), _words(project, "norm"))
    arrow(axes, (side, 2.2), (side, 1.28), (main - 0.11, 1.28))
    arrow(axes, (main, 3.2), (right, 3.2), (right, 1.28), (main + 0.11, 1.28))
    for letter, at in (("A", (main - 0.13, 4.27)), ("B", (side + 0.13, 3.55)), ("C", (right - 0.13, 1.7))):
        write(axes, at, letter, size=TEXT, color=PURPLE, bold=True)


def _msl(axes: Axes, left: float, inch: float) -> None:
    """A lane for each group; all widths are channels, `inch` each, and colors are the frames that were measured."""
    msl, frames = msl_of(parts(NETWORK)[BLOCK].module), [reach.frames for reach in msl_reaches()]
    outline(axes, (left - 0.24, 0.08), (WIDTH_INCHES - left + 0.18, 4.84))
    write(axes, (left - 0.12, 4.77), f"MSL of {sum(msl.sizes)} channels", size=TEXT, bold=True, ha="left")
    write(
        axes,
        (WIDTH_INCHES - 0.16, 4.77),
        "bars: channels, to scale; darker: sees more frames",
        color=MUTED,
        ha="right",
    )
    kept = [lane.kept for lane in lanes(msl)]
    total = f"output: {' + '.join(map(str, kept))} = {sum(kept)} channels"
    write(axes, ((left - 0.24 + WIDTH_INCHES) / 2, 0.2), total, color=MUTED)
    x = left
    for number, lane in enumerate(lanes(msl)):
        own, seen = x + lane.carried * inch, frames[number]
        bar(axes, (own, LANE_TOP), (lane.own * inch, BAR), REACH_COLORS[1], f"{lane.own}")
        write(axes, (own + lane.own * inch / 2, LANE_TOP + 0.3), f"$x_{number + 1}$", size=TEXT)
        _lane(axes, number, lane, x, inch, frames)
        bar(axes, (x, LANE_END), (lane.kept * inch, BAR), REACH_COLORS[seen], f"{lane.kept}")
        write(axes, (x + lane.kept * inch / 2, LANE_END - 0.11), f"{seen} frame{'s' * (seen > 1)}", bold=True)
        x += max(lane.width * inch, CONV_INCHES) + LANE_GAP


def _lane(axes: Axes, number: int, lane: Lane, x: float, inch: float, frames: list[int]) -> None:
    """What stands between a group's channels on top and its output at the bottom."""
    if number == 0:
        arrow(axes, (x + lane.own * inch / 2, LANE_TOP), (x + lane.own * inch / 2, LANE_END + BAR))
        return
    y, width, shade = LANE_TOP - LANE_STEP * (number - 1), lane.width * inch, REACH_COLORS[frames[number]]
    if lane.carried:
        own = x + lane.carried * inch
        arrow(axes, (own + lane.own * inch / 2, LANE_TOP), (own + lane.own * inch / 2, y + BAR))
        bar(axes, (x, y), (lane.carried * inch, BAR), REACH_COLORS[frames[number - 1]], f"{lane.carried}")
        bar(axes, (own, y), (lane.own * inch, BAR), REACH_COLORS[1], f"{lane.own}")
    middle, below = x + width / 2, y - 0.62 - BAR
    arrow(axes, (middle, y), (middle, y - 0.16))
    box(
        axes,
        (middle, y - 0.33),
        (max(width, CONV_INCHES), 0.34),
        f"{size_of(lane.kernel)}\n{lane.width} → {lane.width}",
    )
    arrow(axes, (middle, y - 0.5), (middle, y - 0.62))
    kept, given = lane.kept * inch, (lane.width - lane.kept) * inch
    write(axes, (x - 0.12, below + BAR / 2), f"$y_{number + 1}$", size=TEXT)
    bar(axes, (x, below), (kept, BAR), shade, f"{lane.kept}")
    arrow(axes, (x + kept / 2, below), (x + kept / 2, LANE_END + BAR))
    if given:
        bar(axes, (x + kept, below), (given, BAR), shade, f"{lane.width - lane.kept}")
        turn, onto = x + kept + given / 2, y - LANE_STEP + BAR / 2
        arrow(axes, (turn, below), (turn, onto), (x + max(width, CONV_INCHES) + LANE_GAP, onto))


# The networks


def draw_networks() -> Figure:
    figure, axes = sheet(5.0)
    _network(axes, "msf_r3d_18_fsam", "MSF-R3D with FSAM", top=4.95)
    _network(axes, "msf_c3d_fsam", "MSF-C3D with FSAM", top=2.4)
    return figure


@dataclass
class Column:
    """A stage of a network: the map that it gives, what it runs, its parameters and multiply-adds."""

    shape: tuple[int, ...]
    runs: list[str]
    params: int = 0
    macs: int = 0

    @property
    def side_inches(self) -> float:
        """Of a frame."""
        return 0.055 * math.sqrt(self.shape[2])

    @property
    def width_inches(self) -> float:
        """Of what is drawn: all frames, or the text of linear layers."""
        return self.side_inches + FRAME_INCHES * (self.shape[1] - 1) if self.shape else 0.72

    def add(self, part: Part) -> None:
        self.runs += _runs(part.module)
        self.params += part.params
        self.macs += part.macs


def columns(name: str) -> list[Column]:
    """The input, the stages with the attention that follows them, and the linear layers as the last."""
    found = [Column(input_shape(name), ["input"])]
    head = Column((), [])
    for own, part in parts(name).items():
        if not own or "." in own:
            continue
        if len(part.shape) < 4 or isinstance(part.module, nn.AdaptiveAvgPool3d):
            head.add(part)
            continue
        if not isinstance(part.module, FSAM):
            found.append(Column(part.shape, []))
        found[-1].add(part)
    return [*found, head]


def _runs(module: nn.Module) -> list[str]:
    """What a stage runs, a line each; norms and ReLUs go without saying."""
    if isinstance(module, MSFBlock):
        return [", ".join(filter(None, ("MSF", stride_of(steps(module.conv1)[0]))))]
    if isinstance(module, FSAM):
        return ["FSAM"]
    if isinstance(module, Halve):
        return ["max pool, /2"]
    if isinstance(module, nn.AdaptiveAvgPool3d):
        return ["mean over\nT, H and W"]
    if isinstance(module, nn.Linear):
        return [f"fc {module.in_features}\n→ {module.out_features}"]
    if isinstance(module, nn.Conv3d | nn.MaxPool3d):
        kind = f"conv {size_of(module.kernel_size)}" if isinstance(module, nn.Conv3d) else "max pool"
        strided = max(module.stride) > 1
        return [f"{kind},\n/{size_of(module.stride)}" if strided else kind]
    return [line for child in module.children() for line in _runs(child)]


def _network(axes: Axes, name: str, title: str, top: float) -> None:
    whole, all_columns = parts(name)[""], columns(name)
    write(axes, (0.08, top - 0.1), title, size=TEXT, bold=True, ha="left")
    total = f"{whole.params / 1e6:.3f} M parameters, {whole.macs / 1e9:.2f} GMACs"
    write(axes, (WIDTH_INCHES - 0.08, top - 0.1), total, color=MUTED, ha="right")
    middle, rows = top - 0.74, {"map": top - 1.92, "M params": top - 2.09, "GMACs": top - 2.26}
    for label, y in rows.items():
        write(axes, (0.08, y), label, color=MUTED, ha="left", va="baseline")
    middles = evenly(len(all_columns), 0.6, WIDTH_INCHES)
    for x, column, following in zip(middles, all_columns, [*all_columns[1:], None], strict=True):
        _column(axes, x, middle, column)
        if following:
            start, end = x + column.width_inches / 2, x + middles[1] - middles[0] - following.width_inches / 2
            arrow(axes, (start + 0.03, middle), (end - 0.03, middle), color=MUTED)
        texts = size_of(column.shape), _counted(column.params / 1e6), _counted(column.macs / 1e9)
        for y, text in zip(rows.values(), texts, strict=True):
            write(axes, (x, y), text, va="baseline")


def _counted(number: float) -> str:
    return "" if number == 0 else f"{number:.2f}" if number >= 0.005 else "< 0.01"


def _column(axes: Axes, x: float, middle: float, column: Column) -> None:
    """The frames of a map one behind the other, sides as the root of their pixels, and below what made them."""
    y = middle - 0.64 if column.shape else middle + 0.24
    for run in column.runs:
        attention = run == "FSAM"
        for line in run.split("\n"):
            write(axes, (x, y), line, color=PURPLE if attention else INK, bold=attention, va="baseline")
            y -= 0.14
        y -= 0.015 if column.shape else 0.06
    if not column.shape:
        return
    channels, frames, *_ = column.shape
    fill = to_hex(BLUES(0.08 + 0.092 * math.log2(channels / 3)))
    for frame in reversed(range(frames)):
        shift = FRAME_INCHES * (frame - (frames - 1) / 2)
        corner = x - column.side_inches / 2 + shift, middle - column.side_inches / 2 + shift
        bar(axes, corner, (column.side_inches, column.side_inches), fill, lw=0.5)


# Where the split stands (Table 1)


def draw_placements() -> Figure:
    """The steps of a block that changes the shape, and of one that keeps it, for each row of Table 1 and for R3D."""
    figure, axes = sheet(3.95)
    printed = {row.model: row for row in read_paper().row if row.table == "1"}
    names = {"R3D": "r3d_18"} | {row.label: row.model for row in printed.values()}
    lefts = evenly(len(names), 0.72, WIDTH_INCHES)
    rows = {"changes\nthe shape": ("layer2.0", 3.5), "keeps it": ("layer2.1", 1.98)}
    for label, (_, y) in rows.items():
        write(axes, (0.08, y - 0.3), label, color=MUTED, ha="left")
    for label, y in (("M params", 0.46), ("GMACs", 0.29), ("paper, %", 0.12)):
        write(axes, (0.08, y), label, color=MUTED, ha="left", va="baseline")
    for x, (label, name) in zip(lefts, names.items(), strict=True):
        chosen = label == "(b)"
        write(axes, (x, 3.8), f"{label} MSF" if chosen else label, size=TEXT, bold=True)
        for own, y in rows.values():
            _chain(axes, x, y, parts(name)[own].module)
        whole = parts(name)[""]
        top1 = printed[name].printed.top1 if name in printed else ""
        for text, y in ((f"{whole.params / 1e6:.3f}", 0.46), (f"{whole.macs / 1e9:.2f}", 0.29), (top1, 0.12)):
            write(axes, (x, y), text, bold=chosen, va="baseline")
    return figure


def _chain(axes: Axes, x: float, top: float, block: nn.Module) -> None:
    """The steps of both halves of a block, one below the other."""
    found = [*steps(block.conv1), *steps(block.conv2)]
    for number, step in enumerate(found):
        y = top - 0.48 * number
        what, channels = described(step)
        fill = REACH_COLORS[5] if isinstance(step, MSL) else FAINT
        if number:
            arrow(axes, (x, y + 0.31), (x, y + 0.17), color=MUTED)
        box(axes, (x, y), (1.14, 0.34), f"{what}\n{channels}", fill=fill)
