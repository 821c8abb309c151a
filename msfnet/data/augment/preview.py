"""A page of pictures that shows what each augmentation key of a recipe does to training clips of a dataset.

The clips are augmented by the code that training runs, with all keys together and then with one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from msfnet.data.augment.augmentation import Augmentation
from msfnet.data.augment.randaugment import MAX_MAGNITUDE, OPERATIONS
from msfnet.data.dataset import Dataset
from msfnet.data.transforms import crop_views
from msfnet.recipe import Data, Recipe
from msfnet.report import Section, plot_frames, write_page
from msfnet.types import Frames, UserError, VideoItem

BATCH, SHOWN = 8, 2  # clips that are mixed, and that are shown
DRAWS, FRAMES = 3, 6  # random draws and frames shown of each clip
GAP_PX = 8


@dataclass(frozen=True)
class Effect:
    """A key that changes training clips.

    Args:
        key: table.key of a recipe.
        does: What it does, as a sentence.
        off: The value with which it does nothing.
        usual: A value to show it with where the recipe turns it off.
    """

    key: str
    does: str
    off: Any
    usual: Any


EFFECTS = (
    Effect(
        "augment.min_crop_side",
        "A window of a random size at a random place is scaled to the network's input.",
        1.0,
        0.5,
    ),
    Effect("augment.ratio", "A window wider than high, or higher than wide, is stretched to a square.", 1.0, 1.78),
    Effect("augment.hflip", "Half of the clips are mirrored.", False, True),
    Effect("augment.contrast", "Pixel values are scaled about the mean of the clip.", 0.0, 0.4),
    Effect("augment.brightness", "Pixel values are scaled.", 0.0, 0.4),
    Effect("augment.saturation", "Colors are scaled toward gray or away from it.", 0.0, 0.8),
    Effect("augment.hue", "Hues are rotated; grays stay the same.", 0.0, 0.1),
    Effect(
        "augment.randaugment",
        "This number of the operations below, at this magnitude, is drawn for each clip.",
        (0, 9.0),
        (2, 9.0),
    ),
    Effect("augment.mixup", "Each clip and its target are blended with another of the batch.", 0.0, 0.8),
    Effect("augment.cutmix", "Each clip gets a box of another of the batch; its target is shared by area.", 0.0, 1.0),
)


@dataclass(frozen=True)
class Examples:
    """Clips of the dataset: frames N T H W 3, spread over each video, and labels N."""

    items: tuple[VideoItem, ...]
    frames: Tensor
    labels: Tensor


def write_augmentation_page(data: Dataset, recipe: Recipe, path: Path) -> None:
    """Write an HTML page that shows what each augmentation does to a few clips of a dataset.

    Args:
        data: The dataset.
        recipe: The recipe whose keys are shown.
        path: The page.

    Raises:
        UserError: Too few videos can be read, or `augment.flip_pairs` names a class that the dataset does not have.
    """
    examples = _read_examples(data, recipe)
    sections = [
        _together(examples, recipe, data.classes),
        *(_one_effect(effect, examples, recipe, data.classes) for effect in EFFECTS),
        _operations(examples, recipe),
    ]
    write_page(path, "Augmentation of training clips", {}, sections)


# The sections


def _together(examples: Examples, recipe: Recipe, classes: Sequence[str]) -> Section:
    """Return a section for everything that the recipe turns on, together."""
    strips, _ = _draw(examples, recipe, classes)
    names = " and ".join(f"{item.path.name} ({item.label})" for item in examples.items[:SHOWN])
    lead = f"{names}, {FRAMES} frames of each: first the center crop, as in evaluation, then as training may see them."
    settings = {effect.key: _value(recipe, effect.key) for effect in EFFECTS}
    rows = {key: _to_text(value) for key, value in settings.items()}
    return Section("All keys of this recipe together", lead, _picture(strips), rows)


def _one_effect(effect: Effect, examples: Examples, recipe: Recipe, classes: Sequence[str]) -> Section:
    """Return a section for one key alone, with its value in the recipe or, if that turns it off, a usual one."""
    value = _value(recipe, effect.key)
    on = not _is_off(effect, value)
    value = value if on else effect.usual
    if effect.key not in ("augment.min_crop_side", "augment.ratio"):
        examples = _centered(examples, recipe.clip.crop_size)
    strips, targets = _draw(examples, _alone(recipe, effect.key, value), classes)
    lead = f"{effect.does} Shown: {effect.key} = {_to_text(value)}, {'on' if on else 'off'} in this recipe."
    changes_targets = effect.key in ("augment.mixup", "augment.cutmix") or (
        effect.key == "augment.hflip" and recipe.augment.flip_pairs
    )
    return Section(effect.key, lead, _picture(strips), targets if changes_targets else {})


def _operations(examples: Examples, recipe: Recipe) -> Section:
    """Return a section for the operations of RandAugment, each in one direction."""
    magnitude = recipe.augment.randaugment[1]
    clips = _centered(examples, recipe.clip.crop_size).frames
    strength = torch.full((len(clips),), magnitude / MAX_MAGNITUDE)
    strips = {name: operation(clips, strength).numpy() for name, operation in OPERATIONS.items()}
    return Section("Operations of RandAugment", f"At magnitude {magnitude:g} of {MAX_MAGNITUDE}.", _picture(strips))


# Clips


def _read_examples(data: Dataset, recipe: Recipe) -> Examples:
    """Return the first videos that can be read, of as many classes as there are; classes of flip pairs come first."""
    paired = [label for pair in recipe.augment.flip_pairs for label in pair]
    position: Counter[str] = Counter()  # index of the next video in its class
    order = []
    for item in data.in_split("train") or data.items:
        order.append((position[item.label], item.label not in paired, item.label, item))
        position[item.label] += 1
    chosen = [item for *_, item in sorted(order, key=lambda entry: entry[:3])]
    shown = replace(recipe.preprocessing(), num_frames=FRAMES, eval_sampling="uniform", input="rgb")
    loader = data.open(Data(cache="off", num_workers=0), shown)
    items, frames = [], []
    for start in range(0, len(chosen), BATCH):
        part = chosen[start : start + BATCH]
        for batch in loader.eval_batches(part, clips=1, batch_size=1).epoch():
            if batch.clips is not None:
                items += [part[index] for index in batch.indices]
                frames.append(batch.clips[:, 0])
        if len(items) >= BATCH:
            break
    if len(items) < SHOWN:
        raise UserError(f"expected at least {SHOWN} videos that can be read, found {len(items)} of {len(order)}")
    labels = torch.tensor([data.classes.index(item.label) for item in items[:BATCH]])
    return Examples(tuple(items[:BATCH]), torch.cat(frames)[:BATCH], labels)


def _centered(examples: Examples, size_px: int) -> Examples:
    return Examples(examples.items, crop_views(examples.frames, size_px, 1)[:, 0], examples.labels)


def _draw(examples: Examples, recipe: Recipe, classes: Sequence[str]) -> tuple[dict[str, Frames], dict[str, str]]:
    """Return the clips before and after each draw, N T H W 3, and the targets of each draw in words."""
    in_color = recipe.model_copy(update={"clip": recipe.clip.model_copy(update={"input": "rgb"})})
    augmentation = Augmentation(in_color, classes)
    strips = {"before": _centered(examples, recipe.clip.crop_size).frames.numpy()}
    words = {}
    for k in range(1, DRAWS + 1):
        generator = torch.Generator().manual_seed(recipe.train.seed + k)
        x, targets = augmentation(examples.frames, examples.labels, generator)
        strips[f"draw {k}"] = _to_frames(x, recipe)
        words[f"draw {k}"] = "; ".join(_target_text(target, classes) for target in targets[:SHOWN])
    return strips, words


def _to_frames(x: Tensor, recipe: Recipe) -> Frames:
    """Convert the network's input back to frames: float N 3 T H W -> uint8 N T H W 3."""
    mean, std = torch.tensor(recipe.clip.mean), torch.tensor(recipe.clip.std)
    levels = 255 * (x.permute(0, 2, 3, 4, 1) * std + mean)
    return levels.round().clamp(0, 255).to(torch.uint8).numpy()


