"""FAM, SAM and FSAM against their equations."""

import numpy as np
import pytest
import scipy.fft
import torch
from torch import nn

from msfnet.layers.attention import SE
from msfnet.layers.fsam import BASIS_SIZE, FAM, FSAM, SAM, TOP16, FrequencyPool, area_resampling, dct_rows

# FAM (Eq. 5 and 6)


def test_dct_rows_are_scipys():
    expected = scipy.fft.dct(np.eye(BASIS_SIZE), type=2, norm="ortho", axis=0)
    assert np.allclose(dct_rows(list(range(BASIS_SIZE))).numpy(), expected, atol=1e-6)


def test_frequency_pool_is_scipys_2d_dct():
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


def test_impossible_channels_and_frequencies_are_named():
    with pytest.raises(ValueError, match="16 frequencies, found 40 channels"):
        FAM(40)
    with pytest.raises(ValueError, match="frequencies from 0 to 6"):
        FrequencyPool(8, frequencies=((0, 7),))


def test_fam_is_the_same_after_torch_export():
    fam = FAM(32).eval()
    x = torch.randn(2, 32, 3, 9, 5)
    exported = torch.export.export(fam, (x,)).module()
    assert torch.allclose(exported(x), fam(x), atol=1e-6)


def test_fam_learns():
    """FAM learns to distinguish two stripe patterns of equal mean; SE, which averages, cannot."""
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


# SAM and FSAM (Eq. 7 and 8)


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
