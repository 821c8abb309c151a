"""Clips of real files and of videos that are written here, compared with the frames that were written."""

from dataclasses import replace

import av
import numpy as np
import pytest
from conftest import moving_square, write_lossless
from videos import NATIVE, SMALL, UNREADABLE, every, readable, write_h264, write_image, write_with_times

from msfnet.data.sampling import uniform_clips
from msfnet.data.video.container import decoded_frames, open_video
from msfnet.data.video.decode import count_frames, frame_size, read_clips, read_video, select_frames
from msfnet.procedural.dataset import write_video
from msfnet.recipe import load_recipe
from msfnet.types import FrameFormat, VideoError


def test_lossless_frames_are_those_that_were_written(tmp_path):
    frames = moving_square(30)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(read_video(tmp_path / "a.mkv", NATIVE).frames[0], frames)
    clip = read_clips(tmp_path / "a.mkv", every(7), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::7])
    assert (clip.video_frames, clip.padded, clip.warning) == (30, False, None)


def test_clips_may_overlap_and_repeat_frames(tmp_path):
    frames = moving_square(5)
    write_lossless(tmp_path / "a.mkv", frames)
    indices = np.array([[0, 1, 4], [4, 4, 2]])
    clip = read_clips(tmp_path / "a.mkv", lambda n: indices, NATIVE)
    assert np.array_equal(clip.frames, frames[indices])


def test_short_video_is_padded_with_its_last_frame(tmp_path):
    frames = moving_square(3)
    write_lossless(tmp_path / "a.mkv", frames)
    clip = read_clips(tmp_path / "a.mkv", lambda n: uniform_clips(n, 8, 1), NATIVE)
    assert clip.padded
    assert np.array_equal(clip.frames[0], frames[[0, 1, 2, 2, 2, 2, 2, 2]])


def test_b_frames_come_in_presentation_order(tmp_path):
    frames = np.broadcast_to((np.arange(24) * 10).astype(np.uint8)[:, None, None, None], (24, 48, 64, 3))
    write_video(tmp_path / "a.mp4", frames, 10)
    brightness = read_video(tmp_path / "a.mp4", NATIVE).frames[0].mean((1, 2, 3))
    assert (np.diff(brightness) > 5).all()


def test_resize_is_width_then_height(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(4))
    assert read_video(tmp_path / "a.mkv", FrameFormat((171, 128))).frames.shape == (1, 4, 128, 171, 3)


def test_sampler_is_called_again_if_fewer_frames_can_be_decoded(tmp_path):
    """A file truncated within a frame: the clip spreads over the frames that are left."""
    write_video(tmp_path / "a.mkv", moving_square(40), 10, codec="mpeg4")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "b.mkv").write_bytes(data[: int(len(data) * 0.6)])
    n_left = read_video(tmp_path / "b.mkv", NATIVE).video_frames
    assert 5 < n_left < 40
    asked = []

    def sampler(n):
        asked.append(n)
        return uniform_clips(n, 4, 1)

    clip = read_clips(tmp_path / "b.mkv", sampler, NATIVE)
    assert abs(clip.video_frames - n_left) <= 1
    assert asked[-1] == clip.video_frames


# Real and hostile files


@pytest.mark.parametrize("fps", [0.0, 8.33, 100.0])
def test_every_hostile_file_gives_frames_or_a_reason(real_data, fps):
    seen = {}
    for path in sorted((real_data / "robustness").iterdir()):
        try:
            clip = read_clips(path, lambda n: uniform_clips(n, 8, 2), replace(SMALL, fps=fps))
        except VideoError as error:
            seen[path.name] = str(error)
        else:
            assert clip.frames.shape == (2, 8, 64, 86, 3), path.name
            assert clip.padded == (clip.video_frames < 8), path.name
            assert clip.times is None or clip.times.shape == (2, 8), path.name
    assert seen.keys() == UNREADABLE.keys()
    for name, reason in UNREADABLE.items():
        assert reason in seen[name]
        assert "\n" not in seen[name]


@pytest.mark.parametrize(("name", "found"), [("truncated.avi", 15), ("truncated_faststart.mp4", 33)])
def test_truncated_file_gives_what_is_left_with_a_warning(real_data, name, found):
    clip = read_clips(real_data / "robustness" / name, lambda n: uniform_clips(n, 8, 1), SMALL)
    assert f"states 131 frames, {found} could be read" in clip.warning


def test_counting_does_not_trust_the_header(real_data):
    assert count_frames(real_data / "robustness" / "truncated.avi") == 15
    assert count_frames(real_data / "robustness" / "vp8.webm") == 50


