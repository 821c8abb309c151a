"""Measures the peak memory of this process while it calls a function.

Linux can reset the peak of a process. Other systems only know the peak since its start, so there a function that needs
less memory than was needed before, for example to convert a network, appears to need none.
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
class ProcessMemory:
    """Bytes of physical memory of this process: now, and at most so far."""

    now: int
    peak: int


def growth_bytes(action: Callable[[], object]) -> int:
    """Return by how many bytes the peak memory during a call exceeds the memory before it.

    Args:
        action: Called once.
    """
    gc.collect()
    reset = RESETS.get(sys.platform)
    measure = MEASURES.get(sys.platform, _measure_posix)
    before = measure().now if reset and reset() else measure().peak
    action()
    return max(0, measure().peak - before)


def _measure_linux() -> ProcessMemory:
    lines = dict(line.partition(":")[::2] for line in STATUS.read_text().splitlines())
    now, peak = (int(lines[key].split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
    return ProcessMemory(now, peak)


def _reset_linux() -> bool:
    """Return free memory to the system and reset the peak; False where the system does not allow it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim:
        trim(0)
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _measure_posix() -> ProcessMemory:
    import resource  # does not exist on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return ProcessMemory(peak, peak)


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


def _measure_windows() -> ProcessMemory:
    libraries: Any = ctypes
    counters = _Counters(cb=ctypes.sizeof(_Counters))
    kernel = libraries.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.K32GetProcessMemoryInfo.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32)
    if not kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb):
        raise OSError("Windows does not report the memory of this process")
    return ProcessMemory(counters.WorkingSetSize, counters.PeakWorkingSetSize)


MEASURES: dict[str, Callable[[], ProcessMemory]] = {"linux": _measure_linux, "win32": _measure_windows}
RESETS: dict[str, Callable[[], bool]] = {"linux": _reset_linux}
