"""The decoders that a recipe can name: different programs, the same frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msfnet.data import decode, decode_torchcodec
from msfnet.data.decode import Plan
from msfnet.types import Clip


@dataclass(frozen=True)
class Decoder:
    """Two functions that raise VideoError for a file of which they cannot read anything; see `decode` for both."""

    read_clips: Callable[[Path, Plan, tuple[int, int]], Clip]
    read_video: Callable[[Path, tuple[int, int]], Clip]


DECODERS = {
    "pyav": Decoder(decode.read_clips, decode.read_video),
    "torchcodec": Decoder(
        partial(decode_torchcodec.read_clips, device="cpu"), partial(decode_torchcodec.read_video, device="cpu")
    ),
    "torchcodec-cuda": Decoder(
        partial(decode_torchcodec.read_clips, device="cuda"), partial(decode_torchcodec.read_video, device="cuda")
    ),
}
