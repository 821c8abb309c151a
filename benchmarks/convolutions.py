"""What was tried to make MSF-R3D's 3x3x3 convolutions faster on a CPU, one way beside the other.

    python benchmarks/convolutions.py

Each row is a way to compute a convolution of stride 1 that MSF-R3D holds, forward alone and with both gradients, timed
in turn with the plain one on one thread. The result is benchmarks/convolutions.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from msfnet.atomic_io import write_text
from msfnet.bench.timing import ratio, time_in_turn
from msfnet.layers import winograd

sys.path.insert(0, str(Path(__file__).parent / "data"))
from provenance import provenance

RESULT = Path(__file__).with_suffix(".md")
ROUNDS = 7
SHAPES = ((64, 8, 56), (28, 8, 56), (24, 8, 56), (16, 8, 56), (128, 4, 28), (56, 4, 28), (256, 2, 14))  # C, T, H = W
Way = Callable[[Tensor, Tensor], Tensor]


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x.contiguous(), weight.contiguous(), padding=1)


def channels_last(x: Tensor, weight: Tensor) -> Tensor:
    return F.conv3d(x, weight, padding=1)


def padded_channels(x: Tensor, weight: Tensor) -> Tensor:
    """To the next multiple of 16, which vectors of 16 numbers divide."""
    more = -len(weight) % 16
    y = F.conv3d(F.pad(x, (0, 0, 0, 0, 0, 0, 0, more)), F.pad(weight, (0, 0, 0, 0, 0, 0, 0, more, 0, more)), padding=1)
    return y[:, : len(weight)]


def frame_by_frame(x: Tensor, weight: Tensor) -> Tensor:
    """Three 2D convolutions of every frame, added up."""
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
    y: Tensor = winograd._Convolution.apply(x, weight)  # type: ignore[no-untyped-call]
    return y


def ways(frames: int) -> dict[str, Way]:
    found: dict[str, Way] = {"plain": plain, "channels last": channels_last, "channels padded to 16": padded_channels}
    found["three 2D convolutions a frame"] = frame_by_frame
    return found | ({"frames as channels": flat} if frames < 3 else {"minimal filtering over time": minimal_filtering})


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
    forwards = time_in_turn({n: partial(forward, w, x, weight) for n, w in ways(frames).items()}, ROUNDS)
    steps = time_in_turn({n: partial(step, w, x, weight, grad) for n, w in ways(frames).items()}, ROUNDS)
    for name, way in ways(frames).items():
        gain, step_gain = ratio(forwards["plain"], forwards[name]), ratio(steps["plain"], steps[name])
        error = (way(x, weight).double() - exact).norm() / exact.norm()
        found.append(
            f"| {channels} at {frames}x{side}x{side} | {name} "
            f"| {1e-9 * operations / forwards[name].median_seconds:.0f} "
            f"| {gain.median:.2f} ({gain.least:.2f} to {gain.most:.2f}) "
            f"| {step_gain.median:.2f} ({step_gain.least:.2f} to {step_gain.most:.2f}) | {float(error):.0e} |"
        )
    return found


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = ["# Ways to compute a 3x3x3 convolution on a CPU", "", "`python benchmarks/convolutions.py`", ""]
    for dtype in (torch.float32, torch.bfloat16):
        lines += [
            f"## {str(dtype).removeprefix('torch.')}",
            "",
            "| channels, clip | way | GFLOP/s | times plain, forward | with gradients | relative error |",
            "|---|---|---|---|---|---|",
        ]
        for shape in SHAPES:
            lines += rows(*shape, dtype)
            print("\n".join(lines[-5:]), flush=True)
        lines.append("")
    lines += [
        f"2 clips, one thread, median and range of {ROUNDS} rounds in which every way is timed once. GFLOP/s count the "
        "operations of the definition, so that a way that needs fewer may exceed the machine's peak.",
        "",
        provenance("torch"),
    ]
    write_text(RESULT, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
