"""Thumbnails of video files. Those of shards are tested with the shards."""

import numpy as np
from conftest import moving_square, write_lossless

from msfnet.data.thumbnails import NUM_FRAMES, THUMBNAIL_FORMAT, file_thumbnails, side_by_side, thumbnail_sampler

WIDTH_PX, HEIGHT_PX = THUMBNAIL_FORMAT.resize


def test_frames_are_spread_over_the_video(tmp_path):
    frames = np.zeros((60, HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    frames[:] = (np.arange(60) * 4)[:, None, None, None]
    write_lossless(tmp_path / "a.mkv", frames)
    thumbnail = file_thumbnails([str(tmp_path / "a.mkv")])[str(tmp_path / "a.mkv")]
    assert thumbnail.shape == (HEIGHT_PX, NUM_FRAMES * WIDTH_PX, 3)
    assert thumbnail[0, ::WIDTH_PX, 0].tolist() == [20, 60, 100, 140, 180, 220]
    assert thumbnail_sampler(60).tolist() == [[5, 15, 25, 35, 45, 55]]


def test_unreadable_files_have_none(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    write_lossless(tmp_path / "short.mkv", moving_square(1))
    paths = [str(tmp_path / name) for name in ("broken.mp4", "absent.mp4", "short.mkv")]
    assert list(file_thumbnails([*paths, paths[2]])) == paths[2:]


def test_large_frames_are_reduced_by_a_whole_factor():
    frames = np.zeros((2, 145, 200, 3), np.uint8)
    frames[1, ::2], frames[1, 1::2] = 100, 50
    thumbnail = side_by_side(frames)
    assert thumbnail.shape == (72, 2 * 100, 3)
    assert np.unique(thumbnail[:, :100]) == [0]
    assert np.unique(thumbnail[:, 100:]) == [75]  # the mean of each four pixels
