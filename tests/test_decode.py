"""Real files: frames against what was written, and every odd or hostile file gives frames or one line."""

import subprocess
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import moving_square, write_lossless
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.sampling import uniform_clips
from msfnet.data.video import decode
from msfnet.data.video.decode import count_frames, decoded_frames, open_video, read_clips, read_video, timeline
from msfnet.procedural.dataset import write_video
from msfnet.recipe import load_recipe
from msfnet.types import FrameFormat, VideoError

NATIVE = FrameFormat((64, 48))  # width, height of the videos made here
SMALL = FrameFormat((86, 64))


def every(step):
    return lambda n: np.arange(0, n, step)[None]


def test_frames_are_exactly_those_that_were_written(tmp_path):
    frames = moving_square(30)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(read_video(tmp_path / "a.mkv", NATIVE).frames[0], frames)
    clip = read_clips(tmp_path / "a.mkv", every(7), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::7])
    assert (clip.video_frames, clip.padded, clip.warning) == (30, False, None)


def test_views_may_overlap_and_repeat(tmp_path):
    frames = moving_square(5)
    write_lossless(tmp_path / "a.mkv", frames)
    indices = np.array([[0, 1, 4], [4, 4, 2]])
    clip = read_clips(tmp_path / "a.mkv", lambda n: indices, NATIVE)
    assert np.array_equal(clip.frames, frames[indices])


def test_short_video_is_named_as_such(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(3))
    clip = read_clips(tmp_path / "a.mkv", lambda n: uniform_clips(n, 8, 1), NATIVE)
    assert clip.padded
    assert np.array_equal(clip.frames[0, 2:], np.repeat(clip.frames[0, 2:3], 6, axis=0))


def test_b_frames_come_in_the_order_they_are_shown(tmp_path):
    frames = np.broadcast_to((np.arange(24) * 10).astype(np.uint8)[:, None, None, None], (24, 48, 64, 3))
    write_video(tmp_path / "a.mp4", frames, 10)
    brightness = read_video(tmp_path / "a.mp4", NATIVE).frames[0].mean((1, 2, 3))
    assert (np.diff(brightness) > 5).all()


def test_resize_is_to_width_and_height(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(4))
    assert read_video(tmp_path / "a.mkv", FrameFormat((171, 128))).frames.shape == (1, 4, 128, 171, 3)


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
        return uniform_clips(n, 4, 1)

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
    assert seen.keys() == EXPECTED_FAILURES.keys()
    for name, reason in EXPECTED_FAILURES.items():
        assert reason in seen[name]
        assert "\n" not in seen[name]


@pytest.mark.parametrize(("name", "found"), [("truncated.avi", 15), ("truncated_faststart.mp4", 33)])
def test_truncated_files_give_what_is_there_and_say_so(real_data, name, found):
    clip = read_clips(real_data / "robustness" / name, lambda n: uniform_clips(n, 8, 1), SMALL)
    assert f"promises 131 frames, {found} could be read" in clip.warning


def readable(real_data):
    """Every file of which frames can be had: 30 odd or damaged ones and the four originals."""
    folders = (real_data / "robustness", real_data / "ucf101-original")
    files = sorted(path for folder in folders for path in folder.iterdir())
    return [path for path in files if path.name not in EXPECTED_FAILURES]


def native_planes(frame):
    """A decoded frame as it lies in memory, less the padding at the end of each line."""
    for number, plane in enumerate(frame.planes):
        components = [c for c in frame.format.components if c.plane == number]
        line_bytes = plane.width * len(components) * ((components[0].bits + 7) // 8)
        yield np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, :line_bytes].ravel()


def test_every_frame_is_that_of_ffmpegs_own_program(real_data, ffmpeg):
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


def test_chosen_frames_are_those_of_the_whole_video(real_data):
    """What is left undecoded on the way makes no difference to any frame, in any codec, damaged or whole."""
    rng = np.random.default_rng(0)
    for path in readable(real_data):
        video = read_video(path, SMALL)
        for n_wanted in (1, 2, 5):
            indices = np.sort(rng.integers(0, video.video_frames, (2, n_wanted)))
            clip = read_clips(path, lambda n, indices=indices: np.minimum(indices, n - 1), SMALL)
            assert clip.video_frames == video.video_frames, path.name
            assert clip.warning == video.warning, path.name
            assert np.array_equal(clip.frames, video.frames[0][indices]), path.name


