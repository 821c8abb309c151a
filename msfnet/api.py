"""The public functions of the package: keyword functions over the packages below them.

`data` is what the commands take as DATA (a path or URL) or a `Dataset`; `weights` is what they take as WEIGHTS (a path
or a name), a `Run` or a `Checkpoint`. Every function raises `UserError`, in one line, for a request that cannot be met.
Progress is logged to the logger `msfnet`: `logging.basicConfig(level=logging.INFO)` shows it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from msfnet.types import Clip, FrameFormat, UserError


def read_clips(
    path: str | Path,
    num_frames: int = 16,
    num_clips: int = 1,
    size: int | tuple[int, int] | None = None,
    frame_interval: int | None = None,
    fps: float | None = None,
) -> Clip:
    """Read clips of a video file, or of a folder with one image per frame.

    Only the frames that are needed are decoded. Rotation is applied, and a variable frame rate is evened out.

    Args:
        path: The video.
        num_frames: T, frames of each clip. A video with fewer frames is padded with its last one.
        num_clips: V, clips spread evenly over the video.
        size: Width and height in pixels that frames are resized to, or one number for the shorter side at the video's
            aspect ratio; None keeps the size of the file.
        frame_interval: Distance between consecutive frames of a clip, or the widest one that fits into the video; None
            spreads each clip over the whole video.
        fps: Frame rate, per second, that the video is read at whatever its own; None reads every frame of the file.

    Returns:
        A clip with `frames` (uint8 RGB, V T H W 3), their `times` in seconds (V T) and a `warning` for a damaged file.

    Raises:
        VideoError: No frame of the video can be decoded.
        UserError: An argument is out of range.
    """
    from msfnet.data.sampling import dense_clips, uniform_clips
    from msfnet.data.video import decode

    if min(num_frames, num_clips, 1 if frame_interval is None else frame_interval) < 1:
        raise UserError(
            "expected num_frames, num_clips and frame_interval of 1 or more, found "
            f"{num_frames}, {num_clips} and {frame_interval}"
        )
    if fps is not None and not 0.01 <= fps <= 1000:
        raise UserError(f"expected fps of 0.01 to 1000, or None for every frame of the file, found {fps:g}")
    path = Path(path)
    if not isinstance(size, tuple):
        width, height = decode.frame_size(path)
        scale = 1 if size is None else size / min(width, height)
        size = round(width * scale), round(height * scale)
    if min(size) < 1:
        raise UserError(f"expected a size of 1 pixel or more, found {size[0]}x{size[1]}")
    if frame_interval is None:
        plan = partial(uniform_clips, frames=num_frames, clips=num_clips)
    else:
        plan = partial(dense_clips, frames=num_frames, clips=num_clips, interval_frames=frame_interval)
    return decode.read_clips(path, plan, FrameFormat(size, fps or 0.0))
