"""Clips of arrays are those of a file with the same frames."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import moving_square, write_lossless
from videos import NATIVE, SMALL, every

from msfnet.data.video.arrays import check_frames, read_array
from msfnet.data.video.decode import read_clips
from msfnet.types import UserError


@pytest.mark.parametrize("fps", [0.0, 4.0, 25.0])
def test_clips_are_those_of_a_lossless_file(tmp_path, fps):
    frames = moving_square(12)
    write_lossless(tmp_path / "a.mkv", frames, fps=10)
    for frame_format in (replace(NATIVE, fps=fps), replace(SMALL, fps=fps)):
        array = read_array(frames, 10.0, every(2), frame_format)
        file = read_clips(tmp_path / "a.mkv", every(2), frame_format)
        assert np.array_equal(array.frames, file.frames)
        assert (array.video_frames, array.padded) == (file.video_frames, file.padded)
        assert array.times == pytest.approx(file.times, abs=1e-6)


def test_array_without_a_frame_rate_has_no_times():
    frames = moving_square(5)
    clip = read_array(frames, None, every(2), NATIVE)
    assert np.array_equal(clip.frames[0], frames[::2])
    assert clip.times is None


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        (np.zeros((4, 8, 8, 3)), None, "expected frames uint8 T H W 3, found float64"),
        (np.zeros((4, 8, 8), np.uint8), None, r"of shape \(4, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), None, r"of shape \(0, 8, 8, 3\)"),
        (np.zeros((4, 8, 8, 3), np.uint8), -1.0, "expected fps above 0, found -1"),
        (np.zeros((4, 8, 8, 3), np.uint8), None, "trained at 5 fps; pass it"),
    ],
)
def test_wrong_arrays(frames, fps, message):
    with pytest.raises(UserError, match=message):
        check_frames(frames, fps, replace(NATIVE, fps=5.0))
