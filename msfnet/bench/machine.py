"""Describes the machine and measures its peak performance in GFLOP/s.

No single probe reaches the peak of every processor: a matrix product is slower than a convolution on some and faster on
others, and each is fastest at certain sizes. The peak is the best of matrix products of several sizes and of a 3x3x3
convolution of 64 channels in two memory layouts, in the precision and with the threads of the measured networks.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional as F

from msfnet.environment import commit, package_version, processor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # PyTorch has no 3D convolution of 8-bit integers to probe
PROBE_SECONDS = 0.4
MATRIX_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
CONVOLUTION_CLIPS = {"cpu": 2, "cuda": 32}


def describe_machine(device: torch.device, threads: int, packages: tuple[str, ...]) -> str:
    """Return one line: processor or GPU, system, versions and commit.

    Args:
        device: Where networks run.
        threads: CPU threads of PyTorch.
        packages: Packages whose versions are named if they are installed.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    versions = [f"{package} {number}" for package in packages if (number := package_version(package))]
    cores = f"{os.cpu_count()} CPU cores, {threads} threads"
    return ", ".join([name, cores, platform.system(), *versions, f"commit {commit()}"])


@dataclass(frozen=True)
class Peak:
    """The peak performance of the machine.

    Attributes:
        gflops: GFLOP/s; one multiply-add is two operations.
        probe: What reached them.
    """

    gflops: float
    probe: str


def measure_peak(precision: str, device: torch.device) -> Peak | None:
    """Measure the peak performance.

    Args:
        precision: `fp32`, `bf16` or `int8`.
        device: Where the probes run.

    Returns:
        The best of all probes; None for a precision without a probe.
    """
    if precision not in DTYPES:
        return None
    dtype, found = DTYPES[precision], []
    with torch.inference_mode():
        for side in MATRIX_SIDES[device.type]:
            a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
            seconds = _min_seconds(partial(torch.matmul, a, b), device)
            found.append(Peak(2e-9 * side**3 / seconds, f"matrix product of {side}x{side}"))
        clips, channels = CONVOLUTION_CLIPS[device.type], 64
        weight = torch.rand(channels, channels, 3, 3, 3, device=device).to(dtype)
        x = torch.rand(clips, channels, 8, 56, 56, device=device).to(dtype)
        operations = 2 * 27 * channels * x.numel()
        layouts = {"": torch.contiguous_format, ", channels last": torch.channels_last_3d}
        for name, layout in layouts.items():
            operands = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
            seconds = _min_seconds(partial(F.conv3d, *operands, padding=1), device)
            found.append(Peak(1e-9 * operations / seconds, f"3x3x3 convolution of {channels} channels{name}"))
    return max(found, key=lambda peak: peak.gflops)


def _min_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the fastest of several calls, after one that is not counted."""

    def timed() -> float:
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    timed()
    seconds = [timed()]
    while sum(seconds) < PROBE_SECONDS:
        seconds.append(timed())
    return min(seconds)
