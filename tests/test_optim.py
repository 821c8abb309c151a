"""Learning rates by depth, schedules, frozen modules and averaged weights, in real steps, batch norms included."""

import io
from dataclasses import replace

import pytest
import torch
from conftest import TINY
from torch import nn
from torch.nn import functional as F

from msfnet.data.annotations.readers import read_dataset
from msfnet.models.checkpoint import load_weights
from msfnet.models.registry import create_model
from msfnet.recipe import load_recipe
from msfnet.run_folder import REPORT
from msfnet.training.optim import WeightAverage, freeze, lr_factor, make_optimizer, modules_by_depth, set_lr
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


def test_depth_counts_from_the_classifier_by_stages():
    model = network()
    found = {module: depth for depth, modules in modules_by_depth(model).items() for module in modules}
    assert {name: found[module] for name, module in model.named_children() if module in found} == DEPTHS
    c3d = network("c3d")
    assert list(modules_by_depth(c3d).values())[:2] == [[c3d.fc8], [c3d.fc7]]
    assert len(modules_by_depth(c3d)) == 8


def test_every_parameter_has_the_learning_rate_of_its_depth():
    model = network()
    optimizer = make_optimizer(model, optim("optim.layer_decay=0.5", "optim.lr=0.08", "optim.weight_decay=0.01"), 0.08)
    settings = {
        id(p): (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert (
        len(settings) == sum(len(group["params"]) for group in optimizer.param_groups) == len(list(model.parameters()))
    )
    for name, p in model.named_parameters():
        depth = DEPTHS[name.partition(".")[0]]
        assert settings[id(p)] == (pytest.approx(0.08 * 0.5**depth), 0.01 if p.ndim > 1 else 0)
    assert optimizer.param_groups[0]["lr"] == 0.08


def test_the_schedule_scales_every_learning_rate():
    recipe = optim("optim.layer_decay=0.5", "optim.schedule=cosine", "optim.warmup_epochs=0", "optim.lr=0.08")
    optimizer = make_optimizer(network(), recipe, recipe.lr)
    started = [group["lr"] for group in optimizer.param_groups]
    for step in range(6):
        set_lr(optimizer, lr_factor(recipe, step, 10))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([lr / 2 for lr in started])


def test_a_run_trains_each_depth_at_its_learning_rate(tiny_run, video_folder, tmp_path):
    """Adam's first step changes a weight by its learning rate, whatever its gradient; frozen ones do not change."""
    data = read_dataset(video_folder)
    items = tuple(replace(item, split="train") for item in data.items)
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
    train(data.with_items(items), recipe, tmp_path / "run")
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


def test_frozen_batch_norms_keep_their_statistics():
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
        (["layer5"], "found 'layer5'; did you mean layer"),
        (["layer1.0.conv3"], r"found 'layer1.0.conv3'; did you mean layer1.0.conv"),
        (["head"], "found 'head'; there are: attention3, attention4, avgpool, fc, layer1"),
        (["lay"], "found 'lay'"),
        (list(DEPTHS), "expected something left to train, found all of it frozen: stem, layer1"),
    ],
)
def test_what_cannot_be_frozen_is_refused(frozen, message):
    with pytest.raises(UserError, match=message) as error:
        freeze(network(), frozen)
    assert "\n" not in str(error.value)


def test_runs_on_classes_of_unequal_size(video_folder, tmp_path):
    """Every way of balancing classes takes part in training, and the scores are given for every class."""
    data = read_dataset(video_folder)
    left = [item for item in data.items if item.label == "GoLeft"]
    items = [replace(item, split="test" if item in left[2:] else "train") for item in data.items]
    losses = []
    for i, balanced in enumerate(
        ((), ("train.loss=class_weighted",), ("train.loss=focal",), ("data.class_balance=1",))
    ):
        recipe = load_recipe(
            "small", [*TINY, "data.val_fraction=0", "train.epochs=1", "data.group_split=false", *balanced]
        )
        run = train(data.with_items(items), recipe, tmp_path / str(i))
        losses.append(run.history[0]["train_loss"])
    assert len(set(losses)) == 4
    assert all(0 < loss < 10 for loss in losses)
    assert run.result.mean_class_accuracy == run.result.per_class["GoLeft"]["top1"]
    assert "2 (GoLeft) to 10 (GoRight)" in (run.folder / REPORT).read_text(encoding="utf-8")


# Averaged weights


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def take_steps(model, average, n, seed):
    """`n` steps of noise, as an optimizer and a norm would change weights, statistics and counts."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(n):
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape, generator=generator))
        model.train()(torch.randn(5, 3, generator=generator))
        average.update(model)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_average_of_a_weight_by_hand():
    """The weight is 1, then 2, 3, 4; d is 2/11, 3/12 and, by the decay, 0.3, not 4/13."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    average = WeightAverage(model, 0.3)
    expected = 1.0
    for weight, d in ((2.0, 2 / 11), (3.0, 3 / 12), (4.0, 0.3)):
        nn.init.constant_(model.weight, weight)
        average.update(model)
        expected = d * expected + (1 - d) * weight
        assert float(average.average["weight"]) == pytest.approx(expected)
    assert model.weight.item() == 4.0


def test_batch_statistics_are_averaged_and_counts_copied():
    model = small_network()
    average = WeightAverage(model, 0.9)
    take_steps(model, average, 5, seed=1)
    own = model.state_dict()
    assert int(average.average["1.num_batches_tracked"]) == int(own["1.num_batches_tracked"]) == 5
    assert not torch.equal(average.average["1.running_mean"], own["1.running_mean"])
    assert not torch.equal(average.average["0.weight"], own["0.weight"])


def test_the_average_replaces_the_weights_within_a_block_only():
    model = small_network()
    average = WeightAverage(model, 0.9)
    take_steps(model, average, 5, seed=1)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with average.in_place_of(model):
        assert same(dict(model.state_dict()), average.average)
    assert same(dict(model.state_dict()), before)
    with pytest.raises(ZeroDivisionError), average.in_place_of(model):
        _ = 1 / 0
    assert same(dict(model.state_dict()), before)


def test_a_saved_average_continues_bit_for_bit():
    model = small_network()
    average = WeightAverage(model, 0.9)
    take_steps(model, average, 4, seed=1)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "ema": average.state_dict()}, file)
    take_steps(model, average, 4, seed=2)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other = small_network()
    other.load_state_dict(saved["model"])
    resumed = WeightAverage(other, 0.9)
    resumed.load_state_dict(saved["ema"])
    take_steps(other, resumed, 4, seed=2)
    assert resumed.steps == average.steps == 8
    assert same(resumed.average, average.average)
