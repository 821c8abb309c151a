"""Warm starts: what fits is taken, what does not is told, and a transplanted R3D serves better than a random start."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from msfnet.layers.msl import MSL
from msfnet.models.pretrained import load_pretrained, published_url
from msfnet.models.registry import create_model
from msfnet.models.weight_transfer import (
    LARGEST_OF_8,
    SMALLEST_SHARE,
    Moments,
    Taken,
    Unit,
    _split,
    dense_shapes,
    transplant,
)
from msfnet.types import UserError

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from pretrained import CLASSES, WIDTH, batch, train


def saved(model, folder):
    torch.save(model.state_dict(), folder / "r3d_18.pth")
    return model, folder / "r3d_18.pth"


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """An R3D whose norms are as various as trained ones, their statistics those of clips; and its file."""
    torch.manual_seed(0)
    model = create_model("r3d_18", CLASSES, width_mult=WIDTH)
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm3d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = None  # a plain average over the batches
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _ in range(4):
            model(batch(16, generator)[0])
    return saved(model, tmp_path_factory.mktemp("settled"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An R3D that was trained for a while, and its file."""
    torch.manual_seed(0)
    model = create_model("r3d_18", CLASSES, width_mult=WIDTH)
    losses = train(model, 150, seed=1)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    return saved(model, tmp_path_factory.mktemp("trained"))


def stages(model, clips):
    """Mean and standard deviation of each channel after each block, concatenated by block."""
    found = []
    blocks = [block for i in range(1, 5) for block in getattr(model, f"layer{i}")]
    hooks = [
        block.register_forward_hook(lambda _, __, out: found.append((out.mean((0, 2, 3, 4)), out.std((0, 2, 3, 4)))))
        for block in blocks
    ]
    with torch.no_grad():
        model(clips)
    for hook in hooks:
        hook.remove()
    return found


def distances(model, other, clips):
    """After each block: how far means lie apart, in standard deviations, and the ratio of standard deviations."""
    pairs = zip(stages(model, clips), stages(other, clips), strict=True)
    return [(float((m - n).abs().mean() / t.mean()), float(s.mean() / t.mean())) for (m, s), (n, t) in pairs]


def only_sliced(model, state):
    """The transplant without any arithmetic: slices as they are, norms as R3D has them."""
    taken = transplant(model, state)
    kernels = {}
    for key in taken.fitted:
        block, inside, branch = key.partition(".0.branches.")
        if inside and branch.endswith(".0.weight"):
            split = model.get_submodule(block)[0]
            i = int(branch[0])
            end = sum(split.sizes[: i + 2])
            start, lo = end - split.sizes[i + 1], end - split.branches[i][0].in_channels
            kernels[key] = state[f"{block}.0.weight"][lo:end, [*range(start, end), *range(lo, start)]]
    norms = {k: state[k] for k in taken.fitted if ".conv2.1." in k}
    shortcuts = {k: state[k.replace("downsample.2", "downsample.1")] for k in taken.fitted if "downsample" in k}
    model.load_state_dict(taken.copied | kernels | norms | shortcuts, strict=False)
    assert len(kernels) == 3 * 8
    return model


def fitted_and_bare(source, path, training):
    """Distances from the source of a warm start, and of bare slices in its place."""
    fitted, bare = (create_model("msf_r3d_18", CLASSES, width_mult=WIDTH) for _ in range(2))
    load_pretrained(fitted, str(path), "msf_r3d_18")
    only_sliced(bare, source.state_dict())
    clips, _ = batch(48, torch.Generator().manual_seed(5))
    before = {key: value.clone() for key, value in source.state_dict().items()}
    for model in (source, fitted, bare):
        model.train(training)
    found = [distances(model, source, clips) for model in (fitted, bare)]
    source.load_state_dict(before)
    return found


def total(distances):
    return sum(mean + abs(1 - ratio) for mean, ratio in distances)


def test_outputs_of_blocks_keep_their_statistics_in_training(settled):
    """Means within a fifth of a standard deviation and deviations within a quarter; bare slices are far off."""
    fitted, bare = fitted_and_bare(*settled, training=True)
    assert all(mean < 0.2 and 0.8 < ratio < 1.25 for mean, ratio in fitted)
    assert all(mean > 0.2 and ratio > 1.25 for mean, ratio in bare)


def test_running_statistics_fit_better_than_those_of_bare_slices(settled):
    fitted, bare = fitted_and_bare(*settled, training=False)
    assert total(fitted) < total(bare) / 2