def test_frame_size_is_that_of_the_rotated_frame(real_data, tmp_path):
    for name in ("decord__video_0.mov", "decord__video_90.mov", "decord__video_180.mov"):
        path = real_data / "robustness" / name
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        size = (frame.height, frame.width) if "90" in name else (frame.width, frame.height)
        assert frame_size(path) == size
    write_image(tmp_path / "1.png", moving_square(1)[0])
    assert frame_size(tmp_path) == (64, 48)
    (tmp_path / "1.png").unlink()
    with pytest.raises(VideoError, match="no images"):
        frame_size(tmp_path)


# Time


VARIABLE_MS = [*range(0, 1000, 100), 10_000]  # ten frames in the first second, the last of them displayed for nine


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
    """Nine tenths of the clip show the frame that is displayed for nine tenths of the time."""
    frames = moving_square(11)
    write_with_times(tmp_path / "a.mkv", frames, VARIABLE_MS)
    clip = read_clips(tmp_path / "a.mkv", every(1), NATIVE)
    assert np.array_equal(clip.frames[0], frames[[5] + 9 * [9] + [10]])
    assert np.array_equal(read_video(tmp_path / "a.mkv", NATIVE).frames, clip.frames)


SLOWED_MS = [0, 100, 200, 300, 600, 700, 800, 900, 1000]  # 10 fps, with one frame displayed for three tenths


@pytest.mark.parametrize(("fps", "resampled"), [(5.0, [1, 3, 3, 5, 7, 8]), (10.0, [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8])])
def test_video_is_resampled_to_another_frame_rate(tmp_path, fps, resampled):
    """All of it, chosen frames, and the number of frames without decoding."""
    frames = moving_square(9)
    write_with_times(tmp_path / "a.mkv", frames, SLOWED_MS)
    frame_format = replace(NATIVE, fps=fps)
    assert np.array_equal(read_video(tmp_path / "a.mkv", frame_format).frames[0], frames[resampled])
    clip = read_clips(tmp_path / "a.mkv", every(2), frame_format)
    assert np.array_equal(clip.frames[0], frames[resampled[::2]])
    assert clip.video_frames == count_frames(tmp_path / "a.mkv", fps) == len(resampled)
    longer = len(resampled) + 1
    assert read_clips(tmp_path / "a.mkv", lambda n: uniform_clips(n, longer, 1), frame_format).padded


@pytest.mark.parametrize(
    ("times_ms", "fps", "expected"),
    [
        (range(0, 900, 100), 0.0, [0.0, 0.2, 0.4, 0.6, 0.8]),
        (range(7000, 7900, 100), 0.0, [0.0, 0.2, 0.4, 0.6, 0.8]),  # counted from the first frame
        ([0, 33, 67, 100, 133, 167, 200, 233, 267], 0.0, [0.0, 0.067, 0.133, 0.2, 0.267]),
        (SLOWED_MS, 0.0, [0.0, 0.3, 0.3, 0.8, 1.0]),
        (SLOWED_MS, 5.0, [0.1, 0.3, 0.9]),  # times of the frames that are displayed, not of the steps
        (SLOWED_MS, 10.0, [0.0, 0.2, 0.3, 0.6, 0.8, 1.0]),
    ],
)
def test_times_are_those_at_which_frames_are_displayed(tmp_path, times_ms, fps, expected):
    write_with_times(tmp_path / "a.mkv", moving_square(9), list(times_ms))
    frame_format = replace(NATIVE, fps=fps)
    clip = read_clips(tmp_path / "a.mkv", every(2), frame_format)
    assert clip.times.shape == clip.frames.shape[:2]
    assert clip.times[0] == pytest.approx(expected, abs=1e-9)
    assert read_video(tmp_path / "a.mkv", frame_format).times[0, ::2] == pytest.approx(expected, abs=1e-9)


def test_times_of_b_frames_several_clips_and_padding(tmp_path):
    write_h264(tmp_path / "a.mp4", moving_square(30), g="12", bf="3")  # 25 fps
    indices = np.array([[0, 11, 29], [29, 29, 29]])
    assert read_clips(tmp_path / "a.mp4", lambda n: indices, NATIVE).times == pytest.approx(indices / 25)


