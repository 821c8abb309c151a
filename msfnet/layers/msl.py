"""MSL, the multilevel-split layer (section 3.1, Eq. 2 and 4)."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.recomputation import ConvNormReLU, join
from msfnet.layers.winograd import Conv3x3x3


def split_sizes(channels: int, groups: int) -> list[int]:
    """Channels of each group, cut as `torch.chunk` cuts: ceil(channels / groups) each, the rest in the last.

    Where that leaves the last groups empty (16 channels in 5 groups), they are cut as evenly as can be instead.
    """
    if not 2 <= groups <= channels:
        raise ValueError(f"MSL needs from 2 to {channels} groups for {channels} channels, found groups={groups}")
    width = -(-channels // groups)
    last = channels - width * (groups - 1)
    if last > 0:
        return [width] * (groups - 1) + [last]
    return [channels // groups + (i < channels % groups) for i in range(groups)]


class MSL(nn.Module):
    """Split the channels into levels; each convolution sees its own part and half of what the last one made.

    With x_1..x_S the parts, f a 3x3x3 convolution, batch norm and ReLU, and y_i cut in two halves by channel:

        y_1 = x_1
        y_2 = f(x_2),  y_i = f(cat(x_i, second half of y_{i-1}))
        MSL(x) = cat(x_1, first half of y_2, ..., first half of y_{S-1}, y_S)

    The chained convolutions see 3, 5, 7, ... frames (Fig. 3b). Shape N C T H W is preserved.

    Raises ValueError unless 2 <= groups <= channels.
    """

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.sizes = split_sizes(channels, groups)
        self.branches = nn.ModuleList()
        carried = 0
        for size in self.sizes[1:]:
            width = size + carried
            self.branches.append(ConvNormReLU(Conv3x3x3(width, width), width))
            carried = width // 2  # torch.chunk gives the first half the odd channel

    def forward(self, x: Tensor) -> Tensor:
        first, *parts = x.split(self.sizes, dim=1)
        outputs = [first]
        carry: list[Tensor] = []
        for part, branch in zip(parts, self.branches, strict=True):
            y = branch(join([part, *carry]) if carry else part)
            kept, *carry = y.tensor_split([y.shape[1] - y.shape[1] // 2], dim=1)
            outputs.append(kept)
        outputs[-1] = y
        return join(outputs)
