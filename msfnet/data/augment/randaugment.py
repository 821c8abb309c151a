"""RandAugment (Cubuk et al., 2020) for clips: operations are drawn for each clip and are the same for all its frames.

Extremes, histograms and means are measured over the whole clip, so that nothing flickers. An operation takes uint8
clips N T S S 3 and their strengths N from -1 to 1, and returns uint8 clips. The sign is the direction, for operations
that have two. Ranges are those of AutoAugment. Operations on levels alone use lookup tables of 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Operation = Callable[[Tensor, Tensor], Tensor]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
GRAY = 128  # beyond the edge of the frame, where an operation moves it into view
MAX_MAGNITUDE = 10


def rand_augment(clips: Tensor, operations: int, magnitude: float, draws: Tensor) -> Tensor:
    """Apply operations to each clip, one after the other.

    Args:
        clips: uint8 N T S S 3.
        operations: How many.
        magnitude: How strong they are, from 0 to 10.
        draws: Random numbers from 0 to 1 for the choice and the direction of each operation: operations 2 N, on
            the CPU.

    Returns:
        uint8 N T S S 3.
    """
    for of_operation, of_sign in draws[:operations]:
        chosen = (of_operation * len(OPERATIONS)).long()
        strengths = torch.where(of_sign < 0.5, -magnitude, magnitude) / MAX_MAGNITUDE
        clips = _apply_each(clips, chosen, strengths)
    return clips


def _apply_each(clips: Tensor, chosen: Tensor, strengths: Tensor) -> Tensor:
    """Apply each operation to all clips for which it was chosen: `chosen` and `strengths` N on the CPU."""
    augmented = clips.clone()
    for number, operation in enumerate(OPERATIONS.values()):
        members = torch.nonzero(chosen == number).flatten()
        if len(members):
            rows = members.to(clips.device)
            augmented[rows] = operation(clips[rows], strengths[members].to(clips.device))
    return augmented


def identity(clips: Tensor, strengths: Tensor) -> Tensor:
    """Return the clips as they are."""
    return clips


# Operations by lookup tables of levels


def autocontrast(clips: Tensor, strengths: Tensor) -> Tensor:
    """Stretch each channel from its lowest and highest level to 0 and 255."""
    low, high = (extreme((1, 2, 3)).long()[..., None] for extreme in (clips.amin, clips.amax))  # N 3 1
    stretched = (_levels(clips) - low) * 255 // (high - low).clamp(min=1)
    return _lookup(clips, torch.where(high > low, stretched, _levels(clips)))


def equalize(clips: Tensor, strengths: Tensor) -> Tensor:
    """Equalize each channel's histogram."""
    counts = torch.bincount(_cells(clips).flatten(), minlength=len(clips) * 3 * 256).view(-1, 3, 256)
    highest = clips.amax((1, 2, 3)).long()[..., None]  # N 3 1
    step = (counts.sum(2, keepdim=True) - counts.gather(2, highest)) // 255
    below = counts.cumsum(2) - counts
    spread = (below + step // 2) // step.clamp(min=1)
    return _lookup(clips, torch.where(step > 0, spread, _levels(clips)))


def posterize(clips: Tensor, strengths: Tensor) -> Tensor:
    """Drop up to four of the eight bits of each level."""
    step = 2 ** (4 * strengths.abs()).round().long()[:, None, None]
    return _lookup(clips, _levels(clips) // step * step)


def solarize(clips: Tensor, strengths: Tensor) -> Tensor:
    """Invert the levels above a threshold that falls from 256 to 0."""
    threshold = 256 * (1 - strengths.abs())[:, None, None]
    levels = _levels(clips)
    return _lookup(clips, torch.where(levels >= threshold, 255 - levels, levels))


def brightness(clips: Tensor, strengths: Tensor) -> Tensor:
    """Scale levels."""
    return _lookup(clips, _levels(clips) * _factors(strengths)[:, None, None])


def contrast(clips: Tensor, strengths: Tensor) -> Tensor:
    """Scale levels about the mean luma."""
    mean = _luma(clips.float().mean((1, 2, 3)))[..., None]  # N 1 1
    return _lookup(clips, mean + (_levels(clips) - mean) * _factors(strengths)[:, None, None])


# Operations that blend with another picture


def color(clips: Tensor, strengths: Tensor) -> Tensor:
    """Blend each pixel with the gray of its luma, or away from it."""
    x = clips.float()
    gray = _luma(x)
    return _to_levels(gray + (x - gray) * _factors(strengths)[:, None, None, None, None])


def sharpness(clips: Tensor, strengths: Tensor) -> Tensor:
    """Blend each pixel but those on the edge with a mean of its neighborhood, or away from it."""
    x = clips.float()
    three_rows = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    neighborhood = three_rows[..., :-2, :] + three_rows[..., 1:-1, :] + three_rows[..., 2:, :]
    smooth = x.clone()
    inside = smooth[:, :, 1:-1, 1:-1]
    inside.mul_(4).add_(neighborhood).div_(13)  # the pixel itself counts five times
    return _to_levels(torch.lerp(smooth, x, _factors(strengths)[:, None, None, None, None]))


# Operations that move pixels


def rotate(clips: Tensor, strengths: Tensor) -> Tensor:
    """Rotate by up to 30 degrees."""
    angle = strengths * math.pi / 6
    return _warp(clips, angle.cos(), -angle.sin(), angle.sin(), angle.cos())


def shear_x(clips: Tensor, strengths: Tensor) -> Tensor:
    """Shear sideways by up to 0.3 of the height."""
    return _warp(clips, x_of_y=0.3 * strengths)


def shear_y(clips: Tensor, strengths: Tensor) -> Tensor:
    """Shear up or down by up to 0.3 of the width."""
    return _warp(clips, y_of_x=0.3 * strengths)


def translate_x(clips: Tensor, strengths: Tensor) -> Tensor:
    """Move by up to 0.45 of the width."""
    return _warp(clips, x=0.9 * strengths)


def translate_y(clips: Tensor, strengths: Tensor) -> Tensor:
    """Move by up to 0.45 of the height."""
    return _warp(clips, y=0.9 * strengths)


OPERATIONS: dict[str, Operation] = {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "rotate": rotate,
    "solarize": solarize,
    "color": color,
    "posterize": posterize,
    "contrast": contrast,
    "brightness": brightness,
    "sharpness": sharpness,
    "shear x": shear_x,
    "shear y": shear_y,
    "translate x": translate_x,
    "translate y": translate_y,
}


# Helpers


def _factors(strengths: Tensor) -> Tensor:
    """Map strengths from -1 to 1 to factors from 0.1 (hardly anything of the original) over 1 (the original) to 1.9."""
    return 1 + 0.9 * strengths


def _luma(x: Tensor) -> Tensor:
    """Return the luma of RGB values: ... 3 -> ... 1."""
    return (x * x.new_tensor(LUMA)).sum(-1, keepdim=True)


def _to_levels(x: Tensor) -> Tensor:
    return x.round().clamp(0, 255).to(torch.uint8)


def _levels(clips: Tensor) -> Tensor:
    return torch.arange(256, device=clips.device)


def _cells(clips: Tensor) -> Tensor:
    """Return the position of each value in flattened tables N 3 256: N T H W 3."""
    firsts = 256 * torch.arange(len(clips) * 3, device=clips.device, dtype=torch.int32)
    return clips + firsts.view(-1, 1, 1, 1, 3)


def _lookup(clips: Tensor, tables: Tensor) -> Tensor:
    """Replace each level by its value in the table of its clip and channel: tables N 3 256, or what expands to that."""
    tables = _to_levels(tables.float()).expand(len(clips), 3, 256)
    return tables.flatten().index_select(0, _cells(clips).flatten()).view(clips.shape)


def _warp(
    clips: Tensor,
    x_of_x: Tensor | float = 1.0,
    x_of_y: Tensor | float = 0.0,
    y_of_x: Tensor | float = 0.0,
    y_of_y: Tensor | float = 1.0,
    x: Tensor | float = 0.0,
    y: Tensor | float = 0.0,
) -> Tensor:
    """Sample each pixel at the position that an affine map gives, bilinear, in coordinates from -1 to 1."""
    n, frames, height, width, _ = clips.shape
    numbers = (x_of_x, x_of_y, x, y_of_x, y_of_y, y)
    maps = torch.stack([torch.as_tensor(v, device=clips.device).expand(n) for v in numbers], 1).view(n, 2, 3)
    grid = F.affine_grid(maps.float(), [n, 1, height, width], align_corners=False)
    planes = clips.permute(0, 1, 4, 2, 3).reshape(n, frames * 3, height, width).float() - GRAY
    moved = F.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GRAY
    return _to_levels(moved).view(n, frames, 3, height, width).permute(0, 1, 3, 4, 2)
