"""Writes files that are either complete or absent, however the process ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder, which is renamed to `path` if the block succeeds, else removed."""
    temporary = path.with_name(f".part-{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with the line ends of the text."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")
