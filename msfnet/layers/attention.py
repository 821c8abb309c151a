"""The attention modules that Table 3 compares with FSAM: SE, CBAM in three dimensions, and NST."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.fsam import SAM, bottleneck, channel_summary


class SE(nn.Module):
    """Squeeze and excitation (Hu et al., 2018): x * sigmoid(fc(global average)).

    The shape N C T H W is preserved.

    Args:
        channels: Channels C, at least `reduction`.
        reduction: Reduction ratio of `fc`.

    Raises:
        ValueError: If `channels` is less than `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc(x.mean((2, 3, 4))).sigmoid()[:, :, None, None, None]


class ChannelAttention(nn.Module):
    """The channel attention of CBAM: x * sigmoid(fc(average) + fc(maximum)), with one fc for both.

    The shape N C T H W is preserved. Arguments and errors are those of `SE`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.fc = bottleneck(channels, reduction)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.fc(x.mean((2, 3, 4))) + self.fc(x.amax((2, 3, 4)))  # N C
        return x * logits.sigmoid()[:, :, None, None, None]


class CBAM(nn.Sequential):
    """CBAM (Woo et al., 2018) in three dimensions: channel attention, then a 7x7x7 spatiotemporal attention.

    The shape N C T H W is preserved. Arguments and errors are those of `SE`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__(ChannelAttention(channels, reduction), SAM())


class NST(nn.Module):
    """Nested spatiotemporal attention (after Li et al., 2021): temporal attention inside spatial attention.

        s = cat(max, mean over channels)                       N 2 T H W
        t = sigmoid(conv7x1x1(s))                              N 1 T H W
        p = sigmoid(conv1x7x7(mean over time of t * s))        N 1 1 H W
        NST(x) = x * t * p                                     N C T H W

    The paper describes NST only by its size of 21.85 M, which leaves almost no parameters. Therefore both attentions
    use the maximum and the mean over channels, as SAM does.
    """

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Conv3d(2, 1, (7, 1, 1), padding=(3, 0, 0), bias=False)
        self.space = nn.Conv3d(2, 1, (1, 7, 7), padding=(0, 3, 3), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        summary = channel_summary(x)
        time = self.time(summary).sigmoid()
        space = self.space((time * summary).mean(2, keepdim=True)).sigmoid()
        return x * (time * space)
