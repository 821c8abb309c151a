"""Frames to video files: for data sets that the project makes itself."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from msfnet.arrays import Frames
from msfnet.files import replacing


def write_video(path: Path, frames: Frames, fps: int, *, codec: str = "libx264", pixel_format: str = "yuv420p") -> None:
    """Encode T H W 3 RGB frames, under a temporary name until the file is whole. FFV1 with bgr0 is lossless."""
    options = {"preset": "veryfast"} if codec == "libx264" else None
    with replacing(path) as temporary, av.open(str(temporary), "w") as container:
        stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
