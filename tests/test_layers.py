"""The mechanisms, each against its equation."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from msfnet.layers.cbam import CBAM
from msfnet.layers.fsam import BASIS_SIZE, FAM, FSAM, SAM, TOP16, FrequencyPool, area_resampling, dct_rows
from msfnet.layers.msl import MSL, split_sizes
from msfnet.layers.nst import NST
from msfnet.layers.se import SE

# MSL (Eq. 2 and 4)


@pytest.mark.parametrize(
    ("channels", "groups", "sizes"),
    [
        (64, 4, [16, 16, 16, 16]),
        (64, 3, [22, 22, 20]),
        (64, 5, [13, 13, 13, 13, 12]),
        (64, 6, [11, 11, 11, 11, 11, 9]),
        (16, 5, [4, 3, 3, 3, 3]),  # torch.chunk would leave the fifth empty
        (7, 2, [4, 3]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_split_sizes(channels, groups, sizes):
    assert split_sizes(channels, groups) == sizes


@pytest.mark.parametrize(("channels", "groups"), [(64, 1), (64, 0), (3, 4)])
def test_split_that_cannot_be_names_both_numbers(channels, groups):
    with pytest.raises(ValueError, match=rf"{channels} channels, found num_splits={groups}"):
        MSL(channels, groups)


def test_msl_branch_widths_are_those_of_eq_3():
    widths = [branch[0].weight.shape[:2] for branch in MSL(64, 4).branches]
    assert widths == [(16, 16), (24, 24), (28, 28)]


def test_msl_follows_its_equations():
    torch.manual_seed(0)
    msl = MSL(16, 4).eval()
    x = torch.randn(2, 16, 3, 5, 5)
    x1, x2, x3, x4 = x.chunk(4, dim=1)
    f2, f3, f4 = msl.branches
    y2 = f2(x2)
    y3 = f3(torch.cat((x3, y2[:, 2:]), 1))
    y4 = f4(torch.cat((x4, y3[:, 3:]), 1))
    assert torch.equal(msl(x), torch.cat((x1, y2[:, :2], y3[:, :3], y4), 1))


@pytest.mark.parametrize(("channels", "groups"), [(64, 2), (64, 3), (65, 4), (63, 5), (64, 6), (8, 8), (9, 4)])
def test_msl_keeps_the_shape(channels, groups):
    x = torch.randn(2, channels, 2, 4, 5)
    assert MSL(channels, groups)(x).shape == x.shape


def test_msl_levels_see_3_5_and_7_frames():
    """Fig. 3b, measured: which input frames have a gradient at the middle frame of each level's output."""
    torch.manual_seed(0)
    msl = MSL(16, 4).eval()
    with torch.no_grad():
        for weight in msl.parameters():
            weight.copy_(weight.abs() + 0.1)  # no ReLU closes
    seen = []
    for channels in (slice(0, 4), slice(4, 6), slice(6, 9), slice(9, 16)):
        x = torch.rand(1, 16, 15, 3, 3, requires_grad=True)
        msl(x)[:, channels, 7].sum().backward()
        seen.append(int((x.grad.abs().sum((0, 1, 3, 4)) > 0).sum()))
    assert seen == [1, 3, 5, 7]


# FAM (Eq. 5 and 6)


def test_dct_rows_are_scipys():
    expected = scipy.fft.dct(np.eye(BASIS_SIZE), type=2, norm="ortho", axis=0)
    assert np.allclose(dct_rows(list(range(BASIS_SIZE))).numpy(), expected, atol=1e-6)


