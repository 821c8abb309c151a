"""The machine, and the versions on it, that a measurement is worth nothing without."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from msfnet.train.folder import commit


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
