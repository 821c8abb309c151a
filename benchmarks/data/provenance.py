"""Where a number comes from: processor, versions and commit in one line. And the spread of repeated measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from msfnet.train.folder import commit


def provenance(*packages: str) -> str:
    """The last line of a result: machine, versions of these packages where they are installed, commit."""
    found = [f"{name} {number}" for name in packages if (number := _version(name))]
    system = f"{os.cpu_count()} CPU cores ({_processor()}), {platform.system()}"
    return ", ".join([system, f"Python {platform.python_version()}", *found, f"commit {commit()}"]) + "."


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range: `540 (510 to 552)`."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's model, which Linux tells in a file only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
