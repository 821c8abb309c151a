"""MSL against its equations: how it splits the channels, and what each convolution sees."""

import pytest
import torch

from msfnet.layers.msl import MSL, split_sizes


@pytest.mark.parametrize(
    ("channels", "num_splits", "sizes"),
    [
        (64, 4, [16, 16, 16, 16]),
        (64, 3, [22, 22, 20]),
        (64, 5, [13, 13, 13, 13, 12]),
        (64, 6, [11, 11, 11, 11, 11, 9]),
        (16, 5, [4, 3, 3, 3, 3]),  # torch.chunk would leave the fifth split empty
        (7, 2, [4, 3]),
        (3, 3, [1, 1, 1]),
    ],
)
def test_split_sizes(channels, num_splits, sizes):
    assert split_sizes(channels, num_splits) == sizes


@pytest.mark.parametrize(("channels", "num_splits"), [(64, 1), (64, 0), (3, 4)])
def test_impossible_split_names_both_numbers(channels, num_splits):
    with pytest.raises(ValueError, match=rf"{channels} channels, found num_splits={num_splits}"):
        MSL(channels, num_splits)


def test_convolution_widths_follow_eq_3():
    widths = [branch[0].weight.shape[:2] for branch in MSL(64, 4).branches]
    assert widths == [(16, 16), (24, 24), (28, 28)]


def test_output_follows_eq_2_and_4():
    torch.manual_seed(0)
    msl = MSL(16, 4).eval()
    x = torch.randn(2, 16, 3, 5, 5)
    x1, x2, x3, x4 = x.chunk(4, dim=1)
    f2, f3, f4 = msl.branches
    y2 = f2(x2)
    y3 = f3(torch.cat((x3, y2[:, 2:]), 1))
    y4 = f4(torch.cat((x4, y3[:, 3:]), 1))
    assert torch.equal(msl(x), torch.cat((x1, y2[:, :2], y3[:, :3], y4), 1))


@pytest.mark.parametrize(("channels", "num_splits"), [(64, 2), (64, 3), (65, 4), (63, 5), (64, 6), (8, 8), (9, 4)])
def test_shape_is_preserved(channels, num_splits):
    x = torch.randn(2, channels, 2, 4, 5)
    assert MSL(channels, num_splits)(x).shape == x.shape


def test_temporal_receptive_fields_are_3_5_and_7():
    """Fig. 3b, measured: which input frames have a gradient at the middle frame of each split's output."""
    torch.manual_seed(0)
    msl = MSL(16, 4).eval()
    with torch.no_grad():
        for weight in msl.parameters():
            weight.copy_(weight.abs() + 0.1)  # no ReLU is zero
    seen = []
    for channels in (slice(0, 4), slice(4, 6), slice(6, 9), slice(9, 16)):
        x = torch.rand(1, 16, 15, 3, 3, requires_grad=True)
        msl(x)[:, channels, 7].sum().backward()
        seen.append(int((x.grad.abs().sum((0, 1, 3, 4)) > 0).sum()))
    assert seen == [1, 3, 5, 7]
