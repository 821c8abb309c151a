"""torchcodec and PyAV give the same frames of every file, and what torchcodec lacks is said in one line."""

import os

import numpy as np
import pytest
import torch
from conftest import moving_square, write_lossless
from videos import NATIVE, every, readable, write_with_times

from msfnet.data.video import decoders
from msfnet.data.video.decode import read_clips
from msfnet.data.video.decoders import DECODERS, DirectReader, require_torchcodec
from msfnet.data.video_files import open_reader
from msfnet.recipe import Data, Recipe
from msfnet.types import FrameFormat, UserError, VideoError

LARGE = FrameFormat((171, 128))


@pytest.fixture(scope="module")
def torchcodec():
    """Skips if torchcodec or the FFmpeg libraries that it needs are not installed, but never on CI."""
    try:
        require_torchcodec(cuda=False, num_workers=0)
    except UserError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    return DECODERS["torchcodec"]


def test_lossless_frames_are_identical(torchcodec, tmp_path):
    frames = moving_square(30)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(torchcodec.read_clips(tmp_path / "a.mkv", every(7), NATIVE).frames[0], frames[::7])
    assert np.array_equal(torchcodec.read_video(tmp_path / "a.mkv", NATIVE).frames[0], frames)


def test_times_are_those_at_which_frames_are_displayed(torchcodec, tmp_path):
    write_with_times(tmp_path / "a.mkv", moving_square(4), [500, 600, 700, 1100])
    clip = torchcodec.read_clips(tmp_path / "a.mkv", every(1), FrameFormat((64, 48), 10.0))
    assert clip.times[0] == pytest.approx([0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.6, 0.6])


@pytest.mark.parametrize("fps", [0.0, 8.33])
def test_frames_of_every_readable_file_are_those_of_pyav(torchcodec, real_data, fps):
    """Rotated files and variable frame rates included; only scaling may round differently."""

    def sampler(n):
        return np.linspace(0, n - 1, 4).astype(np.int64).reshape(2, 2)

    by_pyav, frame_format = set(), FrameFormat((171, 128), fps)
    for path in readable(real_data):
        theirs, ours = torchcodec.read_clips(path, sampler, frame_format), read_clips(path, sampler, frame_format)
        assert theirs.frames.shape == ours.frames.shape, path.name
        assert theirs.video_frames == ours.video_frames, path.name
        assert np.array_equal(theirs.times, ours.times), path.name
        assert np.abs(theirs.frames.astype(int) - ours.frames).mean() < 5, path.name
        if theirs.warning != ours.warning:
            assert theirs.warning.startswith("read by PyAV, torchcodec could not: "), path.name
            by_pyav.add(path.name)
    assert by_pyav <= {"mpeg2.mpg"}


def test_unreadable_files_have_the_same_reasons(torchcodec, real_data):
    for name in ("empty.mp4", "random_bytes.avi", "audio_only.m4a"):
        reasons = []
        for decoder in DECODERS["pyav"], torchcodec:
            with pytest.raises(VideoError) as caught:
                decoder.read_clips(real_data / "robustness" / name, every(1), NATIVE)
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]


def test_recipe_chooses_the_decoder(torchcodec, tmp_path):
    preprocessing = Recipe().preprocessing()
    reader = open_reader(Data(decoder="torchcodec", cache="off"), preprocessing, [])
    assert reader == DirectReader(LARGE, "torchcodec")
    cached = open_reader(Data(decoder="torchcodec", cache=str(tmp_path)), preprocessing, [])
    assert cached.decoder == "torchcodec"


def test_missing_requirements_are_named(torchcodec, monkeypatch):
    preprocessing = Recipe().preprocessing()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU, found none"):
        open_reader(Data(decoder="torchcodec-cuda", num_workers=0), preprocessing, [])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"expected data\.num_workers=0, found 2"):
        open_reader(Data(decoder="torchcodec-cuda", num_workers=2), preprocessing, [])
    monkeypatch.setattr(decoders, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'msfnet\[torchcodec\]'"):
        open_reader(Data(decoder="torchcodec"), preprocessing, [])
