"""What has been found out of files, kept line by line as it is found, so that work that was cut short goes on.

An entry belongs to a file as it was: path, size and date are its key, and a changed file has none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from msfnet.data.cache import content
from msfnet.types import UserError

FORMAT = 2  # of the lines; those of another are not read


def file_key(path: Path) -> str:
    """A file (or folder of images) as it is now. Raises OSError when it is not there."""
    size_bytes, date_ns = content.stamp(path)
    return f"{path.resolve()}|{size_bytes}|{date_ns}"


class Journal:
    """JSON lines of [format, key, value] in one file. A line that a kill left unfinished is passed over."""

    def __init__(self, path: Path) -> None:
        self.values: dict[str, Any] = {}
        self._file = self._open(path)

    def _open(self, path: Path) -> TextIO:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text("utf-8", errors="replace") if path.exists() else ""
            file = path.open("a", encoding="utf-8", newline="\n")
        except OSError as error:
            raise UserError(
                f"expected to keep what is found in {path}, found {error.strerror or error}; "
                "the environment variable MSFNET_CACHE names another folder"
            ) from error
        if text and not text.endswith("\n"):
            file.write("\n")
        for line in text.splitlines():
            try:
                form, key, value = json.loads(line)
            except ValueError:
                continue
            if form == FORMAT:
                self.values[key] = value
        return file

    def get(self, key: str) -> Any:
        """The value that was added last, or None."""
        return self.values.get(key)

    def add(self, key: str, value: Any) -> None:
        self.values[key] = value
        self._file.write(json.dumps([FORMAT, key, value], ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
