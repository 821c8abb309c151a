"""RandAugment's operations against tables by hand and slow references of one frame; what clips add to images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msfnet.data.augment.randaugment import OPERATIONS, rand_augment

MEASURING = {"autocontrast", "equalize"}  # have no magnitude


def random_clips(n=2, frames=3, size=9, seed=0, low=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (n, frames, size, size, 3), generator=generator, dtype=torch.uint8)


def on_levels(name, levels, strength):
    """An operation on one frame with these gray levels in a row."""
    clip = torch.tensor(levels, dtype=torch.uint8)[None, None, None, :, None].expand(1, 1, 1, -1, 3)
    out = OPERATIONS[name](clip, torch.tensor([strength]))
    assert torch.equal(out[..., 0], out[..., 2])
    return out[0, 0, 0, :, 0].tolist()


@pytest.mark.parametrize(
    ("name", "levels", "strength", "expected"),
    [
        ("identity", [0, 7, 255], 1.0, [0, 7, 255]),
        ("autocontrast", [50, 100, 150], 0.5, [0, 127, 255]),
        ("autocontrast", [0, 9, 255], 0.5, [0, 9, 255]),
        ("autocontrast", [80, 80, 80], 0.5, [80, 80, 80]),
        ("posterize", [0, 15, 16, 255], 1.0, [0, 0, 16, 240]),
        ("posterize", [0, 15, 17, 255], -0.25, [0, 14, 16, 254]),
        ("posterize", [0, 15, 16, 255], 0.0, [0, 15, 16, 255]),
        ("solarize", [0, 127, 128, 255], 0.5, [0, 127, 127, 0]),
        ("solarize", [0, 127, 128, 255], -1.0, [255, 128, 127, 0]),
        ("solarize", [0, 127, 255], 0.0, [0, 127, 255]),
        ("brightness", [0, 100, 200], 1.0, [0, 190, 255]),
        ("brightness", [0, 100, 200], -1.0, [0, 10, 20]),
        ("contrast", [50, 100, 150], 1.0, [5, 100, 195]),
        ("contrast", [0, 100, 200], -1.0, [90, 100, 110]),
        ("color", [0, 100, 200], 1.0, [0, 100, 200]),  # grays stay the same
        ("translate x", [10, 20, 30, 40, 50, 60, 70, 80, 90], 0.0, [10, 20, 30, 40, 50, 60, 70, 80, 90]),
    ],
)
def test_levels(name, levels, strength, expected):
    assert on_levels(name, levels, strength) == expected


def test_color():
    clip = torch.tensor([200, 100, 50], dtype=torch.uint8).view(1, 1, 1, 1, 3)
    luma = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    for strength, factor in ((-1.0, 0.1), (0.5, 1.45)):
        out = OPERATIONS["color"](clip, torch.tensor([strength])).flatten().tolist()
        assert out == [min(255, max(0, round(luma + factor * (v - luma)))) for v in (200, 100, 50)]


def equalized(channel):
    """One channel by the usual recipe: a lookup table from the histogram's running sum."""
    counts = np.bincount(channel.ravel(), minlength=256)
    step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
    if step == 0:
        return channel
    table, running = np.zeros(256, int), step // 2
    for level in range(256):
        table[level] = min(255, running // step)
        running += counts[level]
    return table[channel]


@pytest.mark.parametrize(("low", "high"), [(0, 256), (90, 130), (7, 8)])
def test_equalize_over_all_frames(low, high):
    clips = random_clips(size=20, low=low, high=high)
    out = OPERATIONS["equalize"](clips, torch.zeros(2))
    for clip, done in zip(clips.numpy(), out.numpy(), strict=True):
        for c in range(3):
            assert (done[..., c] == equalized(clip[..., c])).all()


def test_sharpness():
    clips = random_clips(n=1, frames=2)
    picture = clips[0, 1, :, :, 2].double().numpy()
    for strength, factor in ((0.5, 1.45), (-1.0, 0.1)):
        out = OPERATIONS["sharpness"](clips, torch.tensor([strength]))[0, 1, :, :, 2].numpy()
        smooth = picture.copy()
        for y in range(1, 8):
            for x in range(1, 8):
                smooth[y, x] = (picture[y - 1 : y + 2, x - 1 : x + 2].sum() + 4 * picture[y, x]) / 13
        expected = np.clip(smooth + factor * (picture - smooth), 0, 255)
        assert np.abs(out - expected).max() <= 0.51
        assert (out[0] == picture[0]).all()  # edges stay


@pytest.mark.parametrize(("name", "axis"), [("translate x", 3), ("translate y", 2)])
def test_translate_fills_with_gray(name, axis):
    clips = random_clips(size=20)
    out = OPERATIONS[name](clips, torch.tensor([1.0, -1.0]))  # 0.45 of 20 pixels
    moved, empty, rest = (lambda c, a, b: c.narrow(axis - 1, a, b)), 9, 11
    assert torch.equal(moved(out[0], 0, rest), moved(clips[0], empty, rest))
    assert (moved(out[0], rest, empty) == 128).all()
    assert torch.equal(moved(out[1], empty, rest), moved(clips[1], 0, rest))
    assert (moved(out[1], 0, empty) == 128).all()


@pytest.mark.parametrize(("name", "swap"), [("shear x", False), ("shear y", True)])
def test_shear_moves_the_edges(name, swap):
    clips = torch.zeros(1, 1, 40, 40, 3, dtype=torch.uint8)
    line = clips.transpose(2, 3) if swap else clips
    line[:, :, :, 19:21] = 255  # along y, or with swap along x
    out = OPERATIONS[name](clips, torch.tensor([1.0]))
    out = out.transpose(2, 3) if swap else out
    x = torch.arange(8.0, 32)  # to the sides of it, the fill comes into sight
    bright = out[0, 0, :, 8:32, 0].float()
    places = (bright * x).sum(1) / bright.sum(1)  # of the line, at each y
    expected = 19.5 - 0.3 * (torch.arange(40.0) - 19.5)
    assert (places - expected).abs().max() < 0.3


def test_three_rotations_are_a_right_angle():
    """Three rotations by 30 degrees are one by 90, up to what interpolation blurs."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 41), torch.linspace(-1, 1, 41), indexing="ij")
    blob = (255 * torch.exp(-8 * ((x - 0.4) ** 2 + y**2))).to(torch.uint8)
    clips = blob[None, None, :, :, None].expand(2, 2, 41, 41, 3)
    out = clips
    for _ in range(3):
        out = OPERATIONS["rotate"](out, torch.tensor([1.0, -1.0]))
    inside = (x**2 + y**2 < 0.7).unsqueeze(-1)
    for n, turns in ((0, 1), (1, -1)):
        difference = (out[n].float() - torch.rot90(clips[n], turns, (1, 2)).float()).abs() * inside
        assert difference.max() < 12


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_operations_are_the_same_for_all_frames_of_a_clip(name):
    clips = random_clips(n=3, frames=1, size=16).expand(3, 4, 16, 16, 3)
    strengths = torch.tensor([0.9, -0.9, 0.4])
    before = clips.clone()
    out = OPERATIONS[name](clips, strengths)
    assert torch.equal(clips, before)
    assert out.dtype == torch.uint8
    assert out.shape == clips.shape
    assert torch.equal(out, out[:, :1].expand_as(out))  # static clips stay static
    apart = [OPERATIONS[name](clips[i : i + 1], strengths[i : i + 1]) for i in range(3)]
    assert torch.equal(out, torch.cat(apart))


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - MEASURING))
def test_without_magnitude_nothing_changes(name):
    clips = random_clips(size=16)
    assert torch.equal(OPERATIONS[name](clips, torch.zeros(2)), clips)


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"identity"}))
def test_with_magnitude_something_changes(name):
    clips = random_clips(size=16, low=20, high=200)
    assert not torch.equal(OPERATIONS[name](clips, torch.full((2,), 0.9)), clips)


def test_each_clip_gets_the_operations_drawn_for_it():
    clip = random_clips(n=1, size=12, low=20, high=200)
    clips = clip.expand(200, -1, -1, -1, -1)
    out = rand_augment(clips, 1, 9, torch.rand(1, 2, 200, generator=torch.Generator().manual_seed(0)))
    possible = {}
    for name, operation in OPERATIONS.items():
        for sign in (-1, 1):
            possible.setdefault(operation(clip, torch.tensor([0.9 * sign]))[0].numpy().tobytes(), name)
    drawn = {possible[done.numpy().tobytes()] for done in out}  # each is exactly one operation
    assert drawn == set(OPERATIONS)
    assert torch.equal(clips, clip.expand_as(clips))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 4), st.floats(0, 10), st.integers(0, 2**31), st.integers(3, 12))
def test_any_choice_keeps_shape_and_static_clips(operations, magnitude, seed, size):
    clips = random_clips(n=5, frames=1, size=size, seed=seed).expand(5, 3, size, size, 3)
    draws = torch.rand(operations, 2, 5, generator=torch.Generator().manual_seed(seed))
    one, two = (rand_augment(clips, operations, magnitude, draws) for _ in range(2))
    assert one.shape == clips.shape
    assert one.dtype == torch.uint8
    assert torch.equal(one, two)
    assert torch.equal(one, one[:, :1].expand_as(one))
    if operations == 0:
        assert torch.equal(one, clips)
