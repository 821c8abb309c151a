"""A folder of named bytes, bounded in size and shared by processes: what was used least recently makes room.

Knows no frames and no videos. Nobody finds half of a file: each is written under a temporary name and renamed. A file's
date is that of its last use.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

from msfnet.atomic_io import atomic_write
from msfnet.data.cache import ledger
from msfnet.data.cache.ledger import LEDGER, Ledger


@dataclass(frozen=True)
class Found:
    """A file's bytes, mapped, and whether it was used before in this run. Whoever found it closes `data`."""

    data: mmap
    fresh: bool


@dataclass(frozen=True)
class Usage:
    """What a folder holds. `oldest_use` is in seconds since 1970, None where nothing is kept."""

    entries: int
    used_bytes: int
    oldest_use: float | None
    damaged: int  # entries that were dropped since the folder was made or cleared


class _NoRoomError(Exception):
    pass


class Store:
    """Files in `folder`, no more of them than the budget. A folder that cannot be written is read all the same.

    The run starts when the store is made; its copies in other processes belong to the same run. What was used since
    then is never evicted. `trouble` says why this process writes nothing any more, if so.
    """

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self.folder, self.budget_bytes = folder, budget_bytes
        self.trouble: str | None = None
        self.started_ns = time.time_ns()
        self._old: list[tuple[Path, int]] | None = None
        self._before = Ledger(0)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ledger.opened(folder) as books:
                books.used_bytes = ledger.added_up(folder)
                self._before = replace(books)
                os.utime(folder / LEDGER)
                self.started_ns = (folder / LEDGER).stat().st_mtime_ns  # by the clock that dates the other files
        except OSError as error:
            self._give_up(error)

    def find(self, name: str) -> Found | None:
        """The file of that name, if there is one. It does not count as used until `use` says so."""
        try:
            with (self.folder / name).open("rb") as file:
                fresh = os.fstat(file.fileno()).st_mtime_ns > self.started_ns
                return Found(mmap(file.fileno(), 0, access=ACCESS_READ), fresh)
        except (OSError, ValueError):  # ValueError: the file is empty
            return None

    def use(self, name: str) -> None:
        """Date a file as used now."""
        with suppress(OSError):
            os.utime(self.folder / name)

    def drop(self, name: str) -> None:
        """Remove a file that proved damaged, and count it."""
        path = self.folder / name
        with suppress(OSError), ledger.opened(self.folder) as books:
            size_bytes = path.stat().st_size
            path.unlink()
            books.used_bytes -= size_bytes
            books.damaged += 1

    def could_hold(self, size_bytes: int) -> bool:
        """Whether so many bytes would be kept now."""
        if self.trouble or size_bytes > self.budget_bytes:
            return False
        try:
            with ledger.opened(self.folder) as books:
                evictable_bytes = sum(size for _, size in self._evictable())
                return books.used_bytes - evictable_bytes + size_bytes <= self.budget_bytes
        except OSError as error:
            self._give_up(error)
            return False

    def write(self, name: str, data: bytes) -> bool:
        """Keep `data` under `name` if there is room, evicting what only earlier runs used. Says whether it is kept.

        A full disk or a folder that cannot be written ends the writing, not the run: see `problems`.
        """
        if self.trouble:
            return False
        try:
            self._write(self.folder / name, data)
        except _NoRoomError:
            return False
        except OSError as error:
            if not isinstance(error, PermissionError):  # Windows does not replace a file that somebody reads just now
                self._give_up(error)
            self._count_unwritten()
            return False
        return True

    def _write(self, path: Path, data: bytes) -> None:
        with ExitStack() as until_renamed:
            with atomic_write(path) as temporary:
                with ledger.opened(self.folder) as books:
                    self._make_room(books, len(data))
                    books.used_bytes += len(data)
                    with temporary.open("wb") as file:
                        file.truncate(len(data))  # its full size at once, for others who add up the folder meanwhile
                with temporary.open("r+b") as file:
                    file.write(data)
                books = until_renamed.enter_context(ledger.opened(self.folder))
                replaced_bytes = path.stat().st_size if path.exists() else 0
            books.used_bytes -= replaced_bytes

    def _make_room(self, books: Ledger, size_bytes: int) -> None:
        while books.used_bytes + size_bytes > self.budget_bytes:
            if size_bytes > self.budget_bytes or not self._evictable():
                raise _NoRoomError
            path, _ = self._evictable().pop()
            with suppress(OSError):  # gone already; or open elsewhere, which keeps a file on Windows
                stat = path.stat()
                if stat.st_mtime_ns < self.started_ns:
                    path.unlink()
                    books.used_bytes -= stat.st_size

    def _evictable(self) -> list[tuple[Path, int]]:
        """Files that were not used since the run started and their bytes, least recently used last.

        Looked for once: as a run goes on they only become fewer.
        """
        if self._old is None:
            found = [(stat.st_mtime_ns, path, stat.st_size) for path, stat in ledger.files(self.folder)]
            old = [file for file in found if file[0] < self.started_ns and not ledger.is_temporary(file[1])]
            self._old = [(path, size) for _, path, size in sorted(old, reverse=True)]
        return self._old

    def _give_up(self, error: OSError) -> None:
        self.trouble = f"{self.folder} cannot be written ({error.strerror or error})"

    def _count_unwritten(self) -> None:
        with suppress(OSError), ledger.opened(self.folder) as books:
            books.used_bytes = ledger.added_up(self.folder)
            books.unwritten += 1

    def problems(self) -> list[str]:
        """What went wrong with the folder since the run started, in any of its processes."""
        lines = []
        try:
            with ledger.opened(self.folder) as books:
                if (damaged := books.damaged - self._before.damaged) > 0:
                    lines.append(f"{damaged} damaged entries were dropped and decoded anew")
                if (unwritten := books.unwritten - self._before.unwritten) > 0:
                    lines.append(f"{unwritten} entries could not be written to {self.folder}")
        except OSError as error:
            self._give_up(error)
        return lines + ([self.trouble] if self.trouble else [])


def usage(folder: Path) -> Usage:
    """What the cache keeps in a folder, which need not exist."""
    if not folder.is_dir():
        return Usage(0, 0, None, 0)
    found = list(ledger.files(folder))
    uses = [
        stat.st_mtime for path, stat in found if path.suffix in (".frames", ".npy") and not ledger.is_temporary(path)
    ]
    books = ledger.peek(folder)
    used_bytes = sum(stat.st_size for _, stat in found)
    return Usage(len(uses), used_bytes, min(uses, default=None), books.damaged if books else 0)


def clear(folder: Path) -> Usage:
    """Remove all that the cache keeps in a folder, and nothing else; returns what that was."""
    before = usage(folder)
    if folder.is_dir():
        with ledger.opened(folder) as books:
            for path, _ in list(ledger.files(folder)):
                path.unlink(missing_ok=True)
            books.used_bytes, books.damaged = ledger.LEDGER_BYTES, 0
            with suppress(PermissionError):  # Windows keeps a file that is open: there it stays, set back
                (folder / LEDGER).unlink()
    return before
