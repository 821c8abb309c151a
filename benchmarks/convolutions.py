"""Implementations of MSF-R3D's 3x3x3 convolutions on a CPU, compared with the plain one.

    python benchmarks/convolutions.py

Each row is one implementation of a stride-1 convolution of MSF-R3D, forward only and with both gradients, timed
alternately with the plain one on one thread. The result is benchmarks/convolutions.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from msfnet.atomic_io import write_text
from msfnet.bench.timing import speedup, time_alternately
from msfnet.layers import winograd

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
REPEATS = 7
SHAPES = ((64, 8, 56), (28, 8, 56), (24, 8, 56), (16, 8, 56), (128, 4, 28), (56, 4, 28), (256, 2, 14))  # C, T, H = W
Way = Callable[[Tensor, Tensor], Tensor]


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x.contiguous(), weight.contiguous(), padding=1)


def channels_last(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x, weight, padding=1)


def padded_channels(x: Tensor, weight: Tensor) -> Tensor:
    """Pad channels to the next multiple of 16, the number of fp32 values in a vector register."""
    more = -len(weight) % 16
    y = F.conv3d(F.pad(x, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more, 0, more)), padding=1)
    return y[:, : len(weight)]


def frame_by_frame(x: Tensor, weight: Tensor) -> Tensor:
    """Sum of three 2D convolutions for every output frame."""
    n, _, frames = x.shape[:3]
    padded = F.pad(x, (0, 0, 0, 0, 1, 1)).transpose(1, 2)
    taps = [
        F.conv2d(padded[:, t : t + frames].flatten(0, 1), weight[:, :, t], padding=1).unflatten(0, (n, frames))
        for t in range(3)
    ]
    return (taps[0] + taps[1] + taps[2]).transpose(1, 2)


def flat(x: Tensor, weight: Tensor) -> Tensor:
    return winograd.flat_convolution(x, weight, None)


def minimal_filtering(x: Tensor, weight: Tensor) -> Tensor:
    y: Tensor = winograd.WinogradConvolution.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


def ways(frames: int) -> dict[str, Way]:
    found: dict[str, Way] = {"plain": plain, "channels last": channels_last, "channels padded to 16": padded_channels}
    found["three 2D convolutions per frame"] = frame_by_frame
    return found | ({"frames as channels": flat} if frames < 3 else {"Winograd over time": minimal_filtering})


def step(way: Way, x: Tensor, weight: Tensor, grad: Tensor) -> None:
    torch.autograd.grad(way(x, weight), (x, weight), grad)


def forward(way: Way, x: Tensor, weight: Tensor) -> None:
    with torch.no_grad():
        way(x, weight)


def rows(channels: int, frames: int, side: int, dtype: torch.dtype) -> list[str]:
    x, grad = (
        torch.randn(2, channels, frames, side, side).to(dtype, memory_format=torch.channels_last_3d) for _ in range(2)
    )
    weight = torch.randn(channels, channels, 3, 3, 3) / (27 * channels) ** 0.5
    exact = F.conv3d(x.double(), weight.double(), padding=1)
    weight = weight.to(dtype, memory_format=torch.channels_last_3d).requires_grad_()
    x.requires_grad_()
    operations = 2 * 27 * channels * x.numel()
    found = []
    forwards = time_alternately({n: partial(forward, w, x, weight) for n, w in ways(frames).items()}, REPEATS)
    steps = time_alternately({n: partial(step, w, x, weight, grad) for n, w in ways(frames).items()}, REPEATS)
    for name, way in ways(frames).items():
        gain, step_gain = speedup(forwards["plain"], forwards[name]), speedup(steps["plain"], steps[name])
        error = (way(x, weight).double() - exact).norm() / exact.norm()
        found.append(
            f"| {channels} at {frames}x{side}x{side} | {name} "
            f"| {1e-9 * operations / forwards[name].median_seconds:.0f} "
            f"| {gain.median:.2f} ({gain.min:.2f} to {gain.max:.2f}) "
            f"| {step_gain.median:.2f} ({step_gain.min:.2f} to {step_gain.max:.2f}) | {float(error):.0e} |"
        )
    return found


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        "# Implementations of a 3x3x3 convolution on a CPU",
        "",
        "Printed by `python benchmarks/convolutions.py`.",
        "",
    ]
    for dtype in (torch.float32, torch.bfloat16):
        lines += [
            f"## {str(dtype).removeprefix('torch.')}",
            "",
            "| channels, clip | implementation | GFLOP/s | speedup, forward | with gradients | relative error |",
            "|---|---|---|---|---|---|",
        ]
        for shape in SHAPES:
            lines += rows(*shape, dtype)
            print("\n".join(lines[-5:]), flush=True)
        lines.append("")
    lines += [
        f"Batches of 2 clips on one thread; median and range over {REPEATS} repeats, each of which times every "
        "implementation once. GFLOP/s count the operations of the definition, so an implementation that needs fewer "
        "can exceed the machine's peak.",
        "",
        provenance("torch"),
    ]
    write_text(RESULT, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
