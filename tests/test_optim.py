"""Rates that differ from part to part, and parts that do not move: in real steps, norms included."""

from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch.nn import functional as F

from msfnet.data.annotations.readers import read_dataset
from msfnet.models.checkpoint import load_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.training.history import read_history
from msfnet.training.optim import freeze, lr_factor, make_optimizer, parts_by_depth, set_lr
from msfnet.training.trainer import train
from msfnet.types import UserError

ONE_STEP = (
    *("train.epochs=1", "train.batch_size=32", "optim.base_batch_size=32", "data.val_fraction=0"),
    *("optim.name=adam", "optim.lr=0.001"),
    *("optim.schedule=constant", "optim.warmup_epochs=0", "optim.weight_decay=0"),
)


def optim(*overrides):
    return load_recipe("small", overrides).optim


def network(name="msf_r3d_18_fsam"):
    torch.manual_seed(0)
    return create_model(name, 3, width_mult=0.25, num_frames=4, img_size=32)


DEPTHS = {"stem": 5, "layer1": 4, "layer2": 3, "layer3": 2, "attention3": 2, "layer4": 1, "attention4": 1, "fc": 0}


def test_depth_counts_from_the_head_and_attention_goes_with_its_stage():
    model = network()
    found = {part: depth for depth, parts in parts_by_depth(model).items() for part in parts}
    assert {name: found[part] for name, part in model.named_children() if part in found} == DEPTHS
    c3d = network("c3d")
    assert [parts == [part] for parts, part in zip(parts_by_depth(c3d).values(), [c3d.fc8, c3d.fc7], strict=False)]
    assert len(parts_by_depth(c3d)) == 8


def test_every_parameter_has_the_rate_and_decay_of_its_part():
    model = network()
    optimizer = make_optimizer(model, optim("optim.layer_decay=0.5", "optim.lr=0.08", "optim.weight_decay=0.01"), 0.08)
    rates = {id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        depth = DEPTHS[name.partition(".")[0]]
        assert rates[id(p)] == (pytest.approx(0.08 * 0.5**depth), 0.01 if p.ndim > 1 else 0)
    assert optimizer.param_groups[0]["lr"] == 0.08


def test_the_schedule_multiplies_every_rate():
    recipe = optim("optim.layer_decay=0.5", "optim.schedule=cosine", "optim.warmup_epochs=0", "optim.lr=0.08")
    optimizer = make_optimizer(network(), recipe, recipe.lr)
    started = [group["lr"] for group in optimizer.param_groups]
    for step in range(6):
        set_lr(optimizer, lr_factor(recipe, step, 10))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 2 for lr in started])


def test_a_run_moves_each_part_at_its_rate_and_frozen_ones_not_at_all(tiny_run, video_folder, tmp_path):
    """Adam's first step moves a weight by its rate, whatever its gradient."""
    listing = read_dataset(video_folder)
    items = tuple(replace(item, split="train") for item in listing.items)
    recipe = load_recipe(
        "small",
        [
            *TINY,
            *ONE_STEP,
            f"model.pretrained={tiny_run}",
            "optim.layer_decay=0.5",
            'optim.freeze=["stem", "layer1.0"]',
        ],
    )
    train(replace(listing, items=items), recipe, tmp_path / "run")
    before, after = (load_weights(run).model.state_dict() for run in (tiny_run, tmp_path / "run"))
    kernels = {name for name, p in load_weights(tiny_run).model.named_parameters() if p.ndim > 1}
    moved = {key: float((after[key] - before[key]).abs().max()) for key in before}
    for key, distance in moved.items():
        part = key.partition(".")[0]
        if key.startswith(("stem.", "layer1.0.")):
            assert distance == 0, key
        elif key in kernels:
            assert distance == pytest.approx(0.001 * 0.5 ** DEPTHS[part], rel=0.02), key
        elif "running" in key:
            assert distance > 0, key


def test_frozen_norms_stay_as_they_are_whatever_mode_is_set():
    model = network()
    freeze(model, ["layer2"])
    x = torch.randn(4, 3, 4, 32, 32)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = make_optimizer(model, optim(), 0.01)
    for _ in range(3):
        loss = F.cross_entropy(model.train()(x), torch.tensor([0, 1, 2, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    same = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert {key for key in before if key.startswith("layer2.")} <= same
    assert not {key for key in same if "running" in key and not key.startswith("layer2.")}
    assert {key for key in before if key.endswith(".0.weight") and not key.startswith("layer2.")}.isdisjoint(same)


@pytest.mark.parametrize(
    ("frozen", "message"),
    [
        (["layer5"], "no part 'layer5'; did you mean layer"),
        (["layer1.0.conv3"], r"no part 'layer1.0.conv3'; did you mean layer1.0.conv"),
        (["head"], "no part 'head'; there are: attention3, attention4, avgpool, fc, layer1"),
        (["lay"], "no part 'lay'"),
        (list(DEPTHS), "expected something left to train, found all of it frozen: stem, layer1"),
    ],
)
def test_what_cannot_be_frozen_is_refused(frozen, message):
    with pytest.raises(UserError, match=message) as error:
        freeze(network(), frozen)
    assert "\n" not in str(error.value)


def test_a_run_refuses_before_it_leaves_anything(video_folder, tmp_path):
    recipe = load_recipe("small", [*TINY, 'optim.freeze=["layer9"]'])
    with pytest.raises(UserError, match="no part 'layer9'"):
        train(read_dataset(video_folder), recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_runs_on_classes_of_unequal_size(video_folder, tmp_path):
    """Each means of dealing with imbalance takes part in training, and the scores tell every class."""
    listing = read_dataset(video_folder)
    left = [item for item in listing.items if item.label == "GoLeft"]
    items = [replace(item, split="test" if item in left[2:] else "train") for item in listing.items]
    losses = []
    for i, dealt in enumerate(((), ("train.loss=class_weighted",), ("train.loss=focal",), ("data.class_balance=1",))):
        recipe = load_recipe(
            "small", [*TINY, "data.val_fraction=0", "train.epochs=1", "data.group_split=false", *dealt]
        )
        run = tmp_path / str(i)
        result = train(replace(listing, items=tuple(items)), recipe, run)
        losses.append(read_history(run)[0]["train_loss"])
    assert len(set(losses)) == 4
    assert all(0 < loss < 10 for loss in losses)
    assert result.scores.to_dict()["mean_class_accuracy"] == result.scores.per_class["GoLeft"]["top1"]
    assert "2 (GoLeft) to 10 (GoRight)" in (run / "report.html").read_text(encoding="utf-8")
