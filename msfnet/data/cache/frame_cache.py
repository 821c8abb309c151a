"""Decoded frames on disk: each video is decoded and resized once, and a later epoch reads no video file.

An entry is named by the content of the video and by how it was decoded, so that a renamed video is found again. A small
record for each path holds the digest of its content, so that only a new or changed file is read through. See
`disk_cache` for eviction and sharing, `packed` for the bytes of an entry.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from msfnet.data.cache import content
from msfnet.data.cache.disk_cache import DiskCache
from msfnet.data.cache.packed import Buffer, DamagedEntryError, Header, pack_frames, read_header, unpack_frames
from msfnet.data.video.decode import count_frames, gather_clip
from msfnet.data.video.decoders import DECODERS
from msfnet.types import Clip, FrameFormat, Frames, FrameSampler, VideoError

DECODE_VERSION = 1  # increase it when decoding or resizing gives other frames: old entries are then unused
MAX_ENTRY_BYTES = 64 * 2**20  # raw frames; a larger video is decoded each time, since a clip needs few of its frames
JPEG_RATIO = 1 / 6  # JPEG bytes divided by raw bytes: on real clips 1/6 at 86 x 64 px, 1/9 at 171 x 128 px
SAMPLED_VIDEOS = 32


def default_folder() -> Path:
    """Return the user's cache folder for decoded frames; the environment variable MSFNET_CACHE names another."""
    if chosen := os.environ.get("MSFNET_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "msfnet" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msfnet"


@dataclass(frozen=True)
class _Record:
    """The content of a path when it was last looked at."""

    stamp: list[int]
    content: str


class FrameCache:
    """Reads clips as `decode.read_clips` does, decoding a video at most once while there is room for its frames.

    A run starts when its cache is created; copies in worker processes belong to it. A run checks the size and date of a
    video once, and from then on trusts its record: the file may even be gone. A video that cannot be read is tried once
    per run.

    Args:
        folder: Where entries are kept.
        frame_format: The format of the frames.
        budget_bytes: Upper bound on the size of the folder.
        codec: "raw" or "jpeg". With "jpeg", frames are always decoded from JPEG, also the first time.
        decoder: A key of DECODERS.
    """

    def __init__(
        self, folder: Path, frame_format: FrameFormat, budget_bytes: int, codec: str = "raw", decoder: str = "pyav"
    ) -> None:
        self.disk = DiskCache(folder, budget_bytes)
        self.frame_format = frame_format
        self.codec = codec
        self.decoder = decoder
        self._unwritten: dict[str, _Record] = {}  # records that there was no room for
        self._not_kept: set[str] = set()  # entries that are too long or had no room

    def read_clips(self, path: Path, sampler: FrameSampler) -> Clip:
        """Read the frames that `sampler` chooses, from the cache where they are in it.

        Raises:
            VideoError: The video cannot be read.
        """
        name = self._entry_name(path)
        clip = self._find(name, sampler)
        return clip if clip is not None else self._decode(name, path, sampler)

    def _find(self, name: str, sampler: FrameSampler) -> Clip | None:
        """Return the clip from its entry, or None without an intact one; VideoError if it failed before in this run."""
        hit = self.disk.get(name)
        if hit is None:
            return None
        try:
            with hit.data:
                header = read_header(hit.data)
                if header.error and not hit.used_in_run:
                    return None
                clip = _clip(hit.data, header, sampler)
        except DamagedEntryError:
            self.disk.discard(name)
            return None
        if not hit.used_in_run:
            self.disk.touch(name)
        return clip

    def _decode(self, name: str, path: Path, sampler: FrameSampler) -> Clip:
        """Return the clip from the video, which is kept if there is room."""
        try:
            if name in self._not_kept or not self._has_room(path):
                self._not_kept.add(name)
                return DECODERS[self.decoder].read_clips(path, sampler, self.frame_format)
            video = DECODERS[self.decoder].read_video(path, self.frame_format)
        except VideoError as error:
            if not isinstance(error.__cause__, OSError):  # an OSError may be temporary; the content of the file is not
                self._keep(name, path, np.empty((0, *self.frame_format.resize[::-1], 3), np.uint8), error=str(error))
            raise
        entry = self._keep(name, path, video.frames[0], warning=video.warning)
        return _clip(entry, read_header(entry), sampler)

    def _keep(
        self, name: str, path: Path, frames: Frames, *, warning: str | None = None, error: str | None = None
    ) -> bytes:
        """Return the packed frames, written under `name` unless there is no room or the file has changed meanwhile."""
        entry = b"".join(pack_frames(frames, "raw" if error else self.codec, warning=warning, error=error))
        if not (self._is_unchanged(path) and self.disk.put(name, entry)):
            self._not_kept.add(name)
        return entry

    def _has_room(self, path: Path) -> bool:
        raw_bytes = _raw_bytes(path, self.frame_format)
        expected_bytes = raw_bytes * JPEG_RATIO if self.codec == "jpeg" else raw_bytes
        return raw_bytes <= MAX_ENTRY_BYTES and self.disk.has_room(int(expected_bytes))

    def problems(self) -> list[str]:
        """Return the problems with the folder since the run started, in any of its processes, one line each."""
        return [f"cache: {problem}" for problem in self.disk.problems()]

    # The content of a path

    def _entry_name(self, path: Path) -> str:
        """Return the name of a video's entry; VideoError for a missing file that this run has not seen."""
        try:
            identity = (self._content(path), *self.frame_format.key, self.codec, self.decoder, DECODE_VERSION)
        except OSError as error:
            raise VideoError(f"cannot be read as a video: {error.strerror or error}") from error
        return f"{content.short_digest(repr(identity))}.frames"

    def _content(self, path: Path) -> str:
        """Return the digest of a file, from its record if this run has seen it or the file is still the same."""
        name = _record_name(path)
        record, seen = self._record(name)
        if record and seen:
            return record.content
        stamp = content.stamp(path)
        record = record or self._unwritten.get(name)
        if record and record.stamp == stamp:
            self.disk.touch(name)
            return record.content
        record = _Record(stamp, content.digest(path))
        if not self.disk.put(name, json.dumps(asdict(record)).encode()):
            self._unwritten[name] = record
        return record.content

    def _record(self, name: str) -> tuple[_Record | None, bool]:
        """Return a record, None where there is none or a damaged one, and whether this run has seen its file."""
        hit = self.disk.get(name)
        if hit is None:
            return None, False
        with hit.data:
            try:
                return _Record(**json.loads(hit.data[:])), hit.used_in_run
            except (ValueError, TypeError):
                return None, False

    def _is_unchanged(self, path: Path) -> bool:
        """Return whether the file that was decoded is the one whose content names the entry."""
        record, _ = self._record(_record_name(path))
        try:
            return record is not None and record.stamp == content.stamp(path)
        except OSError:
            return False


def _record_name(path: Path) -> str:
    return f"{content.short_digest(str(path.absolute()))}.path"


def _clip(entry: Buffer, header: Header, sampler: FrameSampler) -> Clip:
    """Return the frames that `sampler` chooses of an entry; VideoError for the entry of a video that cannot be read."""
    if header.error:
        raise VideoError(header.error)
    video_frames = header.shape[0]
    wanted, positions = np.unique(sampler(video_frames), return_inverse=True)
    return gather_clip(unpack_frames(entry, wanted, header), positions, video_frames, warning=header.warning)


# Raw or JPEG


def choose_codec(asked: str, raw_bytes: int, budget_bytes: int) -> str:
    """Return the codec for `data.cache_codec` of a recipe: "auto" is "raw" if all raw frames fit the budget."""
    if asked != "auto":
        return asked
    return "raw" if raw_bytes <= budget_bytes else "jpeg"


def estimate_raw_bytes(paths: Sequence[Path], frame_format: FrameFormat) -> int:
    """Estimate the size of the frames of all these videos from the packets of a few of them.

    Videos that are not kept, since they are too long or unreadable, count as nothing.
    """
    sample = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED_VIDEOS)).astype(int)]
    sampled_bytes = [_raw_bytes_or_none(path, frame_format) for path in sample]
    kept_bytes = sum(size for size in sampled_bytes if size <= MAX_ENTRY_BYTES)
    return kept_bytes * len(paths) // max(1, len(sample))


def _raw_bytes(path: Path, frame_format: FrameFormat) -> int:
    width, height = frame_format.resize
    return count_frames(path, frame_format.fps) * width * height * 3


def _raw_bytes_or_none(path: Path, frame_format: FrameFormat) -> int:
    try:
        return _raw_bytes(path, frame_format)
    except VideoError:
        return 0


def describe(n_videos: int, raw_bytes: int, codec: str, budget_bytes: int) -> str:
    """Return one line that says how much of the budget the videos will take."""
    gib = 2**30
    line = f"cache: {n_videos:,} videos, about {raw_bytes / gib:.1f} GiB raw"
    if codec == "jpeg":
        raw_bytes = int(raw_bytes * JPEG_RATIO)
        line += f", about {raw_bytes / gib:.1f} GiB as JPEG,"
    line += f" of {budget_bytes / gib:g} GiB"
    return line + ("" if raw_bytes <= budget_bytes else "; what does not fit is decoded each time")
