"""From uint8 frames to the network's input, in batches, on whatever device the frames lie on.

Each random choice is one per clip, never per frame (section 4.2), and comes from the generator that is passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msfnet.types import Preprocessing


def normalise(clips: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 N T H W 3 -> float N 3 T H W, less the mean and divided by the standard deviation of each channel."""
    x = clips.permute(0, 4, 1, 2, 3).float() / 255
    mean = x.new_tensor(preprocessing.mean)[:, None, None, None]
    std = x.new_tensor(preprocessing.std)[:, None, None, None]
    return (x - mean) / std


def crop_views(clips: Tensor, size_px: int, crops: int) -> Tensor:
    """N T H W 3 -> N crops T size size 3: the centre, or with three crops also both ends of the longer side."""
    height, width = clips.shape[2:4]
    spare_y, spare_x = height - size_px, width - size_px
    offsets = {1: [(spare_y // 2, spare_x // 2)]}
    if spare_x >= spare_y:
        offsets[3] = [(spare_y // 2, x) for x in (0, spare_x // 2, spare_x)]
    else:
        offsets[3] = [(y, spare_x // 2) for y in (0, spare_y // 2, spare_y)]
    return torch.stack([clips[:, :, y : y + size_px, x : x + size_px] for y, x in offsets[crops]], dim=1)


@dataclass(frozen=True)
class Augmentation:
    """Random crop, scale, flip and contrast of training clips. `contrast` and `crop_scale` as in the recipe."""

    flip: bool
    contrast: float
    crop_scale: float

    def __call__(self, clips: Tensor, preprocessing: Preprocessing, generator: torch.Generator) -> Tensor:
        """uint8 N T H W 3 -> float N 3 T size size, normalised. `generator` lives on the CPU."""
        cropped = self._crop(clips, preprocessing.size_px, generator)
        x = normalise(cropped, preprocessing)
        draws = torch.rand(2, len(x), 1, 1, 1, 1, generator=generator).to(x.device)
        if self.flip:
            x = torch.where(draws[0] < 0.5, x.flip(-1), x)
        if self.contrast:
            factor = 1 + self.contrast * (2 * draws[1] - 1)
            mean = x.mean((2, 3, 4), keepdim=True)
            x = (x - mean) * factor + mean
        return x

    def _crop(self, clips: Tensor, size_px: int, generator: torch.Generator) -> Tensor:
        """A square at a random place; below a `crop_scale` of 1 also of a random size, scaled to `size_px`."""
        height, width = clips.shape[2:4]
        draws = torch.rand(3, len(clips), generator=generator).tolist()
        cropped = []
        for clip, scale, at_y, at_x in zip(clips, *draws, strict=True):  # clip: T H W 3
            if self.crop_scale < 1:
                largest = min(height, width)
                side = round(largest * (self.crop_scale + (1 - self.crop_scale) * scale))
            else:
                side = size_px
            y, x = int(at_y * (height - side + 1)), int(at_x * (width - side + 1))
            cropped.append(_resize(clip[:, y : y + side, x : x + side], size_px))
        return torch.stack(cropped)


def mixup(x: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, float, Tensor]:
    """Blend every clip of a batch with another of it (Zhang et al., 2018): N ... -> N ..., own share, partners N.

    The share is drawn from Beta(alpha, alpha), once for the batch, and folded to lie at one half or above. With an
    `alpha` of zero the batch comes back as it is.
    """
    if not alpha:
        return x, 1.0, torch.arange(len(x))
    seed = int(torch.randint(2**31, (1,), generator=generator))
    drawn = float(np.random.default_rng(seed).beta(alpha, alpha))
    share = max(drawn, 1 - drawn)
    partners = torch.randperm(len(x), generator=generator).to(x.device)
    return share * x + (1 - share) * x[partners], share, partners


def _resize(clip: Tensor, size_px: int) -> Tensor:
    """uint8 T H W 3 -> uint8 T size size 3, bilinear and antialiased."""
    if clip.shape[1] == clip.shape[2] == size_px:
        return clip
    channels_first = clip.permute(0, 3, 1, 2)  # T H W 3 -> T 3 H W
    return F.interpolate(channels_first, size=(size_px, size_px), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