def test_conversion_is_that_of_ffmpegs_scaler(real_data):
    """Whole-file reading against plain PyAV with its slower exact conversion; chroma may be rounded otherwise."""
    for path in (real_data / "robustness").glob("*.mp4"):
        if path.name in EXPECTED_FAILURES or path.name == "vfr.mp4":
            continue
        with open_video(path) as (container, stream):
            plain = next(decoded_frames(container, stream, [])).reformat(85, 64, "rgb24").to_ndarray()
        assert np.abs(read_video(path, FrameFormat((85, 64))).frames[0, 0].astype(int) - plain).max() <= 2, path.name


def test_rotated_files_come_upright(real_data):
    """The three recordings show a keyboard; upright, its rows of keys run from side to side."""
    for name in ("decord__video_0.mov", "decord__video_90.mov", "decord__video_180.mov"):
        path = real_data / "robustness" / name
        with av.open(str(path)) as container:
            stored = next(container.decode(video=0))
            turns = round(stored.rotation / 90) % 4
            size = (stored.height, stored.width) if turns % 2 else (stored.width, stored.height)
            expected = np.rot90(stored.to_ndarray(format="rgb24"), turns)
        assert np.abs(read_video(path, FrameFormat(size)).frames[0, 0].astype(int) - expected).mean() < 2, name


def test_counting_does_not_trust_the_header(real_data):
    assert count_frames(real_data / "robustness" / "truncated.avi") == 15
    assert count_frames(real_data / "robustness" / "vp8.webm") == 50


# Time


@pytest.mark.parametrize(
    ("times", "shown"),
    [
        ([], []),
        ([5], [0]),
        ([0, 40, 80, 120], [0, 1, 2, 3]),
        ([3600, 7200, 10800], [0, 1, 2]),  # does not begin at zero
        ([0, 33, 67, 100, 133], [0, 1, 2, 3, 4]),  # rounded to milliseconds
        ([0, 10, 20, 30, 90], [1, 3, 3, 3, 4]),  # the fourth frame stays on screen for long
        ([0, 60, 70, 80, 90], [0, 0, 0, 2, 4]),
        ([0, 40, 120, 160], [0, 1, 2, 3]),  # one frame lost
    ],
)
def test_timeline(times, shown):
    assert timeline(times).tolist() == shown


