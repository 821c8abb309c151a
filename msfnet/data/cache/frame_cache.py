"""Decoded frames on disk: each video is decoded and resized once, and a later epoch reads no video file.

An entry is named by the video's content and by what was done to it, so that a renamed video is found again. A small
record for each path remembers its content, so that only a new or changed file is read through. See `store` for room
and sharing, `packed` for the bytes of an entry.
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
from msfnet.data.cache.packed import Buffer, DamagedEntry, Header, pack, read_header, unpack
from msfnet.data.cache.store import Store
from msfnet.data.video.decode import Plan, count_frames, pick
from msfnet.data.video.decoders import DECODERS
from msfnet.types import Clip, FrameFormat, Frames, VideoError

DECODE_VERSION = 1  # raise it when decoding or resizing gives other frames than before: old entries are then left
LONGEST_BYTES = 64 * 2**20  # of raw frames; a longer video is decoded each time: a clip needs few of its frames
JPEG_SHARE = 1 / 6  # of the raw bytes, what JPEG takes: on real clips 1/6 at 86 x 64 px, 1/9 at 171 x 128 px
SAMPLED_VIDEOS = 32


def default_folder() -> Path:
    """The user's cache folder for decoded frames; the environment variable MSFNET_CACHE names another."""
    if chosen := os.environ.get("MSFNET_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "msfnet" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "msfnet"


@dataclass(frozen=True)
class _Record:
    """What a path held when it was last looked at."""

    stamp: list[int]
    content: str


class FrameCache:
    """Reads clips as `decode.read_clips` does, decoding a video at most once while there is room for its frames.

    A run starts when its cache is made; copies in worker processes belong to it. A run looks at a video's size and date
    once, and from then on goes by its record: the file may even be away. A video that cannot be read is tried once a
    run. `codec` is "raw" or "jpeg"; with "jpeg" frames are always those that JPEG gives back, also the first time.
    """

    def __init__(
        self, folder: Path, frame_format: FrameFormat, budget_bytes: int, codec: str = "raw", decoder: str = "pyav"
    ) -> None:
        self.store = Store(folder, budget_bytes)
        self.frame_format = frame_format
        self.codec = codec
        self.decoder = decoder
        self._unrecorded: dict[str, _Record] = {}  # what there was no room to write down
        self._left_out: set[str] = set()  # entries that are too long or had no room

    def read_clips(self, path: Path, plan: Plan) -> Clip:
        """As `decode.read_clips`, from the cache where it can be."""
        name = self._entry_name(path)
        clip = self._find(name, plan)
        return clip if clip is not None else self._decode(name, path, plan)

    def _find(self, name: str, plan: Plan) -> Clip | None:
        """The clip from its entry, None where there is none or it is damaged; VideoError if it failed in this run."""
        found = self.store.find(name)
        if found is None:
            return None
        try:
            with found.data:
                header = read_header(found.data)
                if header.error and not found.fresh:
                    return None
                clip = _clip(found.data, header, plan)
        except DamagedEntry:
            self.store.drop(name)
            return None
        if not found.fresh:
            self.store.use(name)
        return clip

    def _decode(self, name: str, path: Path, plan: Plan) -> Clip:
        """The clip from the video, which is kept if there is room."""
        try:
            if name in self._left_out or not self._has_room(path):
                self._left_out.add(name)
                return DECODERS[self.decoder].read_clips(path, plan, self.frame_format)
            video = DECODERS[self.decoder].read_video(path, self.frame_format)
        except VideoError as error:
            if not isinstance(error.__cause__, OSError):  # that may pass; what is in the file will not
                self._keep(name, path, np.empty((0, *self.frame_format.resize[::-1], 3), np.uint8), error=str(error))
            raise
        entry = self._keep(name, path, video.frames[0], warning=video.warning)
        return _clip(entry, read_header(entry), plan)

    def _keep(
        self, name: str, path: Path, frames: Frames, *, warning: str | None = None, error: str | None = None
    ) -> bytes:
        """The packed frames, written under `name` unless there is no room or the file has changed meanwhile."""
        entry = b"".join(pack(frames, "raw" if error else self.codec, warning=warning, error=error))
        if not (self._is_unchanged(path) and self.store.write(name, entry)):
            self._left_out.add(name)
        return entry

    def _has_room(self, path: Path) -> bool:
        raw_bytes = _raw_bytes(path, self.frame_format)
        expected_bytes = raw_bytes * JPEG_SHARE if self.codec == "jpeg" else raw_bytes
        return raw_bytes <= LONGEST_BYTES and self.store.could_hold(int(expected_bytes))

    def problems(self) -> list[str]:
        """Lines for the user: what went wrong with the folder since the run started, in any of its processes."""
        return [f"cache: {problem}" for problem in self.store.problems()]

    # Which content a path has

    def _entry_name(self, path: Path) -> str:
        """Raises VideoError where the file is not there and this run has not seen it."""
        try:
            identity = (self._content(path), *self.frame_format.key, self.codec, self.decoder, DECODE_VERSION)
        except OSError as error:
            raise VideoError(f"cannot be read as a video: {error.strerror or error}") from error
        return f"{content.short_digest(repr(identity))}.frames"

    def _content(self, path: Path) -> str:
        """The digest of a file, from its record if this run has seen it or the file is still the same."""
        name = _record_name(path)
        record, fresh = self._record(name)
        if record and fresh:
            return record.content
        stamp = content.stamp(path)
        record = record or self._unrecorded.get(name)
        if record and record.stamp == stamp:
            self.store.use(name)
            return record.content
        record = _Record(stamp, content.digest(path))
        if not self.store.write(name, json.dumps(asdict(record)).encode()):
            self._unrecorded[name] = record
        return record.content

    def _record(self, name: str) -> tuple[_Record | None, bool]:
        """A record, None where it is not there or not whole, and whether this run has seen its file."""
        found = self.store.find(name)
        if found is None:
            return None, False
        with found.data:
            try:
                return _Record(**json.loads(found.data[:])), found.fresh
            except (ValueError, TypeError):
                return None, False

    def _is_unchanged(self, path: Path) -> bool:
        """Whether the file that was decoded is the one whose content names the entry."""
        record, _ = self._record(_record_name(path))
        try:
            return record is not None and record.stamp == content.stamp(path)
        except OSError:
            return False


def _record_name(path: Path) -> str:
    return f"{content.short_digest(str(path.absolute()))}.path"


def _clip(entry: Buffer, header: Header, plan: Plan) -> Clip:
    """The frames that `plan` wants of an entry; VideoError for the entry of a video that cannot be read."""
    if header.error:
        raise VideoError(header.error)
    video_frames = header.shape[0]
    wanted, places = np.unique(plan(video_frames), return_inverse=True)
    return pick(unpack(entry, wanted, header), places, video_frames, header.warning)


# Raw or JPEG


def choose_codec(asked: str, raw_bytes: int, budget_bytes: int) -> str:
    """What a recipe's `data.cache_codec` comes to: "auto" is raw frames where those of all videos fit the budget."""
    if asked != "auto":
        return asked
    return "raw" if raw_bytes <= budget_bytes else "jpeg"


def estimate_raw_bytes(paths: Sequence[Path], frame_format: FrameFormat) -> int:
    """About how many bytes the frames of all these videos take, from the packets of a few of them.

    Videos that would not be kept, too long or unreadable, count as nothing.
    """
    sample = [paths[i] for i in np.linspace(0, len(paths) - 1, min(len(paths), SAMPLED_VIDEOS)).astype(int)]
    sampled_bytes = [_raw_bytes_or_none(path, frame_format) for path in sample]
    kept_bytes = sum(size for size in sampled_bytes if size <= LONGEST_BYTES)
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
    """One line for the user: what will be kept, of how much."""
    gb = 2**30
    kept = f"cache: {n_videos:,} videos, about {raw_bytes / gb:.1f} GB raw"
    if codec == "jpeg":
        raw_bytes = int(raw_bytes * JPEG_SHARE)
        kept += f", about {raw_bytes / gb:.1f} GB as JPEG,"
    kept += f" of {budget_bytes / gb:g} GB"
    return kept + ("" if raw_bytes <= budget_bytes else "; what does not fit is decoded each time")
