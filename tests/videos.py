"""Videos for the tests of decoding: files with given timestamps or groups of pictures, and those of the real data."""

from fractions import Fraction

import av
import numpy as np

from msfnet.types import FrameFormat

NATIVE = FrameFormat((64, 48))  # width, height of the videos that are written here
SMALL = FrameFormat((86, 64))

UNREADABLE = {
    "audio_only.m4a": "no video stream",
    "empty.mp4": "empty",
    "random_bytes.avi": "cannot be read as a video",
    "torchcodec__nasa_13013.mp4.audio.mp3": "no video stream",
}


def readable(real_data):
    """Every real file of which frames can be read: 30 unusual or damaged ones and four originals of UCF101."""
    folders = (real_data / "robustness", real_data / "ucf101-original")
    files = sorted(path for folder in folders for path in folder.iterdir())
    return [path for path in files if path.name not in UNREADABLE]


def every(step):
    """A sampler of one clip: every `step`-th frame from the first on."""
    return lambda n_frames: np.arange(0, n_frames, step)[None]


def _encode(container, stream, frames, times_ms=None):
    for number, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        if times_ms is not None:
            frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def write_with_times(path, frames, times_ms):
    """A lossless video whose frames are displayed at the given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        _encode(container, stream, frames, times_ms)


def write_h264(path, frames, **options):
    """A lossless H.264 video of 25 fps, with options of x264 such as g (GOP size) and bf (B-frames)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", **options})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        _encode(container, stream, frames)


def write_image(path, pixels):
    """A PNG file."""
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = pixels.shape[:2]
        stream.pix_fmt = "rgb24"
        _encode(container, stream, pixels[None])
