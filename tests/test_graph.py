"""The network that is exported: the same outputs from simpler operations, for our networks and for any other."""

import numpy as np
import pytest
import torch
from small_networks import Foreign, randomize, small_network
from torch import nn

from msfnet.exporting.graph import ConstantFrequencyPool, exportable
from msfnet.exporting.polyphase import (
    TRANSFORMS,
    PolyphaseBlocks,
    PolyphaseConv,
    from_phases,
    polyphase,
    to_phases,
    transform_input,
)
from msfnet.layers.winograd import TILE
from msfnet.models.registry import list_models

# Polyphase form


def test_phases_hold_every_fourth_frame():
    x = torch.arange(8.0)[None, None, :, None, None]
    assert [phase.flatten().tolist() for phase in to_phases(x)] == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert torch.equal(from_phases(to_phases(x)), x)


def test_the_transforms_give_a_convolution():
    """A^T [(G g) * (B^T d)] in double precision, written out for one channel."""
    frames, taps = torch.randn(12, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    conv = nn.Conv3d(1, 1, 3, padding=1, bias=False).double()
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, :, 1, 1] = taps
    phases = to_phases(frames[None, None, :, None, None])
    y = from_phases(PolyphaseConv(conv)(phases)).flatten()
    assert y.detach().numpy() == pytest.approx(np.correlate(np.pad(frames.numpy(), 1), taps.numpy()), abs=1e-12)
    first_tile = torch.cat((torch.zeros(1, dtype=torch.float64), frames[:5]))  # no frame is before the clip
    sums = torch.stack([phase.flatten()[0] for phase in transform_input(phases)])
    torch.testing.assert_close(sums, TRANSFORMS.input @ first_tile)


@pytest.mark.parametrize("frames", [4, 8, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_polyphase_convolution_equals_the_direct_one(frames, bias):
    torch.manual_seed(0)
    conv = nn.Conv3d(5, 7, 3, padding=1, bias=bias)
    x = torch.randn(2, 5, frames, 6, 9)
    with torch.no_grad():
        phases = PolyphaseConv(conv)(to_phases(x))
        assert [p.shape for p in phases] == [(2, 7, frames // TILE, 6, 9)] * TILE
        torch.testing.assert_close(from_phases(phases), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv3d(4, 4, 1),
        nn.Conv3d(4, 4, 3, padding=1, groups=2),
        nn.Conv3d(4, 4, 3, padding=2, dilation=2),
        nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        nn.AvgPool3d(3),
    ],
)
def test_modules_without_a_polyphase_form(module):
    with pytest.raises(ValueError, match="no polyphase form"):
        polyphase(nn.Sequential(nn.ReLU(), module))


# Whole networks


@pytest.mark.parametrize("use_polyphase", [True, False])
@pytest.mark.parametrize("name", list_models())
def test_every_network_keeps_its_outputs(name, use_polyphase):
    """Eight frames at 48 px: stages of one and of two tiles, and maps that are smaller than FAM's basis."""
    model = small_network(name, frames=8, size=48)
    network = exportable(model, (3, 8, 48, 48), polyphase=use_polyphase)
    x = torch.randn(3, 3, 8, 48, 48)
    with torch.no_grad():
        right, found = model(x), network(x)
    assert (right - found).abs().max() <= 2e-5 * right.abs().max()
    n_stages = sum(isinstance(module, PolyphaseBlocks) for module in network.modules())
    whole = name in ("c3d", "c3d_fsam", "msf_c3d", "msf_c3d_fsam", "r2plus1d_18", "msf_r3d_18_d")
    assert n_stages == (2 if use_polyphase and not whole else 0)
    n_pools = sum(isinstance(module, ConstantFrequencyPool) for module in network.modules())
    assert n_pools == (2 if "fsam" in name else 0)
    assert not any(p.requires_grad for p in network.parameters())


def test_norms_are_folded_and_the_model_is_untouched():
    model = small_network("r3d_18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = exportable(model, (3, 4, 16, 16), polyphase=False)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in [*model.modules(), *network.modules()])


class TuplesInside(nn.Module):
    """A network whose parts exchange tuples, and that has parts it never calls."""

    def __init__(self):
        super().__init__()
        self.split = nn.Sequential(Halves())
        self.unused = nn.Sequential(nn.MaxPool3d(2))
        self.pool = nn.MaxPool3d((3, 3, 3), stride=2, padding=1)

    def forward(self, x):
        first, second = self.split(x)
        return (self.pool(first) - self.pool(second[:, :, :1])).flatten(2).mean(2)


class Halves(nn.Module):
    def forward(self, x):
        return x[:, :2], x[:, 1:]


@pytest.mark.parametrize("make", [Foreign, TuplesInside])
def test_networks_of_others_keep_their_outputs(make):
    """Pools that are shared, or padded, or called on maps of several sizes, included."""
    model = randomize(make())
    x = torch.randn(2, 3, 4, 16, 16)
    with torch.no_grad():
        for use_polyphase in (True, False):
            found = exportable(model, (3, 4, 16, 16), polyphase=use_polyphase)(x)
            torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
