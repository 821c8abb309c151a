"""The facts of single files: against what was written, on odd files, and on the real and hostile ones."""

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


def facts_of(path):
    return inspect_video(path, beat=lambda: None)


def test_facts_are_those_that_were_written(tmp_path):
    frames = scene(1, 30)
    write_video(tmp_path / "a.mp4", frames, 10)
    facts = facts_of(tmp_path / "a.mp4")
    assert (facts.error, facts.warning) == (None, None)
    assert (facts.codec, facts.pixel_format, facts.width_px, facts.height_px) == ("h264", "yuv420p", 64, 48)
    assert (facts.fps, facts.constant_fps, facts.frames, facts.claimed_frames) == (10, True, 30, 30)
    assert (facts.duration_seconds, facts.rotation_degrees) == (3, 0)
    assert facts.size_bytes == (tmp_path / "a.mp4").stat().st_size
    assert not facts.black
    assert not facts.still
    assert facts.signature


def test_brightness_is_that_of_the_frames(tmp_path):
    frames = np.full((10, 64, 64, 3), 60, np.uint8)
    frames[5:, :4, :4] = 200  # one cell of sixteen by sixteen
    write_lossless(tmp_path / "a.mkv", frames)
    facts = facts_of(tmp_path / "a.mkv")
    assert facts.brightest_luma == pytest.approx(200, abs=1)
    assert facts.mean_luma == pytest.approx(60 + 140 / 256 / 2, abs=0.6)
    assert facts.motion_luma == pytest.approx(70, abs=1)  # half of the time 140 more


@pytest.mark.parametrize(("value", "noise", "expected"), [(0, 3, (True, False)), (90, 0, (False, True))])
def test_black_and_still_pictures_have_no_signature(tmp_path, value, noise, expected):
    drawn = np.random.default_rng(0).integers(0, noise + 1, (12, 48, 64, 1))
    write_lossless(tmp_path / "a.mkv", np.repeat(value + drawn, 3, axis=3).astype(np.uint8))
    facts = facts_of(tmp_path / "a.mkv")
    assert (facts.black, facts.still) == expected
    assert facts.signature == ""


def write_at(path, frames, ticks):
    """A video whose frames are shown at `ticks` of a thousandth of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, tick in zip(frames, ticks, strict=True):
            picture = VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = tick, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def test_variable_frame_rate_is_seen_and_a_late_start_does_not_matter(tmp_path):
    write_at(tmp_path / "a.mkv", scene(1, 11), [500 + 33 * i + 67 * max(0, i - 5) for i in range(11)])
    facts = facts_of(tmp_path / "a.mkv")
    assert not facts.constant_fps
    assert facts.fps == pytest.approx(10 / 0.665, abs=0.01)
    write_at(tmp_path / "b.mkv", scene(1, 11), [500 + 40 * i for i in range(11)])
    facts = facts_of(tmp_path / "b.mkv")
    assert facts.constant_fps
    assert (facts.fps, facts.duration_seconds) == (25, 0.44)


@given(st.integers(2, 400), st.floats(1, 240), st.sampled_from([1e-3, 1 / 90000, 1 / 12800]))
def test_rounded_times_of_a_constant_rate_are_constant(n, fps, tick):
    times = np.round(np.arange(n) / fps / tick) * tick
    rate, constant = _frame_rate(times, 0.0, tick)
    assert constant
    assert rate == pytest.approx(fps, abs=fps * fps * tick / (n - 1) * 1.01 + 1e-6)


def test_the_same_content_has_the_same_digest_under_any_name(tmp_path):
    write_lossless(tmp_path / "a.mkv", scene(1))
    (tmp_path / "b, c.avi").write_bytes((tmp_path / "a.mkv").read_bytes())
    write_lossless(tmp_path / "d.mkv", scene(2))
    one, copy, other = (facts_of(tmp_path / name).digest for name in ("a.mkv", "b, c.avi", "d.mkv"))
    assert one == copy != other


def test_long_videos_are_thinned_out_evenly(tmp_path, monkeypatch):
    monkeypatch.setattr(file_info, "MOST_THUMBS", 8)
    write_lossless(tmp_path / "a.mkv", scene(1, 50))
    kept = []
    monkeypatch.setattr(file_info, "signature", lambda thumbs: kept.append(thumbs.times_seconds) or b"")
    assert facts_of(tmp_path / "a.mkv").frames == 50
    assert np.allclose(kept[0], np.arange(0, 5, 0.8))


def test_a_folder_of_images_is_a_video(tmp_path):
    for i, frame in enumerate(scene(1, 12)):
        write_video(tmp_path / f"{i:03d}.png", frame[None], 1, codec="png", pixel_format="rgb24")
    facts = facts_of(tmp_path)
    assert (facts.error, facts.codec, facts.frames, facts.width_px) == (None, "images", 12, 64)
    (tmp_path / "005.png").write_bytes(b"no")
    assert facts_of(tmp_path).warning.startswith("the file is damaged: 005.png: ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the file is empty"),
        (b"no video" * 99, "cannot be read as a video"),
    ],
)
def test_a_file_that_cannot_be_used_has_a_reason(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    facts = facts_of(tmp_path / "a.mp4")
    assert facts.error.startswith(reason)
    assert "\n" not in facts.error


EXPECTED = {  # name -> error, or frames, claimed, rate, constant, rotation
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


def test_facts_of_hostile_files(real_data):
    for name, expected in EXPECTED.items():
        facts = facts_of(real_data / "robustness" / name)
        if isinstance(expected, str):
            assert facts.error == expected
        else:
            rate = pytest.approx(expected[2], rel=0.005)
            assert (facts.frames, facts.claimed_frames, facts.fps, facts.constant_fps, facts.rotation_degrees) == (
                *expected[:2],
                rate,
                *expected[3:],
            ), name
            assert bool(facts.warning) == name.startswith("truncated")


def test_a_matroska_file_that_just_ends_is_damaged(tmp_path):
    write_lossless(tmp_path / "a.mkv", scene(1, 40))
    assert facts_of(tmp_path / "a.mkv").warning is None
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: len(data) // 2])
    facts = facts_of(tmp_path / "b.mkv")
    assert 5 < facts.frames < 35
    assert facts.warning.startswith("the file is damaged: ")
