"""Training clips mixed in pairs: mixup blends them, CutMix puts a box of one into the other. Targets follow.

Everything random that is done to the pixels of training clips, in batches, on whatever device they lie on.

Each choice is one per clip, never per frame (section 4.2), a function of the generator that is passed in and of
nothing else: the same on every device, and not moved by what other keys of the recipe turn on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from msfnet.data.augment.crop import crop, draw_windows
from msfnet.data.augment.randaugment import LUMA, rand_augment
from msfnet.data.transforms import INPUTS, scaled
from msfnet.recipe import Recipe
from msfnet.types import UserError, nearest

Box = tuple[int, int, int, int]  # top, bottom, left, right, px
Transform = Callable[[Tensor], Tensor]  # uint8 N T H W 3 -> the same, on the device that trains


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
    """A box of the frame's shape that leaves `share` of the frame, its center anywhere, cut off at the edges."""
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


# Luma and the two axes of color that the NTSC standard sends beside it (YIQ), each from red, green and blue.
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class Augmentation:
    """What is done to a batch of training clips: the user's transform, crop, flip, RandAugment, color, mixup, CutMix.

    Args:
        recipe: Its tables `[augment]` and `[clip]` apply.
        classes: The labels in the order of their class numbers.
        transform: Applied first, to uint8 clips N T H W 3 on the device that trains; returns clips of the same type,
            frames and count. Randomness from torch's global generators is seeded for each step, so that a run can be
            resumed.

    Raises:
        UserError: `augment.flip_pairs` names a class that `classes` does not have.
    """

    def __init__(self, recipe: Recipe, classes: Sequence[str], transform: Transform | None = None) -> None:
        self.augment, self.train, self.transform = recipe.augment, recipe.train, transform
        self.preprocessing = recipe.preprocessing()
        self.mirrored = torch.tensor(mirrored_classes(recipe.augment.flip_pairs, classes))

    def __call__(
        self, clips: Tensor, labels: Tensor, generator: torch.Generator, places: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """uint8 N F H W 3 and labels N -> the network's input N C T size size, and targets N K: shares of the classes.

        `generator` lives on the CPU. `places` N are those of the clips in the recipe's whole batch, where they are a
        part of it: what is drawn for a clip's place does not depend on which others are here. Only mixed clips find
        their partners among those that are.
        """
        n_clips = len(clips) if places is None else self.train.batch_size
        draws = torch.rand(9 + 2 * self.augment.randaugment[0], n_clips, generator=generator)
        draws = draws if places is None else draws[:, list(places)]
        of_crop, of_flip, of_color = draws[[0, 1, 2, 5]], draws[3], draws[[4, 6, 7, 8]]
        with torch.autocast(clips.device.type, enabled=False):
            clips = self._transformed(clips)
            clips = self._crop(clips, of_crop)
            if self.augment.hflip:
                clips, labels = self._flip(clips, labels, of_flip < 0.5)
            clips = rand_augment(
                clips, *self.augment.randaugment, draws[9:].unflatten(0, (self.augment.randaugment[0], 2))
            )
            x = INPUTS[self.preprocessing.input](self._recolor(clips, of_color))
            targets = F.one_hot(labels, len(self.mirrored)).float()
            return mix(x, targets, self.augment.mixup, self.augment.cutmix, generator)

    def _transformed(self, clips: Tensor) -> Tensor:
        """The clips after the user's transform, which may change the size of frames but nothing else of the shape."""
        if self.transform is None:
            return clips
        changed = self.transform(clips)
        fits = changed.dtype == torch.uint8 and changed.ndim == 5 and changed.shape[:2] == clips.shape[:2]
        if not fits or changed.shape[-1] != 3 or min(changed.shape[2:4]) < self.preprocessing.crop_size:
            raise UserError(
                f"expected uint8 clips N T H W 3 of {tuple(clips.shape)} from the transform, found {changed.dtype} of "
                f"{tuple(changed.shape)}"
            )
        return changed

    def _crop(self, clips: Tensor, draws: Tensor) -> Tensor:
        frame_px, size_px = (clips.shape[2], clips.shape[3]), self.preprocessing.crop_size
        windows = draw_windows(draws, frame_px, size_px, self.augment.min_crop_side, self.augment.ratio)
        return crop(clips, windows, size_px)

    def _flip(self, clips: Tensor, labels: Tensor, turned: Tensor) -> tuple[Tensor, Tensor]:
        """Mirror the clips that are `turned` N; their labels become those of the mirrored classes."""
        turned = turned.to(clips.device)
        clips = torch.where(turned[:, None, None, None, None], clips.flip(3), clips)
        return clips, torch.where(turned, self.mirrored.to(labels.device)[labels], labels)

    def _recolor(self, clips: Tensor, draws: Tensor) -> Tensor:
        """Jitter contrast, brightness, saturation and hue, and normalize: N T H W 3 -> float N 3 T H W.

        Levels are not cut off at black and white: all of it is one linear map of a clip's colors.
        """
        augment, x = self.augment, clips.float()
        strengths = torch.tensor([augment.contrast, augment.brightness, augment.saturation, augment.hue])
        contrast, brightness, saturation, hue = strengths[:, None] * (2 * draws - 1)  # each N
        if augment.saturation or augment.hue:
            chroma = chroma_map(1 + saturation, 2 * math.pi * hue).to(x.device)
            x = (x.flatten(1, 3) @ chroma.mT).view(x.shape)
        gain = ((1 + brightness) * (1 + contrast))[:, None].to(x.device)  # N 1
        pivot = (1 + brightness)[:, None].to(x.device) * _means(x) if augment.contrast else 0
        contrast = contrast[:, None].to(x.device)
        mean, std = (x.new_tensor(v) for v in (self.preprocessing.mean, self.preprocessing.std))
        return scaled(x, gain / (255 * std), (-contrast * pivot / 255 - mean) / std)


def mirrored_classes(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> list[int]:
    """For each class the number of the one that its clips show when they are mirrored: its own, or its pair's.

    Raises UserError for a label that no class has or that stands in two places.
    """
    swapped = list(range(len(classes)))
    labels = [label for pair in pairs for label in pair]
    for label in labels:
        if label not in classes:
            raise UserError(f"augment.flip_pairs: no class {label!r}; {nearest(label, classes)}")
        if labels.count(label) > 1:
            raise UserError(
                f"augment.flip_pairs: expected each class once, found {label!r} {labels.count(label)} times"
            )
    for one, other in pairs:
        swapped[classes.index(one)], swapped[classes.index(other)] = classes.index(other), classes.index(one)
    return swapped


def chroma_map(saturation: Tensor, angle: Tensor) -> Tensor:
    """What scales colorfulness by N and turns hues by N radians: matrices N 3 3 on red, green and blue.

    Greys and luma stay as they are.
    """
    along, aside = saturation * angle.cos(), saturation * angle.sin()
    turn = torch.zeros(len(angle), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2] = along, -aside
    turn[:, 2, 1], turn[:, 2, 2] = aside, along
    yiq = torch.tensor(YIQ)
    return torch.linalg.inv(yiq) @ turn @ yiq


def _means(x: Tensor) -> Tensor:
    """The mean of each clip's channels: N T H W 3 -> N 3."""
    n, frames, height, width, _ = x.shape
    by_column = x.reshape(n, frames * height, width * 3).mean(1)  # whole rows at a time, as in `scaled`
    return by_column.view(n, width, 3).mean(1)
