"""Provenance of a result (machine, versions, commit) in one line, and the spread of repeated measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from statistics import median

from msfnet.environment import commit, package_version, processor


def provenance(*packages: str) -> str:
    """The last line of a result page: machine, versions of the installed ones of `packages`, commit."""
    found = [f"{name} {number}" for name in packages if (number := package_version(name))]
    system = f"{os.cpu_count()} CPU cores ({processor()}), {platform.system()}"
    return ", ".join([system, f"Python {platform.python_version()}", *found, f"commit {commit()}"]) + "."


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median and range: `540 (510 to 552)`."""
    return f"{median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