@pytest.mark.slow
def test_a_trained_network_keeps_its_statistics_before_any_step(trained):
    fitted, bare = fitted_and_bare(*trained, training=False)
    assert all(mean < 1 and 0.6 < ratio < 1.7 for mean, ratio in fitted)
    assert total(fitted) < total(bare) / 2


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [{}, {"attention": "fsam"}])
def test_a_warm_start_loses_less_than_a_random_one(trained, arguments):
    ends = {"warm": 0.0, "random": 0.0}
    for seed in range(2):
        for start in ends:
            torch.manual_seed(seed)
            model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH, **arguments)
            if start == "warm":
                load_pretrained(model, str(trained[1]), "msf_r3d_18")
                nn.init.normal_(model.fc.weight, std=0.01)  # what the head knows is not counted
            ends[start] += sum(train(model, 30, seed=10 + seed)[-10:]) / 20
    assert ends["warm"] < ends["random"] - 0.15


def state_of(name, **arguments):
    return create_model(name, CLASSES, width_mult=WIDTH, **arguments).state_dict()


ATTENTION_KEYS = {"fsam": 6, "se": 4, "cbam": 6, "nst": 4}


@pytest.mark.parametrize(
    ("arguments", "fresh"),
    [
        ({}, 0),
        *(({"attention": name}, n) for name, n in ATTENTION_KEYS.items()),
        *(({"num_splits": groups}, 0) for groups in (2, 3, 5, 7, 16)),
        ({"placement": "c"}, 0),
    ],
)
def test_r3d_goes_into_every_msf_r3d(settled, arguments, fresh):
    source, path = settled
    model = create_model("msf_r3d_18", 5, width_mult=WIDTH, **arguments)
    start = load_pretrained(model, str(path), "msf_r3d_18")
    assert len(start.fresh) == fresh + 2
    assert {key.partition(".")[0] for key in start.fresh} <= {"attention3", "attention4", "fc"}
    assert start.unused == ("fc.bias", "fc.weight")
    own, theirs = model.state_dict(), source.state_dict()
    for key in ("stem.0.weight", "layer1.0.conv1.1.weight", "layer3.0.conv1.0.weight"):
        assert torch.equal(own[key], theirs[key]) == (key in start.copied)
    assert torch.equal(own["layer2.0.downsample.1.weight"], theirs["layer2.0.downsample.0.weight"])
    keys = {key for key in own if not key.endswith("num_batches_tracked")}
    assert sorted(keys) == sorted((*start.copied, *start.fitted, *start.fresh))
    assert model.eval()(torch.randn(1, 3, 4, 24, 24)).isfinite().all()


@pytest.mark.parametrize(("placement", "fresh"), [("a", ".conv1.0."), ("d", ".conv1.")])
def test_placements_without_a_counterpart_say_what_stays_fresh(settled, placement, fresh):
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH, placement=placement)
    start = load_pretrained(model, str(settled[1]), "msf_r3d_18")
    assert start.fresh
    assert all(fresh in key or ".conv1.1.running" in key for key in start.fresh)
    first = model.layer2[0].conv1[0][0].weight
    kernel = settled[0].layer2[0].conv1[0].weight
    middle = kernel[..., 1:2, 1:2] if placement == "d" else kernel[..., 1:2, 1:2, 1:2]
    ratio = first / middle  # one factor for each output channel
    assert torch.allclose(ratio, ratio[:, :1, :1].expand_as(ratio), rtol=1e-4)


def test_kinetics_weights_of_torchvision_have_the_keys_that_are_needed():
    """Every key and shape of the published files is taken by, or left over from, each network they are offered for."""
    published = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())
    keys = {key: tuple(shape) for key, shape in published["r3d_18"] if not key.endswith("num_batches_tracked")}
    with torch.device("meta"):
        model = create_model("msf_r3d_18_fsam", 101)
    assert dense_shapes(model) == {key: shape for key, shape in keys.items() if not key.startswith("fc.")}
    assert published_url("msf_r3d_18_fsam") == published_url("r3d_18") != published_url("r2plus1d_18")
    with pytest.raises(UserError, match="kinetics400 is there for r3d_18, msf_r3d_18, r2plus1d_18, found c3d"):
        published_url("c3d")