def _target_text(target: Tensor, classes: Sequence[str]) -> str:
    shares = sorted(zip(target.tolist(), classes, strict=True), reverse=True)
    return " + ".join(f"{share:.0%} {label}" for share, label in shares if share > 0)


def _picture(strips: Mapping[str, Frames]) -> Figure:
    """Return a row for each entry N T H W 3: frames of the clips that are shown, side by side."""
    return plot_frames({name: _row(clips[:SHOWN]) for name, clips in strips.items()})


def _row(clips: Frames) -> Frames:
    """Join clips in a row with a white gap between them: N T H W 3 -> 1 H W 3."""
    gap = np.full((clips.shape[2], GAP_PX, 3), 255, np.uint8)
    parts = [part for clip in clips for part in (gap, *clip)][1:]
    row: Frames = np.concatenate(parts, axis=1)[None]
    return row


# Keys


def _value(recipe: Recipe, key: str) -> Any:
    return getattr(recipe.augment, key.removeprefix("augment."))


def _is_off(effect: Effect, value: Any) -> bool:
    return value[0] == 0 if isinstance(value, tuple) else value == effect.off


def _alone(recipe: Recipe, key: str, value: Any) -> Recipe:
    """Return the recipe with only one of the effects on."""
    values = {effect.key: effect.off for effect in EFFECTS} | {key: value}
    update = {name.removeprefix("augment."): setting for name, setting in values.items()}
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=update)})


def _to_text(value: Any) -> str:
    """Return a value as it is written in a recipe."""
    return str(list(value) if isinstance(value, tuple) else value).lower()
