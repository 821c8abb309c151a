"""MSL, the multilevel-split layer (Yan et al., 2023, section 3.1, Eq. 2 to 4)."""

from __future__ import annotations

from torch import Tensor, nn

from msfnet.layers.recomputation import ConvNormReLU, concat_channels
from msfnet.layers.winograd import Conv3x3x3


def split_sizes(channels: int, num_splits: int) -> list[int]:
    """Return the channels of each split as of `torch.chunk`: ceil(channels / num_splits), the rest in the last.

    Where the last split would be empty (16 channels in 5 splits), the channels are divided as evenly as possible.

    Args:
        channels: Channels C to divide.
        num_splits: Number of splits S.

    Returns:
        S positive numbers that sum to `channels`.

    Raises:
        ValueError: Unless 2 <= num_splits <= channels.
    """
    if not 2 <= num_splits <= channels:
        raise ValueError(
            f"MSL needs from 2 to {channels} splits for {channels} channels, found num_splits={num_splits}"
        )
    width = -(-channels // num_splits)
    last = channels - width * (num_splits - 1)
    if last > 0:
        return [width] * (num_splits - 1) + [last]
    return [channels // num_splits + (i < channels % num_splits) for i in range(num_splits)]


class MSL(nn.Module):
    """Multilevel-split layer: a chain of 3x3x3 convolutions, each on its split and half of the previous output.

    With the splits x_1..x_S of the input, f a 3x3x3 convolution, batch norm and ReLU, and every y_i halved by channel:

        y_1 = x_1
        y_2 = f(x_2),  y_i = f(cat(x_i, second half of y_{i-1}))                 (Eq. 2)
        MSL(x) = cat(x_1, first half of y_2, ..., first half of y_{S-1}, y_S)    (Eq. 4)

    With w = C / S the convolutions have w, 1.5 w, 1.75 w, ... channels (Eq. 3) and temporal receptive fields of 3, 5,
    7, ... frames (Fig. 3b). The shape N C T H W is preserved.

    Args:
        channels: Channels C of input and output.
        num_splits: Number of splits S.

    Raises:
        ValueError: Unless 2 <= num_splits <= channels.
    """

    def __init__(self, channels: int, num_splits: int = 4) -> None:
        super().__init__()
        self.sizes = split_sizes(channels, num_splits)
        self.branches = nn.ModuleList()
        carried = 0
        for size in self.sizes[1:]:
            width = size + carried
            self.branches.append(ConvNormReLU(Conv3x3x3(width, width), width))
            carried = width // 2  # torch.chunk puts the odd channel into the first half

    def forward(self, x: Tensor) -> Tensor:
        first, *parts = x.split(self.sizes, dim=1)
        outputs = [first]
        carry: list[Tensor] = []
        for part, branch in zip(parts, self.branches, strict=True):
            y = branch(concat_channels([part, *carry]) if carry else part)
            kept, *carry = y.tensor_split([y.shape[1] - y.shape[1] // 2], dim=1)
            outputs.append(kept)
        outputs[-1] = y  # the last output is not halved
        return concat_channels(outputs)
