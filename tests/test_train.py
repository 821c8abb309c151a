"""Training on real (tiny) videos: what a run leaves, that it learns, resumes and names what it could not read."""

import csv
import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import TINY, logged, moving_square, write_lossless
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.annotations.readers import read_dataset, read_manifest
from msfnet.data.dataset import EvalSampler, TrainVideos, Turns, collate
from msfnet.inference.evaluation import evaluate, evaluate_data, held_out
from msfnet.models.checkpoint import load_weights, save_weights
from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.training.history import read_history
from msfnet.training.trainer import resume, train
from msfnet.types import UserError, VideoItem, Views


def tiny(*overrides):
    return load_recipe("small", [*TINY, *overrides])


def test_run_folder_holds_what_is_promised(tiny_run, video_folder):
    assert load_recipe(str(tiny_run / "recipe.toml")) == tiny()
    rows = list(csv.DictReader((tiny_run / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(0 < float(row["train_loss"]) < 10 and 0 <= float(row["val_top1"]) <= 1 for row in rows)
    environment = json.loads((tiny_run / "environment.json").read_text())
    assert environment["seed"] == 0
    assert environment["torch"] == torch.__version__
    assert len(environment["data_fingerprint"]) == 64
    split = read_manifest(tiny_run / "split.csv").items
    assert {item.path for item in split} == {item.path.resolve() for item in read_dataset(video_folder).items}
    groups = [{(i.label, i.group) for i in split if i.split == part} for part in ("train", "val", "test")]
    assert all(groups)
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]
    assert "GoLeft" in (tiny_run / "report.html").read_text()
    assert json.loads((tiny_run / "scores.json").read_text())["n_videos"] == sum(i.split == "test" for i in split)
    assert not [path for path in tiny_run.rglob("*") if "part" in path.name]


def test_weights_carry_everything(tiny_run):
    weights = load_weights(tiny_run)
    recipe = tiny()
    assert weights.name == "msf_r3d_18_fsam"
    assert weights.kwargs == {"width_mult": 0.125, "num_frames": 4, "img_size": 32}
    assert weights.classes == ("GoLeft", "GoRight")
    assert weights.preprocessing == recipe.preprocessing()
    assert set(weights.notes) >= {"epoch", "version", "val_top1", "test"}
    assert not weights.model.training


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
    losses = [row["train_loss"] for row in read_history(tmp_path / "run")]
    assert sum(losses[-5:]) / 5 < 0.4 < 0.6 < losses[0]  # a guess has 0.69; single epochs of so few clips jump about
    assert load_weights(tmp_path / "run").notes["epoch"] == 30  # without validation videos, best is last


def test_same_seed_same_run_other_seed_other_run(video_folder, tmp_path):
    weights = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        recipe = tiny(f"train.seed={seed}", "train.epochs=1", "data.val_fraction=0")
        items = [replace(item, split="train") for item in read_dataset(video_folder).items]
        train(replace(read_dataset(video_folder), items=tuple(items)), recipe, tmp_path / name)
        weights[name] = load_weights(tmp_path / name).model.state_dict()
    assert all(torch.equal(weights["a"][key], weights["b"][key]) for key in weights["a"])
    assert not torch.equal(weights["a"]["fc.weight"], weights["c"]["fc.weight"])


def test_resumed_run_ends_where_an_uninterrupted_one_does(video_folder, tmp_path):
    listing, whole, parts = read_dataset(video_folder), tmp_path / "whole", tmp_path / "parts"
    train(listing, tiny("train.epochs=3"), whole)

    class StopError(Exception):
        pass

    def stop_after_two(line):
        if line.startswith("epoch   2/3"):
            raise StopError

    with pytest.raises(StopError), logged(stop_after_two):
        train(listing, tiny("train.epochs=3"), parts)
    lines = []
    with logged(lines.append):
        resume(parts)
    assert any(line.startswith("epoch   2/3") for line in lines)  # the epoch whose checkpoint was not yet written
    assert not any(line.startswith("epoch   1/3") for line in lines)
    for key in ("train_loss", "val_top1", "lr"):
        assert [row[key] for row in read_history(parts)] == [row[key] for row in read_history(whole)]
    a, b = load_weights(whole).model.state_dict(), load_weights(parts).model.state_dict()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_every_augmentation_together_trains_and_repeats(video_folder, tmp_path):
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
        train(read_dataset(video_folder), tiny(*everything), tmp_path / name)
        losses.append(read_history(tmp_path / name)[0]["train_loss"])
    assert 0 < losses[0] < 10
    assert losses[0] == losses[1]


def test_bf16_trains_anywhere(video_folder, tmp_path):
    train(read_dataset(video_folder), tiny("train.precision=bf16-mixed"), tmp_path / "run")
    assert 0 < read_history(tmp_path / "run")[-1]["train_loss"] < 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU takes them")
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["train.precision=16-mixed"], "32-true or bf16-mixed without a GPU, found 16-mixed"),
        (["train.precision=bf16-mixed", "model.name=r3d_18"], "needs more frames"),
        (["train.precision=bf16-mixed", "clip.num_frames=2"], "needs more frames"),
    ],
)
def test_precisions_that_a_cpu_cannot_train_in_are_refused(video_folder, tmp_path, overrides, reason):
    with pytest.raises(UserError, match=reason):
        train(read_dataset(video_folder), tiny(*overrides), tmp_path / "run")


