"""Real files: frames against what was written, and every odd or hostile file gives frames or one line."""

from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import moving_square, write_lossless

from msfnet.data.cache import FrameCache
from msfnet.data.decode import count_packets, read_clips, read_video
from msfnet.data.encode import write_video
from msfnet.data.sampling import even_clips
from msfnet.types import VideoError

NATIVE = (64, 48)  # width, height of the videos made here


def every(step):
    return lambda n: np.arange(0, n, step)[None]


def test_frames_are_exactly_those_that_were_written(tmp_path):
    frames = moving_square(30)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(read_video(tmp_path / "a.mkv", NATIVE).frames[0], frames)
    clip = read_clips(tmp_path / "a.mkv", every(7), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::7])
    assert (clip.video_frames, clip.repeated, clip.warning) == (30, False, None)


def test_views_may_overlap_and_repeat(tmp_path):
    frames = moving_square(5)
    write_lossless(tmp_path / "a.mkv", frames)
    indices = np.array([[0, 1, 4], [4, 4, 2]])
    clip = read_clips(tmp_path / "a.mkv", lambda n: indices, NATIVE)
    assert np.array_equal(clip.frames, frames[indices])


def test_short_video_is_named_as_such(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(3))
    clip = read_clips(tmp_path / "a.mkv", lambda n: even_clips(n, 8, 1), NATIVE)
    assert clip.repeated
    assert np.array_equal(clip.frames[0, 2:], np.repeat(clip.frames[0, 2:3], 6, axis=0))


def test_b_frames_come_in_the_order_they_are_shown(tmp_path):
    frames = np.broadcast_to((np.arange(24) * 10).astype(np.uint8)[:, None, None, None], (24, 48, 64, 3))
    write_video(tmp_path / "a.mp4", frames, 10)
    brightness = read_video(tmp_path / "a.mp4", NATIVE).frames[0].mean((1, 2, 3))
    assert (np.diff(brightness) > 5).all()


def test_resize_is_to_width_and_height(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(4))
    assert read_video(tmp_path / "a.mkv", (171, 128)).frames.shape == (1, 4, 128, 171, 3)


def test_plan_is_asked_again_when_fewer_frames_can_be_decoded(tmp_path):
    """A file cut short inside a frame: the sampling is that of the frames which are there."""
    write_video(tmp_path / "a.mkv", moving_square(40), 10, codec="mpeg4")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: int(len(data) * 0.6)])
    there = read_video(tmp_path / "b.mkv", NATIVE).video_frames
    assert 5 < there < 40
    asked = []

    def plan(n):
        asked.append(n)
        return even_clips(n, 4, 1)

    clip = read_clips(tmp_path / "b.mkv", plan, NATIVE)
    assert abs(clip.video_frames - there) <= 1
    assert asked[-1] == clip.video_frames


# The real and the hostile files


EXPECTED_FAILURES = {
    "audio_only.m4a": "no video stream",
    "empty.mp4": "empty",
    "random_bytes.avi": "cannot be read as a video",
    "torchcodec__nasa_13013.mp4.audio.mp3": "no video stream",
}


def test_every_hostile_file_gives_frames_or_a_reason(real_data):
    seen = {}
    for path in sorted((real_data / "robustness").iterdir()):
        try:
            clip = read_clips(path, lambda n: even_clips(n, 8, 2), (86, 64))
        except VideoError as error:
            seen[path.name] = str(error)
        else:
            assert clip.frames.shape == (2, 8, 64, 86, 3), path.name
            assert clip.repeated == (clip.video_frames < 8), path.name
    assert seen.keys() == EXPECTED_FAILURES.keys()
    for name, reason in EXPECTED_FAILURES.items():
        assert reason in seen[name]
        assert "\n" not in seen[name]


@pytest.mark.parametrize(("name", "found"), [("truncated.avi", 15), ("truncated_faststart.mp4", 34)])
def test_truncated_files_give_what_is_there_and_say_so(real_data, name, found):
    clip = read_clips(real_data / "robustness" / name, lambda n: even_clips(n, 8, 1), (86, 64))
    assert f"promises 131 frames, {found} could be read" in clip.warning


