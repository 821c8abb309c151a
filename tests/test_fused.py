"""Networks for inference: the same logits from fewer operations, for our networks and for any other."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from msfnet import create_model, list_models
from msfnet.inference import fused
from msfnet.inference.fused import FrozenConv3d, fuse
from msfnet.layers import winograd


def randomize_norms(model):
    """Norms as training leaves them: statistics, scales and shifts are no longer those of a new network."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
        if isinstance(module, nn.BatchNorm3d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def trained(name, **arguments):
    torch.manual_seed(0)
    return randomize_norms(create_model(name, 5, width_mult=0.25, img_size=32, **arguments))


def assert_same(model, x, tolerance=1e-4):
    """The fused network gives the same logits; returns it."""
    with torch.no_grad():
        expected, found = model(x), fuse(model)(x)
    assert (found - expected).norm() < tolerance * expected.norm()
    return fuse(model)


def norms_of(model):
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]


@pytest.mark.parametrize("name", list_models())
def test_logits_stay(name):
    model = trained(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick = assert_same(model, torch.randn(2, *model.input_shape))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(p.requires_grad for p in quick.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_without_onednn_support(dtype, monkeypatch):
    """PyTorch's own loops compute the convolutions then, as in bfloat16 on CPUs without AVX-512."""
    monkeypatch.setattr(fused, "onednn_supports", lambda dtype: False)
    model = trained("msf_r3d_18_fsam")
    x = torch.randn(2, *model.input_shape)
    with torch.no_grad():
        expected, got = model(x), fuse(model, dtype)(x)
    assert (got - expected).norm() < (1e-4 if dtype == torch.float32 else 0.1) * expected.norm()


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_clips_of_any_length(frames, monkeypatch):
    monkeypatch.setitem(winograd.MIN_MACS, torch.float32, 0)
    assert_same(trained("msf_r3d_18_fsam"), torch.randn(2, 3, frames, 40, 24))


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "msf_r3d_18_fsam"])
def test_norms_behind_convolutions_are_folded(name):
    assert len(norms_of(fuse(trained(name)))) == (8 if name.startswith("msf") else 0)  # those after MSL


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "msf_c3d_fsam"])
def test_bf16_agrees_to_its_precision(name):
    model = trained(name)
    x = torch.randn(4, *model.input_shape)
    with torch.no_grad():
        expected, got = model(x), fuse(model, torch.bfloat16)(x)
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.1 * expected.norm()
    assert not torch.equal(got, expected)


# Networks of others


class WeightStandardized(nn.Conv3d):
    """A convolution of another definition."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3, 4), keepdim=True)
        return nn.functional.conv3d(x, weight, self.bias, self.stride, self.padding)


class Tapped(nn.Sequential):
    """A sequence that also passes on what its norm sees."""

    def forward(self, x):
        z = self[0](x)
        return self[1](z) + z


class Shared(nn.Module):
    """One convolution in two places, before two norms."""

    def __init__(self):
        super().__init__()
        conv = nn.Conv3d(3, 3, 3, padding=1)
        self.first = nn.Sequential(conv, nn.BatchNorm3d(3))
        self.second = nn.Sequential(conv, nn.BatchNorm3d(3))

    def forward(self, x):
        return self.second(self.first(x))


class Attributes(nn.Module):
    """A network that looks at the attributes of a convolution."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).reshape(len(x), self.conv.out_channels, -1)[:, :, ::2]


def hooked():
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4))
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    return model


FOREIGN = {
    "grouped": lambda: nn.Sequential(nn.Conv3d(4, 8, 3, padding=1, groups=4), nn.BatchNorm3d(8)),
    "dilated": lambda: nn.Sequential(nn.Conv3d(4, 8, 3, padding=2, dilation=2), nn.BatchNorm3d(8)),
    "same padding": lambda: nn.Sequential(nn.Conv3d(4, 8, 3, padding="same"), nn.BatchNorm3d(8)),
    "circular": lambda: nn.Sequential(nn.Conv3d(4, 8, 3, padding=1, padding_mode="circular"), nn.BatchNorm3d(8)),
    "strided": lambda: nn.Sequential(nn.Conv3d(4, 8, (3, 1, 1), (2, 1, 1), bias=False), nn.BatchNorm3d(8)),
    "not affine": lambda: nn.Sequential(nn.Conv3d(4, 8, 3), nn.BatchNorm3d(8, affine=False)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.ReLU(), nn.Conv3d(4, 8, 3)), nn.BatchNorm3d(8)),
    "no statistics": lambda: nn.Sequential(nn.Conv3d(4, 8, 3), nn.BatchNorm3d(8, track_running_stats=False)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose3d(4, 8, 3), nn.BatchNorm3d(8)),
    "subclass": lambda: nn.Sequential(WeightStandardized(4, 8, 3), nn.BatchNorm3d(8)),
    "parametrized": lambda: nn.Sequential(parametrizations.weight_norm(nn.Conv3d(4, 8, 3)), nn.BatchNorm3d(8)),
    "hooked": hooked,
    "tapped": lambda: Tapped(nn.Conv3d(4, 8, 3), nn.BatchNorm3d(8)),
    "shared": Shared,
    "attributes": Attributes,
}
FOLDED = ("grouped", "dilated", "same padding", "circular", "strided", "not affine", "nested")


@pytest.mark.parametrize("kind", FOREIGN)
def test_any_network_keeps_its_outputs(kind):
    """Norms are folded where that is safe, and other modules stay as they are."""
    model = randomize_norms(FOREIGN[kind]())
    channels = next(model.parameters()).shape[1] if kind in ("shared", "attributes", "hooked") else 4
    quick = assert_same(model, torch.randn(2, channels, 4, 9, 10))
    assert len(norms_of(quick)) == (0 if kind in FOLDED else len(norms_of(model)))


def test_plain_convolutions_are_frozen_and_others_are_not():
    kinds = {kind: any(isinstance(m, FrozenConv3d) for m in fuse(make()).modules()) for kind, make in FOREIGN.items()}
    left_alone = {"same padding", "circular", "transposed", "subclass", "parametrized", "hooked"}
    assert {kind for kind, frozen in kinds.items() if not frozen} == left_alone


def test_double_precision_stays():
    model = nn.Sequential(nn.Conv3d(3, 4, 3), nn.BatchNorm3d(4)).double().eval()
    x = torch.randn(2, 3, 4, 9, 10, dtype=torch.float64)
    torch.testing.assert_close(fuse(model)(x), model(x).float())