@pytest.mark.slow
def test_weights_of_torchvisions_size_start_msf_r3d_with_fsam(tmp_path):
    published = json.loads((Path(__file__).parent / "torchvision_keys.json").read_text())["r3d_18"]
    torch.manual_seed(0)
    state = {key: torch.rand(shape) for key, shape in published}
    torch.save(state, tmp_path / "r3d_18.pth")
    model = create_model("msf_r3d_18_fsam", 101)
    start = load_pretrained(model, str(tmp_path / "r3d_18.pth"), "msf_r3d_18_fsam")
    assert [key for key in start.fresh if not key.startswith(("attention", "fc."))] == []
    assert torch.equal(model.layer4[0].conv1[0].weight, state["layer4.0.conv1.0.weight"])


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "msf_r3d_18_fsam", "msf_r3d_18_a", "c3d", "msf_c3d_fsam"])
def test_the_same_network_starts_as_the_very_same(tmp_path, name):
    sizes = {"width_mult": 0.25, "num_frames": 4, "img_size": 32}
    source = create_model(name, 4, **sizes)
    torch.save(source.state_dict(), tmp_path / "s.pth")
    model = create_model(name, 4, **sizes)
    start = load_pretrained(model, str(tmp_path / "s.pth"), name)
    assert (start.fitted, start.fresh, start.unused) == ((), (), ())
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in source.state_dict().items())
    other = create_model(name, 7, **sizes)
    start = load_pretrained(other, str(tmp_path / "s.pth"), name)
    assert len(start.fresh) == len(start.unused) == 2
    assert all(torch.equal(other.state_dict()[key], own[key]) for key in own.keys() - set(start.fresh))


@pytest.mark.parametrize(
    ("source", "target", "fresh", "unused"),
    [
        ("r3d_18", "r3d_18_fsam", 6, 0),
        ("r3d_18_fsam", "r3d_18", 0, 6),
        ("msf_r3d_18_se", "msf_r3d_18_fsam", 6, 4),
        ("r3d_18_fsam", "msf_r3d_18_fsam", 0, 0),
        ("r3d_18_fsam", "msf_r3d_18", 0, 6),
        ("msf_c3d_fsam", "msf_c3d", 0, 6),
        ("msf_c3d", "msf_c3d_fsam", 6, 0),
    ],
)
def test_attention_that_differs_is_left_fresh_and_told(tmp_path, source, target, fresh, unused):
    sizes = {"num_frames": 4, "img_size": 32}
    torch.save(state_of(source, **sizes), tmp_path / "s.pth")
    start = load_pretrained(create_model(target, CLASSES, width_mult=WIDTH, **sizes), str(tmp_path / "s.pth"), target)
    assert (len(start.fresh), len(start.unused)) == (fresh, unused)
    assert all(key.startswith(("attention", "stage3.1", "stage5.1")) for key in (*start.fresh, *start.unused))


def test_half_precision_files_and_dead_channels_start_a_finite_network(settled, tmp_path):
    state = {key: value.clone() for key, value in settled[0].state_dict().items()}
    for key in ("layer2.0.conv2.0.weight", "layer2.0.downsample.0.weight", "layer1.0.conv1.1.weight"):
        state[key][0] = 0
    torch.save(
        {key: value.half() if value.is_floating_point() else value for key, value in state.items()}, tmp_path / "s"
    )
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH)
    load_pretrained(model, str(tmp_path / "s"), "msf_r3d_18")
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert model(torch.randn(2, 3, 4, 24, 24)).isfinite().all()


def test_lines_tell_every_group(settled):
    model = create_model("msf_r3d_18_se", 3, width_mult=WIDTH)
    assert load_pretrained(model, str(settled[1]), "msf_r3d_18_se").lines() == [
        "copied: 54 keys (stem 5, layer1 10, layer2 13, layer3 13, layer4 13)",
        "sliced and rescaled: 158 keys (layer1 38, layer2 40, layer3 40, layer4 40)",
        "left fresh: 6 keys (attention3 2, attention4 2, fc 2)",
        "not used: 2 keys (fc 2)",
    ]


