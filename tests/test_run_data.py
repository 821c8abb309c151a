"""The dataset of a run, found again to resume: in its place, moved, changed, or one of the user's own."""

import shutil
from dataclasses import replace

import pytest
import torch
from conftest import TINY, logged

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.cache.content import fingerprint
from msfnet.data.dataset import VideoDataset
from msfnet.data.video.decode import read_clips
from msfnet.models.checkpoint import load_weights
from msfnet.recipe import load_recipe
from msfnet.run_folder import Run, recorded_splits
from msfnet.training.run_data import find_dataset, record_videos
from msfnet.training.trainer import resume, train
from msfnet.types import UserError

RECIPE = load_recipe("small", [*TINY, "train.epochs=2"])


class StopError(Exception):
    pass


def stop_in_second(line):
    if line.startswith("epoch   2/2"):  # whose checkpoint is not yet written
        raise StopError


@pytest.fixture
def moved(video_folder, tmp_path):
    """A run that was interrupted in its second epoch, and its dataset, which has been moved since then."""
    before, after = tmp_path / "before" / "data", tmp_path / "after" / "renamed"
    shutil.copytree(video_folder, before)
    with pytest.raises(StopError), logged(stop_in_second):
        train(read_dataset(before), RECIPE, tmp_path / "run")
    after.parent.mkdir()
    shutil.copytree(before, after)  # with other dates
    shutil.rmtree(before)
    return tmp_path / "run", after


def test_paths_are_recorded_below_the_folder_of_all_videos(video_folder):
    data = read_dataset(video_folder).resolve_splits(RECIPE.data, 0)
    root, videos = record_videos(data)
    assert root == str(video_folder)
    assert videos[0].path == f"{videos[0].label}/{data.items[0].path.name}"
    assert [video.to_item(video_folder) for video in videos] == list(data.items)
    assert len({video.fingerprint for video in videos}) == len(videos)


def test_a_missing_dataset_is_asked_for(moved):
    run, _ = moved
    with pytest.raises(UserError, match=r"20 missing .first: .*; if they were moved, .*train --resume .*run DATA"):
        resume(run)


def test_a_moved_dataset_resumes_bit_for_bit(moved, video_folder, tmp_path):
    run, data = moved
    resume(run, read_dataset(data))
    train(read_dataset(video_folder), RECIPE, tmp_path / "whole")
    assert [row["train_loss"] for row in Run(run).history] == [
        row["train_loss"] for row in Run(tmp_path / "whole").history
    ]
    a, b = (load_weights(folder).model.state_dict() for folder in (run, tmp_path / "whole"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert Run(run).environment["data_root"] == str(data)
    resume(run)  # where the dataset is now


def rename_class(data):
    (data / "GoLeft").rename(data / "Left")


def change_content(data):
    with next((data / "GoLeft").iterdir()).open("ab") as file:
        file.write(b" ")


def remove_video(data):
    next((data / "GoRight").iterdir()).unlink()


def add_video(data):
    shutil.copy(next((data / "GoRight").iterdir()), data / "GoRight" / "v_new_g01_c01.mp4")


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (rename_class, "GoLeft/.*mp4 is missing"),
        (change_content, "GoLeft/.*mp4 has another content"),
        (remove_video, "GoRight/.*mp4 is missing"),
        (add_video, "GoRight/v_new_g01_c01.mp4 was added"),
    ],
)
def test_other_videos_are_refused_in_one_line(moved, change, difference):
    run, data = moved
    change(data)
    with pytest.raises(UserError, match=f"expected the 20 videos .*, found others in .*: {difference}") as error:
        resume(run, read_dataset(data))
    assert "\n" not in str(error.value)


def test_another_label_is_refused(moved):
    run, folder = moved
    data = read_dataset(folder)
    swapped = data.with_items(
        replace(item, label="GoRight" if item.label == "GoLeft" else "GoLeft") for item in data.items
    )
    with pytest.raises(UserError, match=r"is labeled Go.*, not Go"):
        resume(run, swapped)


def test_the_split_of_the_run_stays_whatever_the_data_says(moved):
    """Also its order, by which clips and augmentation are drawn."""
    run, folder = moved
    data = read_dataset(folder)
    other = data.with_items(replace(item, split="test", group="one") for item in reversed(data.items))
    _, found = find_dataset(run, other, None)
    recorded = Run(run).split
    assert [(i.split, i.group) for i in found.items] == [(v.split, v.group or None) for v in recorded]
    assert [item.path for item in found.items] == [folder / video.path for video in recorded]


# A dataset of the user's own


class Named(VideoDataset):
    """Videos known by names that are no paths."""

    def __init__(self, folder, items):
        super().__init__(items)
        self.folder = folder

    def read_clips(self, item, sampler, frame_format):
        return read_clips(self.folder / f"{item.path}.mp4", sampler, frame_format)


def named(folder):
    items = [replace(i, path=i.path.relative_to(folder).with_suffix("")) for i in read_dataset(folder).items]
    return Named(folder, items)


def test_a_dataset_in_python_is_passed_again_to_resume(video_folder, tmp_path):
    with pytest.raises(StopError), logged(stop_in_second):
        train(named(video_folder), RECIPE, tmp_path / "run")
    assert {video.fingerprint for video in Run(tmp_path / "run").split} == {""}
    with pytest.raises(UserError, match="20 missing"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", named(video_folder))
    assert len(Run(tmp_path / "run").history) == 2


def test_the_transform_of_a_run_is_passed_again(video_folder, tmp_path):
    def brighter(clips):
        return (clips.float() * 1.1).clamp(0, 255).to(torch.uint8)

    with pytest.raises(StopError), logged(stop_in_second):
        train(read_dataset(video_folder), RECIPE, tmp_path / "run", transform=brighter)
    with pytest.raises(UserError, match=r"expected the transform that .* started with \(.*brighter\), found another"):
        resume(tmp_path / "run")
    resume(tmp_path / "run", transform=brighter)
    assert len(Run(tmp_path / "run").history) == 2


# Videos that a run has used


def test_videos_of_a_moved_dataset_are_recognized(moved):
    run, folder = moved
    (folder / "GoLeft").rename(folder / "Other")
    items = read_dataset(folder).items
    by_name = {video.path.rpartition("/")[2]: video.split for video in Run(run).split}
    assert recorded_splits(run, items, fingerprint) == [frozenset({by_name[item.path.name]}) for item in items]
