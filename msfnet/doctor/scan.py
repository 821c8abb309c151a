"""Scans the files of a dataset on all CPUs: describes every file and finds those with the same content.

A file that crashes or hangs the decoder does not affect other files. Results are written to a journal as they are
found, from which an interrupted scan resumes. Labels and splits play no part.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

from msfnet.data.cache import content
from msfnet.data.dataset import size_bytes
from msfnet.doctor.file_info import VideoInfo, compare_videos, decoded_signature, inspect_video
from msfnet.doctor.near_duplicates import candidate_pairs
from msfnet.doctor.process_pool import Failure, Heartbeat, imap_unordered
from msfnet.environment import usable_cpus
from msfnet.progress import progress
from msfnet.types import UserError

log = logging.getLogger(__name__)

JOURNAL_FORMAT = 2  # lines of other formats are ignored
TIMEOUT_SECONDS = 60.0  # a file from which no frame comes for this long hangs the decoder
FAILURES = {
    "crash": "the decoder crashed ({})",
    "timeout": "the decoder hangs: it returned no frame for {}",
    "exception": "{}",
}

Argument = TypeVar("Argument")
Result = TypeVar("Result")


class Journal:
    """Results of a scan in a file, one line of JSON [format, key, value] each. A truncated line is ignored.

    Args:
        path: The file, which is created with its folder. Lines are appended.

    Raises:
        UserError: The file cannot be written.
    """

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
                f"expected a file for results that can be written, found {path}: {error.strerror or error}; "
                "set the environment variable MSFNET_CACHE to another folder"
            ) from error
        if text and not text.endswith("\n"):
            file.write("\n")
        for line in text.splitlines():
            try:
                line_format, key, value = json.loads(line)
            except ValueError:  # the process was killed while it wrote this line
                continue
            if line_format == JOURNAL_FORMAT:
                self.values[key] = value
        return file

    def get(self, key: str) -> Any:
        """Return the value that was added last, or None."""
        return self.values.get(key)

    def add(self, key: str, value: Any) -> None:
        """Add a value and write it to the file at once."""
        self.values[key] = value
        self._file.write(json.dumps([JOURNAL_FORMAT, key, value], ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def file_key(path: Path) -> str:
    """Return a key of a file or folder of images that changes with its path, size and date.

    Raises:
        OSError: The file does not exist.
    """
    total_bytes, date_ns = content.stamp(path)
    return f"{path.resolve()}|{total_bytes}|{date_ns}"


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan.

    Attributes:
        info: The description of every file.
        near_duplicates: Pairs of files with the same content and different bytes.
        n_known: Number of files that were scanned before and have not changed since.
    """

    info: dict[Path, VideoInfo]
    near_duplicates: tuple[tuple[Path, Path], ...]
    n_known: int


def scan_files(
    paths: Sequence[Path],
    journal_file: Path,
    *,
    processes: int | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> ScanResult:
    """Decode every file once, then compare pairs of files that may have the same content. Reports its progress.

    Files with an error are decoded again by each scan, because the cause may be gone.

    Args:
        paths: Files and folders of images.
        journal_file: Where results are written to and read from.
        processes: Number of worker processes; None for one per CPU.
        timeout_seconds: A file that yields no frame for this long counts as unreadable.

    Raises:
        UserError: The journal cannot be written, or worker processes cannot be started.
    """
    with closing(Journal(journal_file)) as journal:
        scan = _Scan(journal, processes or usable_cpus(), timeout_seconds)
        info, n_known = scan.inspect(list(dict.fromkeys(paths)))
        return ScanResult(info, scan.compare(info), n_known)


@dataclass(frozen=True)
class _Scan:
    journal: Journal
    processes: int
    timeout_seconds: float

    def inspect(self, paths: list[Path]) -> tuple[dict[Path, VideoInfo], int]:
        """Describe every file; also return how many were found in the journal."""
        keys = {path: _key_or_empty(path) for path in paths}
        known = {path: self.journal.get(keys[path]) for path in paths}
        info = {path: VideoInfo(**entry | {"path": str(path)}) for path, entry in known.items() if entry}
        n_known = len(info)
        if n_known:
            log.info("%d files were scanned before and have not changed since", n_known)
        new = [path for path in paths if path not in info]
        for path, result in self._run("scanning videos", inspect_video, new, n_known):
            if isinstance(result, Failure):
                reason = FAILURES[result.kind].format(result.detail)
                result = VideoInfo(str(path), size_bytes(path), error=reason)
            elif not result.error:
                self.journal.add(keys[path], asdict(result))
            info[path] = result
        return {path: info[path] for path in paths}, n_known

    def compare(self, info: dict[Path, VideoInfo]) -> tuple[tuple[Path, Path], ...]:
        """Compare pairs of files with similar signatures; one file stands for all with the same bytes."""
        by_content = {found.digest: path for path, found in reversed(info.items()) if found.signature}
        paths = sorted(by_content.values())
        signatures = [decoded_signature(info[path]) for path in paths]
        pairs = [(paths[i], paths[j]) for i, j in candidate_pairs(signatures)]
        same = {pair: self.journal.get(_pair_key(pair)) for pair in pairs}
        new = [pair for pair in pairs if same[pair] is None]
        for pair, result in self._run("comparing similar videos", compare_videos, new, len(pairs) - len(new)):
            if isinstance(result, Failure):
                continue  # not a copy as far as is known; the next scan compares the pair again
            same[pair] = result is not None and result.same_content
            self.journal.add(_pair_key(pair), same[pair])
        return tuple(pair for pair in pairs if same[pair])

    def _run(
        self, title: str, function: Callable[[Argument, Heartbeat], Result], arguments: list[Argument], done: int
    ) -> Iterator[tuple[Argument, Result | Failure]]:
        """Yield each argument with its result, from worker processes, and report the progress."""
        if not arguments:
            return
        with progress(title, done + len(arguments), done) as advance:
            for index, result in imap_unordered(
                function, arguments, processes=self.processes, timeout_seconds=self.timeout_seconds
            ):
                yield arguments[index], result
                advance(1)


def _key_or_empty(path: Path) -> str:
    try:
        return file_key(path)
    except OSError:
        return ""  # never in the journal: such a file has an error


def _pair_key(pair: tuple[Path, Path]) -> str:
    return " & ".join(_key_or_empty(path) for path in pair)
