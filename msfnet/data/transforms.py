"""From uint8 frames to the network's input, in batches, on whatever device the frames lie on: nothing random here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msfnet.types import Preprocessing


def normalize(clips: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 N F H W 3 -> float N C T H W: what `input` asks of the frames, of which each channel is less its mean and
    divided by its standard deviation."""
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return INPUTS[preprocessing.input](scaled(clips, 1 / (255 * std), -mean / std))


def scaled(clips: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Each channel times its scale plus its offset: N T H W 3 -> float N 3 T H W, in memory still N T H W 3.

    `scale` and `offset` are 3, or N 3 for clips that differ. They are laid out along whole rows of pixels: a loop of
    three channels inside the one over pixels takes ten times as long.
    """
    n, frames, height, width, _ = clips.shape
    scale, offset = (v.to(clips.device).expand(n, 3).repeat(1, width)[:, None, None] for v in (scale, offset))
    rows = clips.reshape(n, frames, height, width * 3)
    return (rows * scale).add_(offset).view(n, frames, height, width, 3).permute(0, 4, 1, 2, 3)


def difference(x: Tensor) -> Tensor:
    """What changes from each frame to the next: normalized N 3 F H W -> N 3 F-1 H W.

    The residual frames of Tao et al. (2020, "Rethinking motion representation: residual frames with 3D ConvNets"): of
    a still background nothing is left. Of frames that follow each other in the clip, so that a clip of T differences
    is read as T + 1 frames, and `interval` says how far apart they are.
    """
    return x[:, :, 1:] - x[:, :, :-1]


def frames_and_difference(x: Tensor) -> Tensor:
    """Each frame but the last, and beside it what changes to the next: normalized N 3 F H W -> N 6 F-1 H W."""
    rows = x.permute(0, 2, 3, 4, 1)  # N F H W 3, as it lies in memory
    return torch.cat((rows[:, :-1], rows[:, 1:] - rows[:, :-1]), -1).permute(0, 4, 1, 2, 3)


# What `Preprocessing.input` names: from normalized frames to the network's input.
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb": lambda x: x,
    "rgb_diff": difference,
    "rgb+rgb_diff": frames_and_difference,
}


def crop_views(clips: Tensor, size_px: int, crops: int) -> Tensor:
    """N T H W 3 -> N crops T size size 3: the center, or with three crops also both ends of the longer side."""
    height, width = clips.shape[2:4]
    spare_y, spare_x = height - size_px, width - size_px
    offsets = {1: [(spare_y // 2, spare_x // 2)]}
    if spare_x >= spare_y:
        offsets[3] = [(spare_y // 2, x) for x in (0, spare_x // 2, spare_x)]
    else:
        offsets[3] = [(y, spare_x // 2) for y in (0, spare_y // 2, spare_y)]
    return torch.stack([clips[:, :, y : y + size_px, x : x + size_px] for y, x in offsets[crops]], dim=1)
