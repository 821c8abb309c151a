"""Networks for inference: the same logits from fewer operations."""

import pytest
import torch
from torch import nn

from msfnet import create_model, list_models
from msfnet.inference import fused
from msfnet.inference.fused import fuse
from msfnet.layers import winograd


def trained(name, **arguments):
    """A network whose norms have seen something: statistics, scales and shifts are no longer those of a new one."""
    torch.manual_seed(0)
    model = create_model(name, 5, width_mult=0.25, img_size=32, **arguments)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model.eval()


@pytest.mark.parametrize("name", list_models())
def test_logits_stay(name):
    model = trained(name)
    x = torch.randn(2, *model.input_shape)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    quick = fuse(model)
    with torch.no_grad():
        expected = model(x)
        assert (quick(x) - expected).norm() < 1e-4 * expected.norm()
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(p.requires_grad for p in quick.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cpu_that_onednn_does_not_serve(dtype, monkeypatch):
    """As those without AVX-512 in bf16: PyTorch's own loops compute it then."""
    monkeypatch.setattr(fused, "onednn_computes", lambda dtype: False)
    model = trained("msf_r3d_18_fsam")
    x = torch.randn(2, *model.input_shape)
    with torch.no_grad():
        expected, got = model(x), fuse(model, dtype)(x)
    assert (got - expected).norm() < (1e-4 if dtype == torch.float32 else 0.1) * expected.norm()


@pytest.mark.parametrize("frames", [1, 2, 3, 8])
def test_clips_of_any_length(frames, monkeypatch):
    monkeypatch.setitem(winograd.WORTHWHILE_MACS, torch.float32, 0)
    model = trained("msf_r3d_18_fsam")
    x = torch.randn(2, 3, frames, 40, 24)
    with torch.no_grad():
        expected = model(x)
        assert (fuse(model)(x) - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("name", ["r3d_18", "r2plus1d_18", "msf_r3d_18_fsam"])
def test_norms_behind_convolutions_are_gone(name):
    norms = [m for m in fuse(trained(name)).modules() if isinstance(m, nn.BatchNorm3d)]
    assert len(norms) == (8 if name.startswith("msf") else 0)  # those behind MSL, which ends in ReLUs


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18_fsam", "msf_c3d_fsam"])
def test_bf16_agrees_to_its_precision(name):
    model = trained(name)
    x = torch.randn(4, *model.input_shape)
    with torch.no_grad():
        expected, got = model(x), fuse(model, torch.bfloat16)(x)
    assert got.dtype == torch.float32
    assert (got - expected).norm() < 0.1 * expected.norm()
    assert not torch.equal(got, expected)
