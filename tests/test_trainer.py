"""Training on tiny real videos: the files of a run, learning, resuming, and videos that cannot be read."""

import csv
import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from conftest import TINY, logged, moving_square, write_lossless

from msfnet.data.annotations.readers import read_dataset
from msfnet.models.checkpoint import TrainedOn, load_weights
from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.run_folder import CHECKPOINT, REPORT, TIMED_PARTS, Run, can_resume
from msfnet.training.loop import load_checkpoint, save_checkpoint
from msfnet.training.trainer import new_run_folder, resume, train
from msfnet.types import Interrupted, UserError


def tiny(*overrides):
    return load_recipe("small", [*TINY, *overrides])


def in_splits(data, split_of):
    """The dataset with the split that a function returns for each item, without groups."""
    return data.with_items(replace(item, split=split_of(item), group=None) for item in data.items)


@pytest.fixture
def data_with_broken_video(video_folder, tmp_path):
    shutil.copytree(video_folder, tmp_path / "data")
    (tmp_path / "data" / "GoLeft" / "broken.mp4").write_bytes(b"no video")
    return read_dataset(tmp_path / "data")


# The run folder


def test_the_run_folder_holds_every_file(tiny_run, video_folder):
    assert load_recipe(tiny_run / "recipe.toml") == tiny()
    rows = list(csv.DictReader((tiny_run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["train_loss"]) < 10 and 0 <= float(row["val_top1"]) <= 1 for row in rows)
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["torch"] == torch.__version__
    assert environment["data_root"] == str(video_folder)
    assert len(environment["data_fingerprint"]) == 64
    split = Run(tiny_run).split
    assert {video.to_item(video_folder).path for video in split} == {i.path for i in read_dataset(video_folder).items}
    groups = [{(v.label, v.group) for v in split if v.split == part} for part in ("train", "val", "test")]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert "GoLeft" in (tiny_run / REPORT).read_text()
    assert json.loads((tiny_run / "scores.json").read_text())["n_videos"] == sum(v.split == "test" for v in split)
    assert (tiny_run / CHECKPOINT).is_file()
    assert not [path for path in tiny_run.rglob("*") if "part" in path.name]


def test_the_result_is_read_from_the_folder(video_folder, tmp_path):
    run = train(read_dataset(video_folder), tiny("train.epochs=1"), tmp_path / "run")
    assert run == Run(tmp_path / "run")
    assert [row["epoch"] for row in run.history] == [1]
    assert load_weights(run.weights).classes == run.result.classes == ("GoLeft", "GoRight")
    assert run.unreadable == {}


def test_weights_hold_network_classes_and_preprocessing(tiny_run):
    weights, recipe = load_weights(tiny_run), tiny()
    assert weights.name == "msf_r3d_18_fsam"
    assert weights.kwargs == {"width_mult": 0.125, "num_frames": 4, "img_size": 32}
    assert weights.classes == ("GoLeft", "GoRight")
    assert weights.preprocessing == recipe.preprocessing()
    assert set(weights.notes) >= {"epoch", "version", "val_top1", "test"}
    assert weights.trained_on == TrainedOn("class folders", 12, 2)
    assert not weights.model.training


def test_a_run_without_its_test_videos_has_no_result(video_folder, tmp_path):
    run = train(read_dataset(video_folder), tiny("train.epochs=1"), tmp_path / "run", score_test=False)
    assert run.result is None
    assert any(video.split == "test" for video in run.split)


def test_times_of_steps_add_up_to_less_than_the_epoch(tiny_run):
    for row in Run(tiny_run).history:
        parts = [row[f"{part}_seconds"] for part in TIMED_PARTS if part != "worker"]
        assert all(seconds >= 0 for seconds in parts)
        assert min(row["forward_seconds"], row["backward_seconds"]) > 0
        assert sum(parts) <= row["seconds"]
        assert row["peak_memory_mib"] > 10
        assert 0 < row["worker_seconds"] < row["data_seconds"]  # no workers: every read is waited for
    assert "Step time" in (tiny_run / REPORT).read_text(encoding="utf-8")


def test_a_run_is_not_overwritten(tiny_run, video_folder, tmp_path):
    before = {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"found one in {tiny_run}; .* continue it with msfnet train --resume"):
        train(read_dataset(video_folder), tiny(), tiny_run)
    assert {path: path.read_bytes() for path in tiny_run.rglob("*") if path.is_file()} == before


def test_default_folders_are_numbered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = []
    for _ in range(3):
        folder = new_run_folder("c3d")
        folder.mkdir(parents=True)
        names.append(folder.as_posix())
    assert names == ["runs/c3d", "runs/c3d-2", "runs/c3d-3"]


# Learning


@pytest.mark.slow
def test_it_learns_left_from_right(video_folder, tmp_path):
    """Direction is in no single frame; thirty epochs on sixteen clips are enough to get it."""
    plain = (
        "augment.hflip=false",
        "augment.min_crop_side=1",
        "augment.ratio=1",
        "augment.hue=0",
        "augment.saturation=0",
    )
    sharp = ("train.label_smoothing=0", "augment.mixup=0", "optim.lr=0.02")
    recipe = tiny("train.epochs=30", *plain, *sharp)
    train(read_dataset(video_folder), recipe, tmp_path / "run")
    losses = [row["train_loss"] for row in Run(tmp_path / "run").history]
    assert sum(losses[-5:]) / 5 < 0.4 < 0.6 < losses[0]  # a guess has 0.69; single epochs of so few clips vary
    assert load_weights(tmp_path / "run").notes["epoch"] == 30  # without validation videos, the best is the last


def test_the_seed_decides_the_run(video_folder, tmp_path):
    data, weights = in_splits(read_dataset(video_folder), lambda item: "train"), {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(data, tiny(f"train.seed={seed}", "train.epochs=1", "data.val_fraction=0"), tmp_path / name)
        weights[name] = load_weights(tmp_path / name).model.state_dict()
    assert all(torch.equal(weights["a"][key], weights["b"][key]) for key in weights["a"])
    assert not torch.equal(weights["a"]["fc.weight"], weights["c"]["fc.weight"])


def test_all_augmentations_together_train_and_repeat(video_folder, tmp_path):
    everything = (
        'augment.flip_pairs=[["GoLeft", "GoRight"]]',
        "augment.ratio=1.3",
        "augment.brightness=0.2",
        "augment.saturation=0.2",
        "augment.hue=0.1",
        "augment.randaugment=[2, 9]",
        "augment.cutmix=1",
        "train.epochs=1",
    )
    losses = []
    for name in "ab":
        run = train(read_dataset(video_folder), tiny(*everything), tmp_path / name)
        losses.append(run.history[0]["train_loss"])
    assert 0 < losses[0] < 10
    assert losses[0] == losses[1]


def test_bf16_trains_anywhere(video_folder, tmp_path):
    run = train(read_dataset(video_folder), tiny("train.precision=bf16-mixed"), tmp_path / "run", device="cpu")
    assert 0 < run.history[-1]["train_loss"] < 3


def test_a_run_starts_from_pretrained_weights(tiny_run, video_folder, tmp_path):
    lines = []
    with logged(lines.append):
        train(read_dataset(video_folder), tiny(f"model.pretrained={tiny_run}", "train.epochs=1"), tmp_path / "run")
    assert any(line.startswith(f"pretrained weights of {tiny_run}: ") for line in lines)


def test_pretrained_weights_run_no_code(tmp_path):
    """A pickle that would write a file when it is loaded is refused, both as weights and to start from."""
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError):
        load_weights(tmp_path / "bomb.pth")
    with pytest.raises(UserError, match="not a state dict that can be read safely"):
        load_pretrained(create_model("r3d_18", 2, width_mult=0.125), str(tmp_path / "bomb.pth"), "r3d_18")
    assert not (tmp_path / "exploded").exists()


# Resuming


def test_a_resumed_run_ends_as_an_uninterrupted_one(video_folder, tmp_path):
    data, whole, parts = read_dataset(video_folder), tmp_path / "whole", tmp_path / "parts"
    train(data, tiny("train.epochs=3"), whole)

    class StopError(Exception):
        pass

    def stop_after_two(line):
        if line.startswith("epoch   2/3"):
            raise StopError

    with pytest.raises(StopError), logged(stop_after_two):
        train(data, tiny("train.epochs=3"), parts)
    assert can_resume(parts)
    lines = []
    with logged(lines.append):
        resume(parts)
    assert any(line.startswith("epoch   2/3") for line in lines)  # the epoch whose checkpoint was not yet written
    assert not any(line.startswith("epoch   1/3") for line in lines)
    for key in ("train_loss", "val_top1", "lr"):
        assert [row[key] for row in Run(parts).history] == [row[key] for row in Run(whole).history]
    a, b = load_weights(whole).model.state_dict(), load_weights(parts).model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert Run(parts).result.videos == Run(whole).result.videos


@pytest.mark.parametrize(
    ("epoch", "step", "n_val", "expected"),
    [
        (1, 0, 1, "resuming from epoch 2, batch 1 of 2"),
        (1, 1, 1, "resuming from epoch 2, batch 2 of 2"),
        (1, 2, 1, "resuming from epoch 2: its 2 batches are done, validation follows"),
        (1, 2, 0, "resuming from epoch 2: its 2 batches are done"),
    ],
)
def test_a_resumed_run_says_where_it_continues(video_folder, tmp_path, epoch, step, n_val, expected):
    items = read_dataset(video_folder).items
    chosen = [*items[:3], *items[-3:], *items[3 : 3 + n_val]]
    data = read_dataset(video_folder).with_items(
        replace(item, split="train" if i < 6 else "val", group=None) for i, item in enumerate(chosen)
    )
    folder, lines = tmp_path / "run", []
    train(data, tiny("train.batch_size=3", "train.epochs=2", "data.val_fraction=0"), folder)
    save_checkpoint(folder / CHECKPOINT, load_checkpoint(folder / CHECKPOINT) | {"epoch": epoch, "step": step})
    with logged(lines.append):
        resume(folder)
    assert [line for line in lines if line.startswith("resuming")] == [expected]
    assert len([line for line in lines if line.startswith("training ")]) == 1


@pytest.mark.parametrize(("score_test", "more"), [(True, "; scoring it again"), (False, "")])
def test_a_finished_run_is_not_trained_again(tiny_run, tmp_path, score_test, more):
    folder, lines = shutil.copytree(tiny_run, tmp_path / "run"), []
    before = Run(folder).history
    with logged(lines.append):
        run = resume(folder, score_test=score_test)
    assert f"the run is finished: 2 epochs{more}" in lines
    assert not [line for line in lines if line.startswith(("training ", "resuming ", "epoch "))]
    assert any(line.startswith("test: ") for line in lines) == score_test
    assert run.history == before


def test_an_interrupted_run_says_once_how_to_resume(video_folder, tmp_path):
    def interrupt_after_one(line):
        if line.startswith("epoch   1/2"):
            raise Interrupted(signal.SIGINT)

    folder = tmp_path / "run"
    with pytest.raises(Interrupted) as stop, logged(interrupt_after_one):
        train(read_dataset(video_folder), tiny(), folder)
    assert stop.value.__notes__ == [f"resume with msfnet train --resume {folder}"]


def test_a_folder_without_a_checkpoint_is_not_resumed(tmp_path):
    with pytest.raises(UserError, match=f"expected a run to resume in {tmp_path}, found no checkpoint"):
        resume(tmp_path)


# Videos that cannot be read, or not as they should be


def test_unreadable_videos_are_skipped_or_wrong_and_named(data_with_broken_video, tmp_path):
    folder = data_with_broken_video.items[0].path.parent
    (folder / "empty.mp4").write_bytes(b"")
    tested = {"empty", *(f"v_{label}_g01_c0{i}" for label in ("GoLeft", "GoRight") for i in (1, 2))}
    data = in_splits(read_dataset(folder.parent), lambda item: "test" if item.path.stem in tested else "train")
    lines = []
    with logged(lines.append):
        run = train(data, tiny("data.val_fraction=0"), tmp_path / "run")
    (skipped,) = [line for line in lines if line.startswith("skipped in training")]
    assert "broken.mp4: cannot be read as a video" in skipped
    result = run.result
    assert result.n_videos == 5
    assert [path.endswith("empty.mp4") for path in result.unreadable] == [True]
    assert result.confusion.sum() == 4
    assert result.per_class["GoLeft"]["n"] == 3
    assert {path.rpartition("/")[2] for path in run.unreadable} == {"broken.mp4", "empty.mp4"}
    assert "empty.mp4" in (run.folder / REPORT).read_text()
    assert "broken.mp4" in (run.folder / REPORT).read_text()


def test_damaged_and_short_videos_are_used_and_named(video_folder, tmp_path, real_data):
    shutil.copytree(video_folder, tmp_path / "data")
    shutil.copy(real_data / "robustness" / "truncated.avi", tmp_path / "data" / "GoLeft")
    write_lossless(tmp_path / "data" / "GoRight" / "short.mkv", moving_square(2))
    data, lines = in_splits(read_dataset(tmp_path / "data"), lambda item: "train"), []
    with logged(lines.append):
        run = train(data, tiny("data.val_fraction=0"), tmp_path / "run")
    assert any(line.startswith("read in part: ") and "truncated.avi: " in line for line in lines)
    assert "1 training videos are shorter than a clip; their last frame was repeated" in lines
    assert run.unreadable == {}
    assert run.result is None


@pytest.mark.parametrize(
    ("split", "key"), [("train", "on_unreadable_train"), ("val", "on_unreadable_eval"), ("test", "on_unreadable_eval")]
)
def test_a_recipe_may_end_the_run_at_an_unreadable_video(data_with_broken_video, tmp_path, split, key):
    splits = {"broken": split, "v_GoLeft_g01_c01": "test", "v_GoRight_g01_c01": "test"}
    data = in_splits(data_with_broken_video, lambda item: splits.get(item.path.stem, "train"))
    recipe = tiny("data.val_fraction=0", f"data.{key}=fail", "train.epochs=1")
    with pytest.raises(UserError, match=rf"broken\.mp4: cannot be read as a video.*; data\.{key} is fail"):
        train(data, recipe, tmp_path / "run")


def test_unreadable_validation_videos_count_as_wrong(data_with_broken_video, tmp_path):
    data = in_splits(data_with_broken_video, lambda item: "val" if item.path.stem == "broken" else "train")
    lines = []
    with logged(lines.append):
        run = train(data, tiny("train.epochs=1"), tmp_path / "run")
    assert run.history[0]["val_top1"] == 0
    assert "val_loss" not in run.history[0]
    assert [path.endswith("broken.mp4") for path in run.unreadable] == [True]
    assert any(line.startswith("counted as wrong in validation: ") for line in lines)


def test_a_run_without_a_readable_video_is_an_error(tmp_path):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / label / f"{i}.mp4").write_bytes(b"no video")
    lines = []
    message = "expected training videos that can be read, found none among"
    with pytest.raises(UserError, match=message), logged(lines.append):
        train(read_dataset(tmp_path / "data"), tiny("data.val_fraction=0"), tmp_path / "run")
    assert not [line for line in lines if line.startswith("epoch ")]  # there is no loss to tell


