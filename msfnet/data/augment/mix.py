"""Mixup and CutMix: training clips mixed in pairs within a batch, and their targets with them."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

Box = tuple[int, int, int, int]  # top, bottom, left, right, px


def mix(x: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mix every clip of a batch with another of it, and their targets in the same proportion.

    The mixing ratio is drawn from Beta(alpha, alpha), once for the batch. With both `mixup` and `cutmix` above zero one
    of the two is chosen at random; with neither the batch is returned as it is.

    Args:
        x: Clips N C T H W.
        targets: Class probabilities N K.
        mixup: Alpha of mixup (Zhang et al., 2018); 0 turns it off.
        cutmix: Alpha of CutMix (Yun et al., 2019); 0 turns it off.
        generator: Generator on the CPU.

    Returns:
        The mixed clips and targets, of the same shapes.
    """
    if not mixup and not cutmix:
        return x, targets
    toss = float(torch.rand(1, generator=generator))
    cuts = toss < 0.5 if mixup and cutmix else bool(cutmix)
    ratio = _beta(cutmix if cuts else mixup, generator)
    partners = torch.randperm(len(x), generator=generator).to(x.device)
    if cuts:
        box = draw_box(ratio, x.shape[3], x.shape[4], generator)
        x, ratio = paste(x, partners, box)
    else:
        ratio = max(ratio, 1 - ratio)  # the clip itself weighs at least as much as its partner
        x = torch.lerp(x[partners], x, ratio)
    return x, ratio * targets + (1 - ratio) * targets[partners]


def draw_box(ratio: float, height: int, width: int, generator: torch.Generator) -> Box:
    """Draw a box with the frame's aspect ratio, with its center anywhere and clipped at the edges.

    Args:
        ratio: Fraction of the frame that an unclipped box leaves.
        height: Of the frame, in px.
        width: Of the frame, in px.
        generator: Generator on the CPU.
    """
    length = math.sqrt(1 - ratio)
    at_y, at_x = torch.rand(2, generator=generator).tolist()
    top, bottom = (round(at_y * height + half * length * height) for half in (-0.5, 0.5))
    left, right = (round(at_x * width + half * length * width) for half in (-0.5, 0.5))
    return max(top, 0), min(bottom, height), max(left, 0), min(right, width)


def paste(x: Tensor, partners: Tensor, box: Box) -> tuple[Tensor, float]:
    """Paste a box of another clip into each, through all frames: CutMix for videos (VideoMix, Yun et al., 2020).

    VideoMix compared boxes in space, in time and in both; those in space were best.

    Args:
        x: Clips N C T H W.
        partners: Which clip is pasted into each: N.
        box: Where.

    Returns:
        The clips, and the fraction of their own pixels that is left.
    """
    top, bottom, left, right = box
    mixed = x.clone()
    mixed[..., top:bottom, left:right] = x[..., top:bottom, left:right][partners]
    return mixed, 1 - (bottom - top) * (right - left) / (x.shape[3] * x.shape[4])


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Return a number from Beta(alpha, alpha). torch's own takes no generator."""
    seed = int(torch.randint(2**31, (1,), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))
