"""Random resized crops: windows inside the frame, resampled as torch does it, the same on every device."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from msfnet.data.augment.crop import crop, crop_by_matrices, crop_by_resize, draw_windows

shares = st.floats(0, 1, width=32, exclude_max=True)


def random_clips(n, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 2, height, width, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("draws", "scale", "aspect", "window"),
    [
        ((0.7, 0.0, 0.0, 0.3), 1.0, 1.0, (0, 0, 8, 8)),
        ((0.7, 0.999, 0.999, 0.3), 1.0, 1.0, (2, 4, 8, 8)),
        ((0.0, 0.5, 0.5, 0.3), 0.5, 1.0, (3, 4, 5, 5)),
        ((0.999, 0.999, 0.999, 0.3), 0.5, 1.0, (0, 2, 10, 10)),
        ((0.0, 0.0, 0.0, 1.0), 1.0, 1.5625, (0, 0, 6, 10)),  # 8 / 1.25 and 8 * 1.25
        ((0.0, 0.0, 0.0, 0.0), 1.0, 1.5625, (0, 0, 10, 6)),
        ((0.0, 0.0, 0.0, 0.5), 1.0, 1.5625, (0, 0, 8, 8)),
        ((0.999, 0.999, 0.999, 1.0), 0.5, 4.0, (5, 0, 5, 12)),  # as wide as there is room
    ],
)
def test_windows(draws, scale, aspect, window):
    drawn = draw_windows(torch.tensor(draws)[:, None], (10, 12), 8, scale, aspect)
    assert tuple(drawn[0].tolist()) == window


@given(
    st.tuples(shares, shares, shares, shares),
    st.tuples(st.integers(8, 400), st.integers(8, 400)),
    st.floats(0.05, 1),
    st.floats(1, 10),
)
def test_windows_are_inside_the_frame(draws, frame_px, scale, aspect):
    top, left, height, width = draw_windows(torch.tensor(draws)[:, None], frame_px, 8, scale, aspect)[0].tolist()
    assert min(height, width) >= 1
    assert min(top, left) >= 0
    assert top + height <= frame_px[0]
    assert left + width <= frame_px[1]


def test_aspect_ratios_are_symmetric():
    windows = draw_windows(torch.rand(4, 2000, generator=torch.Generator().manual_seed(0)), (500, 500), 100, 1.0, 2.0)
    ratios = (windows[:, 3] / windows[:, 2]).log() / math.log(2)
    assert -1.05 < ratios.min() < -0.95 < 0.95 < ratios.max() < 1.05
    assert abs(ratios.mean()) < 0.05
    assert ((windows[:, 2] * windows[:, 3]) / 100**2 - 1).abs().max() < 0.02


@pytest.mark.parametrize("way", [crop_by_resize, crop_by_matrices])
def test_windows_of_the_size_are_copied(way):
    clips = random_clips(5, 17, 23)
    windows = draw_windows(torch.rand(4, 5), (17, 23), 8, 1.0, 1.0)
    expected = [clip[:, y : y + 8, x : x + 8] for clip, (y, x, _, _) in zip(clips, windows.tolist(), strict=True)]
    assert torch.equal(way(clips, windows, 8), torch.stack(expected))


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.floats(0.2, 1), st.floats(1, 3), st.integers(4, 40))
def test_crop_matches_torch_interpolation(seed, scale, aspect, size_px):
    clips = random_clips(3, 41, 52, seed)
    draws = torch.rand(4, 3, generator=torch.Generator().manual_seed(seed))
    windows = draw_windows(draws, (41, 52), size_px, scale, aspect)
    for i, (top, left, height, width) in enumerate(windows.tolist()):
        cut = clips[i, :, top : top + height, left : left + width].permute(0, 3, 1, 2).float()
        exact = F.interpolate(cut, size=(size_px, size_px), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
        assert (crop_by_matrices(clips, windows, size_px)[i] - exact).abs().max() <= 0.51
        assert (crop_by_resize(clips, windows, size_px)[i] - exact).abs().max() <= 1.51  # rounds between its passes


@pytest.mark.parametrize("way", [crop_by_resize, crop_by_matrices])
def test_shrinking_is_antialiased(way):
    """A board of single black and white pixels is gray at half its size; nearest pixels would make it one of them."""
    board = ((torch.arange(32)[:, None] + torch.arange(32)) % 2 * 255).to(torch.uint8)
    clips = board[None, None, :, :, None].expand(1, 2, 32, 32, 3)
    shrunk = way(clips, torch.tensor([[0, 0, 32, 32]]), 16)[:, :, 2:-2, 2:-2].float()
    assert (shrunk - 127.5).abs().max() <= 1


def test_cpu_resizes_bytes():
    clips = random_clips(2, 20, 20)
    windows = torch.tensor([[0, 0, 20, 20], [3, 4, 11, 9]])
    assert torch.equal(crop(clips, windows, 12), crop_by_resize(clips, windows, 12))
