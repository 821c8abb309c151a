"""The most memory that this process held while it did something. Knows operating systems and nothing of networks.

Linux lets a process set back its high-water mark. Elsewhere the mark of the whole process counts: what was held before
for a moment, as while a network was converted, hides what is held later and is no more.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Held:
    """Bytes of real memory: now, and the most so far."""

    now: int
    most: int


def growth_bytes(action: Callable[[], object]) -> int:
    """By how much the most memory that was held during `action` exceeds what was held before it."""
    gc.collect()
    reset = RESETS.get(sys.platform)
    held = HELD.get(sys.platform, _posix)
    began = held().now if reset and reset() else held().most
    action()
    return max(0, held().most - began)


def _linux() -> Held:
    lines = dict(line.partition(":")[::2] for line in STATUS.read_text().splitlines())
    now, most = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return Held(now, most)


def _reset_linux() -> bool:
    """Give free memory back and forget the mark; False where the system does not allow it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, others have not
    if trim:
        trim(0)
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _posix() -> Held:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Held(most, most)


class _Counters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of the Windows API."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("WorkingSetSize", ctypes.c_size_t),
        ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
        ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
        ("PagefileUsage", ctypes.c_size_t),
        ("PeakPagefileUsage", ctypes.c_size_t),
    )


def _windows() -> Held:
    libraries: Any = ctypes
    counters = _Counters(cb=ctypes.sizeof(_Counters))
    kernel = libraries.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        raise OSError("the system does not tell how much memory the process holds")
    return Held(counters.WorkingSetSize, counters.PeakWorkingSetSize)


HELD: dict[str, Callable[[], Held]] = {"linux": _linux, "win32": _windows}
RESETS: dict[str, Callable[[], bool]] = {"linux": _reset_linux}
