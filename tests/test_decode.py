"""Real files: frames against what was written, and every odd or hostile file gives frames or one line."""

import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import moving_square, write_lossless
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.sampling import even_clips
from msfnet.data.video import decode
from msfnet.data.video.decode import count_frames, decoded_frames, open_video, read_clips, read_video, timeline
from msfnet.data.video.encode import write_video
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


@pytest.mark.parametrize(("name", "found"), [("truncated.avi", 15), ("truncated_faststart.mp4", 33)])
def test_truncated_files_give_what_is_there_and_say_so(real_data, name, found):
    clip = read_clips(real_data / "robustness" / name, lambda n: even_clips(n, 8, 1), (86, 64))
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
        video = read_video(path, (86, 64))
        for n_wanted in (1, 2, 5):
            indices = np.sort(rng.integers(0, video.video_frames, (2, n_wanted)))
            clip = read_clips(path, lambda n, indices=indices: np.minimum(indices, n - 1), (86, 64))
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
        assert np.abs(read_video(path, (85, 64)).frames[0, 0].astype(int) - plain).max() <= 2, path.name


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


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50, unique=True).map(sorted))
def test_timeline_begins_and_ends_with_the_video(times):
    shown = timeline(times)
    assert len(shown) == len(times)
    assert (np.diff(shown) >= 0).all()
    assert shown[0] >= 0
    assert shown[-1] == len(times) - 1


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