@pytest.mark.parametrize(
    ("source", "arguments", "target", "message"),
    [
        (
            "r3d_18",
            {"width_mult": 0.125},
            "msf_r3d_18",
            r"its stem.0.weight has 8 channels, expected 16; change model.width_mult",
        ),
        ("r3d_18", {"width_mult": 0.125}, "r3d_18", "has 8 channels, expected 16; change model.width_mult"),
        ("r2plus1d_18", {}, "msf_r3d_18", r"does not fit msf_r3d_18: keys \d+ missing \(first: .*unknown \(first: "),
        ("msf_r3d_18", {}, "r3d_18", r"\d+ missing \(first: layer1.0.conv2.0.weight\), \d+ unknown"),
        ("msf_r3d_18", {"num_splits": 3}, "msf_r3d_18", "unknown|of another shape"),
        (
            "r3d_18",
            {"in_chans": 5},
            "msf_r3d_18",
            r"stem.0.weight, \(16, 5, 3, 7, 7\) instead of \(16, 3, 3, 7, 7\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_and_named(tmp_path, source, arguments, target, message):
    torch.save(create_model(source, CLASSES, **{"width_mult": WIDTH} | arguments).state_dict(), tmp_path / "s.pth")
    model = create_model(target, CLASSES, width_mult=WIDTH)
    before = model.stem[0].weight.clone()
    with pytest.raises(UserError, match=message) as error:
        load_pretrained(model, str(tmp_path / "s.pth"), target)
    assert "\n" not in str(error.value)
    assert torch.equal(model.stem[0].weight, before)


# The arithmetic


def test_moments_are_those_of_many_draws():
    torch.manual_seed(0)
    moments = Moments(torch.tensor([-1.0, 0.0, 0.7]), torch.tensor([1.0, 4.0, 0.25]))
    drawn = moments.mean + moments.var.sqrt() * torch.randn(400_000, 3)
    rectified = moments.rectified()
    assert torch.allclose(rectified.mean, drawn.relu().mean(0), atol=0.01)
    assert torch.allclose(rectified.var, drawn.relu().var(0), atol=0.02)
    largest = torch.randn(200_000, 8).amax(1)
    assert torch.allclose(torch.tensor(LARGEST_OF_8), torch.stack((largest.mean(), largest.var())), atol=0.01)
    shared, own = torch.randn(200_000, 1), torch.randn(200_000, 8)
    neighbors = 0.7 + 0.5 * (0.5**0.5 * shared + 0.5**0.5 * own).amax(1)
    assert abs(moments.pooled().mean[2] - neighbors.mean()) < 0.01
    assert abs(moments.pooled().var[2] - neighbors.var()) < 0.01


@pytest.mark.parametrize(("channels", "groups"), [(16, 4), (16, 2), (64, 5), (13, 4)])
def test_slices_line_up_and_keep_their_power(channels, groups):
    """A dense kernel whose entry (row, column) names both: each branch reads what it is given, writes where it lies."""
    split = MSL(channels, groups)
    named = 1000.0 + torch.arange(channels)[:, None] * channels + torch.arange(channels)  # row * channels + column
    kernel = named[:, :, None, None, None].expand(channels, channels, 3, 3, 3)
    inputs = Moments(torch.zeros(channels), torch.ones(channels))
    ones = torch.ones(channels)
    taken, leaving = _split(split, Unit(kernel, ones, ones, Moments(ones, ones)), inputs)
    numbers = torch.arange(channels)
    outputs, carry, start = [numbers[: split.sizes[0]]], numbers[:0], split.sizes[0]
    for i, (size, branch) in enumerate(zip(split.sizes[1:], split.branches, strict=True)):
        read = torch.cat((numbers[start : start + size], carry))  # as MSL.forward concatenates
        weight = taken.fitted[f"branches.{i}.0.weight"]
        assert weight.shape == branch[0].weight.shape
        raw = weight[:, :, 0, 0, 0]
        written = torch.arange(start + size - len(read), start + size)
        expected = named[written][:, read]
        factors = raw / expected
        assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-4)
        if i == 0:  # inputs of variance one: the power of the row is that of the dense kernel's
            assert torch.allclose((raw**2).sum(1), (named[written] ** 2).sum(1), rtol=1e-4)
        last = i == len(split.branches) - 1
        kept = written if last else written[: len(read) - len(read) // 2]
        outputs.append(kept)
        carry, start = written[len(kept) :], start + size
    assert torch.cat(outputs).tolist() == numbers.tolist()  # every output lies where the dense kernel had it
    assert len(leaving.mean) == channels


def test_parts_of_a_transplant_merge_under_their_names():
    taken = (Taken({"a": torch.ones(1)}) | Taken(fitted={"b": torch.ones(1)})).below("layer")
    assert (list(taken.copied), list(taken.fitted)) == (["layer.a"], ["layer.b"])


def test_trained_norms_come_out_as_they_were(settled):
    """With inputs of the assumed distribution the first block's sum X + Y has the statistics of R3D's Y."""
    source, path = settled
    model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH)
    load_pretrained(model, str(path), "msf_r3d_18")
    old, new = source.layer1[0], model.layer1[0]
    torch.manual_seed(0)
    fused = torch.randn(8, 16, 6, 16, 16) * old.conv1[1].weight[:, None, None, None].abs()
    fused = (fused + old.conv1[1].bias[:, None, None, None]).relu()
    with torch.no_grad():
        assert isinstance(new.conv2[0], MSL)
        added = fused + new.conv2(fused)
    assert torch.allclose(added.mean((0, 2, 3, 4)), old.conv2[1].bias, atol=0.05)
    wanted, least = old.conv2[1].weight.abs(), fused.var((0, 2, 3, 4))
    roomy = wanted**2 * (1 - SMALLEST_SHARE) > least  # elsewhere X alone varies more than the sum should
    roomy[: new.conv2[0].sizes[0]] = True  # where the split hands X through, its share can be taken away
    assert roomy.sum() > 10
    assert torch.allclose(added.std((0, 2, 3, 4))[roomy], wanted[roomy], rtol=0.1)
