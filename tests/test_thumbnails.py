"""Thumbnails of videos in files and in shards."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import TINY, moving_square, write_lossless

from msfnet.data.annotations.readers import read_dataset, read_video_files
from msfnet.data.shards.write import write_shards
from msfnet.data.thumbnails import NUM_FRAMES, THUMBNAIL_FORMAT, file_thumbnails, side_by_side, thumbnail_sampler
from msfnet.recipe import load_recipe

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


@pytest.fixture(scope="module")
def shards(video_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    recipe = load_recipe("small", TINY)
    return write_shards(read_video_files(video_folder), recipe, video_folder, out, shard_bytes=40_000)


def test_thumbnails_of_shards_are_made_of_their_frames(shards):
    names = [item.path.as_posix() for item in shards.items]
    chosen = [names[-1], names[0], names[5]]
    thumbnails = shards.thumbnails([*chosen, "Unknown/video.mp4"])
    assert set(thumbnails) == set(chosen)
    width, height = shards.frame_format.resize
    assert {thumbnail.shape for thumbnail in thumbnails.values()} == {(height, NUM_FRAMES * width, 3)}
    assert len({thumbnail.tobytes() for thumbnail in thumbnails.values()}) == 3


def test_missing_or_remote_shards_give_no_thumbnails(shards, tmp_path):
    name = shards.in_split("train")[0].path.as_posix()
    folder = shutil.copytree(shards.source, tmp_path / "copy")
    copy = read_dataset(folder)
    assert name in copy.thumbnails([name])
    for archive in folder.glob("train-*.tar"):
        archive.unlink()
    assert copy.thumbnails([name]) == {}
    assert replace(copy, source="http://127.0.0.1:9/none").thumbnails([name]) == {}
