"""uint8 frames to the input of a network, with values computed by hand."""

from dataclasses import replace

import pytest
import torch

from msfnet.data.transforms import INPUTS, crop_views, normalize, scale_channels
from msfnet.recipe import load_recipe
from msfnet.types import INPUT_CHANNELS, UserError

PAPER = load_recipe("paper").preprocessing()


def make_clips(n=2, frames=3, height=10, width=12):
    """Every pixel encodes its position: red its row, green its column, blue its clip."""
    y = torch.arange(height, dtype=torch.uint8)[:, None].expand(height, width)
    x = torch.arange(width, dtype=torch.uint8)[None, :].expand(height, width)
    one = torch.stack((y, x, torch.zeros_like(x)), -1)  # H W 3
    clips = one[None, None].repeat(n, frames, 1, 1, 1)
    clips[..., 2] = torch.arange(n, dtype=torch.uint8)[:, None, None, None]
    return clips


def test_normalize():
    clips = torch.tensor([0, 128, 255], dtype=torch.uint8).expand(1, 2, 4, 5, 3)
    x = normalize(clips, PAPER)
    assert x.shape == (1, 3, 2, 4, 5)
    expected = [(value / 255 - m) / s for value, m, s in zip((0, 128, 255), PAPER.mean, PAPER.std, strict=True)]
    assert torch.allclose(x[0, :, 0, 0, 0], torch.tensor(expected), atol=1e-6)


def test_input_is_channels_last_in_memory():
    assert normalize(make_clips(), PAPER).is_contiguous(memory_format=torch.channels_last_3d)


def test_scale_channels_by_clip_and_channel():
    scale = torch.arange(6.0).view(2, 3)
    x = scale_channels(make_clips(), scale, 10 * scale)
    for n in range(2):
        assert torch.equal(x[n, 0, 1], scale[n, 0] * (torch.arange(10.0)[:, None].expand(10, 12) + 10))
        assert torch.equal(x[n, 1, 1], scale[n, 1] * (torch.arange(12.0).expand(10, 12) + 10))
        assert torch.equal(x[n, 2, 1], (scale[n, 2] * (n + 10)).expand(10, 12))


def clip_of(*levels):
    """One clip of frames of one red level each, no green and 10 of blue: 1 F 2 2 3."""
    frames = [torch.tensor([level, 0, 10], dtype=torch.uint8).expand(2, 2, 3) for level in levels]
    return torch.stack(frames)[None]


def test_differences_of_consecutive_frames():
    """0, 51 and 204 of 255 are 0, 0.2 and 0.8; their differences are 0.2 and 0.6, divided by a deviation of 0.5."""
    values = ["clip.std=[0.5, 0.5, 0.5]", "clip.mean=[0.4, 0.4, 0.4]", "clip.num_frames=2"]
    difference = load_recipe("paper", [*values, "clip.input=rgb_diff"]).preprocessing()
    x = normalize(clip_of(0, 51, 204), difference)
    assert x.shape == (1, 3, 2, 2, 2)
    assert torch.allclose(x[0, 0, :, 1, 0], torch.tensor([0.4, 1.2]), atol=1e-6)
    assert x[0, 1:].abs().max() < 1e-6  # colors that do not change
    both = normalize(clip_of(0, 51, 204), load_recipe("paper", [*values, "clip.input=rgb+rgb_diff"]).preprocessing())
    assert both.shape == (1, 6, 2, 2, 2)
    assert torch.allclose(both[0, :, 0, 0, 1], torch.tensor([-0.8, -0.8, 0.02 / 0.255 - 0.8, 0.4, 0, 0]), atol=1e-6)
    assert torch.equal(both[:, 3:], x)


@pytest.mark.parametrize("kind", INPUT_CHANNELS)
def test_every_input_has_its_channels_and_frames(kind):
    preprocessing = load_recipe("paper", ["clip.num_frames=4", f"clip.input={kind}"]).preprocessing()
    x = normalize(make_clips(frames=preprocessing.read_frames), preprocessing)
    assert x.shape == (2, preprocessing.channels, 4, 10, 12)
    assert x.stride()[1] == 1
    assert set(INPUTS) == set(INPUT_CHANNELS)


def test_unknown_input_is_refused():
    with pytest.raises(UserError, match=r"expected the input rgb or rgb_diff or rgb\+rgb_diff, found 'flow'"):
        replace(PAPER, input="flow")


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
