"""Video files to frames by torchcodec, where it is installed: the same frames as PyAV's, also decoded on a GPU.

Which frames a plan wants is told by the packets, as for PyAV. What torchcodec cannot read is left to PyAV, and the
clip says so.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from msfnet.data.video import decode
from msfnet.data.video.decode import Plan, choose_frames, pick
from msfnet.types import Clip, FrameFormat, Frames, Indices, UserError


def require(*, cuda: bool, workers: int) -> None:
    """Raises UserError when torchcodec is not there, or cannot find the FFmpeg libraries or the GPU that it needs."""
    if find_spec("torchcodec") is None:
        raise UserError("data.decoder torchcodec is not installed; pip install 'msfnet[torchcodec]', or use pyav")
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"torchcodec cannot start ({reason}); install FFmpeg on this system, or use pyav") from error
    if cuda and not torch.cuda.is_available():
        raise UserError("data.decoder torchcodec-cuda needs a GPU, found none; use torchcodec or pyav")
    if cuda and workers:
        raise UserError(
            f"data.decoder torchcodec-cuda decodes on the GPU: expected data.num_workers=0, found {workers}"
        )


def read_clips(path: Path, plan: Plan, frame_format: FrameFormat, device: str) -> Clip:
    """As `decode.read_clips`."""
    chosen = None if path.is_dir() else choose_frames(path, plan, frame_format.fps)
    if chosen is None:
        return decode.read_clips(path, plan, frame_format)
    indices, video_frames, stream = chosen
    numbers, positions = np.unique(indices, return_inverse=True)
    try:
        frames = _decode(path, stream, numbers, frame_format.resize, device)
    except (RuntimeError, IndexError) as error:
        clip = decode.read_clips(path, plan, frame_format)
        reason = str(error).strip().splitlines()[0]
        return Clip(clip.frames, clip.video_frames, clip.padded, f"read by PyAV, torchcodec could not: {reason}")
    return pick(frames, positions.reshape(indices.shape), video_frames)


def read_video(path: Path, frame_format: FrameFormat, device: str) -> Clip:
    """As `decode.read_video`."""
    return read_clips(path, lambda video_frames: np.arange(video_frames)[None], frame_format, device)


def _decode(path: Path, stream: int, numbers: Indices, resize: tuple[int, int], device: str) -> Frames:
    """Frames of these numbers of a stream, upright and resized: T H W 3."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]

    width, height = resize
    decoder = VideoDecoder(path, stream_index=stream, dimension_order="NCHW", num_ffmpeg_threads=1, device=device)
    frames = decoder.get_frames_at(numbers.tolist()).data  # T 3 H W
    resized = F.interpolate(frames, size=(height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # T 3 H W -> T H W 3
