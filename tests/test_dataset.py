"""Datasets as training sees them, above all those that users write: splits, reading, training and evaluation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, moving_square

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.dataset import VideoDataset, fingerprint, path_of
from msfnet.data.video_files import VideoFiles
from msfnet.inference.evaluation import evaluate_dataset
from msfnet.recipe import load_recipe
from msfnet.training.trainer import resume, train
from msfnet.types import Clip, UserError, VideoError, VideoItem

RECIPE = load_recipe("small", [*TINY, "data.num_workers=1"])


class Squares(VideoDataset):
    """Squares that go right or left, drawn in memory at another size than the recipe's. One cannot be drawn."""

    def read_clips(self, item, sampler, frame_format):
        number = int(item.path.name)
        if number == 7:
            raise VideoError("is not drawn")
        video = moving_square(12 + number, step=3 if item.label == "right" else -3)
        return Clip(video[sampler(len(video))], len(video))


@pytest.fixture
def squares():
    return Squares(
        [VideoItem(Path(f"square {n % 2}") / str(n), ("right", "left")[n % 2]) for n in range(20)], "squares"
    )


def test_description_and_classes(squares):
    assert squares.classes == ("left", "right")
    assert squares.describe() == "20 videos of 2 classes from squares (20 no split)"
    assert (squares.location, squares.unreadable) == (None, {})


def test_splits_are_drawn_without_changing_the_dataset(squares):
    split = squares.resolve_splits(RECIPE.data, 0)
    assert {item.split for item in split.items} == {"train", "val", "test"}
    assert {item.split for item in squares.items} == {None}
    assert [item.path for item in split.items] == [item.path for item in squares.items]
    assert split.in_split("val", "test") == [item for item in split.items if item.split != "train"]
    without_test = split.with_items(split.in_split("train", "val"))
    renamed = without_test.rename_split("val", "test")
    assert [item.path for item in renamed.in_split("test")] == [item.path for item in split.in_split("val")]
    assert renamed.in_split("val") == []


def test_fingerprint_depends_on_names_labels_splits_and_sizes(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"one")
    item = VideoItem(tmp_path / "a.mp4", "run", "train")
    found = fingerprint([item])
    assert fingerprint([replace(item, label="walk")]) != found
    assert fingerprint([replace(item, split="test")]) != found
    (tmp_path / "a.mp4").write_bytes(b"three")
    assert fingerprint([item]) != found
    assert fingerprint([VideoItem(Path("clip 17"), "run")])  # no file


def test_paths_of_files_are_absolute(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").touch()
    monkeypatch.chdir(tmp_path)
    assert path_of(VideoItem(Path("a.mp4"), "run")) == str((tmp_path / "a.mp4").resolve())
    assert path_of(VideoItem(Path("clips") / "17", "run")) == "clips/17"


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_are_read_and_resized(squares, workers):
    data = RECIPE.data.model_copy(update={"num_workers": workers})
    loader = squares.open(data, RECIPE.preprocessing())
    batches = list(loader.eval_batches(squares.items, clips=2, batch_size=8).epoch())
    assert [batch.indices for batch in batches] == [[0, 1, 2, 3, 4, 5, 6], [*range(8, 16)], [16, 17, 18, 19]]
    assert batches[0].unreadable == {7: "is not drawn"}
    assert batches[0].labels.tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert batches[0].clips.shape == (7, 2, 4, 32, 43, 3)


def test_thumbnails_of_videos_that_can_be_read(squares):
    names = [path_of(item) for item in squares.items]
    assert set(squares.thumbnails([names[0], names[7], "nobody"])) == {names[0]}
    assert squares.thumbnails(names[:1])[names[0]].shape == (48, 6 * 64, 3)


def test_wrong_frames_are_one_line(squares):
    class Floats(Squares):
        def read_clips(self, item, sampler, frame_format):
            clip = super().read_clips(item, sampler, frame_format)
            return replace(clip, frames=clip.frames.astype(np.float32))

    batches = (
        Floats(squares.items)
        .open(RECIPE.data, RECIPE.preprocessing())
        .eval_batches(squares.items, clips=1, batch_size=4)
    )
    with pytest.raises(UserError, match=r"^expected uint8 frames V T H W 3 from read_clips, found float32 of shape"):
        list(batches.epoch())


def test_own_dataset_is_trained_resumed_and_evaluated(squares, tmp_path):
    """With a transform of the user's own; a resumed run is the same bit for bit."""

    def invert(clips):
        return 255 - clips

    recipe = load_recipe("small", [*TINY, "data.num_workers=1", "train.epochs=1"])
    whole = train(squares, recipe, tmp_path / "whole", transform=invert)
    plain = train(squares, recipe, tmp_path / "plain")
    assert whole.history[0]["train_loss"] != plain.history[0]["train_loss"]
    assert list(whole.unreadable.values()) == ["is not drawn"]
    assert whole.result.n_videos == len(squares.resolve_splits(recipe.data, 0).in_split("test"))
    again = resume(tmp_path / "whole", squares, transform=invert)
    assert again.history == whole.history
    result = evaluate_dataset(tmp_path / "whole", squares)
    assert 0 < result.n_videos < 20


def test_video_files_keep_what_they_were_read_with(video_folder):
    files = VideoFiles(read_dataset(video_folder).items, "manifest", ("gone.mp4",), ("a note",), official=True)
    assert files.describe().endswith(
        "from manifest (20 no split); 1 listed videos are missing (first: gone.mp4); a note"
    )
    split = files.resolve_splits(RECIPE.data, 0)
    assert (split.missing, split.notes, split.official) == (("gone.mp4",), ("a note",), True)
    assert {item.split for item in split.items} == {"train", "val", "test"}


def test_video_files_are_read_with_and_without_the_cache(video_folder, tmp_path):
    files = read_dataset(video_folder)
    cached = RECIPE.data.model_copy(update={"cache": str(tmp_path), "num_workers": 0})
    direct = RECIPE.data.model_copy(update={"cache": "off", "num_workers": 0})
    clips = [
        torch.cat(
            [
                b.clips
                for b in files.open(d, RECIPE.preprocessing()).eval_batches(files.items, clips=1, batch_size=6).epoch()
            ]
        )
        for d in (direct, cached, cached)
    ]
    assert torch.equal(clips[0], clips[1])
    assert torch.equal(clips[0], clips[2])
    assert len(list(tmp_path.glob("*.frames"))) == 20
