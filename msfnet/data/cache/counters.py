"""The counters of a cache folder: shared by processes, read and changed only under the folder's lock.

A process that is killed releases the lock; counters that it left wrong are corrected when the next run adds up the
sizes of the files.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

COUNTERS, LOCK = "counters.json", ".lock"
COUNTERS_BYTES = 256  # size of the file, more than its content takes
STALE_SECONDS = 3600  # a temporary file of this age was left by a process that was killed
POLL_SECONDS = 0.001  # a lock is held for less time than a write takes
_CACHE_FILE = re.compile(r"(\.part-\d+-)?[0-9a-f]{40}\.(frames|path)")


@dataclass
class Counters:
    """Bytes in use, entries that proved damaged since the folder was made or cleared, and writes that failed."""

    used_bytes: int
    damaged: int = 0
    unwritten: int = 0


@contextmanager
def locked(folder: Path) -> Iterator[Counters]:
    """Lock the folder and yield its counters, which no other process reads or changes within the block.

    Raises:
        OSError: The folder cannot be written, or its file system has no locks.
    """
    try:
        lock = FileLock(folder / LOCK, mode=0o666, poll_interval=POLL_SECONDS).acquire()
    except NotImplementedError as error:
        raise OSError(f"its file system has no locks: {error}") from error
    with lock:
        counters = read_counters(folder)
        before = counters and replace(counters)
        counters = counters or Counters(measure(folder))
        try:
            yield counters
        finally:
            if counters != before:
                _write(folder / COUNTERS, counters)


def read_counters(folder: Path) -> Counters | None:
    """Return the counters as they are in the file; None where there is none, or its writer was killed."""
    try:
        return Counters(**json.loads((folder / COUNTERS).read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _write(path: Path, counters: Counters) -> None:
    """Overwrite the file in place, always at the same size: truncating it first takes ten times as long."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(json.dumps(asdict(counters)).encode().ljust(COUNTERS_BYTES))
        file.truncate()


def cache_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the entries and records in a folder, temporary files included."""
    with os.scandir(folder) as found:
        for file in found:
            if _CACHE_FILE.fullmatch(file.name):
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield Path(file.path), file.stat()


def is_temporary(path: Path) -> bool:
    """Return whether a file is still being written, or was when its writer was killed."""
    return path.name.startswith(".part-")


def measure(folder: Path) -> int:
    """Add up the bytes of all files, and remove stale temporary ones. To be called under the lock."""
    total_bytes = COUNTERS_BYTES
    for path, stat in cache_files(folder):
        if is_temporary(path) and time.time() - stat.st_mtime > STALE_SECONDS:
            path.unlink()
        else:
            total_bytes += stat.st_size
    return total_bytes
