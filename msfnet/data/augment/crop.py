"""Random resized crops of clips: one window per clip, the same for all its frames.

Windows are drawn by `draw_windows` from random numbers that are passed in; no generator is used here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_windows(draws: Tensor, frame_px: tuple[int, int], size_px: int, scale: float, aspect: float) -> Tensor:
    """Draw a window inside the frame for each clip.

    Args:
        draws: Four random numbers from 0 to 1 for each clip: 4 N.
        frame_px: (height, width) of the frames.
        size_px: Side of the window with a `scale` of 1.
        scale: Below 1 the side is anything from this fraction of the frame's shorter side to all of it.
        aspect: Largest ratio of the window's longer side to its shorter one; the area stays the same where the frame
            has room.

    Returns:
        Top, left, height and width of each window in px: integers N 4.
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
    """Crop clips to their windows and resize them, bilinear and antialiased; a window of the size is copied exactly.

    On a CPU, torch resizes uint8 clips one by one, thirty times as fast as float matrix products. On other devices,
    which cannot resize uint8, matrix products resize the whole batch at once.

    Args:
        clips: uint8 N T H W 3.
        windows: Top, left, height and width N 4, on the CPU.
        size_px: Side of the result.

    Returns:
        uint8 N T size size 3.
    """
    return (
        crop_by_resize(clips, windows, size_px)
        if clips.device.type == "cpu"
        else crop_by_matrices(clips, windows, size_px)
    )


def crop_by_resize(clips: Tensor, windows: Tensor, size_px: int) -> Tensor:
    """Implement `crop` with torch's uint8 resize, clip by clip; for CPUs only."""
    cropped = torch.empty(*clips.shape[:2], size_px, size_px, 3, dtype=torch.uint8)
    for i, (top, left, height, width) in enumerate(windows.tolist()):
        cropped[i] = _resize(clips[i, :, top : top + height, left : left + width], size_px)
    return cropped


def crop_by_matrices(clips: Tensor, windows: Tensor, size_px: int) -> Tensor:
    """Implement `crop` with two matrices for each clip: one filters its columns of pixels, the other its rows."""
    height, width = clips.shape[2:4]
    top, left, window_height, window_width = windows.to(clips.device).float().unbind(1)
    down = _filters(top, window_height, height, size_px)[:, None, None]  # N 1 1 size H
    across = _filters(left, window_width, width, size_px)[:, None, None]  # N 1 1 size W
    frames = clips.permute(0, 1, 4, 2, 3).float()  # N T 3 H W
    return (down @ frames @ across.mT).round().to(torch.uint8).permute(0, 1, 3, 4, 2)


def _filters(start: Tensor, length: Tensor, full: int, size: int) -> Tensor:
    """Return the weight of each of `full` pixels in each of `size` that a window is resampled to: N N -> N size full.

    It is a triangle around the center of each new pixel. Its half width is one old pixel, or one new pixel where those
    are wider: what `F.interpolate` computes with `antialias=True`.
    """
    step = (length / size)[:, None, None]
    new = step * (torch.arange(size, device=start.device) + 0.5)[:, None]  # centers, N size 1
    old = torch.arange(full, device=start.device) + 0.5 - start[:, None, None]  # N 1 full
    weights = (1 - (old - new).abs() / step.clamp(min=1)).clamp(min=0)
    weights = weights * ((old > 0) & (old < length[:, None, None]))
    return weights / weights.sum(2, keepdim=True)


def _resize(clip: Tensor, size_px: int) -> Tensor:
    """Resize a clip, bilinear and antialiased: uint8 T H W 3 -> uint8 T size size 3."""
    if clip.shape[1] == clip.shape[2] == size_px:
        return clip
    channels_first = clip.permute(0, 3, 1, 2)  # T H W 3 -> T 3 H W
    return F.interpolate(channels_first, size=(size_px, size_px), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
