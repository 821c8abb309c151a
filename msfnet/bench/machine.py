"""The machine, and the versions on it, that a measurement is worth nothing without.

What the machine can do at most: the best of several short probes, in GFLOP/s. Knows torch and no network of ours.

No single probe finds the peak everywhere: a matrix product is slower than a convolution on some processors and faster
on others, and each has sizes that it likes. So it is the best of products of several sizes and of a 3x3x3 convolution
of 64 channels in both layouts, in the precision and with the threads that the networks are given.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.nn import functional as F

from msfnet.environment import commit


def processor() -> str:
    """The processor's model, which Linux tells in a file only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def package(name: str) -> str | None:
    """The version of a package that is installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def describe_machine(device: str, threads: int, packages: tuple[str, ...]) -> str:
    """In one line: processor or GPU, system, versions of these packages where they are installed, commit."""
    where = torch.cuda.get_device_name() if device == "cuda" else processor()
    found = [f"{name} {number}" for name in packages if (number := package(name))]
    cores = f"{os.cpu_count()} CPU cores, {threads} threads"
    return ", ".join([where, cores, platform.system(), *found, f"commit {commit()}"])


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # torch has no convolution of 8-bit integers to probe with
PROBE_SECONDS = 0.4
MATRIX_SIDES = {"cpu": (256, 512, 1024, 2048), "cuda": (2048, 4096, 8192)}
CONV_CLIPS = {"cpu": 2, "cuda": 32}


@dataclass(frozen=True)
class Peak:
    """GFLOP/s, one multiply-add being two operations, and the probe that reached them."""

    gflops: float
    probe: str


def measure_peak(precision: str, device: torch.device) -> Peak | None:
    """The best of the probes; None for a precision that there are none for."""
    if precision not in DTYPES:
        return None
    dtype, found = DTYPES[precision], []
    with torch.inference_mode():
        for side in MATRIX_SIDES[device.type]:
            a, b = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
            seconds = _best_seconds(partial(torch.matmul, a, b), device)
            found.append(Peak(2e-9 * side**3 / seconds, f"matrix product of {side}x{side}"))
        clips, channels = CONV_CLIPS[device.type], 64
        weight = torch.rand(channels, channels, 3, 3, 3, device=device).to(dtype)
        x = torch.rand(clips, channels, 8, 56, 56, device=device).to(dtype)
        operations = 2 * 27 * channels * x.numel()
        layouts = {"": torch.contiguous_format, ", channels last": torch.channels_last_3d}
        for name, layout in layouts.items():
            laid_out = x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout)
            seconds = _best_seconds(partial(F.conv3d, *laid_out, padding=1), device)
            found.append(Peak(1e-9 * operations / seconds, f"3x3x3 convolution of {channels} channels{name}"))
    return max(found, key=lambda peak: peak.gflops)


def _best_seconds(function: Callable[[], object], device: torch.device) -> float:
    """Of calls for a while, after one to warm up."""

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
