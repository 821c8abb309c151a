"""What a video's file holds, told by its bytes: the same under any name. A folder of images counts as one file."""

from __future__ import annotations

import hashlib
from pathlib import Path

DIGEST_BYTES = 20


def stamp(path: Path) -> list[int]:
    """Size in bytes and latest date in ns: while it is the same, so is the content. OSError if nothing is there."""
    stats = [file.stat() for file in _files(path)]
    return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def digest(path: Path) -> str:
    """BLAKE2b of the bytes, in hexadecimal; of a folder, of its files' names and bytes. OSError if it is not there."""
    if path.is_dir():
        parts = [(file.relative_to(path).as_posix(), digest(file)) for file in _files(path)]
        return short_digest(repr(parts))
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).hexdigest()


def short_digest(text: str) -> str:
    """The same of a text, lone surrogates of odd file names included."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