def test_frequency_pool_is_scipys_two_dimensional_dct():
    torch.manual_seed(0)
    x = torch.randn(2, 32, 3, 7, 7)
    spectrum = scipy.fft.dctn(x.mean(2).numpy(), type=2, norm="ortho", axes=(2, 3))
    expected = np.stack([spectrum[:, c, v, h] for c in range(32) for v, h in [TOP16[c // 2]]], axis=1)
    assert np.allclose(FrequencyPool(32)(x).numpy(), expected, atol=1e-5)


def test_global_average_pooling_is_frequency_zero():
    x = torch.randn(2, 8, 3, 14, 10)
    pooled = FrequencyPool(8, frequencies=((0, 0),))(x)
    assert torch.allclose(pooled, BASIS_SIZE * x.mean((2, 3, 4)), atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (3, 3), (4, 4), (6, 9), (7, 7), (14, 14), (28, 20), (112, 112)])
def test_fam_is_never_plain_average_pooling(size):
    torch.manual_seed(0)
    x = torch.randn(1, 16, 2, *size) + 1
    pooled, average = FrequencyPool(16)(x)[0], BASIS_SIZE * x.mean((2, 3, 4))[0]
    assert torch.allclose(pooled[0], average[0], atol=1e-4)
    assert not torch.isclose(pooled[1:], average[1:], atol=1e-3).any()
    if min(size) >= BASIS_SIZE:
        weight = FrequencyPool(16).weight(*size).flatten(1)
        assert torch.linalg.matrix_rank(weight) == 16  # sixteen different views of the map


@pytest.mark.parametrize("n_in", [1, 2, 4, 6, 7, 9, 14, 28, 112])
def test_resampling_averages(n_in):
    matrix = area_resampling(7, n_in, torch.zeros(1))
    assert torch.allclose(matrix.sum(1), torch.ones(7), atol=1e-5)
    if n_in % 7 == 0:
        x = torch.randn(1, 1, n_in)
        assert torch.allclose(x[0] @ matrix.T, nn.functional.avg_pool1d(x, n_in // 7)[0], atol=1e-5)


def test_fam_names_channels_and_frequencies_that_do_not_fit():
    with pytest.raises(ValueError, match="16 frequencies, found 40 channels"):
        FAM(40)
    with pytest.raises(ValueError, match="frequencies from 0 to 6"):
        FrequencyPool(8, frequencies=((0, 7),))


def test_fam_exports_and_gives_the_same_numbers():
    fam = FAM(32).eval()
    x = torch.randn(2, 32, 3, 9, 5)
    exported = torch.export.export(fam, (x,)).module()
    assert torch.allclose(exported(x), fam(x), atol=1e-6)


def test_fam_learns():
    """Trained to tell two stripe patterns of equal mean apart by channel weights, which plain averaging cannot."""
    torch.manual_seed(0)
    stripes = torch.cos(torch.pi * (torch.arange(7) + 0.5) / 7)
    a, b = stripes[:, None].expand(7, 7), stripes[None, :].expand(7, 7)
    x = torch.stack([a, b])[:, None, None].expand(2, 16, 2, 7, 7) + 1
    target = torch.tensor([0.2, 0.8])
    fam, se = FAM(16, reduction=1), SE(16, reduction=1)
    losses = {}
    for module in (fam, se):
        optimizer = torch.optim.Adam(module.parameters(), 0.02)
        for _ in range(150):
            loss = ((module(x).mean((1, 2, 3, 4)) - target) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses[type(module)] = float(loss.detach())
    assert losses[FAM] < 1e-3 < 0.05 < losses[SE]


# SAM, FSAM (Eq. 7 and 8) and the rivals


def test_sam_follows_its_equation():
    torch.manual_seed(0)
    sam = SAM()
    x = torch.randn(2, 6, 4, 5, 5)
    summary = torch.cat((x.max(1, keepdim=True).values, x.mean(1, keepdim=True)), 1)
    weight = torch.sigmoid(nn.functional.conv3d(summary, sam.conv.weight, padding=3))
    assert torch.allclose(sam(x), x * weight)
    assert sam.conv.weight.shape == (1, 2, 7, 7, 7)
    assert sam.conv.bias is None


def test_fsam_is_sam_on_fams_output():
    torch.manual_seed(0)
    fsam = FSAM(32)
    x = torch.randn(1, 32, 3, 7, 7)
    fam, sam = fsam
    assert torch.equal(fsam(x), sam(fam(x)))


@pytest.mark.parametrize("make", [lambda: FSAM(32), lambda: SE(32), lambda: CBAM(32), NST])
def test_attention_keeps_the_shape_and_only_scales_down(make):
    x = torch.randn(2, 32, 3, 6, 5)
    y = make()(x)
    assert y.shape == x.shape
    assert (y.abs() <= x.abs()).all()


def test_nst_nests_time_in_space():
    """Its weight at a place depends on all moments of that place's neighborhood through the attention over time."""
    torch.manual_seed(0)
    nst = NST()
    x = torch.randn(1, 4, 9, 5, 5, requires_grad=True)
    nst(x)[0, 0, 0, 2, 2].backward()
    assert (x.grad.abs().sum((0, 1, 3, 4)) > 0).all()
    assert sum(p.numel() for p in nst.parameters()) == 2 * 7 + 2 * 49


@pytest.mark.parametrize("module", [SE, CBAM, FAM])
def test_bottleneck_of_no_channel_is_refused(module):
    with pytest.raises(ValueError, match="reduction=64 channels, found 32"):
        module(32, reduction=64)