# What is refused before anything is written


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.precision=16-mixed"], "32-true or bf16-mixed without a GPU, found 16-mixed"),
        (["train.precision=bf16-mixed", "model.name=r3d_18"], "needs more frames"),
        (["train.precision=bf16-mixed", "clip.num_frames=2"], "needs more frames"),
        (["model.name=r3d"], "'r3d'"),
        (["train.batch_size=1"], "train.batch_size of 2 or more"),
        (["train.batch_size=4", "train.micro_batches=3"], "of 6 or more .2 clips for each of 1 processes x 3 micro-"),
        (['augment.flip_pairs=[["GoLeft", "GoRigth"]]'], "no class 'GoRigth'; did you mean GoRight"),
        (["model.kwargs.num_splits=99"], "found num_splits=99"),
        (["model.name=c3d", "clip.crop_size=8", "clip.resize=[8, 8]"], "at least 16 px, found 8"),
        (["train.devices=3"], "expected 3 processes on this machine .*, found 1; start them with torchrun --nproc-per"),
        (['optim.freeze=["layer9"]'], "found 'layer9'"),
    ],
)
def test_what_cannot_be_trained_is_refused(video_folder, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message) as error:
        train(read_dataset(video_folder), tiny(*overrides), tmp_path / "run", device="cpu")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("out", ["afile", "afile/run"])
