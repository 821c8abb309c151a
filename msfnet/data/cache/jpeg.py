"""Frames to JPEG images and back, each image on its own. Knows no video and no file.

Colour is kept at full resolution (4:4:4): on real clips that is closer to the frames, in fewer bytes, than 4:2:0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from msfnet.arrays import Frames

PIXELS = "yuvj444p"
QUANTISER = 2  # FFmpeg's scale: 1 is best; 2 is about 40 dB on real clips, six to nine times smaller than the frames


def encode(frames: Frames) -> Iterator[bytes]:
    """One image for each frame of T H W 3."""
    context = VideoCodecContext.create("mjpeg", "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base, context.thread_count = PIXELS, Fraction(1, 25), 1
    context.qmin = context.qmax = QUANTISER
    for frame in frames:
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=PIXELS)
        yield from (bytes(packet) for packet in context.encode(picture))
    yield from (bytes(packet) for packet in context.encode(None))


def decoder() -> Callable[[bytes | memoryview], Frames]:
    """A function from one image to its frame H W 3. It raises av.FFmpegError for bytes that are no image."""
    context = VideoCodecContext.create("mjpeg", "r")
    context.thread_count = 1

    def decode(image: bytes | memoryview) -> Frames:
        (picture,) = context.decode(av.Packet(bytes(image)))
        # One thread: to start others for each image costs far more than they save.
        frame: Frames = picture.reformat(format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
        return frame

    return decode
