"""Decoded frames against FFmpeg's own program and scaler, rotation, and files that cannot be opened."""

import subprocess
from io import BytesIO

import av
import numpy as np
import pytest
from conftest import moving_square, write_lossless
from videos import SMALL, UNREADABLE, readable

from msfnet.data.video.container import FrameConverter, decoded_frames, describe_damage, open_video
from msfnet.types import VideoError


def native_planes(frame):
    """A decoded frame as it is in memory, less the padding at the end of each line."""
    for number, plane in enumerate(frame.planes):
        components = [c for c in frame.format.components if c.plane == number]
        line_bytes = plane.width * len(components) * ((components[0].bits + 7) // 8)
        yield np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :line_bytes].ravel()


def test_frames_are_those_of_the_ffmpeg_program(real_data, ffmpeg):
    """All frames, in their native format, against what the `ffmpeg` command writes.

    MPEG-4 Part 2 leaves the rounding of its transform open, and versions of FFmpeg differ by one level in it.
    """
    for path in readable(real_data):
        command = [ffmpeg, "-v", "quiet", "-noautorotate", "-i", path, "-an", "-vsync", "0"]
        theirs = np.frombuffer(subprocess.run([*command, "-f", "rawvideo", "-"], capture_output=True).stdout, np.uint8)
        at = 0
        with open_video(path) as (container, stream):
            allowed = 1 if stream.codec_context.name == "mpeg4" else 0
            for number, frame in enumerate(decoded_frames(container, stream, [])):
                ours = np.concatenate(list(native_planes(frame)))
                expected = theirs[at : at + len(ours)].astype(np.int16)
                assert len(expected) == len(ours), f"{path.name}: ffmpeg has {number} frames"
                assert np.abs(expected - ours).max() <= allowed, f"{path.name}, frame {number}"
                at += len(ours)
        assert at == len(theirs), path.name


def first_frame(path):
    with open_video(path) as (container, stream):
        return next(decoded_frames(container, stream, []))


def converted(frame, size):
    pixels = np.empty((*size[::-1], 3), np.uint8)
    FrameConverter(size)(frame, pixels)
    return pixels


def test_conversion_is_that_of_ffmpegs_scaler(real_data):
    """Against plain PyAV with its slower exact conversion; chroma may be rounded differently."""
    for path in (real_data / "robustness").glob("*.mp4"):
        if path.name not in UNREADABLE:
            frame = first_frame(path)
            expected = frame.reformat(85, 64, "rgb24").to_ndarray()
            assert np.abs(converted(frame, (85, 64)).astype(int) - expected).max() <= 2, path.name


def test_conversion_applies_the_rotation(real_data):
    """The display matrix of three recordings turns them by 0, 90 and 180 degrees."""
    for name in ("decord__video_0.mov", "decord__video_90.mov", "decord__video_180.mov"):
        frame = first_frame(real_data / "robustness" / name)
        turns = round(frame.rotation / 90) % 4
        size = (frame.height, frame.width) if turns % 2 else (frame.width, frame.height)
        expected = np.rot90(frame.to_ndarray(format="rgb24"), turns)
        assert np.abs(converted(frame, size).astype(int) - expected).mean() < 2, name


@pytest.mark.parametrize(("name", "reason"), UNREADABLE.items())
def test_unreadable_files_give_a_reason_in_one_line(real_data, name, reason):
    path = real_data / "robustness" / name
    for source in (path, path.read_bytes(), BytesIO(path.read_bytes())):
        with pytest.raises(VideoError, match=reason) as caught, open_video(source):
            pass
        assert "\n" not in str(caught.value)


def test_content_and_open_files_are_read_as_the_file_is(tmp_path):
    path = tmp_path / "a.mkv"
    write_lossless(path, moving_square(3))
    opened = BytesIO(path.read_bytes())
    opened.seek(100)  # it is read from its beginning anyway
    frames = [converted(first_frame(source), SMALL.resize) for source in (path, path.read_bytes(), opened)]
    assert np.array_equal(frames[0], frames[1])
    assert np.array_equal(frames[0], frames[2])


def test_cover_picture_is_not_the_video_stream(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        video = container.add_stream("mpeg4", rate=10)
        for stream in (cover, video):
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p" if stream is cover else "yuv420p"
        cover.disposition = av.stream.Disposition.attached_pic
        for stream, frames in ((cover, moving_square(1)), (video, moving_square(4))):
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    with open_video(tmp_path / "a.mp4") as (container, stream):
        assert stream.codec_context.name == "mpeg4"
        assert len(list(decoded_frames(container, stream, []))) == 4


@pytest.mark.parametrize(
    ("n_frames", "header_frames", "errors", "expected"),
    [
        (5, 5, [], None),
        (5, 0, [], None),  # the header does not state it
        (5, 9, ["a packet"], "the file is damaged: its header states 9 frames, 5 could be read"),
        (5, 5, ["a packet", "another"], "the file is damaged: a packet"),
    ],
)
def test_describe_damage(n_frames, header_frames, errors, expected):
    assert describe_damage(n_frames, header_frames, errors) == expected