def test_a_file_in_place_of_the_run_folder_is_refused(video_folder, tmp_path, out):
    file, lines = tmp_path / "afile", []
    file.write_text("kept")
    with pytest.raises(UserError) as error, logged(lines.append):
        train(read_dataset(video_folder), tiny(), tmp_path / out)
    assert str(error.value) == f"expected a folder to write the run to, found the file {file}; name another --out"
    assert file.read_text() == "kept"
    assert lines == []


def test_pretrained_weights_that_do_not_exist_are_refused(video_folder, tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.pth"):
        train(read_dataset(video_folder), tiny("model.pretrained=nowhere.pth"), tmp_path / "run")


def test_one_class_is_refused(video_folder, tmp_path):
    data = read_dataset(video_folder)
    one = data.with_items(item for item in data.items if item.label == "GoLeft")
    with pytest.raises(UserError, match="at least 2 classes, found 1"):
        train(one, tiny(), tmp_path / "run")


def test_a_class_without_training_videos_is_refused(video_folder, tmp_path):
    data = read_dataset(video_folder)
    extra = replace(data.items[0], label="Jump", split="test", group=None)
    data = data.with_items([*(replace(item, split="train") for item in data.items), extra])
    with pytest.raises(UserError, match="expected training videos of every class, found none of Jump"):
        train(data, tiny(), tmp_path / "run")


def test_a_split_that_separates_a_group_is_refused_unless_forced(video_folder, tmp_path):
    """Each group has two clips; a published split is kept as it is."""
    data = read_dataset(video_folder)
    by_clip = data.with_items(replace(i, split="test" if i.path.stem.endswith("c01") else "train") for i in data.items)
    with pytest.raises(UserError, match="10 groups"):
        train(by_clip, tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    run = train(by_clip, tiny("data.group_split=false", "train.epochs=1"), tmp_path / "run")
    assert run.result.n_videos == 10
    official = replace(by_clip, official=True)
    assert train(official, tiny("train.epochs=1"), tmp_path / "official").result.n_videos == 10
