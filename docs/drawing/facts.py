"""What the drawings show, measured on the real networks and layers: sizes, reach in time, responses, extents.

Gradients say what sees what; hooks say what passes where. Nothing is drawn here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from msfnet.layers.fsam import BASIS_SIZE, FAM, FSAM, SAM, TOP16, FrequencyPool, channel_summary
from msfnet.layers.msl import MSL
from msfnet.layers.se import SE
from msfnet.models.blocks import MSFBlock
from msfnet.models.registry import count_parameters, create_model


@contextmanager
def seeded() -> Iterator[None]:
    """Checkpoint and noise that are the same each time, and random numbers as they were when it ends."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


# Networks


@dataclass(frozen=True)
class Part:
    """A module in its network: what it gives for one clip, C T H W, its parameters and its multiply-adds."""

    name: str
    module: nn.Module
    shape: tuple[int, ...]
    params: int
    macs: int


@cache
def parts(name: str) -> dict[str, Part]:
    """Every module of a network that is run, by its dotted name, on the meta device: nothing is computed."""
    with torch.device("meta"):
        model: Any = create_model(name).eval()
        shapes: dict[str, tuple[int, ...]] = {}
        for own, module in model.named_modules():
            module.register_forward_hook(lambda m, i, o, own=own: shapes.update({own: tuple(o.shape[1:])}))
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), counter:
            model(torch.zeros(1, *model.input_shape))
    macs = {own: sum(counts.values()) // 2 for own, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    return {
        own: Part(own, module, shapes[own], count_parameters(module), macs.get(f"{root}.{own}" if own else root, 0))
        for own, module in model.named_modules()
        if own in shapes
    }


def input_shape(name: str) -> tuple[int, ...]:
    model: Any = parts(name)[""].module
    return tuple(model.input_shape)


def fsam_places(name: str) -> dict[str, tuple[int, ...]]:
    """Where FSAM stands in a network, and the map C T H W that it gets and gives."""
    return {own: part.shape for own, part in parts(name).items() if isinstance(part.module, FSAM)}


def steps(module: nn.Module) -> list[nn.Module]:
    """The convolutions, poolings and MSLs that a part of a block runs one after the other."""
    if isinstance(module, nn.Conv3d | nn.MaxPool3d | MSL):
        return [module]
    return [step for child in module.children() for step in steps(child)]


def size_of(lengths: Sequence[int]) -> str:
    return "×".join(map(str, lengths))


def stride_of(step: nn.Module) -> str:
    """ "/2", or "/1×2×2" where the axes differ, or nothing for 1."""
    lengths = step.stride if isinstance(step.stride, tuple) else (step.stride,)
    if max(lengths) == 1:
        return ""
    return f"/{lengths[0]}" if len(set(lengths)) == 1 else f"/{size_of(lengths)}"


def described(step: nn.Module) -> tuple[str, str]:
    """What a step is, and its channels and stride: ("conv 3×3×3", "64 → 128, /2")."""
    if isinstance(step, MSL):
        return f"MSL, S = {len(step.sizes)}", f"{sum(step.sizes)}"
    if isinstance(step, nn.MaxPool3d):
        return "max pool", stride_of(step)
    assert isinstance(step, nn.Conv3d)
    channels = f"{step.in_channels} → {step.out_channels}"
    return f"conv {size_of(step.kernel_size)}", ", ".join(filter(None, (channels, stride_of(step))))