def test_times_without_timestamps_come_from_the_frame_rate(real_data):
    """An AVI with B-frames: its packets have no presentation timestamps. It has 164 frames at 25 fps."""
    path = real_data / "robustness" / "mmaction2__test.avi"
    assert select_frames(path, every(1), 0.0) is None
    video, thirds = read_video(path, SMALL), read_video(path, replace(SMALL, fps=25 / 3))
    assert (video.video_frames, thirds.video_frames) == (164, 55)
    assert np.array_equal(thirds.frames[0], video.frames[0][1::3])
    assert video.times[0] == pytest.approx(np.arange(164) / 25)
    assert thirds.times[0] == pytest.approx(np.arange(1, 164, 3) / 25)
    assert count_frames(path, 25 / 3) == 55


def test_times_of_real_files_are_those_of_their_frames(real_data):
    """Every time that is given is that of a decoded frame; at a constant frame rate, they are the times of all."""
    unordered = []
    for path in readable(real_data):
        with open_video(path) as (container, stream):
            pts = [frame.pts for frame in decoded_frames(container, stream, [])]
            expected = np.array([float((p - pts[0]) * stream.time_base) for p in pts if p is not None])
        if len(expected) < len(pts) or (np.diff(expected) <= 0).any():
            unordered.append(path.name)
            continue
        (times,) = read_video(path, SMALL).times
        nearest = np.abs(times[:, None] - expected).argmin(1)
        assert times == pytest.approx(expected[nearest], abs=1e-6), path.name
        assert path.name == "vfr.mp4" or nearest.tolist() == list(range(len(expected))), path.name
    assert unordered == ["mmaction2__test.avi"]


@pytest.mark.parametrize(("name", "frames"), [("Archery", 44), ("BasketballDunk", 20), ("Punch", 40), ("Surfing", 85)])
def test_originals_at_a_third_of_their_fps_are_their_copies(real_data, name, frames):
    """Published files of 25 fps against transcoded copies of 8.33 fps: the same frames, and not their neighbors."""
    copy = read_video(real_data / "ucf101-18" / name / f"v_{name}_g01_c01.mp4", SMALL).frames[0].astype(float)
    path = real_data / "ucf101-original" / f"v_{name}_g01_c01.avi"
    original = read_video(path, SMALL).frames[0].astype(float)
    for fps in (25 / 3, 8.33):
        resampled = read_video(path, replace(SMALL, fps=fps)).frames[0]
        assert len(resampled) == len(copy) == frames
        assert np.array_equal(resampled, original[1::3])
        difference = np.abs(resampled - copy).mean((1, 2, 3))  # levels of 255 that transcoding changed
        assert difference.max() < 15
        assert difference.mean() < 8.5
        for shift in (0, 2):
            neighbors = original[shift::3][:frames]
            assert np.abs(neighbors - copy[: len(neighbors)]).mean() > 1.2 * difference.mean()


def test_file_of_the_requested_frame_rate_is_unchanged(real_data):
    """The videos that recipe `best` was measured on: one of each class."""
    fps = load_recipe("best").clip.fps
    paths = sorted(next(folder.glob("*.mp4")) for folder in (real_data / "ucf101-18").iterdir() if folder.is_dir())
    assert len(paths) == 18
    for path in paths:
        assert np.array_equal(read_video(path, replace(SMALL, fps=fps)).frames, read_video(path, SMALL).frames)


def test_video_with_a_late_start_is_read_from_its_first_frame(tmp_path):
    frames = moving_square(9)
    write_with_times(tmp_path / "a.mkv", frames, range(7000, 7900, 100))
    assert np.array_equal(read_clips(tmp_path / "a.mkv", every(2), NATIVE).frames[0], frames[::2])


# Frame folders


def test_frame_folder_is_a_video_without_times(tmp_path):
    frames = moving_square(12)
    for i, frame in enumerate(frames):
        write_image(tmp_path / f"img_{i + 1}.png", frame)
    assert np.array_equal(read_video(tmp_path, NATIVE).frames[0], frames)
    clip = read_clips(tmp_path, every(3), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::3])
    assert clip.times is None
    assert count_frames(tmp_path) == 12
    assert np.array_equal(read_video(tmp_path, replace(NATIVE, fps=5.0)).frames[0], frames)  # has no frame rate
    assert count_frames(tmp_path, 5.0) == 12


def test_unreadable_image_of_a_frame_folder_is_named(tmp_path):
    write_image(tmp_path / "1.png", moving_square(1)[0])
    (tmp_path / "2.png").write_bytes(b"not an image")
    with pytest.raises(VideoError, match=r"2\.png: .*"):
        read_video(tmp_path, NATIVE)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()
    with pytest.raises(VideoError, match="no images"):
        read_video(tmp_path, NATIVE)
