"""NST, nested spatiotemporal attention (after Li et al., 2021): a rival in Table 3.

The paper reports no more than its size, 21.85 M, which leaves almost no parameters: both attentions here read
the channels' maximum and mean, as SAM does, and the one over time lies inside the one over space.
"""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.fsam import channel_summary


class NST(nn.Module):
    """Weigh the moments of every place, then the places by what those moments hold. Shape N C T H W is kept.

    s = cat(max, mean over channels)                       N 2 T H W
    t = sigmoid(conv7x1x1(s))                              N 1 T H W
    p = sigmoid(conv1x7x7(mean over time of t * s))        N 1 1 H W
    NST(x) = x * t * p
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