@dataclass(frozen=True)
class Lane:
    """A group of MSL: its channels, those it gets from the lane before, those that go to the output, its kernel."""

    own: int
    carried: int
    kept: int
    kernel: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Of its convolution."""
        return self.own + self.carried


def lanes(msl: MSL) -> list[Lane]:
    """Read from the widths of the convolutions; the first group has none."""
    widths: list[int] = [branch[0].in_channels for branch in msl.branches]
    carried = [width - own for width, own in zip(widths, msl.sizes[1:], strict=True)]
    kept = [width - given for width, given in zip(widths, [*carried[1:], 0], strict=True)]
    kernels = [branch[0].kernel_size for branch in msl.branches]
    rest = (Lane(*lane) for lane in zip(msl.sizes[1:], carried, kept, kernels, strict=True))
    return [Lane(msl.sizes[0], 0, msl.sizes[0]), *rest]


def slices(widths: Sequence[int]) -> Iterator[slice]:
    """Channels one part after the other."""
    start = 0
    for width in widths:
        yield slice(start, start + width)
        start += width


def saving(groups: int, channels: int = 64) -> float:
    """The convolution weights of MSL, as a share of those of one dense 3x3x3 convolution."""
    own = sum(conv.weight.numel() for conv in MSL(channels, groups).modules() if isinstance(conv, nn.Conv3d))
    return own / (27 * channels**2)


# Reach in time. So few pixels that the convolutions are the plain ones: rounding in the fast ones reaches all frames.

FRAMES, PX, CLIPS = 15, 3, 32


@dataclass(frozen=True)
class Reach:
    """What a part of the output takes from which part of the input and which frame, as shares of the whole: I T."""

    channels: int
    shares: Tensor

    @property
    def frames(self) -> int:
        """How many frames it sees at all."""
        return int((self.shares.sum(0) > 0).sum())

    @property
    def by_input(self) -> list[int]:
        """How many frames it sees of each part of the input."""
        return [int((row > 0).sum()) for row in self.shares]


def reaches(net: nn.Module, widths_in: Sequence[int], widths_out: Sequence[int]) -> list[Reach]:
    """The gradients of each part of the middle output frame with respect to the frames of each part of the input.

    Noise in, and noise as the gradient of the output, so that nothing cancels. `net` is float64 and in evaluation: in
    training the statistics of its norms would see every frame.
    """
    found = []
    with seeded():
        x = torch.randn(CLIPS, sum(widths_in), FRAMES, PX, PX, dtype=torch.float64, requires_grad=True)
        y = net(x)
        for width, part in zip(widths_out, slices(widths_out), strict=True):
            given = torch.zeros_like(y)
            given[:, part, FRAMES // 2] = torch.randn_like(given[:, part, FRAMES // 2])
            (grad,) = torch.autograd.grad(y, x, given, retain_graph=True)
            rows = torch.stack([grad[:, own].abs().sum((0, 1, 3, 4)) for own in slices(widths_in)])  # I T
            found.append(Reach(width, rows / rows.sum()))
    return found


@cache
def block_of(name: str) -> nn.Module:
    """The first block of a residual network, with fresh weights, for `reaches`."""
    with seeded():
        model: Any = create_model(name)
    block: nn.Module = model.layer1[0].eval().double()
    return block


def msl_of(block: nn.Module) -> MSL:
    return next(module for module in block.modules() if isinstance(module, MSL))


@cache
def msl_reaches() -> list[Reach]:
    """Of each group of MSL's output, over each group of its input."""
    msl = msl_of(block_of("msf_r3d_18"))
    return reaches(msl, msl.sizes, [lane.kept for lane in lanes(msl)])


@cache
def block_reaches(name: str) -> list[Reach]:
    """Of the block's output: of each group where it has an MSL, of all channels where not."""
    block = block_of(name)
    channels = [sum(msl_of(block_of("msf_r3d_18")).sizes)]
    return reaches(block, channels, channels if name == "r3d_18" else [lane.kept for lane in lanes(msl_of(block))])


@cache
def group_frames(groups: int) -> list[int]:
    """How many frames each group of an MSL sees."""
    with seeded():
        msl = MSL(64, groups).eval().double()
    return [reach.frames for reach in reaches(msl, msl.sizes, [lane.kept for lane in lanes(msl)])]


LONG_CLIP_FRAMES = 512


