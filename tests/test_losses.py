"""Losses by hand-written tables, each of which is plain cross-entropy, bit for bit, with neutral settings."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from msfnet.recipe import load_recipe
from msfnet.training.losses import class_weights, focal_loss, make_loss, weighted_cross_entropy

HALVES = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))  # logits whose softmax these are
FIRST_LAST = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
SHARED = torch.tensor([[0.75, 0.25, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("counts", "weights"),
    [((5, 5, 5), (1, 1, 1)), ((1, 3), (2, 2 / 3)), ((10, 20, 70), (10 / 3, 5 / 3, 10 / 21)), ((7,), (1,))],
)
def test_class_weights(counts, weights):
    found = class_weights(counts)
    assert found.tolist() == pytest.approx(weights)
    assert float(found @ torch.tensor(counts, dtype=torch.float)) == pytest.approx(sum(counts))


@pytest.mark.parametrize(
    ("targets", "smoothing", "expected"),
    [
        (FIRST_LAST, 0.0, (2 * math.log(2) - 0.5 * math.log(0.6)) / 2),
        (SHARED, 0.0, (2 * 0.75 * math.log(2) + 1 * 0.25 * math.log(4) - 0.5 * math.log(0.6)) / 2),
        (
            FIRST_LAST,
            0.3,
            (2 * 0.8 * math.log(2) + 1 * 0.1 * math.log(4) + 0.5 * 0.1 * math.log(4)) / 2
            - (2 * 0.1 * math.log(0.2) + 1 * 0.1 * math.log(0.2) + 0.5 * 0.8 * math.log(0.6)) / 2,
        ),
    ],
)
def test_weighted(targets, smoothing, expected):
    weights = torch.tensor([2.0, 1.0, 0.5])
    loss = weighted_cross_entropy(HALVES, targets, weights=weights, label_smoothing=smoothing)
    assert float(loss) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("targets", "gamma", "smoothing", "expected"),
    [
        (FIRST_LAST, 2.0, 0.0, (0.25 * math.log(2) - 0.16 * math.log(0.6)) / 2),
        (FIRST_LAST, 1.0, 0.0, (0.5 * math.log(2) - 0.4 * math.log(0.6)) / 2),
        (FIRST_LAST, 0.5, 0.0, (0.5**0.5 * math.log(2) - 0.4**0.5 * math.log(0.6)) / 2),
        (SHARED, 2.0, 0.0, (0.75 * 0.25 * math.log(2) + 0.25 * 0.5625 * math.log(4) - 0.16 * math.log(0.6)) / 2),
        (
            FIRST_LAST,
            2.0,
            0.3,
            (0.8 * 0.25 * math.log(2) + 2 * 0.1 * 0.5625 * math.log(4)) / 2
            - (2 * 0.1 * 0.64 * math.log(0.2) + 0.8 * 0.16 * math.log(0.6)) / 2,
        ),
    ],
)
def test_focal(targets, gamma, smoothing, expected):
    assert float(focal_loss(HALVES, targets, gamma=gamma, label_smoothing=smoothing)) == pytest.approx(
        expected, rel=1e-5
    )


def test_focal_loss_has_the_gradient_of_its_formula():
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.float32, requires_grad=True)
    targets = torch.rand(6, 4)
    focal_loss(logits, targets, gamma=1.5).backward()
    again = logits.detach().double().requires_grad_()
    p = again.softmax(1)
    (-(targets * (1 - p) ** 1.5 * p.log()).sum(1).mean()).backward()
    assert torch.allclose(logits.grad, again.grad.float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("margin", [50.0, 1000.0])
def test_focal_loss_is_finite_for_certain_predictions(gamma, margin):
    logits = torch.tensor([[margin, 0.0], [margin, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), gamma=gamma)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(2, 12), st.sampled_from([0.0, 0.1, 0.37]), st.integers(0, 10**6), st.integers(1, 40)
)
def test_neutral_losses_are_cross_entropy_bit_for_bit(n, classes, smoothing, seed, count):
    generator = torch.Generator().manual_seed(seed)
    logits = 5 * torch.randn(n, classes, generator=generator)
    targets = torch.rand(n, classes, generator=generator).softmax(1)
    expected = F.cross_entropy(logits, targets, label_smoothing=smoothing)
    counts = [count] * classes
    for keys in (
        ["train.loss=cross_entropy"],
        ["train.loss=class_weighted"],
        ["train.loss=focal", "train.focal_gamma=0"],
    ):
        train = load_recipe("small", [*keys, f"train.label_smoothing={smoothing}"]).train
        assert torch.equal(make_loss(train, counts)(logits, targets), expected)


def test_the_recipe_chooses_the_loss():
    recipes = {loss: load_recipe("small", [f"train.loss={loss}"]).train for loss in ("class_weighted", "focal")}
    smoothing = recipes["focal"].label_smoothing
    weights = class_weights([1, 2, 3])
    assert torch.equal(
        make_loss(recipes["class_weighted"], [1, 2, 3])(HALVES, SHARED),
        weighted_cross_entropy(HALVES, SHARED, weights=weights, label_smoothing=smoothing),
    )
    assert torch.equal(
        make_loss(recipes["focal"], [1, 2, 3])(HALVES, SHARED),
        focal_loss(HALVES, SHARED, gamma=2.0, label_smoothing=smoothing),
    )
