"""Small pictures of videos, from files and from shards."""

import shutil

import numpy as np
import pytest
from conftest import TINY, moving_square, write_lossless

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.shards.write import write_shards
from msfnet.data.thumbnails import FRAMES, SIZE_PX, file_strips, strips_of
from msfnet.recipe import load_recipe

WIDTH_PX, HEIGHT_PX = SIZE_PX


def test_frames_are_spread_over_the_video(tmp_path):
    frames = np.zeros((60, HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    frames[:] = (np.arange(60) * 4)[:, None, None, None]
    write_lossless(tmp_path / "a.mkv", frames)
    strip = strips_of(None)([str(tmp_path / "a.mkv")])[str(tmp_path / "a.mkv")]
    assert strip.shape == (HEIGHT_PX, FRAMES * WIDTH_PX, 3)
    assert strip[0, ::WIDTH_PX, 0].tolist() == [20, 60, 100, 140, 180, 220]


def test_files_that_cannot_be_read_have_none(tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    write_lossless(tmp_path / "short.mkv", moving_square(1))
    paths = [str(tmp_path / name) for name in ("broken.mp4", "absent.mp4", "short.mkv")]
    assert list(file_strips(paths)) == paths[2:]


@pytest.fixture(scope="module")
def shards(video_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards")
    recipe = load_recipe("small", TINY)
    index = write_shards(read_dataset(video_folder), recipe, video_folder, out, shard_bytes=40_000)
    return out, index


def test_shards_give_the_frames_that_they_hold(shards):
    out, index = shards
    names = [item.path.as_posix() for split in index.splits for item in index.items(split)]
    chosen = [names[-1], names[0], names[5], "Nobody/knows.mp4"]
    strips = strips_of(str(out))(chosen)
    assert set(strips) == set(chosen[:3])
    width, height = index.frame_format.resize
    assert {strip.shape for strip in strips.values()} == {(height, FRAMES * width, 3)}
    assert len({strip.tobytes() for strip in strips.values()}) == 3


def test_shards_that_have_gone_or_lie_elsewhere_give_none(shards, tmp_path):
    out, index = shards
    name = index.items("train")[0].path.as_posix()
    copy = shutil.copytree(out, tmp_path / "copy")
    pictured = strips_of(str(copy))
    assert name in pictured([name])
    next(copy.glob("train-*.tar")).unlink()
    assert pictured([name]) == {}
    assert strips_of("http://127.0.0.1:9/none")([name]) == {}