@cache
def depth_reaches(name: str) -> dict[str, tuple[int, int]]:
    """After each block: of how many frames of the clip its channels see something, the fewest and the most.

    On a narrow network with weights above zero, where no ReLU closes; how far it sees does not depend on the width.
    """
    with seeded():
        model: Any = create_model(name, width_mult=0.125).eval().double()
        x = torch.rand(1, 3, LONG_CLIP_FRAMES, 8, 8, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        for weight in model.parameters():
            weight.abs_()
    y, found = model.stem(x), {}
    for stage in ("layer1", "layer2", "layer3", "layer4"):
        for number, block in enumerate(getattr(model, stage)):
            y = block(y)
            found[f"{stage}.{number}"] = _frames_seen(x, y, block)
    return found


def _frames_seen(x: Tensor, y: Tensor, block: nn.Module) -> tuple[int, int]:
    """The fewest and the most frames of x that a part of the middle frame of y has a gradient to."""
    widths = [lane.kept for lane in lanes(msl_of(block))] if isinstance(block, MSFBlock) else [y.shape[1]]
    counts = []
    for part in slices(widths):
        (grad,) = torch.autograd.grad(y[:, part, y.shape[2] // 2].sum(), x, retain_graph=True)
        counts.append(int((grad.abs().sum((0, 1, 3, 4)) > 0).sum()))
    return min(counts), max(counts)


# Responses to flicker and texture


def _wave(cycles: float, n: int, phase: float = 0.0) -> Tensor:
    """A cosine of so many cycles over n samples."""
    return torch.cos(2 * math.pi * cycles * (torch.arange(n) + 0.5) / n + phase)


@cache
def patterns() -> dict[str, Tensor]:
    """Maps T H W of mean one and contrast one: what stands still, what flickers, what moves."""
    t, n = 8, BASIS_SIZE
    signs, ones = (-1.0) ** torch.arange(n), torch.ones(t, n, n)
    left = torch.sign(torch.arange(n) - n // 2).neg()
    moving = torch.stack([_wave(1, n, 2 * math.pi * frame / t) for frame in range(t)])[:, None, :]
    contrasts = {
        "constant": torch.zeros(t, 1, 1),
        "flicker": ((-1.0) ** torch.arange(t))[:, None, None],
        "moving stripes": moving,
        "upright stripes, wide": _wave(1, n)[None, None, :],
        "upright stripes, narrow": _wave(3, n)[None, None, :],
        "lying stripes, wide": _wave(1, n)[None, :, None],
        "lying stripes, narrow": _wave(3, n)[None, :, None],
        "checks, wide": (_wave(1, n)[:, None] * _wave(1, n))[None],
        "checks, fine": (signs[:, None] * signs)[None] - 1 / n**2,
        "brighter on the left": left[None, None, :],
        "brighter on the right": -left[None, None, :],
    }
    return {name: ones + contrast for name, contrast in contrasts.items()}


def told(attention: nn.Module, x: Tensor) -> Tensor:
    """What a channel attention's fc layers are told of x N C T H W, before they decide: N C."""
    heard: list[Tensor] = []
    handle = attention.fc.register_forward_pre_hook(lambda m, arguments: heard.append(arguments[0]))
    with torch.no_grad():
        attention(x)
    handle.remove()
    return heard[0]


@dataclass(frozen=True)
class Response:
    """What each attention is told of a map that all channels share."""

    se: float  # the mean
    fam: Tensor  # 16, one a frequency
    sam_time: float  # standard deviation of SAM's two maps over time, the mean over places

    @property
    def fam_difference(self) -> float:
        """How far FAM's numbers are from those of the constant map, at the most."""
        return float((self.fam - responses()["constant"].fam).abs().max())


@cache
def responses() -> dict[str, Response]:
    n, found = len(TOP16), {}
    for name, pattern in patterns().items():
        x = pattern.expand(1, n, *pattern.shape)
        summary = channel_summary(x)[0]  # 2 T H W
        found[name] = Response(
            se=float(told(SE(n, reduction=1), x)[0, 0]),
            fam=told(FAM(n, reduction=1), x)[0],
            sam_time=float(summary.std(1, correction=0).mean()),
        )
    return found


Pair = tuple[int, int]


def tuning(frequencies: tuple[Pair, ...], cycles: Sequence[float], *, over_time: bool) -> Tensor:
    """How strongly each frequency of FAM answers to waves of so many cycles, at the best phase: F cycles.

    Upright stripes on the 14x14 map of the first FSAM, or flicker of 8 frames; 1 is its answer to a constant map of
    the same contrast.
    """
    pool, size, frames = FrequencyPool(len(frequencies), frequencies), 14, 8
    columns = []
    for rate in cycles:
        answers = []
        for phase in (0.0, math.pi / 2):
            wave = _wave(rate, frames, phase)[:, None, None] if over_time else _wave(rate, size, phase)[None, None, :]
            answers.append(pool(wave.expand(1, len(frequencies), frames, size, size))[0])
        columns.append(torch.hypot(*answers) / BASIS_SIZE)
    return torch.stack(columns, 1)


# SAM


def sam_extent() -> tuple[int, int, int]:
    """Over how many frames, rows and columns a weight of SAM's looks, on a map that is large enough."""
    with seeded():
        sam, x = SAM(), torch.randn(1, 4, 15, 15, 15, requires_grad=True)
    sam.gate(channel_summary(x))[0, 0, 7, 7, 7].backward()
    assert x.grad is not None
    seen = x.grad.abs().sum((0, 1)) > 0
    frames, rows, columns = (int(seen.any(dim=other[0]).any(dim=other[1]).sum()) for other in ((1, 1), (0, 1), (0, 0)))
    return frames, rows, columns


def sam_taps(frames: int, height: int, width: int) -> Tensor:
    """How often each tap of SAM's kernel meets a value and not the padding, over a map of this size: 7 7 7.

    With all weights at zero the gate's slope is 1/4 everywhere, and a tap's gradient counts the values it met.
    """
    sam = SAM()
    nn.init.zeros_(sam.conv.weight)
    sam.gate(torch.ones(1, 2, frames, height, width)).sum().backward()
    assert sam.conv.weight.grad is not None
    return 4 * sam.conv.weight.grad[0, 0] / (frames * height * width)
