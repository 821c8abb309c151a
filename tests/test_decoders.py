"""torchcodec beside PyAV: the same frames of every file, and one line when it cannot be used."""

import os

import numpy as np
import pytest
import torch
from conftest import moving_square, write_lossless
from test_decode import NATIVE, every, readable

from msfnet.data.dataset import open_reader
from msfnet.data.video import decode_torchcodec
from msfnet.data.video.decode import read_clips
from msfnet.data.video.decoders import DECODERS, DirectReader
from msfnet.recipe import Data, Recipe
from msfnet.types import FrameFormat, UserError, VideoError

LARGE = FrameFormat((171, 128))


@pytest.fixture(scope="module")
def torchcodec():
    """Skips where torchcodec or the FFmpeg libraries that it needs are not there, but never on CI."""
    try:
        decode_torchcodec.require(cuda=False, workers=0)
    except UserError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    return DECODERS["torchcodec"]


def test_lossless_frames_are_the_same_to_the_last_bit(torchcodec, tmp_path):
    frames = moving_square(30)
    write_lossless(tmp_path / "a.mkv", frames)
    assert np.array_equal(torchcodec.read_clips(tmp_path / "a.mkv", every(7), NATIVE).frames[0], frames[::7])
    assert np.array_equal(torchcodec.read_video(tmp_path / "a.mkv", NATIVE).frames[0], frames)


@pytest.mark.parametrize("fps", [0.0, 8.33])
def test_frames_of_every_readable_file_are_pyavs(torchcodec, real_data, fps):
    """The same moments of every file, rotated and variable rates included; only scaling may round otherwise."""

    def plan(n):
        return np.linspace(0, n - 1, 4).astype(np.int64).reshape(2, 2)

    left, own = set(), FrameFormat((171, 128), fps)
    for path in readable(real_data):
        theirs, ours = torchcodec.read_clips(path, plan, own), read_clips(path, plan, own)
        assert theirs.frames.shape == ours.frames.shape, path.name
        assert theirs.video_frames == ours.video_frames, path.name
        assert np.abs(theirs.frames.astype(int) - ours.frames).mean() < 5, path.name
        if theirs.warning != ours.warning:
            assert theirs.warning.startswith("read by PyAV, torchcodec could not: "), path.name
            left.add(path.name)
    assert left <= {"mpeg2.mpg"}


def test_files_that_cannot_be_read_have_the_same_reasons(torchcodec, real_data):
    for name in ("empty.mp4", "random_bytes.avi", "audio_only.m4a"):
        reasons = []
        for decoder in DECODERS["pyav"], torchcodec:
            with pytest.raises(VideoError) as caught:
                decoder.read_clips(real_data / "robustness" / name, every(1), NATIVE)
            reasons.append(str(caught.value))
        assert reasons[0] == reasons[1]


def test_a_recipe_chooses_its_decoder(torchcodec, tmp_path):
    preprocessing = Recipe().preprocessing()
    reader = open_reader(Data(decoder="torchcodec", cache="off"), preprocessing, [], print)
    assert reader == DirectReader(LARGE, "torchcodec")
    cached = open_reader(Data(decoder="torchcodec", cache=str(tmp_path)), preprocessing, [], print)
    assert cached.decoder == "torchcodec"


def test_what_a_decoder_lacks_is_said_in_one_line(torchcodec, monkeypatch):
    preprocessing = Recipe().preprocessing()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="needs a GPU, found none"):
        open_reader(Data(decoder="torchcodec-cuda", workers=0), preprocessing, [], print)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match=r"expected data\.workers=0, found 2"):
        open_reader(Data(decoder="torchcodec-cuda", workers=2), preprocessing, [], print)
    monkeypatch.setattr(decode_torchcodec, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'msfnet\[torchcodec\]'"):
        open_reader(Data(decoder="torchcodec"), preprocessing, [], print)
