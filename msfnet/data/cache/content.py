"""The identity of a video by the bytes of its file, independent of its name. A folder of images counts as one file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from msfnet.data.video.frame_folders import frame_files

DIGEST_BYTES = 20
EDGE_BYTES = 2**16  # at each end of a file


def stamp(path: Path) -> list[int]:
    """Return the size in bytes and the modification time in ns: while they are the same, so is the content.

    Raises:
        OSError: There is no such file.
    """
    stats = [file.stat() for file in _files(path)]
    return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def digest(path: Path, beat: Callable[[], None] = lambda: None) -> str:
    """Return the BLAKE2b digest of a file in hexadecimal; of a folder, that of its images' names and bytes.

    Args:
        path: The video.
        beat: Called for every block, so that reading a large file does not look like a hang.

    Raises:
        OSError: There is no such file, or it cannot be read.
    """
    if path.is_dir():
        return short_digest(repr([(file.name, digest(file, beat)) for file in _files(path)]))
    found = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
            beat()
    return found.hexdigest()


def fingerprint(path: Path) -> str:
    """Return a digest of the size and of the first and last 64 KiB of a file, for telling videos apart in seconds.

    Unlike `digest` it reads a constant amount, so that it can be taken of every video of a large dataset. The index of
    a video file is in one of those parts and depends on all frames. Of a folder of images it digests names and sizes.

    Raises:
        OSError: The file does not exist or cannot be read.
    """
    if path.is_dir():
        return short_digest(repr([(file.name, file.stat().st_size) for file in _files(path)]))
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        found = hashlib.blake2b(str(size).encode(), digest_size=DIGEST_BYTES)
        for start in (0, max(EDGE_BYTES, size - EDGE_BYTES)):
            file.seek(start)
            found.update(file.read(EDGE_BYTES))
    return found.hexdigest()


def short_digest(text: str) -> str:
    """Return the BLAKE2b digest of a text, which may have lone surrogates of odd file names."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).hexdigest()


def _files(path: Path) -> list[Path]:
    return frame_files(path) if path.is_dir() else [path]
