"""Training clips mixed in pairs: mixup blends them, CutMix puts a box of one into the other. Targets follow."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # top, bottom, left, right, px


def mix(x: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix every clip N C T H W of a batch with another of it, and their targets N K by the same shares.

    The share is drawn from Beta(alpha, alpha), once for the batch, where alpha is `mixup` or `cutmix`: with both above
    zero one of the two is tossed for, with neither the batch comes back as it is.
    """
    if not mixup and not cutmix:
        return x, targets
    tossed = float(torch.rand(1, generator=generator))
    cuts = tossed < 0.5 if mixup and cutmix else bool(cutmix)
    drawn = _beta(cutmix if cuts else mixup, generator)
    partners = torch.randperm(len(x), generator=generator).to(x.device)
    if cuts:
        box = draw_box(drawn, x.shape[3], x.shape[4], generator)
        x, share = paste(x, partners, box)
    else:
        share = max(drawn, 1 - drawn)  # the clip itself weighs at least as much as its partner
        x = torch.lerp(x[partners], x, share)
    return x, share * targets + (1 - share) * targets[partners]


def draw_box(share: float, height: int, width: int, generator: torch.Generator) -> Box:
    """A box of the frame's shape that leaves `share` of the frame, its centre anywhere, cut off at the edges."""
    length = math.sqrt(1 - share)
    at_y, at_x = torch.rand(2, generator=generator).tolist()
    top, bottom = (round(at_y * height + half * length * height) for half in (-0.5, 0.5))
    left, right = (round(at_x * width + half * length * width) for half in (-0.5, 0.5))
    return max(top, 0), min(bottom, height), max(left, 0), min(right, width)


def paste(x: Tensor, partners: Tensor, box: Box) -> tuple[Tensor, float]:
    """CutMix (Yun et al., 2019) through all frames (VideoMix: Yun et al., 2020): clips with a box of their partners.

    Returns the clips and the share of their own pixels that is left. VideoMix tried boxes in space, in time and in
    both, and found those in space best.
    """
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x[..., top:bottom, left:right][partners]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[3] * x.shape[4])


def _beta(alpha: float, generator: torch.Generator) -> float:
    """A number from Beta(alpha, alpha), which torch draws from no generator of ours."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
