"""uint8 frames to the input of a network, in batches and on any device; nothing random happens here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msfnet.types import Preprocessing


def normalize(clips: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Subtract the mean of each channel, divide by its standard deviation, and compute the input that networks take.

    Args:
        clips: uint8 N F H W 3, RGB, with F = `preprocessing.read_frames`.
        preprocessing: `mean`, `std` and `input` apply.

    Returns:
        float N C T H W, channels last in memory.
    """
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return INPUTS[preprocessing.input](scale_channels(clips, 1 / (255 * std), -mean / std))


def scale_channels(clips: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """Multiply each channel by its scale and add its offset.

    Args:
        clips: N T H W 3 of any type.
        scale: 3, or N 3 if clips differ.
        offset: As `scale`.

    Returns:
        float N 3 T H W, channels last in memory.
    """
    n, frames, height, width, _ = clips.shape
    # Both are repeated along whole rows of pixels: an inner loop over three channels would take ten times as long.
    scale, offset = (v.to(clips.device).expand(n, 3).repeat(1, width)[:, None, None] for v in (scale, offset))
    rows = clips.reshape(n, frames, height, width * 3)
    return (rows * scale).add_(offset).view(n, frames, height, width, 3).permute(0, 4, 1, 2, 3)


def rgb_diff(x: Tensor) -> Tensor:
    """Subtract each frame from the next one of the clip: N 3 F H W -> N 3 F-1 H W, normalized.

    The residual frames of Tao et al. (2020), "Rethinking motion representation: residual frames with 3D ConvNets". A
    still background becomes 0. The distance between the two frames is the interval of the clip.
    """
    return x[:, :, 1:] - x[:, :, :-1]


def rgb_and_diff(x: Tensor) -> Tensor:
    """Concatenate each frame but the last with its difference to the next: N 3 F H W -> N 6 F-1 H W, normalized."""
    frames = x.permute(0, 2, 3, 4, 1)  # N 3 F H W -> N F H W 3, the order in memory
    return torch.cat((frames[:, :-1], frames[:, 1:] - frames[:, :-1]), -1).permute(0, 4, 1, 2, 3)


# `Preprocessing.input` -> function of the normalized frames.
INPUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rgb": lambda x: x,
    "rgb_diff": rgb_diff,
    "rgb+rgb_diff": rgb_and_diff,
}


def crop_views(clips: Tensor, size_px: int, crops: int) -> Tensor:
    """Cut square crops out of every frame.

    Args:
        clips: N T H W 3.
        size_px: Side of a crop, S.
        crops: 1 for the center, 3 also for both ends of the longer side.

    Returns:
        N crops T S S 3.
    """
    height, width = clips.shape[2:4]
    margin_y, margin_x = height - size_px, width - size_px
    offsets = {1: [(margin_y // 2, margin_x // 2)]}
    if margin_x >= margin_y:
        offsets[3] = [(margin_y // 2, x) for x in (0, margin_x // 2, margin_x)]
    else:
        offsets[3] = [(y, margin_x // 2) for y in (0, margin_y // 2, margin_y)]
    return torch.stack([clips[:, :, y : y + size_px, x : x + size_px] for y, x in offsets[crops]], dim=1)
