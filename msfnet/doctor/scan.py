"""What has been found out of files, kept line by line as it is found, so that work that was cut short goes on.

An entry belongs to a file as it was: path, size and date are its key, and a changed file has none.


All files of a data set examined, on all cores: their facts, and which of them show the same.

A file that crashes or hangs the decoder costs itself alone. What is found is kept as it is found; after an
interruption only the rest is decoded. Knows no labels: what the facts mean for a data set, `verdicts` says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from msfnet.data.cache import content
from msfnet.doctor.file_info import VideoFacts, compare_videos, decoded_signature, inspect_video
from msfnet.doctor.near_duplicates import candidates
from msfnet.doctor.process_pool import Lost, cores, isolated
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


Progress = Callable[[str, int, int], None]  # what is being done, done, total

SILENCE_SECONDS = 60.0  # a file that gives no frame for so long hangs the decoder


@dataclass(frozen=True)
class Findings:
    """The facts of every file; pairs of files that show the same though their bytes differ; how many were known."""

    facts: dict[Path, VideoFacts]
    alike: tuple[tuple[Path, Path], ...]
    known: int


def check_files(
    paths: Sequence[Path],
    journal_file: Path,
    *,
    processes: int | None = None,
    silence_seconds: float = SILENCE_SECONDS,
    progress: Progress | None = None,
) -> Findings:
    """Decode every file once (`processes`: one for each core), then compare those that may show the same.

    Files with an error are tried again at each examination: what stood in the way may be gone.
    """
    journal = Journal(journal_file)
    run = _Run(journal, processes or cores(), silence_seconds, progress or (lambda *_: None))
    try:
        unique = list(dict.fromkeys(paths))
        facts, known = run.inspect(unique)
        return Findings(facts, run.compare(facts), known)
    finally:
        journal.close()


@dataclass(frozen=True)
class _Run:
    journal: Journal
    processes: int
    silence_seconds: float
    progress: Progress

    def inspect(self, paths: list[Path]) -> tuple[dict[Path, VideoFacts], int]:
        keys = {path: _key(path) for path in paths}
        known = {path: self.journal.get(keys[path]) for path in paths}
        facts = {path: VideoFacts(**entry | {"path": str(path)}) for path, entry in known.items() if entry}
        n_known = len(facts)
        rest = [path for path in paths if path not in facts]
        self.progress("decoded", n_known, len(paths))
        for index, result in isolated(
            inspect_video, rest, processes=self.processes, silence_seconds=self.silence_seconds
        ):
            path = rest[index]
            if isinstance(result, Lost):
                result = VideoFacts(str(path), path.stat().st_size, error=result.reason)
            elif not result.error:
                self.journal.add(keys[path], asdict(result))
            facts[path] = result
            self.progress("decoded", len(facts), len(paths))
        return {path: facts[path] for path in paths}, n_known

    def compare(self, facts: dict[Path, VideoFacts]) -> tuple[tuple[Path, Path], ...]:
        """Of files with the same bytes one stands for all; of the others those whose signatures are near."""
        by_content = {found.digest: path for path, found in reversed(facts.items()) if found.signature}
        paths = sorted(by_content.values())
        pairs = [(paths[i], paths[j]) for i, j in candidates([decoded_signature(facts[path]) for path in paths])]
        same = {pair: self.journal.get(_pair_key(pair)) for pair in pairs}
        rest = [pair for pair in pairs if same[pair] is None]
        done = len(pairs) - len(rest)
        for index, result in isolated(
            compare_videos, rest, processes=self.processes, silence_seconds=self.silence_seconds
        ):
            pair, done = rest[index], done + 1
            same[pair] = not isinstance(result, Lost) and result is not None and result.same_content
            if not isinstance(result, Lost):
                self.journal.add(_pair_key(pair), same[pair])
            self.progress("pairs compared", done, len(pairs))
        return tuple(pair for pair in pairs if same[pair])


def _key(path: Path) -> str:
    try:
        return file_key(path)
    except OSError:
        return ""  # never added: such a file has an error


def _pair_key(pair: tuple[Path, Path]) -> str:
    return " & ".join(_key(path) for path in pair)
