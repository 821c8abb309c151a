"""The decoders that a recipe can name, which give the same frames: PyAV, or torchcodec on a CPU or a GPU.

torchcodec is optional. Which frames it decodes is decided by the packets, as for PyAV; a file that it cannot read is
read by PyAV, and the clip has a warning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

from msfnet.data.video import decode
from msfnet.data.video.decode import gather_clip, select_frames
from msfnet.types import Clip, FrameFormat, Frames, FrameSampler, Indices, UserError


@dataclass(frozen=True)
class Decoder:
    """The functions of one decoder; see `decode` for both."""

    read_clips: Callable[[Path, FrameSampler, FrameFormat], Clip]
    read_video: Callable[[Path, FrameFormat], Clip]


class Reader(Protocol):
    """Reads videos in one format: a decoder, or a cache in front of one."""

    def read_clips(self, path: Path, sampler: FrameSampler) -> Clip:
        """See `decode.read_clips`."""

    def problems(self) -> list[str]:
        """Return the problems that are not of single videos, one line each."""


@dataclass(frozen=True)
class DirectReader:
    """Decodes a video each time it is read.

    Attributes:
        frame_format: Size and frame rate that frames are read at.
        decoder: A key of DECODERS.
    """

    frame_format: FrameFormat
    decoder: str = "pyav"

    def read_clips(self, path: Path, sampler: FrameSampler) -> Clip:
        return DECODERS[self.decoder].read_clips(path, sampler, self.frame_format)

    def problems(self) -> list[str]:
        return []


# torchcodec


def require_torchcodec(*, cuda: bool, num_workers: int) -> None:
    """Check that torchcodec can be used.

    Args:
        cuda: Whether it has to decode on a GPU.
        num_workers: Processes that read videos beside the training process.

    Raises:
        UserError: torchcodec is not installed, the FFmpeg libraries or the GPU that it needs are not found, or worker
            processes would have to share the GPU.
    """
    if find_spec("torchcodec") is None:
        raise UserError("data.decoder torchcodec is not installed; run pip install 'msfnet[torchcodec]', or use pyav")
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torchcodec cannot start ({reason}); install FFmpeg on this system, or use pyav") from error
    if cuda and not torch.cuda.is_available():
        raise UserError("data.decoder torchcodec-cuda needs a GPU, found none; use torchcodec or pyav")
    if cuda and num_workers:
        raise UserError(
            f"data.decoder torchcodec-cuda decodes on the GPU: expected data.num_workers=0, found {num_workers}"
        )


def _read_clips_torchcodec(path: Path, sampler: FrameSampler, frame_format: FrameFormat, device: str) -> Clip:
    selection = None if path.is_dir() else select_frames(path, sampler, frame_format.fps)
    if selection is None:
        return decode.read_clips(path, sampler, frame_format)
    numbers, positions = np.unique(selection.indices, return_inverse=True)
    try:
        frames = _decode_torchcodec(path, selection.stream_index, numbers, frame_format.resize, device)
    except (RuntimeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        clip = decode.read_clips(path, sampler, frame_format)
        return replace(clip, warning=f"read by PyAV, torchcodec could not: {reason}")
    positions = positions.reshape(selection.indices.shape)
    return gather_clip(frames, positions, selection.video_frames, times=selection.times)


def _read_video_torchcodec(path: Path, frame_format: FrameFormat, device: str) -> Clip:
    return _read_clips_torchcodec(path, lambda n_frames: np.arange(n_frames)[None], frame_format, device)


def _decode_torchcodec(path: Path, stream_index: int, numbers: Indices, resize: tuple[int, int], device: str) -> Frames:
    """Return the frames with these numbers, rotated and resized: T H W 3."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    width, height = resize
    decoder = VideoDecoder(path, stream_index=stream_index, dimension_order="NCHW", num_ffmpeg_threads=1, device=device)
    frames = decoder.get_frames_at(numbers.tolist()).data  # T 3 H W
    resized = F.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # T 3 H W -> T H W 3


def _torchcodec(device: str) -> Decoder:
    return Decoder(partial(_read_clips_torchcodec, device=device), partial(_read_video_torchcodec, device=device))


DECODERS = {
    "pyav": Decoder(decode.read_clips, decode.read_video),
    "torchcodec": _torchcodec("cpu"),
    "torchcodec-cuda": _torchcodec("cuda"),
}
