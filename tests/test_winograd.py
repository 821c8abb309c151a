"""Winograd's F(4, 3) along the time axis: the same convolution, from its matrices to its gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from msfnet.layers import winograd
from msfnet.layers.winograd import (
    CPU_TRANSFORMS,
    Conv3x3x3,
    flat_convolution,
    input_transform,
    transforms,
    use_winograd,
)
from msfnet.models.registry import create_model


@pytest.fixture
def always(monkeypatch):
    """Use Winograd's algorithm for small tensors too."""
    for dtype in winograd.MIN_MACS:
        monkeypatch.setitem(winograd.MIN_MACS, dtype, 0)


@pytest.mark.parametrize(("near", "far"), [(0.75, 1.5), (2**-0.5, 2**0.5), (1, 2)])
def test_transforms_convolve_six_frames_by_three_taps(near, far):
    matrices = transforms(near, far)
    d, g = torch.randn(6, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    expected = torch.stack([d[t : t + 3] @ g for t in range(4)])
    y = matrices.output @ ((matrices.weight @ g) * (matrices.input @ d))
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)


def test_transforms_of_lavin_and_gray():
    """Their F(4, 3) has the points 0, ±1, ±2 and infinity."""
    a, g, b = (transforms(1, 2).output, transforms(1, 2).weight, transforms(1, 2).input)
    assert a[3].tolist() == [0, 1, -1, 8, -8, 1]
    assert g[:, 0].tolist() == pytest.approx([1 / 4, -1 / 6, -1 / 6, 1 / 24, 1 / 24, 0])
    assert b[0].tolist() == [4, 0, -5, 0, 1, 0]
    assert b[1].tolist() == [0, -4, -4, 1, 1, 0]
    assert b[5].tolist() == [0, 4, 0, -5, 0, 1]


def test_only_the_weights_are_rounded_in_bfloat16():
    for matrix in (CPU_TRANSFORMS.output, CPU_TRANSFORMS.input):
        assert torch.equal(matrix, matrix.bfloat16().double())


@pytest.mark.parametrize(("frames", "tiles"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_a_tile_sees_a_frame_on_either_side(frames, tiles):
    matrix = input_transform(frames, torch.float64).unflatten(0, (6, tiles))
    for tile in range(tiles):
        seen = matrix[:, tile].abs().sum(0).nonzero().flatten().tolist()
        assert seen == [t for t in range(4 * tile - 1, 4 * tile + 5) if 0 <= t < frames]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 3), c_in=st.integers(1, 5), c_out=st.integers(1, 5), frames=st.integers(1, 10),
    height=st.integers(1, 6), width=st.integers(1, 6), bias=st.booleans(), chunk=st.sampled_from([1, 2**24]),
)  # fmt: skip
def test_output_and_gradients_are_the_convolutions(n, c_in, c_out, frames, height, width, bias, chunk):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd, "CHUNK_BYTES", chunk)
        patch.setitem(winograd.MIN_MACS, torch.float64, 0)
        fast = Conv3x3x3(c_in, c_out, bias=bias).double()
        x = torch.randn(n, c_in, frames, height, width, dtype=torch.float64, requires_grad=True)
        wanted = [x, *fast.parameters()]
        y = fast(x)
        plain = F.conv3d(x, fast.weight, fast.bias, padding=1)
        grad = torch.randn_like(y)
        torch.testing.assert_close(y, plain, rtol=1e-9, atol=1e-9)
        pairs = zip(torch.autograd.grad(y, wanted, grad), torch.autograd.grad(plain, wanted, grad), strict=True)
        for got, expected in pairs:
            torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_large_clips_use_it_and_agree_to_rounding(monkeypatch):
    used = []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *args: used.append(1) or convolve(*args))
    conv, x = Conv3x3x3(32, 32), torch.randn(2, 32, 8, 28, 28)
    with torch.no_grad():
        y = conv(x)
        exact = F.conv3d(x.double(), conv.weight.double(), padding=1)
    assert used
    assert (y.double() - exact).norm() < 3e-6 * exact.norm()


def test_it_can_be_turned_off(monkeypatch):
    used = []
    convolve = winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *args: used.append(1) or convolve(*args))
    torch.manual_seed(0)
    model = create_model("msf_r3d_18", 3, width_mult=0.5).eval()
    x = torch.randn(1, 3, 8, 56, 56)
    with torch.no_grad():
        fast = model(x)
        calls = len(used)
        with use_winograd(False):
            plain = model(x)
        assert len(used) == calls > 0
        assert torch.equal(model(x), fast)  # it is on again
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    assert not torch.equal(fast, plain)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_a_single_gradient_can_be_computed(always, wanted):
    conv, x = Conv3x3x3(3, 3), torch.randn(2, 3, 4, 5, 5)
    conv.weight.requires_grad_(wanted[0])
    x.requires_grad_(wanted[1])
    asked = conv.weight if wanted[0] else x
    got = torch.autograd.grad(conv(x).square().sum(), asked)[0]
    expected = torch.autograd.grad(F.conv3d(x, conv.weight, padding=1).square().sum(), asked)[0]
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_one_and_two_frames_are_convolved_as_channels(frames, bias):
    plain = nn.Conv3d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, frames, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(flat_convolution(x, plain.weight, plain.bias), plain(x))


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_bf16_gradients_are_right_for_few_frames(always, frames):
    """torch 2.13's own are partly unwritten memory for two frames."""
    conv = Conv3x3x3(32, 32)
    x = torch.randn(2, 32, frames, 8, 8).to(memory_format=torch.channels_last_3d)
    exact = torch.autograd.grad(F.conv3d(x, conv.weight, padding=1).square().sum(), conv.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        y = conv(x)
    assert y.dtype == torch.bfloat16
    got = torch.autograd.grad(y.float().square().sum(), conv.weight)[0]
    assert (got - exact).norm() < 0.05 * exact.norm()


def test_weights_are_those_of_a_plain_convolution():
    plain, fast = nn.Conv3d(4, 4, 3, padding=1, bias=False), Conv3x3x3(4, 4)
    fast.load_state_dict(plain.state_dict())
    x = torch.randn(1, 4, 3, 5, 5)
    torch.testing.assert_close(fast(x), plain(x))
