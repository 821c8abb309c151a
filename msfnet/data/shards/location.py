"""Where shards are: a folder or a URL, and how the bytes of a file there are read, whatever their content."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.error import URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import url2pathname, urlopen

from msfnet.types import UserError, one_line

S3_COMMAND = "aws s3 cp {url} -"  # MSFNET_S3_COMMAND names another
STALL_SECONDS = 60  # a web server that sends nothing for this long counts as unreachable


class Stream(Protocol):
    """A file that is read from start to end."""

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Return the next bytes, fewer only at the end."""

    def close(self) -> None:
        """Close the stream, also before its end."""


def local_folder(source: str) -> Path | None:
    """Return the folder that a path or a file: URL names; None for any other URL."""
    if "://" not in source and not source.startswith("file:"):
        return Path(source)
    parts = urlsplit(source)
    return Path(url2pathname(parts.path)) if parts.scheme == "file" else None


def absolute(source: str) -> str:
    """Return the same place under a name that does not depend on the working folder."""
    folder = local_folder(source)
    return str(folder.resolve()) if folder is not None else source


def locate(source: str, name: str) -> str:
    """Return the path or URL of a file in `source`; a URL keeps its query."""
    folder = local_folder(source)
    if folder is not None:
        return str(folder / name)
    parts = urlsplit(source)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def open_file(source: str, name: str) -> Stream:
    """Open a file in a folder or behind a file:, http(s): or s3: URL, to be read from start to end.

    Raises:
        OSError: It cannot be opened.
        UserError: The URL has another scheme.
    """
    where = locate(source, name)
    if local_folder(source) is not None:
        return Path(where).open("rb")
    scheme = urlsplit(where).scheme
    if scheme in ("http", "https"):
        response: BinaryIO = urlopen(where, timeout=STALL_SECONDS)
        return response
    if scheme == "s3":
        return _CommandOutput(_s3_command().replace("{url}", _quoted(where)))
    raise UserError(f"expected a folder or a URL with http, https, s3 or file, found {source}")


def read_command(source: str) -> str | None:
    """Return the command by which the files of an s3: URL are read; None for other sources."""
    return _s3_command() if urlsplit(source).scheme == "s3" else None


def _s3_command() -> str:
    command = os.environ.get("MSFNET_S3_COMMAND", S3_COMMAND)
    if "{url}" not in command:
        raise UserError(f"expected {{url}} in MSFNET_S3_COMMAND, as in {S3_COMMAND!r}, found {command!r}")
    return command


def _quoted(url: str) -> str:
    return subprocess.list2cmdline([url]) if os.name == "nt" else shlex.quote(url)


class _CommandOutput:
    """What a shell command writes to standard output. A command that fails is an OSError at the end of its output."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.process = subprocess.Popen(command, shell=True, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.stdout = self.process.stdout

    def read(self, n_bytes: int = -1, /) -> bytes:
        data = self.stdout.read(n_bytes)
        if (not data or n_bytes < 0) and (code := self.process.wait()):
            raise OSError(f"the command {self.command} ended with exit code {code}")
        return data

    def close(self) -> None:
        """Close the output, also before its end: the command then fails to write, which is no error."""
        self.stdout.close()
        self.process.wait()


def error_line(error: Exception) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, URLError) and not isinstance(error.reason, str):
        return f"{error.reason}"
    return one_line(error)
