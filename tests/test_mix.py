"""Mixup and CutMix: what is mixed, in which proportion, and that targets follow."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from msfnet.data.augment.mix import draw_box, mix, paste

X = torch.randn(6, 3, 2, 8, 10, generator=torch.Generator().manual_seed(0))
TARGETS = torch.eye(6)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_neither_keeps_the_batch():
    x, targets = mix(X, TARGETS, 0.0, 0.0, seeded(0))
    assert x is X
    assert targets is TARGETS


def test_mixup_blends_each_clip_with_a_partner():
    shares = set()
    for seed in range(20):
        x, targets = mix(X, TARGETS, 0.4, 0.0, seeded(seed))
        own = targets.diagonal()
        assert own.min() >= 0.5
        assert torch.allclose(targets.sum(1), torch.ones(6))
        assert torch.allclose(targets.sum(0), torch.ones(6))  # each is partner once
        assert torch.allclose(x.flatten(1), targets @ X.flatten(1), atol=1e-6)
        shares.add(float(own.min()))
    assert len(shares) == 20


def test_cutmix_mixes_targets_by_area():
    areas = set()
    for seed in range(30):
        x, targets = mix(X, TARGETS, 0.0, 1.0, seeded(seed))
        for i in range(6):
            kept = (x[i] == X[i]).float().mean()
            assert kept == pytest.approx(float(targets[i, i]), abs=1e-6)
            partner = int(targets[i].clone().index_fill_(0, torch.tensor(i), 0).argmax())
            changed = x[i] != X[i]
            assert torch.equal(x[i][changed], X[partner][changed])
            assert torch.equal(changed, changed[:1, :1].expand_as(changed))  # the same box in every frame
        areas.add(round(float(targets[0].max()), 3))
    assert len(areas) > 10


def test_paste():
    partners = torch.tensor([1, 0, 2, 3, 4, 5])
    before = X.clone()
    x, share = paste(X, partners, (2, 6, 5, 10))
    assert share == 1 - 4 * 5 / 80
    assert torch.equal(x[0, :, :, 2:6, 5:], X[1, :, :, 2:6, 5:])
    assert torch.equal(x[0, :, :, :2], X[0, :, :, :2])
    assert torch.equal(x[2:], X[2:])
    assert torch.equal(X, before)


@given(st.floats(0, 1), st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**31))
def test_boxes_are_inside_the_frame(share, height, width, seed):
    top, bottom, left, right = draw_box(share, height, width, seeded(seed))
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    length = (1 - share) ** 0.5
    assert bottom - top <= length * height + 1
    assert right - left <= length * width + 1


def test_central_box_has_the_drawn_area():
    boxes = [draw_box(0.75, 100, 200, seeded(seed)) for seed in range(200)]
    whole = [(b - t, r - x) for t, b, x, r in boxes if t > 0 and b < 100 and x > 0 and r < 200]
    assert len(whole) > 20
    assert {h for h, _ in whole} <= {49, 50, 51}
    assert {w for _, w in whole} <= {99, 100, 101}


def test_with_both_each_batch_gets_one_of_them():
    kinds = []
    for seed in range(40):
        x, _ = mix(X, TARGETS, 1.0, 1.0, seeded(seed))
        from_one_clip = (x[:, None] == X[None]).any(1).all()
        kinds.append(bool(from_one_clip))
    assert 8 < sum(kinds) < 32


def test_soft_targets_are_mixed():
    soft = torch.softmax(torch.randn(6, 4, generator=seeded(1)), 1)
    for alphas in ((0.4, 0.0), (0.0, 1.0)):
        _, targets = mix(X, soft, *alphas, seeded(2))
        _, which = mix(X, TARGETS, *alphas, seeded(2))
        assert torch.allclose(targets, which @ soft, atol=1e-6)
