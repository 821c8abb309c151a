"""Random windows of clips, scaled to the network's size: one window a clip, the same for all its frames.

Windows are given: how they are drawn is `draw_windows`, from numbers that are passed in. No generator is touched here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_windows(draws: Tensor, frame_px: tuple[int, int], size_px: int, scale: float, aspect: float) -> Tensor:
    """Windows of frames of (height, width), inside them, from four random numbers a clip: 4 N -> N 4 integers.

    A window is its top, left, height and width. Its side is `size_px`, or below a `scale` of 1 anything from that
    share of the frame's shorter side to all of it. Above an `aspect` of 1, it is up to so many times wider than high
    or higher than wide, of the same area where the frame has room.
    """
    height, width = frame_px
    of_side, of_top, of_left, of_aspect = draws.double()
    side = torch.full_like(of_side, size_px)
    if scale < 1:
        side = (min(frame_px) * (scale + (1 - scale) * of_side)).round()
    stretch = torch.exp((of_aspect - 0.5) * math.log(aspect))  # square root of width / height
    heights = (side / stretch).round().clamp(1, height)
    widths = (side * stretch).round().clamp(1, width)
    tops = (of_top * (height - heights + 1)).floor()
    lefts = (of_left * (width - widths + 1)).floor()
    return torch.stack((tops, lefts, heights, widths), 1).long()


def crop(clips: Tensor, windows: Tensor, size_px: int) -> Tensor:
    """uint8 N T H W 3 -> uint8 N T size size 3, bilinear and antialiased; a window of that size is copied exactly.

    `windows` N 4 lie on the CPU. A CPU has a resize of its own for bytes, thirty times as fast as matrices of floats
    even clip by clip; elsewhere there is none for bytes, and one multiplication serves the batch.
    """
    return (
        crop_one_by_one(clips, windows, size_px)
        if clips.device.type == "cpu"
        else crop_at_once(clips, windows, size_px)
    )


def crop_one_by_one(clips: Tensor, windows: Tensor, size_px: int) -> Tensor:
    """As `crop`, with torch's resize of bytes: CPUs only."""
    cropped = torch.empty(*clips.shape[:2], size_px, size_px, 3, dtype=torch.uint8)
    for i, (top, left, height, width) in enumerate(windows.tolist()):
        cropped[i] = _resize(clips[i, :, top : top + height, left : left + width], size_px)
    return cropped


def crop_at_once(clips: Tensor, windows: Tensor, size_px: int) -> Tensor:
    """As `crop`, by two matrices a clip: one filters its columns of pixels, the other its rows."""
    height, width = clips.shape[2:4]
    top, left, window_height, window_width = windows.to(clips.device).float().unbind(1)
    down = _filters(top, window_height, height, size_px)[:, None, None]  # N 1 1 size H
    across = _filters(left, window_width, width, size_px)[:, None, None]  # N 1 1 size W
    frames = clips.permute(0, 1, 4, 2, 3).float()  # N T 3 H W
    return (down @ frames @ across.mT).round().to(torch.uint8).permute(0, 1, 3, 4, 2)


def _filters(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """The weight of each of `full` pixels in each of `size` that a window is resampled to: N N -> N size full.

    A triangle about each new pixel's place, one old pixel to each side, or one new pixel where those are wider: what
    `F.interpolate` computes with `antialias=True`.
    """
    step = (length / size)[:, None, None]
    wanted = step * (torch.arange(size, device=start.device) + 0.5)[:, None]  # N size 1
    there = torch.arange(full, device=start.device) + 0.5 - start[:, None, None]  # N 1 full
    weights = (1 - (there - wanted).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((there > 0) & (there < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _resize(clip: Tensor, size_px: int) -> Tensor:
    """uint8 T H W 3 -> uint8 T size size 3, bilinear and antialiased."""
    if clip.shape[1] == clip.shape[2] == size_px:
        return clip
    channels_first = clip.permute(0, 3, 1, 2)  # T H W 3 -> T 3 H W
    return F.interpolate(channels_first, size=(size_px, size_px), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
