"""What a video's file holds, told by its bytes: the same under any name. A folder of images counts as one file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from msfnet.data.video.frame_folders import frame_files

DIGEST_BYTES = 20


def stamp(path: Path) -> list[int]:
    """Size in bytes and latest date in ns: while it is the same, so is the content. OSError if nothing is there."""
    stats = [file.stat() for file in _files(path)]
    return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def digest(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """BLAKE2b of the bytes, in hexadecimal; of a folder, of its images' names and bytes. OSError if it is not there.

    `beat` is called at every block, so that a large file can be told from one that hangs.
    """
    if path.is_dir():
        return short_digest(repr([(file.name, digest(file, beat)) for file in _files(path)]))
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
            beat()
    return found.hexdigest()


def short_digest(text: str) -> str:
    """The same of a text, lone surrogates of odd file names included."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def _files(path: Path) -> list[Path]:
    return frame_files(path) if path.is_dir() else [path]