@given(st.integers(1, 60), st.integers(1, 1000), st.data())
def test_timeline_of_a_nearly_constant_rate_is_every_frame_once(n, step, data):
    jitter = data.draw(st.lists(st.integers(-(step // 5), step // 5), min_size=n, max_size=n))
    assert timeline([i * step + j for i, j in enumerate(jitter)]).tolist() == list(range(n))


TIMES = st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True).map(sorted)


@given(TIMES)
def test_timeline_begins_and_ends_with_the_video(times):
    shown = timeline(times)
    assert len(shown) == len(times)
    assert (np.diff(shown) >= 0).all()
    assert shown[0] >= 0
    assert shown[-1] == len(times) - 1


OF_25 = list(range(0, 520, 40))  # 13 frames, in milliseconds


@pytest.mark.parametrize(
    ("times_ms", "fps", "shown"),
    [
        ([], 25, []),
        ([5], 25, [0]),
        (OF_25, 25, list(range(13))),
        (OF_25, 25 / 3, [1, 4, 7, 10]),
        (OF_25, 8.33, [1, 4, 7, 10]),
        ([*OF_25, 520], 8.33, [1, 4, 7, 10, 13]),
        ([7000 + time for time in OF_25], 8.33, [1, 4, 7, 10]),  # does not begin at zero
        ([0, 17, 33, 50, 67, 83, 100, 117], 30, [1, 3, 5, 7]),  # of 60 a second, rounded to milliseconds
        ([0, 33, 67, 100, 133, 167, 200, 233], 20, [0, 2, 3, 5, 6]),  # of 30
        ([0, 100, 200], 25, [0, 0, 1, 1, 1, 2, 2, 2]),  # a slower file
        ([0, 1000], 5, [0] * 5 + [1] * 5),
        ([*range(0, 1000, 100), 10_000], 1, [6] + 9 * [9] + [10]),  # the last but one stays on screen for nine seconds
        ([*range(0, 1000, 100), 10_000], 10, [*range(10)] + 90 * [9] + 10 * [10]),
        ([0, 60, 70, 80, 90], 50, [0, 0, 0, 2, 4, 4]),
        ([0, 40], 0.5, [1]),  # shorter than a step
    ],
)
def test_timeline_at_a_rate(times_ms, fps, shown):
    assert timeline(times_ms, fps, 0.001).tolist() == shown


@given(TIMES, st.floats(0.01, 1000))
def test_timeline_at_a_rate_is_as_long_as_the_video(times, fps):
    seconds = (times[-1] - times[0]) * len(times) / max(1, len(times) - 1) / 1000
    try:
        shown = timeline(times, fps, 0.001)
    except VideoError:
        assert seconds * fps > decode.MOST_REPEATS * len(times)
        return
    assert len(shown) == 1 or abs(len(shown) - seconds * fps) <= 0.5 + 1e-6
    assert len(shown) >= 1
    assert (np.diff(shown) >= 0).all()
    assert 0 <= shown[0] <= shown[-1] < len(times)


@given(st.integers(1, 100), st.integers(1, 5), st.integers(25, 1000), st.data())
def test_every_so_manieth_frame_of_a_nearly_constant_rate(n, every_nth, step_ms, data):
    """Times are off by up to a twentyfifth of the frame rate; the frames that are taken lie evenly all the same."""
    off = st.integers(-(step_ms // 25), step_ms // 25)
    middle = [i * step_ms + data.draw(off) for i in range(1, n - 1)]
    times = [0, *middle, (n - 1) * step_ms] if n > 1 else [0]
    shown = timeline(times, 1000 / step_ms / every_nth, 0.001).tolist()
    assert shown == [min(i * every_nth + every_nth // 2, n - 1) for i in range(len(shown))]
    assert len(shown) == 1 or abs(len(shown) - n / every_nth) <= 0.5 + 1e-6


def test_frames_too_far_apart_for_a_video_are_no_endless_one():
    with pytest.raises(VideoError, match=r"lie 3600 seconds apart, too far to read 8\.33 of them a second"):
        timeline([0, 3_600_000], 8.33, 0.001)
    assert timeline([0, 3_600_000]).tolist() == [0, 1]


def test_files_without_a_unit_of_time_are_as_they_are():
    assert timeline([0, 60, 70, 80, 90], 50, 0.0).tolist() == timeline([0, 60, 70, 80, 90]).tolist()


def write_at(path, frames, times_ms, codec="ffv1"):
    """A lossless video whose frames are shown at the given times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=1000)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time_ms in zip(frames, times_ms, strict=True):
            made = av.VideoFrame.from_ndarray(frame, format="rgb24")
            made.pts, made.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(made))
        container.mux(stream.encode())


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
    """Ten frames in the first second, then one that stays for nine: nine tenths of the clip must show that one."""
    frames = moving_square(11)
    write_at(tmp_path / "a.mkv", frames, [*range(0, 1000, 100), 10_000])
    clip = read_clips(tmp_path / "a.mkv", lambda n: np.arange(n)[None], NATIVE)
    assert np.array_equal(clip.frames[0], frames[[5] + 9 * [9] + [10]])
    assert np.array_equal(read_video(tmp_path / "a.mkv", NATIVE).frames, clip.frames)


def test_a_video_is_read_at_another_rate(tmp_path):
    """Ten frames a second, one of which stays for three tenths: all of it, chosen clips, and counted undecoded."""
    frames = moving_square(9)
    write_at(tmp_path / "a.mkv", frames, [0, 100, 200, 300, 600, 700, 800, 900, 1000])
    for fps, shown in ((5.0, [1, 3, 3, 5, 7, 8]), (10.0, [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8])):
        own = replace(NATIVE, fps=fps)
        assert np.array_equal(read_video(tmp_path / "a.mkv", own).frames[0], frames[shown])
        clip = read_clips(tmp_path / "a.mkv", every(2), own)
        assert np.array_equal(clip.frames[0], frames[shown[::2]])
        assert clip.video_frames == count_frames(tmp_path / "a.mkv", fps) == len(shown)
    assert read_clips(tmp_path / "a.mkv", lambda n: uniform_clips(n, 7, 1), replace(NATIVE, fps=5.0)).padded


def test_files_that_tell_no_times_go_by_their_headers_rate(real_data):
    """An AVI with frames that refer to later ones: no packet says when its frame is shown. 164 frames, 25 a second."""
    path = real_data / "robustness" / "mmaction2__test.avi"
    whole, thirds = read_video(path, SMALL), read_video(path, replace(SMALL, fps=25 / 3))
    assert (whole.video_frames, thirds.video_frames) == (164, 55)
    assert np.array_equal(thirds.frames[0], whole.frames[0][1::3])
    assert count_frames(path, 25 / 3) == 55


@pytest.mark.parametrize(("name", "frames"), [("Archery", 44), ("BasketballDunk", 20), ("Punch", 40), ("Surfing", 85)])
def test_originals_at_a_third_of_their_rate_are_their_transcodes(real_data, name, frames):
    """Published files of 25 frames a second against copies of 8.33: the same moments, every time, and no others."""
    copy = read_video(real_data / "ucf101-18" / name / f"v_{name}_g01_c01.mp4", SMALL).frames[0].astype(float)
    path = real_data / "ucf101-original" / f"v_{name}_g01_c01.avi"
    every_frame = read_video(path, SMALL).frames[0].astype(float)
    for fps in (25 / 3, 8.33):
        read = read_video(path, replace(SMALL, fps=fps)).frames[0]
        assert len(read) == len(copy) == frames
        assert np.array_equal(read, every_frame[1::3])
        own = np.abs(read - copy).mean((1, 2, 3))  # levels of 255 that copying cost
        assert own.max() < 15
        assert own.mean() < 8.5
        for shift in (0, 2):
            others = every_frame[shift::3][:frames]
            assert np.abs(others - copy[: len(others)]).mean() > 1.2 * own.mean()


def test_a_file_of_the_rate_that_is_asked_for_is_read_as_it_is(real_data):
    """The videos that recipe `best` was measured on: one of each class."""
    fps = load_recipe("best").clip.fps
    paths = sorted(next(folder.glob("*.mp4")) for folder in (real_data / "ucf101-18").iterdir() if folder.is_dir())
    assert len(paths) == 18
    for path in paths:
        assert np.array_equal(read_video(path, replace(SMALL, fps=fps)).frames, read_video(path, SMALL).frames)


def test_video_that_begins_late_is_read_from_its_beginning(tmp_path):
    frames = moving_square(9)
    write_at(tmp_path / "a.mkv", frames, range(7000, 7900, 100))
    assert np.array_equal(read_clips(tmp_path / "a.mkv", every(2), NATIVE).frames[0], frames[::2])


# Only what is needed


def write_h264(path, frames, **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=25, options={"qp": "0", **options})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    "options",
    [
        {"g": "12", "bf": "3"},
        {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-pyramid=normal"},
        {"g": "250", "x264-params": "intra-refresh=1:keyint=10"},
        {"g": "1"},
    ],
)
@pytest.mark.parametrize("kept_bytes", [0, 2**28])
def test_beginning_in_the_middle_gives_the_same_frames(tmp_path, monkeypatch, options, kept_bytes):
    """Lossless H.264 with closed and open groups of pictures, without any, and with packets read twice."""
    monkeypatch.setattr(decode, "KEPT_BYTES", kept_bytes)
    frames = moving_square(60)
    write_h264(tmp_path / "a.mp4", frames, **options)
    assert np.array_equal(read_video(tmp_path / "a.mp4", NATIVE).frames[0], frames)
    for indices in ([59], [0], [11, 12, 13], [5, 30, 31, 58], [23, 24, 47], list(range(0, 60, 7))):
        clip = read_clips(tmp_path / "a.mp4", lambda n, indices=indices: np.array([indices]), NATIVE)
        assert np.array_equal(clip.frames[0], frames[indices])


def test_frames_that_are_not_needed_are_not_decoded(tmp_path, monkeypatch):
    write_h264(tmp_path / "a.mp4", moving_square(240), g="12", bf="3")
    decoded = []
    decode_packet = decode._decode

    def counting(stream, packet, problems):
        frames = decode_packet(stream, packet, problems)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(decode, "_decode", counting)
    read_clips(tmp_path / "a.mp4", lambda n: np.array([[20, 230]]), NATIVE)
    assert len(decoded) < 24


# Folders of images


def write_image(path, frame, codec="png", pixel_format="rgb24"):
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream(codec, rate=1)
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = pixel_format
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def test_folder_of_images_is_a_video(tmp_path):
    frames = moving_square(12)
    for i, frame in enumerate(frames):
        write_image(tmp_path / f"img_{i + 1}.png", frame)
    assert np.array_equal(read_video(tmp_path, NATIVE).frames[0], frames)
    clip = read_clips(tmp_path, every(3), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::3])
    assert count_frames(tmp_path) == 12
    assert np.array_equal(read_video(tmp_path, replace(NATIVE, fps=5.0)).frames[0], frames)  # has no rate of its own
    assert count_frames(tmp_path, 5.0) == 12


def test_broken_image_of_a_folder_is_named(tmp_path):
    write_image(tmp_path / "1.png", moving_square(1)[0])
    (tmp_path / "2.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match=r"2\.png: .*"):
        read_video(tmp_path, NATIVE)
    (tmp_path / "1.png").unlink()
    (tmp_path / "2.png").unlink()
    with pytest.raises(VideoError, match="no images"):
        read_video(tmp_path, NATIVE)


def test_frame_rate_is_written_as_given(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(6), 12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(12)
