"""Batches of uint8 frames to the network's input: one choice a clip, the same for every frame."""

import pytest
import torch

from msfnet.data.transforms import Augmentation, crop_views, mixup, normalise
from msfnet.recipe import load_recipe

PAPER = load_recipe("paper").preprocessing()
PLAIN = load_recipe("paper", ["data.size=8", "data.resize=[12, 10]", "data.mean=[0, 0, 0]", "data.std=[1, 1, 1]"])
PREPROCESSING = PLAIN.preprocessing()


def make_clips(n=2, frames=3, height=10, width=12):
    """Every pixel tells its place: red its row, green its column, blue its clip."""
    y = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    x = torch.arange(width, dtype=torch.uint8)[None, :].expand(height, width)
    one = torch.stack((y, x, torch.zeros_like(x)), -1)  # H W 3
    clips = one[None, None].repeat(n, frames, 1, 1, 1)
    clips[..., 2] = torch.arange(n, dtype=torch.uint8)[:, None, None, None]
    return clips


def places(x):
    """Rows and columns that ended in the corners of each clip: N 4."""
    corners = torch.stack([x[:, 0, 0, 0, 0], x[:, 0, 0, -1, 0], x[:, 1, 0, 0, 0], x[:, 1, 0, 0, -1]], 1)
    return (corners * 255).round().int().tolist()


def augment(clips, seed=0, **choices):
    chosen = {"flip": False, "contrast": 0.0, "crop_scale": 1.0} | choices
    return Augmentation(**chosen)(clips, PREPROCESSING, torch.Generator().manual_seed(seed))


def test_normalise():
    clips = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 2, 4, 5, 3)
    x = normalise(clips, PAPER)
    assert x.shape == (1, 3, 2, 4, 5)
    expected = [(value / 255 - m) / s for value, m, s in zip((0, 128, 255), PAPER.mean, PAPER.std, strict=True)]
    assert torch.allclose(x[0, :, 0, 0, 0], torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "crops", "corners"),
    [
        (10, 12, 1, [(1, 2)]),
        (10, 12, 3, [(1, 0), (1, 2), (1, 4)]),
        (12, 10, 3, [(0, 1), (2, 1), (4, 1)]),
        (8, 8, 3, [(0, 0)] * 3),
    ],
)
def test_crop_views(height, width, crops, corners):
    views = crop_views(make_clips(height=height, width=width), 8, crops)
    assert views.shape == (2, crops, 3, 8, 8, 3)
    assert [tuple(view[0, 0, 0, :2].tolist()) for view in views[0]] == corners


def test_crops_reach_every_place_and_are_one_a_clip():
    seen = set()
    for seed in range(60):
        x = augment(make_clips(), seed)
        assert torch.equal(x[:, :, 0], x[:, :, 2])
        seen |= {(top, left) for top, _, left, _ in places(x)}
    assert seen == {(y, x) for y in range(3) for x in range(5)}


def test_clips_of_a_batch_are_cropped_apart():
    corners = places(augment(make_clips(n=16)))
    assert len({tuple(corner) for corner in corners}) > 3


def test_flip_turns_half_of_the_clips_whole():
    turned = [left > right for _, _, left, right in places(augment(make_clips(n=400), flip=True))]
    assert 150 < sum(turned) < 250
    assert not any(left > right for _, _, left, right in places(augment(make_clips(n=400))))


def test_contrast_scales_around_the_clips_mean():
    clips = (torch.rand(50, 3, 10, 12, 3) * 255).to(torch.uint8)
    plain, contrasted = augment(clips), augment(clips, contrast=0.4)
    assert torch.allclose(plain.mean((2, 3, 4)), contrasted.mean((2, 3, 4)), atol=1e-5)
    factors = contrasted.std((2, 3, 4)) / plain.std((2, 3, 4))
    assert torch.allclose(factors, factors[:, :1].expand(-1, 3), atol=1e-4)  # one factor a clip
    assert 0.6 <= factors.min() < 0.7 < 1.3 < factors.max() <= 1.4


def test_scaled_crops_keep_the_size_and_show_a_share():
    widths = [right - left for _, _, left, right in places(augment(make_clips(n=200), crop_scale=0.5))]
    assert min(widths) <= 5
    assert max(widths) >= 8
    assert augment(make_clips(), crop_scale=0.5).shape == (2, 3, 3, 8, 8)


def test_the_generator_decides():
    clips = make_clips(n=8)
    choices = {"flip": True, "contrast": 0.3, "crop_scale": 0.6}
    assert torch.equal(augment(clips, 5, **choices), augment(clips, 5, **choices))
    assert not torch.equal(augment(clips, 5, **choices), augment(clips, 6, **choices))


def test_mixup_blends_each_clip_with_a_partner():
    x = torch.randn(6, 3, 2, 4, 4)
    shares = set()
    for seed in range(20):
        mixed, share, partners = mixup(x, 0.4, torch.Generator().manual_seed(seed))
        assert 0.5 <= share <= 1
        assert sorted(partners.tolist()) == list(range(6))
        assert torch.allclose(mixed, share * x + (1 - share) * x[partners])
        shares.add(share)
    assert len(shares) == 20
    unmixed, share, _ = mixup(x, 0.0, torch.Generator())
    assert share == 1
    assert unmixed is x
