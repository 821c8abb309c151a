"""Descriptions of single files: of written videos, of unusual files, and of the real and hostile ones."""

from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from conftest import write_lossless
from hypothesis import given
from hypothesis import strategies as st
from scenes import scene

from msfnet.doctor import file_info
from msfnet.doctor.file_info import _frame_rate, inspect_video
from msfnet.procedural.dataset import write_video


def inspect(path):
    return inspect_video(path, heartbeat=lambda: None)


def test_info_of_a_written_video(tmp_path):
    frames = scene(1, 30)
    write_video(tmp_path / "a.mp4", frames, 10)
    info = inspect(tmp_path / "a.mp4")
    assert (info.error, info.warning) == (None, None)
    assert (info.codec, info.pixel_format, info.width_px, info.height_px) == ("h264", "yuv420p", 64, 48)
    assert (info.fps, info.constant_fps, info.frames, info.header_frames) == (10, True, 30, 30)
    assert (info.duration_seconds, info.rotation_degrees) == (3, 0)
    assert info.size_bytes == (tmp_path / "a.mp4").stat().st_size
    assert not info.black
    assert not info.static
    assert info.signature


def test_brightness_and_motion(tmp_path):
    frames = np.full((10, 64, 64, 3), 60, np.uint8)
    frames[5:, :4, :4] = 200  # one of 16 x 16 cells
    write_lossless(tmp_path / "a.mkv", frames)
    info = inspect(tmp_path / "a.mkv")
    assert info.brightest_luma == pytest.approx(200, abs=1)
    assert info.mean_luma == pytest.approx(60 + 140 / 256 / 2, abs=0.6)
    assert info.motion_luma == pytest.approx(70, abs=1)  # 140 more half of the time


@pytest.mark.parametrize(("value", "noise", "expected"), [(0, 3, (True, False)), (90, 0, (False, True))])
def test_black_and_static_videos(tmp_path, value, noise, expected):
    drawn = np.random.default_rng(0).integers(0, noise + 1, (12, 48, 64, 1))
    write_lossless(tmp_path / "a.mkv", np.repeat(value + drawn, 3, axis=3).astype(np.uint8))
    info = inspect(tmp_path / "a.mkv")
    assert (info.black, info.static) == expected
    assert info.signature == ""


def write_at(path, frames, ticks):
    """Write a video whose frames are shown at `ticks` milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, tick in zip(frames, ticks, strict=True):
            picture = VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_variable_frame_rate(tmp_path):
    """A late start does not matter."""
    write_at(tmp_path / "a.mkv", scene(1, 11), [500 + 33 * i + 67 * max(0, i - 5) for i in range(11)])
    info = inspect(tmp_path / "a.mkv")
    assert not info.constant_fps
    assert info.fps == pytest.approx(10 / 0.665, abs=0.01)
    write_at(tmp_path / "b.mkv", scene(1, 11), [500 + 40 * i for i in range(11)])
    info = inspect(tmp_path / "b.mkv")
    assert info.constant_fps
    assert (info.fps, info.duration_seconds) == (25, 0.44)


@given(st.integers(2, 400), st.floats(1, 240), st.sampled_from([1e-3, 1 / 90000, 1 / 12800]))
def test_constant_frame_rate(n, fps, tick):
    """Times that are rounded to ticks belong to a constant frame rate."""
    times = np.round(np.arange(n) / fps / tick) * tick
    rate, constant = _frame_rate(times, 0.0, tick)
    assert constant
    assert rate == pytest.approx(fps, abs=fps * fps * tick / (n - 1) * 1.01 + 1e-6)


def test_digest_does_not_depend_on_the_name(tmp_path):
    write_lossless(tmp_path / "a.mkv", scene(1))
    (tmp_path / "b, c.avi").write_bytes((tmp_path / "a.mkv").read_bytes())
    write_lossless(tmp_path / "d.mkv", scene(2))
    one, copy, other = (inspect(tmp_path / name).digest for name in ("a.mkv", "b, c.avi", "d.mkv"))
    assert one == copy != other


def test_long_videos_keep_evenly_spaced_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(file_info, "MAX_GRAY_FRAMES", 8)
    write_lossless(tmp_path / "a.mkv", scene(1, 50))
    kept = []
    monkeypatch.setattr(file_info, "signature", lambda gray: kept.append(gray.times_seconds) or b"")
    assert inspect(tmp_path / "a.mkv").frames == 50
    assert np.allclose(kept[0], np.arange(0, 5, 0.8))


def test_folder_of_images(tmp_path):
    for i, frame in enumerate(scene(1, 12)):
        write_video(tmp_path / f"{i:03d}.png", frame[None], 1, codec="png", pixel_format="rgb24")
    info = inspect(tmp_path)
    assert (info.error, info.codec, info.frames, info.width_px) == (None, "images", 12, 64)
    (tmp_path / "005.png").write_bytes(b"no")
    assert inspect(tmp_path).warning.startswith("the file is damaged: 005.png: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the file is empty"),
        (b"no video" * 99, "cannot be read as a video"),
    ],
)
def test_unreadable_file_has_a_reason(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    info = inspect(tmp_path / "a.mp4")
    assert info.error.startswith(reason)
    assert "\n" not in info.error


EXPECTED = {  # name -> error, or frames, claimed frames, frame rate, whether constant, rotation
    "audio_only.m4a": "the file has no video stream",
    "empty.mp4": "the file is empty",
    "fps240.mp4": (240, 240, 240, True, 0),
    "decord__video_90.mov": (3, 3, 30, True, 270),
    "decord__flipping_a_pancake.mkv": (310, 0, 30, True, 0),
    "mmaction2__test.avi": (164, 164, 25, True, 0),
    "one_frame.mp4": (1, 1, 25, True, 0),
    "random_bytes.avi": "cannot be read as a video: Invalid data found when processing input",
    "truncated.avi": (15, 131, 25, True, 0),
    "vfr.mp4": (64, 64, 12.209, False, 0),
}


def test_hostile_files(real_data):
    for name, expected in EXPECTED.items():
        info = inspect(real_data / "robustness" / name)
        if isinstance(expected, str):
            assert info.error == expected
        else:
            rate = pytest.approx(expected[2], rel=0.005)
            assert (info.frames, info.header_frames, info.fps, info.constant_fps, info.rotation_degrees) == (
                *expected[:2],
                rate,
                *expected[3:],
            ), name
            assert bool(info.warning) == name.startswith("truncated")


def test_truncated_matroska_file_is_damaged(tmp_path):
    write_lossless(tmp_path / "a.mkv", scene(1, 40))
    assert inspect(tmp_path / "a.mkv").warning is None
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    info = inspect(tmp_path / "b.mkv")
    assert 5 < info.frames < 35
    assert info.warning.startswith("the file is damaged: ")
