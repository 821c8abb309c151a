"""Stochastic depth: how often samples are dropped, their expected value, and the drop rate of each block."""

import pytest
import torch

from msfnet.layers.drop_path import DropPath, linear_rates
from msfnet.models.registry import create_model
from msfnet.types import UserError


def test_whole_samples_are_dropped_and_the_mean_is_kept():
    torch.manual_seed(0)
    x = DropPath(0.25).train()(torch.ones(4000, 2, 1, 3, 3))
    values = x.flatten(1)
    assert torch.equal(values.amin(1), values.amax(1))  # one draw per sample
    assert values.unique().tolist() == pytest.approx([0, 4 / 3])
    assert abs((values[:, 0] == 0).float().mean() - 0.25) < 0.03  # four standard errors
    assert abs(float(x.mean()) - 1) < 0.04


def test_it_is_the_identity_in_evaluation_and_at_rate_zero():
    x = torch.randn(3, 2, 1, 2, 2)
    assert DropPath(0.9).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_rates_increase_linearly_to_the_last_block():
    assert linear_rates(0.4, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    model = create_model("msf_r3d_18", 3, width_mult=0.125, drop_path_rate=0.8)
    rates = [module.rate for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])


@pytest.mark.parametrize("name", ["r3d_18", "msf_r3d_18"])
def test_a_dropped_block_is_its_shortcut(name):
    """Both branches of the MSF block are dropped together: with a rate near one only relu(B) is left."""
    block = create_model(name, 3, width_mult=0.125).layer1[1].train()
    block.drop_path.rate = 1 - 1e-6
    x = torch.randn(4, 8, 2, 4, 4)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_other_rates_are_refused(rate):
    with pytest.raises(UserError, match="expected drop_path_rate of at least 0 and below 1, found"):
        create_model("r3d_18", 3, drop_path_rate=rate)
