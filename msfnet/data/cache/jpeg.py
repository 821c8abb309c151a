"""Encodes frames as JPEG images and decodes them, one image per frame.

Color is kept at full resolution (4:4:4): on real clips that is closer to the frames, in fewer bytes, than 4:2:0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from msfnet.types import Frames

PIXELS = "yuvj444p"
QUANTIZER = 2  # FFmpeg's scale: 1 is best; 2 is about 40 dB on real clips, six to nine times smaller than the frames


def encode_jpeg(frames: Frames) -> Iterator[bytes]:
    """Encode each frame of T H W 3 as an image."""
    context = VideoCodecContext.create("mjpeg", "w")
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt, context.time_base, context.thread_count = PIXELS, Fraction(1, 25), 1
    context.qmin = context.qmax = QUANTIZER
    for frame in frames:
        picture = VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=PIXELS)
        yield from (bytes(packet) for packet in context.encode(picture))
    yield from (bytes(packet) for packet in context.encode(None))


def jpeg_decoder() -> Callable[[bytes | memoryview], Frames]:
    """Return a function from an image to its frame H W 3, which raises av.FFmpegError for bytes that are no image."""
    context = VideoCodecContext.create("mjpeg", "r")
    context.thread_count = 1

    def decode(image: bytes | memoryview) -> Frames:
        (picture,) = context.decode(av.Packet(bytes(image)))
        # One thread: starting others for each image costs far more than they save.
        frame: Frames = picture.reformat(format="rgb24", threads=1).to_ndarray()  # type: ignore[assignment]
        return frame

    return decode
