"""How many bytes a cache folder holds: a sum that several processes keep together, changed only under its lock.

Knows which files of a folder are the cache's own, by name. A process that is killed lets go of the lock; what it leaves
in the sum is put right when the next run adds up the files.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LEDGER = "ledger.json"
LEDGER_BYTES = 256  # set aside for it, more than it takes
STALE_SECONDS = 3600  # a temporary file that old was left by a process that was killed
_LOCKED_BYTE = 2**30  # far beyond the end: Windows lets nobody else read what is locked
_OURS = re.compile(r"(\.part-\d+-)?([0-9a-f]{40}\.(frames|path)|[0-9a-f]{32}\.npy)")  # .npy: of version 0.1


@dataclass
class Ledger:
    used_bytes: int
    damaged: int = 0  # entries dropped since the folder was made or cleared
    unwritten: int = 0  # times that a process gave up writing


@contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """The folder's ledger, to read and to change while no other process does. OSError where that is not possible."""
    with _locked(folder / LEDGER) as file:
        ledger = _parse(file.read()) or Ledger(added_up(folder))
        before = replace(ledger)
        try:
            yield ledger
        finally:
            if ledger != before:
                file.seek(0)
                file.truncate()
                file.write(json.dumps(asdict(ledger)).encode())


def peek(folder: Path) -> Ledger | None:
    """The folder's ledger as it lies there, None where there is none."""
    try:
        return _parse((folder / LEDGER).read_bytes())
    except OSError:
        return None


def files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The cache's own files in a folder, temporary ones included, the ledger not."""
    with os.scandir(folder) as found:
        for file in found:
            if _OURS.fullmatch(file.name):
                with suppress(FileNotFoundError):  # removed meanwhile
                    yield Path(file.path), file.stat()


def is_temporary(path: Path) -> bool:
    return path.name.startswith(".part-")


def added_up(folder: Path) -> int:
    """The bytes of all files, those that are being written included. Call it under the lock, where nothing moves."""
    total_bytes = LEDGER_BYTES
    for path, stat in files(folder):
        if is_temporary(path) and time.time() - stat.st_mtime > STALE_SECONDS:
            path.unlink()
        else:
            total_bytes += stat.st_size
    return total_bytes


def _parse(text: bytes) -> Ledger | None:
    """None where there is no ledger yet, or its writer was killed."""
    try:
        return Ledger(**json.loads(text))
    except (ValueError, TypeError):
        return None


@contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, made where there is none, while nobody else has it so."""
    while True:
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b") as file:
            _lock(file)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else it was removed while we waited
                    yield file
                    return


if sys.platform == "win32":

    def _lock(file: BinaryIO) -> None:
        file.seek(_LOCKED_BYTE)
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
                break
            except PermissionError:  # somebody else has it
                time.sleep(0.01)
        file.seek(0)

else:

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)
