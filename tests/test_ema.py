"""The moving average of weights: its arithmetic, the swap, and that a saved one goes on bit for bit."""

import io

import pytest
import torch
from torch import nn

from msfnet.training.ema import WeightAverage


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


def test_by_hand():
    """Checkpoint 1, then 2, 3, 4; d is 2/11, 3/12 and, by the decay, 0.3, not 4/13."""
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


def test_statistics_are_averaged_and_counts_copied():
    model = small_network()
    average = WeightAverage(model, 0.9)
    take_steps(model, average, 5, seed=1)
    own = model.state_dict()
    assert int(average.average["1.num_batches_tracked"]) == int(own["1.num_batches_tracked"]) == 5
    assert not torch.equal(average.average["1.running_mean"], own["1.running_mean"])
    assert not torch.equal(average.average["0.weight"], own["0.weight"])


def test_within_the_block_the_network_is_the_average_and_after_it_itself_even_after_an_error():
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


def test_a_saved_average_goes_on_bit_for_bit():
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
