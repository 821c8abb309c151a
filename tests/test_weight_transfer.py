"""Transfer of R3D's weights into MSF-R3D: the arithmetic of moments, and statistics after every block."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from msfnet.layers.msl import MSL
from msfnet.models.pretrained import load_pretrained
from msfnet.models.registry import create_model
from msfnet.models.weight_transfer import (
    MAX_OF_8,
    MIN_SHARE,
    ConvNorm,
    Moments,
    Transferred,
    _msl,
    transfer_r3d,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from pretrained import CLASSES, WIDTH, batch, train

# Arithmetic


def test_moments_are_those_of_many_draws():
    torch.manual_seed(0)
    moments = Moments(torch.tensor([-1.0, 0.0, 0.7]), torch.tensor([1.0, 4.0, 0.25]))
    drawn = moments.mean + moments.var.sqrt() * torch.randn(400_000, 3)
    rectified = moments.relu()
    assert torch.allclose(rectified.mean, drawn.relu().mean(0), atol=0.01)
    assert torch.allclose(rectified.var, drawn.relu().var(0), atol=0.02)
    largest = torch.randn(200_000, 8).amax(1)
    assert torch.allclose(torch.tensor(MAX_OF_8), torch.stack((largest.mean(), largest.var())), atol=0.01)
    shared, own = torch.randn(200_000, 1), torch.randn(200_000, 8)
    neighbors = 0.7 + 0.5 * (0.5**0.5 * shared + 0.5**0.5 * own).amax(1)
    assert abs(moments.max_pool().mean[2] - neighbors.mean()) < 0.01
    assert abs(moments.max_pool().var[2] - neighbors.var()) < 0.01


@pytest.mark.parametrize(("channels", "num_splits"), [(16, 4), (16, 2), (64, 5), (13, 4)])
def test_slices_line_up_and_keep_their_variance(channels, num_splits):
    """Entries of the dense kernel encode row and column: branches have the rows they write, the columns they read."""
    split = MSL(channels, num_splits)
    named = 1000.0 + torch.arange(channels)[:, None] * channels + torch.arange(channels)  # row * channels + column
    kernel = named[:, :, None, None, None].expand(channels, channels, 3, 3, 3)
    inputs = Moments(torch.zeros(channels), torch.ones(channels))
    ones = torch.ones(channels)
    weights, outputs_of = _msl(split, ConvNorm(kernel, ones, ones, Moments(ones, ones)), inputs)
    numbers = torch.arange(channels)
    outputs, carry, start = [numbers[: split.sizes[0]]], numbers[:0], split.sizes[0]
    for i, (size, branch) in enumerate(zip(split.sizes[1:], split.branches, strict=True)):
        read = torch.cat((numbers[start : start + size], carry))  # as MSL.forward concatenates
        weight = weights.adapted[f"branches.{i}.0.weight"]
        assert weight.shape == branch[0].weight.shape
        raw = weight[:, :, 0, 0, 0]
        written = torch.arange(start + size - len(read), start + size)
        expected = named[written][:, read]
        factors = raw / expected
        assert torch.allclose(factors, factors[:, :1].expand_as(factors), rtol=1e-4)
        if i == 0:  # inputs of variance one: the variance of the output is that of the dense kernel's
            assert torch.allclose((raw**2).sum(1), (named[written] ** 2).sum(1), rtol=1e-4)
        last = i == len(split.branches) - 1
        kept = written if last else written[: len(read) - len(read) // 2]
        outputs.append(kept)
        carry, start = written[len(kept) :], start + size
    assert (
        torch.cat(outputs).tolist() == numbers.tolist()
    )  # every output has the channel number it had in the dense kernel
    assert len(outputs_of.mean) == channels


def test_parts_are_merged_under_their_names():
    parts = (Transferred({"a": torch.ones(1)}) | Transferred(adapted={"b": torch.ones(1)})).under("layer")
    assert (list(parts.copied), list(parts.adapted)) == (["layer.a"], ["layer.b"])


def test_first_block_keeps_the_statistics_of_r3d(settled):
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
    possible = wanted**2 * (1 - MIN_SHARE) > least  # elsewhere the variance of X alone is larger
    possible[: new.conv2[0].sizes[0]] = True  # there Y is X, whose variance can be taken off
    assert possible.sum() > 10
    assert torch.allclose(added.std((0, 2, 3, 4))[possible], wanted[possible], rtol=0.1)


# Statistics of networks


def saved(model, folder):
    torch.save(model.state_dict(), folder / "r3d_18.pth")
    return model, folder / "r3d_18.pth"


@pytest.fixture(scope="module")
def settled(tmp_path_factory):
    """An R3D whose norms differ from channel to channel, with running statistics of clips; and its file."""
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
    """An R3D after 150 training steps, and its file."""
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
    """After each block: difference of the means in standard deviations, and ratio of the standard deviations."""
    pairs = zip(stages(model, clips), stages(other, clips), strict=True)
    return [(float((m - n).abs().mean() / t.mean()), float(s.mean() / t.mean())) for (m, s), (n, t) in pairs]


def slices_only(model, state):
    """Load slices of the kernels without rescaling, and norms as R3D has them."""
    weights = transfer_r3d(model, state)
    kernels = {}
    for key in weights.adapted:
        block, inside, branch = key.partition(".0.branches.")
        if inside and branch.endswith(".0.weight"):
            split = model.get_submodule(block)[0]
            i = int(branch[0])
            end = sum(split.sizes[: i + 2])
            start, lo = end - split.sizes[i + 1], end - split.branches[i][0].in_channels
            kernels[key] = state[f"{block}.0.weight"][lo:end, [*range(start, end), *range(lo, start)]]
    norms = {k: state[k] for k in weights.adapted if ".conv2.1." in k}
    shortcuts = {k: state[k.replace("downsample.2", "downsample.1")] for k in weights.adapted if "downsample" in k}
    model.load_state_dict(weights.copied | kernels | norms | shortcuts, strict=False)
    assert len(kernels) == 3 * 8
    return model


def compare_with_slices(source, path, training):
    """The distances of adapted weights from their source, and those of bare slices."""
    adapted, bare = (create_model("msf_r3d_18", CLASSES, width_mult=WIDTH) for _ in range(2))
    load_pretrained(adapted, str(path), "msf_r3d_18")
    slices_only(bare, source.state_dict())
    clips, _ = batch(48, torch.Generator().manual_seed(5))
    before = {key: value.clone() for key, value in source.state_dict().items()}
    for model in (source, adapted, bare):
        model.train(training)
    found = [distances(model, source, clips) for model in (adapted, bare)]
    source.load_state_dict(before)
    return found


def total(distances):
    return sum(mean + abs(1 - ratio) for mean, ratio in distances)


def test_blocks_keep_their_batch_statistics(settled):
    """Means within a fifth of a standard deviation and deviations within a quarter; bare slices are outside."""
    adapted, bare = compare_with_slices(*settled, training=True)
    assert all(mean < 0.2 and 0.8 < ratio < 1.25 for mean, ratio in adapted)
    assert all(mean > 0.2 and ratio > 1.25 for mean, ratio in bare)


def test_running_statistics_fit_better_than_bare_slices(settled):
    adapted, bare = compare_with_slices(*settled, training=False)
    assert total(adapted) < total(bare) / 2


@pytest.mark.slow
def test_a_trained_network_keeps_its_statistics(trained):
    adapted, bare = compare_with_slices(*trained, training=False)
    assert all(mean < 1 and 0.6 < ratio < 1.7 for mean, ratio in adapted)
    assert total(adapted) < total(bare) / 2


@pytest.mark.slow
@pytest.mark.parametrize("kwargs", [{}, {"attention": "fsam"}])
def test_pretrained_weights_lower_the_loss(trained, kwargs):
    ends = {"pretrained": 0.0, "random": 0.0}
    for seed in range(2):
        for start in ends:
            torch.manual_seed(seed)
            model = create_model("msf_r3d_18", CLASSES, width_mult=WIDTH, **kwargs)
            if start == "pretrained":
                load_pretrained(model, str(trained[1]), "msf_r3d_18")
                nn.init.normal_(model.fc.weight, std=0.01)  # the last layer starts alike in both
            ends[start] += sum(train(model, 30, seed=10 + seed)[-10:]) / 20
    assert ends["pretrained"] < ends["random"] - 0.15
