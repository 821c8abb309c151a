"""Partial decoding gives the frames of the whole video, and decodes little more than these."""

import numpy as np
import pytest
from conftest import moving_square
from videos import NATIVE, SMALL, readable, write_h264

from msfnet.data.video import packet_index
from msfnet.data.video.decode import read_clips, read_video
from msfnet.data.video.packet_index import PacketIndex
from msfnet.data.video.timestamps import StreamTiming


def test_chosen_frames_are_those_of_the_whole_video(real_data):
    """In any codec, damaged or not, what is not decoded on the way changes no frame."""
    rng = np.random.default_rng(0)
    for path in readable(real_data):
        video = read_video(path, SMALL)
        for n_chosen in (1, 2, 5):
            indices = np.sort(rng.integers(0, video.video_frames, (2, n_chosen)))
            clip = read_clips(path, lambda n, indices=indices: np.minimum(indices, n - 1), SMALL)
            assert clip.video_frames == video.video_frames, path.name
            assert clip.warning == video.warning, path.name
            assert np.array_equal(clip.frames, video.frames[0][indices]), path.name
            if video.times is not None:
                assert np.array_equal(clip.times, video.times[0][indices]), path.name


@pytest.mark.parametrize(
    "options",
    [
        {"g": "12", "bf": "3"},
        {"g": "12", "bf": "3", "x264-params": "open-gop=1:b-pyramid=normal"},
        {"g": "250", "x264-params": "intra-refresh=1:keyint=10"},
        {"g": "1"},
    ],
    ids=["closed GOP", "open GOP", "intra refresh", "keyframes only"],
)
@pytest.mark.parametrize("max_packet_bytes", [0, 2**28], ids=["packets read again", "packets kept"])
def test_decoding_from_a_keyframe_gives_the_same_frames(tmp_path, monkeypatch, options, max_packet_bytes):
    monkeypatch.setattr(packet_index, "MAX_PACKET_BYTES", max_packet_bytes)
    frames = moving_square(60)
    write_h264(tmp_path / "a.mp4", frames, **options)
    assert np.array_equal(read_video(tmp_path / "a.mp4", NATIVE).frames[0], frames)
    for indices in ([59], [0], [11, 12, 13], [5, 30, 31, 58], [23, 24, 47], list(range(0, 60, 7))):
        clip = read_clips(tmp_path / "a.mp4", lambda n, indices=indices: np.array([indices]), NATIVE)
        assert np.array_equal(clip.frames[0], frames[indices])


def test_frames_that_are_not_needed_are_not_decoded(tmp_path, monkeypatch):
    write_h264(tmp_path / "a.mp4", moving_square(240), g="12", bf="3")
    decoded = []
    decode_packet = packet_index.decode_packet

    def counting(stream, packet, errors):
        frames = decode_packet(stream, packet, errors)
        decoded.extend(frames)
        return frames

    monkeypatch.setattr(packet_index, "decode_packet", counting)
    read_clips(tmp_path / "a.mp4", lambda n: np.array([[20, 230]]), NATIVE)
    assert 2 <= len(decoded) < 24


@pytest.mark.parametrize(
    ("chosen", "ranges"),
    [
        ({0}, [(0, 0)]),
        ({3}, [(0, 1)]),  # packet 1 holds the frame that is displayed fourth
        ({5}, [(0, 6)]),  # displayed before the keyframe that precedes it in the file: an open GOP
        ({8}, [(4, 7)]),
        ({1, 2}, [(0, 3)]),
        ({0, 8}, [(0, 0), (4, 7)]),
        ({5, 8}, [(0, 7)]),
    ],
)
def test_decode_ranges(chosen, ranges):
    """Packets in decode order, by the positions at which their frames are displayed; 0 and 6 are keyframes."""
    packet_pts = [0, 3, 1, 2, 6, 4, 5, 8]
    index = PacketIndex(0, StreamTiming(1.0, 1.0), packet_pts, keyframes=[pts in (0, 6) for pts in packet_pts])
    assert index.decode_ranges(chosen) == ranges
