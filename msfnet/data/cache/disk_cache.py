"""A cache of named bytes in a folder, bounded in size, shared by processes, with least-recently-used eviction.

This module is independent of videos. A file is written under a temporary name and renamed, so that no process reads
half of it. Its modification time is that of its last use.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

from msfnet.atomic_io import atomic_write
from msfnet.data.cache.counters import (
    COUNTERS,
    COUNTERS_BYTES,
    Counters,
    cache_files,
    is_temporary,
    locked,
    measure,
    read_counters,
)


@dataclass(frozen=True)
class Hit:
    """The bytes of a file, mapped, and whether it was used before in this run. The caller closes `data`."""

    data: mmap
    used_in_run: bool


@dataclass(frozen=True)
class Usage:
    """What a folder holds.

    Args:
        entries: How many videos.
        used_bytes: Size of all files.
        oldest_use: Seconds since 1970 of the oldest last use; None for an empty folder.
        damaged: Entries that were dropped since the folder was made or cleared.
    """

    entries: int
    used_bytes: int
    oldest_use: float | None
    damaged: int


class _NoRoomError(Exception):
    pass


class DiskCache:
    """Files in `folder` within a budget. From a folder that cannot be written files are still read.

    A run starts when its cache is created; copies in other processes belong to the same run. What the run has used is
    not evicted.

    Args:
        folder: Created if it does not exist.
        budget_bytes: Upper bound on the size of all files.

    Attributes:
        write_error: Why this process has stopped writing; None while it writes.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder, self.budget_bytes = folder, budget_bytes
        self.write_error: str | None = None
        self.started_ns = time.time_ns()
        self._old: list[tuple[Path, int]] | None = None
        self._at_start = Counters(0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder) as counters:
                counters.used_bytes = measure(folder)
                self._at_start = replace(counters)
            with locked(folder):
                os.utime(folder / COUNTERS)
                self.started_ns = (folder / COUNTERS).stat().st_mtime_ns  # by the file system's clock
        except OSError as error:
            self._stop_writing(error)

    def get(self, name: str) -> Hit | None:
        """Return the file of that name, None where there is none. It does not count as used: see `touch`."""
        try:
            with (self.folder / name).open("rb") as file:
                used_in_run = os.fstat(file.fileno()).st_mtime_ns > self.started_ns
                return Hit(mmap(file.fileno(), 0, access=ACCESS_READ), used_in_run)
        except (OSError, ValueError):  # ValueError: the file is empty
            return None

    def touch(self, name: str) -> None:
        """Mark a file as used now."""
        with suppress(OSError):
            os.utime(self.folder / name)

    def discard(self, name: str) -> None:
        """Remove a file that proved damaged, and count it."""
        path = self.folder / name
        with suppress(OSError), locked(self.folder) as counters:
            size_bytes = path.stat().st_size
            path.unlink()
            counters.used_bytes -= size_bytes
            counters.damaged += 1

    def has_room(self, size_bytes: int) -> bool:
        """Return whether a file of this size would be kept now."""
        if self.write_error or size_bytes > self.budget_bytes:
            return False
        try:
            with locked(self.folder) as counters:
                evictable_bytes = sum(size for _, size in self._evictable())
                return counters.used_bytes - evictable_bytes + size_bytes <= self.budget_bytes
        except OSError as error:
            self._stop_writing(error)
            return False

    def put(self, name: str, data: bytes) -> bool:
        """Keep `data` under `name` if there is room, and evict what only earlier runs used.

        A full disk, or a folder that cannot be written, ends the writing and not the run: see `problems`.

        Returns:
            Whether it is kept.
        """
        if self.write_error:
            return False
        try:
            self._write(self.folder / name, data)
        except _NoRoomError:
            return False
        except OSError as error:
            if not isinstance(error, PermissionError):  # Windows replaces no file that is being read
                self._stop_writing(error)
            self._count_unwritten()
            return False
        return True

    def _write(self, path: Path, data: bytes) -> None:
        with ExitStack() as until_renamed:
            with atomic_write(path) as temporary:
                with locked(self.folder) as counters:
                    self._make_room(counters, len(data))
                    counters.used_bytes += len(data)
                    with temporary.open("wb") as file:
                        file.truncate(
                            len(data)
                        )  # its full size at once, so that it counts for processes that `measure`
                with temporary.open("r+b") as file:
                    file.write(data)
                counters = until_renamed.enter_context(locked(self.folder))
                replaced_bytes = path.stat().st_size if path.exists() else 0
            counters.used_bytes -= replaced_bytes

    def _make_room(self, counters: Counters, size_bytes: int) -> None:
        while counters.used_bytes + size_bytes > self.budget_bytes:
            if size_bytes > self.budget_bytes or not self._evictable():
                raise _NoRoomError
            path, _ = self._evictable().pop()
            with suppress(OSError):  # removed meanwhile, or open elsewhere, which keeps a file on Windows
                stat = path.stat()
                if stat.st_mtime_ns < self.started_ns:
                    path.unlink()
                    counters.used_bytes -= stat.st_size

    def _evictable(self) -> list[tuple[Path, int]]:
        """Return the files not used since the run started, with their sizes, the least recently used last.

        Listed once: as a run continues they only become fewer.
        """
        if self._old is None:
            found = [(stat.st_mtime_ns, path, stat.st_size) for path, stat in cache_files(self.folder)]
            old = [file for file in found if file[0] < self.started_ns and not is_temporary(file[1])]
            self._old = [(path, size) for _, path, size in sorted(old, reverse=True)]
        return self._old

    def _stop_writing(self, error: OSError) -> None:
        self.write_error = f"{self.folder} cannot be written ({error.strerror or error})"

    def _count_unwritten(self) -> None:
        with suppress(OSError), locked(self.folder) as counters:
            counters.used_bytes = measure(self.folder)
            counters.unwritten += 1

    def problems(self) -> list[str]:
        """Return the problems with the folder since the run started, in any of its processes, one line each."""
        lines = []
        try:
            with locked(self.folder) as counters:
                if (damaged := counters.damaged - self._at_start.damaged) > 0:
                    lines.append(f"{damaged} damaged entries were dropped and decoded again")
                if (unwritten := counters.unwritten - self._at_start.unwritten) > 0:
                    lines.append(f"{unwritten} entries could not be written to {self.folder}")
        except OSError as error:
            self._stop_writing(error)
        return lines + ([self.write_error] if self.write_error else [])


def usage(folder: Path) -> Usage:
    """Return what the cache keeps in a folder, which need not exist."""
    if not folder.is_dir():
        return Usage(0, 0, None, 0)
    found = list(cache_files(folder))
    uses = [stat.st_mtime for path, stat in found if path.suffix == ".frames" and not is_temporary(path)]
    counters = read_counters(folder) or Counters(0)
    return Usage(len(uses), sum(stat.st_size for _, stat in found), min(uses, default=None), counters.damaged)


def clear(folder: Path) -> Usage:
    """Remove everything that the cache keeps in a folder, and nothing else.

    Returns:
        What the folder held.
    """
    before = usage(folder)
    if folder.is_dir():
        with locked(folder) as counters:
            for path, _ in list(cache_files(folder)):
                path.unlink(missing_ok=True)
            counters.used_bytes, counters.damaged = COUNTERS_BYTES, 0
    return before
