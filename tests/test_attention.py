"""The attention modules of Table 3, FSAM among them, and what all attention modules have in common."""

import importlib
from pathlib import Path

import pytest
import torch

from msfnet.layers.attention import CBAM, NST, SE
from msfnet.layers.fsam import FAM, FSAM, SAM
from msfnet.models import registry

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize("make", [lambda: FSAM(32), lambda: SE(32), lambda: CBAM(32), NST])
def test_attention_keeps_the_shape_and_only_scales_down(make):
    x = torch.randn(2, 32, 3, 6, 5)
    y = make()(x)
    assert y.shape == x.shape
    assert (y.abs() <= x.abs()).all()


def test_se_follows_its_equation():
    torch.manual_seed(0)
    se, x = SE(32), torch.randn(2, 32, 3, 6, 5)
    down, up = se.fc[0].weight, se.fc[2].weight
    gate = torch.sigmoid((x.mean((2, 3, 4)) @ down.T).relu() @ up.T)
    assert torch.allclose(se(x), x * gate[:, :, None, None, None])


def test_cbam_follows_its_equations():
    torch.manual_seed(0)
    cbam, x = CBAM(32), torch.randn(2, 32, 3, 6, 5)
    channel, spatial = cbam
    gate = torch.sigmoid(channel.fc(x.mean((2, 3, 4))) + channel.fc(x.amax((2, 3, 4))))
    assert isinstance(spatial, SAM)
    assert torch.allclose(cbam(x), spatial(x * gate[:, :, None, None, None]))


def test_nst_nests_time_in_space():
    """Its factor at a position depends on all frames of the neighborhood, through the temporal attention."""
    torch.manual_seed(0)
    nst = NST()
    x = torch.randn(1, 4, 9, 5, 5, requires_grad=True)
    nst(x)[0, 0, 0, 2, 2].backward()
    assert (x.grad.abs().sum((0, 1, 3, 4)) > 0).all()
    assert sum(p.numel() for p in nst.parameters()) == 2 * 7 + 2 * 49


@pytest.mark.parametrize("module", [SE, CBAM, FAM])
def test_bottleneck_without_a_channel_is_refused(module):
    with pytest.raises(ValueError, match="reduction=64 channels, found 32"):
        module(32, reduction=64)


def test_every_row_of_the_ablation_can_be_trained(monkeypatch):
    """benchmarks/attention.py registers its variants of FSAM, each trained by all its weights."""
    monkeypatch.setattr(registry, "MODELS", dict(registry.MODELS))
    monkeypatch.syspath_prepend(BENCHMARKS)
    rows = importlib.import_module("attention")
    parameters = {}
    for name in rows.ROWS:
        model = registry.create_model(rows.model_name(name), 3, width_mult=0.25)
        model(torch.randn(2, 3, 4, 32, 32)).sum().backward()
        assert all(p.grad is not None for p in model.parameters()), name
        parameters[name] = registry.count_parameters(model)
    fsam, none = parameters["fsam"], parameters["none"]
    assert parameters["fam-only"] - none + parameters["sam-only"] - none == fsam - none
    assert parameters["he"] == parameters["he-mean"] == parameters["doubled"] == fsam
    assert parameters["sam-norm"] == fsam + 4