def test_nothing_is_overwritten(tiny_run, video_folder, tmp_path):
    with pytest.raises(UserError, match="holds a run already; go on with --resume"):
        train(read_dataset(video_folder), tiny(), tiny_run)
    with pytest.raises(UserError, match="expected a run to resume"):
        resume(tmp_path)


def test_broken_videos_are_named_and_skipped_in_training_and_wrong_in_scores(video_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(video_folder, data)
    for split, name in (("train", "broken"), ("test", "empty")):
        (data / "GoLeft" / f"{split}_{name}.mp4").write_bytes(b"no video" if name == "broken" else b"")
    listing = read_dataset(data)
    items = [
        replace(item, split="test" if item.path.stem.startswith("test") or item.group == "g01" else "train")
        for item in listing.items
    ]
    lines = []
    with logged(lines.append):
        result = train(replace(listing, items=tuple(items)), tiny("data.val_fraction=0"), tmp_path / "run")
    skipped = [line for line in lines if line.startswith("skipped in training")]
    assert len(skipped) == 1
    assert "train_broken.mp4: cannot be read as a video" in skipped[0]
    assert result.scores.n_videos == 5
    assert [path.endswith("test_empty.mp4") for path in result.scores.unreadable] == [True]
    assert result.scores.confusion.sum() == 4
    assert result.scores.per_class["GoLeft"]["n"] == 3
    assert "test_empty.mp4" in (tmp_path / "run" / "report.html").read_text()
    assert "train_broken.mp4" in (tmp_path / "run" / "report.html").read_text()


def test_damaged_and_short_videos_are_used_and_named(video_folder, tmp_path, real_data):
    data = tmp_path / "data"
    shutil.copytree(video_folder, data)
    shutil.copy(real_data / "robustness" / "truncated.avi", data / "GoLeft")
    write_lossless(data / "GoRight" / "short.mkv", moving_square(2))
    listing = read_dataset(data)
    items = tuple(replace(item, split="train") for item in listing.items)
    lines = []
    with logged(lines.append):
        result = train(replace(listing, items=items), tiny("data.val_fraction=0"), tmp_path / "run")
    assert any(line.startswith("used in part: ") and "promises 131 frames, 15" in line for line in lines)
    assert "1 training videos are shorter than a clip; their last frame was repeated" in lines
    assert result.problems == {}
    assert result.scores is None


@pytest.mark.parametrize(("split", "key"), [("train", "on_unreadable"), ("val", "bad_scored"), ("test", "bad_scored")])
def test_a_recipe_may_have_a_bad_video_end_the_run(video_folder, tmp_path, split, key):
    data = tmp_path / "data"
    shutil.copytree(video_folder, data)
    (data / "GoLeft" / "broken.mp4").write_bytes(b"no video")
    listing = read_dataset(data)
    splits = {"broken": split, "v_GoLeft_g01_c01": "test", "v_GoRight_g01_c01": "test"}
    items = tuple(replace(item, split=splits.get(item.path.stem, "train"), group=None) for item in listing.items)
    recipe = tiny("data.val_fraction=0", f"data.{key}=fail", "train.epochs=1")
    with pytest.raises(UserError, match=rf"broken\.mp4: cannot be read as a video.*; data\.{key} is fail"):
        train(replace(listing, items=items), recipe, tmp_path / "run")


def test_validation_videos_that_cannot_be_read_count_as_wrong_and_are_named(video_folder, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(video_folder, data)
    (data / "GoLeft" / "broken.mp4").write_bytes(b"no video")
    listing = read_dataset(data)
    items = tuple(replace(i, split="val" if i.path.stem == "broken" else "train", group=None) for i in listing.items)
    lines = []
    with logged(lines.append):
        result = train(replace(listing, items=items), tiny("train.epochs=1"), tmp_path / "run")
    assert read_history(tmp_path / "run")[0]["val_top1"] == 0
    assert [path.endswith("broken.mp4") for path in result.problems] == [True]
    assert any(line.startswith("counted as wrong in validation: ") for line in lines)


def test_a_split_by_clip_of_grouped_videos_is_refused_unless_forced(video_folder, tmp_path):
    listing = read_dataset(video_folder)  # two clips of each group
    by_clip = tuple(
        replace(item, split="test" if item.path.stem.endswith("c01") else "train") for item in listing.items
    )
    by_clip = replace(listing, items=by_clip)
    with pytest.raises(UserError, match="the split parts 10 groups"):
        train(by_clip, tiny(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = train(by_clip, tiny("data.group_split=false", "train.epochs=1"), tmp_path / "run")
    assert result.scores.n_videos == 10
    official = replace(by_clip, official=True)
    assert train(official, tiny("train.epochs=1"), tmp_path / "official").scores.n_videos == 10


def test_the_time_of_each_epoch_is_accounted_for(tiny_run):
    for row in read_history(tiny_run):
        parts = [row[f"{part}_seconds"] for part in ("wait", "transfer", "augment", "forward", "backward")]
        assert all(seconds >= 0 for seconds in parts)
        assert min(row["forward_seconds"], row["backward_seconds"]) > 0
        assert sum(parts) <= row["seconds"]
        assert row["peak_memory_mib"] > 10
        assert 0 < row["read_seconds"] < row["wait_seconds"]  # no workers: every read is waited for
    assert "Where the time went" in (tiny_run / "report.html").read_text(encoding="utf-8")


def test_all_videos_broken_is_an_error(tmp_path):
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "data" / label / f"{i}.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=r"none of the .* training videos could be read"):
        train(read_dataset(tmp_path / "data"), tiny("data.val_fraction=0"), tmp_path / "run")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.name=r3d"], "unknown model 'r3d'"),
        (["train.batch_size=1"], "train.batch_size of 2 or more"),
        (
            ["train.batch_size=4", "train.micro_batches=3"],
            "train.batch_size of 6 or more .2 clips for each of 1 processes x 3 parts",
        ),
        (["model.pretrained=nowhere.pth"], "found nothing at nowhere.pth"),
        (['augment.flip_pairs=[["GoLeft", "GoRigth"]]'], "no class 'GoRigth'; did you mean GoRight"),
        (["model.kwargs.num_splits=99"], "found num_splits=99"),
        (["model.name=c3d", "clip.crop_size=8", "clip.resize=[8, 8]"], "at least 16 px, found 8"),
    ],
)
def test_what_cannot_be_trained_is_refused(video_folder, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        train(read_dataset(video_folder), tiny(*overrides), tmp_path / "run")


def test_one_class_is_refused(video_folder, tmp_path):
    listing = read_dataset(video_folder)
    one = replace(listing, items=tuple(item for item in listing.items if item.label == "GoLeft"))
    with pytest.raises(UserError, match="at least 2 classes, found 1"):
        train(one, tiny(), tmp_path / "run")


# Order of training


def test_turns_are_every_video_once_and_a_function_of_seed_and_epoch():
    turns = Turns(10, 4, seed=3)
    first = list(turns)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(index for batch in first for index, _ in batch) == list(range(10))
    turns.set_epoch(1)
    assert list(turns) != first
    turns.set_epoch(0)
    assert list(turns) == first
    assert list(Turns(10, 4, seed=4)) != first


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_processes_share_out_every_batch_and_go_on_anywhere(n_videos, batch, ranks, done):
    alone = Turns(n_videos, batch, 5)
    alone.set_epoch(2)
    whole = list(alone)
    done %= alone.batches()
    shares = []
    for rank in range(ranks):
        turns = Turns(n_videos, batch, 5, rank, ranks)
        turns.set_epoch(2, done)
        assert len(turns) == len(whole) - done
        shares.append(list(turns))
    for step, batches in enumerate(zip(*shares, strict=True), done):
        assert sorted(turn for share in batches for turn in share) == sorted(whole[step])
        assert max(map(len, batches)) - min(map(len, batches)) <= 1
    scored = [index for rank in range(ranks) for share in EvalSampler(n_videos, batch, rank, ranks) for index in share]
    assert sorted(scored) == list(range(n_videos))


def test_a_turn_repeats_exactly(video_folder):
    recipe = tiny()
    listing = read_dataset(video_folder)
    videos = TrainVideos(listing.items, listing.classes, recipe.preprocessing(), sampling="random_interval")
    assert torch.equal(videos[3, 7].frames, videos[3, 7].frames)
    clips = {videos[9, seed].frames.numpy().tobytes() for seed in range(10)}
    assert len(clips) > 1
    slower = TrainVideos(listing.items, listing.classes, recipe.preprocessing(), sampling="random_interval")
    assert torch.equal(slower[9, 7].frames, slower[9, 7].frames)
    assert any(not torch.equal(slower[9, seed].frames, videos[9, seed].frames) for seed in range(10))
    assert collate([videos[0, 1], videos[1, 1]])["clips"].shape == (2, 1, 4, 32, 43, 3)


# Scoring


def test_evaluate_scores_every_video_once_and_views_agree_with_a_loop(tiny_run, video_folder):
    weights = load_weights(tiny_run)
    items = read_dataset(video_folder).items
    one = evaluate(weights.model, weights.classes, weights.preprocessing, items, views=Views(1, 1), workers=0)
    batched = evaluate(weights.model, weights.classes, weights.preprocessing, items, views=Views(1, 1), batch=3)
    assert one.n_videos == 20
    assert (one.confusion == batched.confusion).all()
    assert one.clip == one.video  # of one view
    several = evaluate(weights.model, weights.classes, weights.preprocessing, items, views=Views(3, 3), workers=0)
    assert several.confusion.sum() == 20


def test_evaluate_data_scores_what_was_not_trained_on(tiny_run, video_folder):
    scores = evaluate_data(tiny_run, video_folder, annotations=None, split=1, views=None)
    recorded = read_manifest(tiny_run / "split.csv").items
    assert scores.n_videos == sum(item.split == "test" for item in recorded)


def test_held_out_prefers_test_then_val_then_all(video_folder, tmp_path):
    listing = read_dataset(video_folder)
    mixed = tuple(replace(item, split="val" if i % 2 else "train") for i, item in enumerate(listing.items))
    assert len(held_out(replace(listing, items=mixed), tmp_path)[0]) == 10
    assert len(held_out(listing, tmp_path)[0]) == 20


def test_unknown_classes_are_refused(tiny_run, video_folder):
    weights = load_weights(tiny_run)
    item = VideoItem(video_folder, "Jump")
    with pytest.raises(UserError, match=r"does not know .first: Jump.; it knows GoLeft, GoRight"):
        evaluate(weights.model, weights.classes, weights.preprocessing, [item])


# Checkpoint


def test_weights_round_trip(tiny_run, tmp_path):
    weights = load_weights(tiny_run)
    save_weights(tmp_path / "w.safetensors", weights)
    again = load_weights(tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 4, 32, 32)
    assert torch.equal(again.model(x), weights.model(x))
    assert replace(again, model=weights.model) == weights


@pytest.mark.parametrize("content", [b"", b"not a weights file", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_files_that_are_no_weights_are_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=r"expected a \.safetensors file"):
        load_weights(tmp_path / "w.safetensors")


def test_no_weights_and_foreign_weights_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(UserError, match="found none at"):
        load_weights(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(UserError, match="was not written by msfnet"):
        load_weights(tmp_path / "w.safetensors")


def test_loading_unpickles_nothing(tmp_path):
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


def test_init_from_a_run(tiny_run, video_folder, tmp_path):
    lines = []
    with logged(lines.append):
        train(read_dataset(video_folder), tiny(f"model.pretrained={tiny_run}", "train.epochs=1"), tmp_path / "run")
    assert any(line.startswith(f"started from {tiny_run}: copied: ") for line in lines)
    assert not any("left fresh" in line for line in lines)