def test_all_frames_of_real_files_are_the_decoders_own(real_data):
    """Whole-file reading against a plain PyAV loop, pixel for pixel, on files of many codecs."""
    for path in sorted((real_data / "robustness").glob("*.mp4")) + sorted((real_data / "ucf101-original").glob("*")):
        try:
            frames = read_video(path, (86, 64)).frames[0]
        except VideoError:
            continue
        with av.open(str(path)) as container:
            count = 0
            try:
                for frame in container.decode(video=0):
                    if frame.rotation == 0:
                        expected = frame.reformat(width=86, height=64, format="rgb24").to_ndarray()
                        assert np.array_equal(frames[count], expected), (path.name, count)
                    count += 1
            except av.FFmpegError:
                pass
            damaged = path.name.startswith("truncated")  # the plain loop ends at the damage, frames in flight are lost
            assert count <= len(frames) if damaged else count == len(frames), path.name


def test_rotated_files_come_upright(real_data):
    """The three recordings show a keyboard; upright, its rows of keys run from side to side."""
    for name in ("decord__video_0.mov", "decord__video_90.mov", "decord__video_180.mov"):
        path = real_data / "robustness" / name
        with av.open(str(path)) as container:
            stored = next(container.decode(video=0))
            turns = round(stored.rotation / 90) % 4
            size = (stored.height, stored.width) if turns % 2 else (stored.width, stored.height)
            expected = np.rot90(stored.to_ndarray(format="rgb24"), turns)
        assert np.abs(read_video(path, size).frames[0, 0].astype(int) - expected).mean() < 2, name


def test_counting_does_not_trust_the_header(real_data):
    assert count_packets(real_data / "robustness" / "truncated.avi") == (15, 131)
    assert count_packets(real_data / "robustness" / "vp8.webm") == (50, 0)


# The cache


def test_cache_gives_the_same_frames_and_does_not_open_the_file_again(tmp_path, monkeypatch):
    video, folder = tmp_path / "a.mkv", tmp_path / "cache"
    write_lossless(video, moving_square(20))
    cache = FrameCache(folder, NATIVE, 2**30)
    first = cache.read_clips(video, every(3))
    assert len(list(folder.iterdir())) == 1
    monkeypatch.setattr(av, "open", lambda *a, **k: pytest.fail("decoded again"))
    assert np.array_equal(cache.read_clips(video, every(3)).frames, first.frames)


def test_changed_video_and_other_size_are_other_entries(tmp_path):
    video, folder = tmp_path / "a.mkv", tmp_path / "cache"
    write_lossless(video, moving_square(20))
    FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1))
    write_lossless(video, moving_square(9))
    assert FrameCache(folder, NATIVE, 2**30).read_clips(video, every(1)).video_frames == 9
    assert FrameCache(folder, (32, 32), 2**30).read_clips(video, every(1)).frames.shape[2:4] == (32, 32)
    assert len(list(folder.iterdir())) == 3


def test_cache_keeps_to_its_budget_and_mends_broken_entries(tmp_path):
    video, folder = tmp_path / "a.mkv", tmp_path / "cache"
    write_lossless(video, moving_square(20))
    assert FrameCache(folder, NATIVE, 1000).read_clips(video, every(1)).video_frames == 20
    assert list(folder.iterdir()) == []
    cache = FrameCache(folder, NATIVE, 2**30)
    cache.read_clips(video, every(1))
    entry = next(folder.iterdir())
    entry.write_bytes(entry.read_bytes()[:100])
    assert np.array_equal(cache.read_clips(video, every(1)).frames[0], moving_square(20))


def test_damaged_videos_are_not_cached_and_keep_their_warning(real_data, tmp_path):
    cache = FrameCache(tmp_path, (86, 64), 2**30)
    for _ in range(2):
        clip = cache.read_clips(real_data / "robustness" / "truncated.avi", every(1))
        assert "damaged" in clip.warning
    assert list(tmp_path.iterdir()) == []


def test_frame_rate_is_written_as_given(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(6), 12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(12)
