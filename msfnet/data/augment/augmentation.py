"""Random augmentation of training clips, in batches on the device that trains.

Each choice is one per clip, never per frame (section 4.2). It depends on the generator that is passed in and on nothing
else: it is the same on every device, and other keys of the recipe do not change it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from msfnet.data.augment.crop import crop, draw_windows
from msfnet.data.augment.mix import mix
from msfnet.data.augment.randaugment import LUMA, rand_augment
from msfnet.data.transforms import INPUTS, scale_channels
from msfnet.recipe import Recipe
from msfnet.types import UserError, nearest

Transform = Callable[[Tensor], Tensor]  # uint8 N T H W 3 -> the same, on the device that trains


# Luma and the two chroma axes of the NTSC standard (YIQ), each from red, green and blue.
YIQ = (LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


class Augmentation:
    """Augments a batch of training clips: the user's transform, crop, flip, RandAugment, color, mixup, CutMix.

    Args:
        recipe: Its tables `[augment]` and `[clip]` apply.
        classes: The labels in the order of their class indices.
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
        self, clips: Tensor, labels: Tensor, generator: torch.Generator, positions: Sequence[int] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            clips: uint8 N F H W 3.
            labels: Class indices N.
            generator: Generator on the CPU.
            positions: The positions N of the clips in the whole batch, where they are a part of it. What is drawn for a
                position does not depend on which other clips are here; only partners for mixing are among these.

        Returns:
            The network's input N C T size size, and class probabilities N K.

        Raises:
            UserError: The user's transform returned something other than uint8 clips.
        """
        n_clips = len(clips) if positions is None else self.train.batch_size
        draws = torch.rand(9 + 2 * self.augment.randaugment[0], n_clips, generator=generator)
        draws = draws if positions is None else draws[:, list(positions)]
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
        """Return the clips after the user's transform, which may change the frame size but no other dimension."""
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

    def _flip(self, clips: Tensor, labels: Tensor, flipped: Tensor) -> tuple[Tensor, Tensor]:
        """Mirror the clips that are `flipped` N; their labels become those of the mirrored classes."""
        flipped = flipped.to(clips.device)
        clips = torch.where(flipped[:, None, None, None, None], clips.flip(3), clips)
        return clips, torch.where(flipped, self.mirrored.to(labels.device)[labels], labels)

    def _recolor(self, clips: Tensor, draws: Tensor) -> Tensor:
        """Jitter contrast, brightness, saturation and hue, and normalize: N T H W 3 -> float N 3 T H W.

        Values are not clipped at black and white: the jitter is one affine map of a clip's colors.
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
        return scale_channels(x, gain / (255 * std), (-contrast * pivot / 255 - mean) / std)


def mirrored_classes(pairs: Sequence[tuple[str, str]], classes: Sequence[str]) -> list[int]:
    """Map the number of each class to that of the class that its clips show when they are mirrored.

    Args:
        pairs: Pairs of labels that mirroring swaps, such as left and right; all other classes map to themselves.
        classes: The labels in the order of their class indices.

    Raises:
        UserError: A label of `pairs` is not among the classes, or is in two pairs.
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
    """Return matrices N 3 3 on red, green and blue that scale saturation and rotate hue; grays and luma stay the same.

    Args:
        saturation: Factors N.
        angle: Rotations N, in radians.
    """
    cos, sin = saturation * angle.cos(), saturation * angle.sin()
    rotation = torch.zeros(len(angle), 3, 3)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1], rotation[:, 1, 2] = cos, -sin
    rotation[:, 2, 1], rotation[:, 2, 2] = sin, cos
    yiq = torch.tensor(YIQ)
    return torch.linalg.inv(yiq) @ rotation @ yiq


def _means(x: Tensor) -> Tensor:
    """Return the mean of each clip's channels: N T H W 3 -> N 3."""
    n, frames, height, width, _ = x.shape
    by_column = x.reshape(n, frames * height, width * 3).mean(1)  # whole rows at a time, as in `scale_channels`
    return by_column.view(n, width, 3).mean(1)
