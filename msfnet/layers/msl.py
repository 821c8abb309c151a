"""MSL, the multilevel-split layer (section 3.1, Eq. 2 and 4)."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.recomputation import ConvNormReLU, join
from msfnet.layers.winograd import Conv3x3x3


def split_sizes(channels: int, num_splits: int) -> list[int]:
    """Channels of each group, cut as `torch.chunk` cuts: ceil(channels / num_splits) each, the rest in the last.

    Where that leaves the last num_splits empty (16 channels in 5 num_splits), they are cut as evenly as can be instead.
    """
    if not 2 <= num_splits <= channels:
        raise ValueError(
            f"MSL needs from 2 to {channels} num_splits for {channels} channels, found num_splits={num_splits}"
        )
    width = -(-channels // num_splits)
    last = channels - width * (num_splits - 1)
    if last > 0:
        return [width] * (num_splits - 1) + [last]
    return [channels // num_splits + (i < channels % num_splits) for i in range(num_splits)]


class MSL(nn.Module):
    """Split the channels into levels; each convolution sees its own part and half of what the last one made.

    With x_1..x_S the parts, f a 3x3x3 convolution, batch norm and ReLU, and y_i cut in two halves by channel:

        y_1 = x_1
        y_2 = f(x_2),  y_i = f(cat(x_i, second half of y_{i-1}))
        MSL(x) = cat(x_1, first half of y_2, ..., first half of y_{S-1}, y_S)

    The chained convolutions see 3, 5, 7, ... frames (Fig. 3b). Shape N C T H W is preserved.

    Raises ValueError unless 2 <= num_splits <= channels.
    """

    def __init__(self, channels: int, num_splits: int = 4) -> None:
        super().__init__()
        self.sizes = split_sizes(channels, num_splits)
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
