"""Where clips come from: the decoders that a recipe can name, different programs that give the same frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from msfnet.data.video import decode, decode_torchcodec
from msfnet.data.video.decode import Plan
from msfnet.types import Clip, FrameFormat


@dataclass(frozen=True)
class Decoder:
    """Two functions that raise VideoError for a file of which they cannot read anything; see `decode` for both."""

    read_clips: Callable[[Path, Plan, FrameFormat], Clip]
    read_video: Callable[[Path, FrameFormat], Clip]


DECODERS = {
    "pyav": Decoder(decode.read_clips, decode.read_video),
    "torchcodec": Decoder(
        partial(decode_torchcodec.read_clips, device="cpu"), partial(decode_torchcodec.read_video, device="cpu")
    ),
    "torchcodec-cuda": Decoder(
        partial(decode_torchcodec.read_clips, device="cuda"), partial(decode_torchcodec.read_video, device="cuda")
    ),
}


class Reader(Protocol):
    """What data sets read videos by: a decoder, or a cache in front of one."""

    def read_clips(self, path: Path, plan: Plan) -> Clip:
        """As `decode.read_clips`, in the reader's own format."""

    def problems(self) -> list[str]:
        """Lines for the user: what went wrong other than in single videos."""


@dataclass(frozen=True)
class DirectReader:
    """Decodes a video each time that it is read."""

    frame_format: FrameFormat
    decoder: str = "pyav"

    def read_clips(self, path: Path, plan: Plan) -> Clip:
        return DECODERS[self.decoder].read_clips(path, plan, self.frame_format)

    def problems(self) -> list[str]:
        return []
