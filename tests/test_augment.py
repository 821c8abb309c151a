"""Augmentation as a whole: one choice per clip, the same for every frame, all of it from the generator."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_transforms import make_clips

from msfnet.data.augment.augmentation import Augmentation, chroma_map, mirrored_classes
from msfnet.data.transforms import crop_views, normalize
from msfnet.recipe import load_recipe
from msfnet.types import UserError

CLASSES = ("GoLeft", "GoRight", "Jump")
SMALL = ("clip.crop_size=8", "clip.resize=[12, 10]", "clip.mean=[0, 0, 0]", "clip.std=[1, 1, 1]")
ALL_OFF = ("augment.hflip=false", "augment.contrast=0")
ALL_ON = (
    "augment.min_crop_side=0.6",
    "augment.ratio=1.4",
    "augment.hflip=true",
    "augment.contrast=0.2",
    "augment.brightness=0.2",
    "augment.saturation=0.3",
    "augment.hue=0.1",
    "augment.randaugment=[2, 9]",
)


def augment(clips, seed=0, *overrides, labels=None):
    """The augmented clips and their targets, by the paper's recipe with everything off but the overrides."""
    recipe = load_recipe("paper", [*SMALL, *ALL_OFF, *overrides])
    labels = torch.zeros(len(clips), dtype=torch.int64) if labels is None else labels
    return Augmentation(recipe, CLASSES)(clips, labels, torch.Generator().manual_seed(seed))


def pixels(clips, seed=0, *overrides):
    return augment(clips, seed, *overrides)[0]


def random_clips(n=8, frames=3, height=10, width=12):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (n, frames, height, width, 3), generator=generator, dtype=torch.uint8)


def places(x):
    """The rows and columns of the source in the corners of each clip: N 4."""
    corners = torch.stack([x[:, 0, 0, 0, 0], x[:, 0, 0, -1, 0], x[:, 1, 0, 0, 0], x[:, 1, 0, 0, -1]], 1)
    return (corners * 255).round().int().tolist()


# The crop


def test_crops_reach_every_position():
    seen = set()
    for seed in range(60):
        x = pixels(make_clips(), seed)
        assert torch.equal(x[:, :, 0], x[:, :, 2])
        seen |= {(top, left) for top, _, left, _ in places(x)}
    assert seen == {(y, x) for y in range(3) for x in range(5)}


def test_clips_of_a_batch_have_their_own_crops():
    corners = places(pixels(make_clips(n=16)))
    assert len({tuple(corner) for corner in corners}) > 3


def test_everything_off_is_a_crop():
    clips = random_clips(height=8, width=8)
    recipe = load_recipe("paper", [*SMALL, *ALL_OFF])
    assert torch.equal(pixels(clips), normalize(clips, recipe.preprocessing()))


def test_scaled_crops_have_the_input_size():
    widths = [right - left for _, _, left, right in places(pixels(make_clips(n=200), 0, "augment.min_crop_side=0.5"))]
    assert min(widths) <= 5
    assert max(widths) >= 8
    assert pixels(make_clips(), 0, "augment.min_crop_side=0.5").shape == (2, 3, 3, 8, 8)


def test_ratio_stretches_crops():
    corners = places(pixels(make_clips(n=200), 0, "augment.ratio=2"))
    stretched = {(bottom - top, right - left) for top, bottom, left, right in corners}
    assert any(wide > high + 2 for high, wide in stretched)
    assert any(high > wide + 2 for high, wide in stretched)


# Flip


def test_half_of_the_clips_are_flipped():
    turned = [left > right for _, _, left, right in places(pixels(make_clips(n=400), 0, "augment.hflip=true"))]
    assert 150 < sum(turned) < 250
    assert not any(left > right for _, _, left, right in places(pixels(make_clips(n=400))))


def test_flip_swaps_the_labels_of_pairs():
    clips, labels = random_clips(n=60, height=8, width=8), torch.arange(60) % 3
    pairs = 'augment.flip_pairs=[["GoLeft", "GoRight"]]'
    x, targets = augment(clips, 1, "augment.hflip=true", pairs, labels=labels)
    plain = pixels(clips, 1)
    turned = torch.tensor([torch.equal(one, other.flip(-1)) for one, other in zip(x, plain, strict=True)])
    kept = torch.tensor([torch.equal(one, other) for one, other in zip(x, plain, strict=True)])
    assert (turned ^ kept).all()
    assert 15 < turned.sum() < 45
    swapped = torch.tensor([1, 0, 2])[labels]
    assert torch.equal(targets.argmax(1), torch.where(turned, swapped, labels))
    assert torch.equal(targets.sum(1), torch.ones(60))


def test_pairs_compose_with_mixing():
    """A clip's part in the mix counts for the class that its mirrored self shows."""
    clips, labels = random_clips(n=12, height=8, width=8), torch.arange(12) % 2
    pairs = 'augment.flip_pairs=[["GoLeft", "GoRight"]]'
    for mixed in ("augment.mixup=0.4", "augment.cutmix=1"):
        _, apart = augment(clips, 5, "augment.hflip=true", pairs, labels=labels)
        who = Augmentation(load_recipe("paper", [*SMALL, *ALL_OFF, "augment.hflip=true", mixed]), tuple("abcdefghijkl"))
        _, shares = who(clips, torch.arange(12), torch.Generator().manual_seed(5))  # whose pixels, in which share
        _, targets = augment(clips, 5, "augment.hflip=true", pairs, mixed, labels=labels)
        assert torch.allclose(targets, shares @ apart, atol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], [0, 1, 2]),
        ([("GoLeft", "GoRight")], [1, 0, 2]),
        ([("Jump", "GoLeft")], [2, 1, 0]),
    ],
)
def test_mirrored_classes(pairs, expected):
    assert mirrored_classes(pairs, CLASSES) == expected


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("GoLeft", "GoRihgt")], "no class 'GoRihgt'; did you mean GoRight"),
        ([("GoLeft", "GoRight"), ("Jump", "GoRight")], "each class once, found 'GoRight' 2 times"),
        ([("Jump", "Jump")], "each class once, found 'Jump' 2 times"),
    ],
)
def test_invalid_flip_pairs_are_refused(pairs, message):
    with pytest.raises(UserError, match=message) as error:
        mirrored_classes(pairs, CLASSES)
    assert "\n" not in str(error.value)


# Color


def test_contrast_scales_around_the_mean_of_the_clip():
    clips = random_clips(n=50)
    plain, contrasted = pixels(clips), pixels(clips, 0, "augment.contrast=0.4")
    assert torch.allclose(plain.mean((2, 3, 4)), contrasted.mean((2, 3, 4)), atol=1e-5)
    factors = contrasted.std((2, 3, 4)) / plain.std((2, 3, 4))
    assert torch.allclose(factors, factors[:, :1].expand(-1, 3), atol=1e-4)  # one factor a clip
    assert 0.6 <= factors.min() < 0.7 < 1.3 < factors.max() <= 1.4


def test_brightness_scales_levels():
    clips = random_clips(n=50).clamp(min=1)
    factors = pixels(clips, 0, "augment.brightness=0.3") / pixels(clips)
    assert torch.allclose(factors, factors[:, :1, :1, :1, :1].expand_as(factors), atol=1e-5)
    assert 0.7 <= factors.min() < 0.78 < 1.22 < factors.max() <= 1.3


def test_contrast_and_brightness_compose():
    clips = random_clips(n=20)
    both = pixels(clips, 0, "augment.contrast=0.4", "augment.brightness=0.3")
    contrasted, brightened = pixels(clips, 0, "augment.contrast=0.4"), pixels(clips, 0, "augment.brightness=0.3")
    assert torch.allclose(
        both, contrasted * (brightened / pixels(clips).clamp(min=1e-6)).amax((1, 2, 3, 4), True), atol=1e-4
    )


@pytest.mark.parametrize("key", ["augment.saturation=0.5", "augment.hue=0.5"])
def test_saturation_and_hue_keep_luma_and_grays(key):
    clips = random_clips(n=20)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1, 1)
    plain, changed = pixels(clips), pixels(clips, 0, key)
    assert (plain - changed).abs().amax((1, 2, 3, 4)).median() > 0.05
    assert torch.allclose((luma * plain).sum(1), (luma * changed).sum(1), atol=1e-4)
    gray = clips[..., :1].expand_as(clips)
    assert torch.allclose(pixels(gray), pixels(gray, 0, key), atol=1e-5)


def test_chroma_map():
    still = chroma_map(torch.ones(1), torch.zeros(1))[0]
    assert torch.allclose(still, torch.eye(3), atol=1e-6)
    colorless = chroma_map(torch.zeros(1), torch.zeros(1))[0] @ torch.tensor([1.0, 0.5, 0.2])
    assert torch.allclose(colorless, torch.full((3,), 0.299 + 0.587 * 0.5 + 0.114 * 0.2), atol=1e-5)
    third, two = (chroma_map(torch.ones(1), torch.tensor([angle]))[0] for angle in (2.0944, 4.18879))
    assert torch.allclose(third @ third, two, atol=1e-4)
    red = third @ torch.tensor([1.0, 0.0, 0.0])
    assert red.argmax() != 0  # a third of the circle away, red is another color


# A transform of the user's own


def test_transform_is_applied_first():
    clips = random_clips(height=8, width=8)
    recipe = load_recipe("paper", [*SMALL, *ALL_OFF])
    labels = torch.zeros(len(clips), dtype=torch.int64)
    x, _ = Augmentation(recipe, CLASSES, lambda clips: 255 - clips)(clips, labels, torch.Generator())
    assert torch.equal(x, normalize(255 - clips, recipe.preprocessing()))


def test_transform_may_change_the_frame_size():
    clips = random_clips(height=30, width=40)
    recipe = load_recipe("paper", [*SMALL, *ALL_OFF])
    labels = torch.zeros(len(clips), dtype=torch.int64)
    x, _ = Augmentation(recipe, CLASSES, lambda clips: clips[:, :, :8, 3:11])(clips, labels, torch.Generator())
    assert torch.equal(x, normalize(clips[:, :, :8, 3:11], recipe.preprocessing()))


@pytest.mark.parametrize(
    "transform",
    [
        lambda clips: clips.float(),
        lambda clips: clips[:, :-1],
        lambda clips: clips[1:],
        lambda clips: clips[:, :, :7],
        lambda clips: clips[..., 0],
    ],
)
def test_transform_that_returns_other_clips_is_refused(transform):
    recipe = load_recipe("paper", SMALL)
    with pytest.raises(UserError, match=r"expected uint8 clips N T H W 3 of \(8, 3, 10, 12, 3\) from the transform"):
        Augmentation(recipe, CLASSES, transform)(random_clips(), torch.zeros(8, dtype=torch.int64), torch.Generator())


# All together


def test_result_depends_on_the_generator_alone():
    clips = random_clips()
    same = [pixels(clips, 5, *ALL_ON, "augment.mixup=0.3") for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], pixels(clips, 6, *ALL_ON, "augment.mixup=0.3"))


@pytest.mark.parametrize(
    "key", ["augment.hue=0.1", "augment.contrast=0.2", "augment.ratio=1.2", "augment.randaugment=[1, 0]"]
)
def test_choices_do_not_depend_on_other_keys(key):
    """The same clips are flipped whatever other keys say."""
    clips, labels = random_clips(n=40), torch.zeros(40, dtype=torch.int64)
    pairs = 'augment.flip_pairs=[["GoLeft", "GoRight"]]'
    _, without = augment(clips, 9, "augment.hflip=true", pairs, labels=labels)
    _, along = augment(clips, 9, "augment.hflip=true", pairs, key, labels=labels)
    assert torch.equal(without, along)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.sampled_from([*ALL_ON, "augment.mixup=0.4", "augment.cutmix=1"])), st.integers(0, 2**31))
def test_static_clips_stay_static(overrides, seed):
    clips = random_clips(n=4, frames=1).expand(4, 5, 10, 12, 3)
    x, targets = augment(clips, seed, *sorted(overrides), labels=torch.tensor([0, 1, 2, 0]))
    assert x.shape == (4, 3, 5, 8, 8)
    assert x.dtype == torch.float32
    assert x.isfinite().all()
    assert torch.equal(x, x[:, :, :1].expand_as(x))
    assert targets.shape == (4, 3)
    assert torch.allclose(targets.sum(1), torch.ones(4))


def test_input_is_not_modified():
    clips = random_clips(height=8, width=8)
    before = clips.clone()
    augment(clips, 0, *ALL_ON, "augment.cutmix=1")
    assert torch.equal(clips, before)


def test_autocast_does_not_apply_to_pixels():
    clips = random_clips()
    plain = pixels(clips, 0, *ALL_ON)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pixels(clips, 0, *ALL_ON), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_gives_the_same():
    clips = random_clips(n=16, height=64, width=86)
    recipe = load_recipe("small", ["clip.crop_size=56", *ALL_ON, "augment.randaugment=[0, 9]", "augment.mixup=0.3"])
    augmentation, labels = Augmentation(recipe, CLASSES), torch.arange(16) % 3
    x, targets = augmentation(clips, labels, torch.Generator().manual_seed(0))
    on_gpu, targets_gpu = augmentation(clips.cuda(), labels.cuda(), torch.Generator().manual_seed(0))
    assert torch.equal(targets, targets_gpu.cpu())
    assert (x - on_gpu.cpu()).abs().max() < 3 / 255 / min(recipe.clip.std)  # two levels: bytes are rounded between


def test_paper_recipe_is_crop_flip_and_contrast():
    """The paper's data path, step by step and clip by clip."""
    clips, labels = random_clips(n=6, height=128, width=171), torch.zeros(6, dtype=torch.int64)
    recipe = load_recipe("paper")
    x, _ = Augmentation(recipe, CLASSES)(clips, labels, torch.Generator().manual_seed(4))
    draws = torch.rand(5, 6, generator=torch.Generator().manual_seed(4)).tolist()
    for i, (_, at_y, at_x, flip, contrast) in enumerate(zip(*draws, strict=True)):
        top, left = int(at_y * 17), int(at_x * 60)
        cut = crop_views(clips[i : i + 1, :, top : top + 112, left : left + 112], 112, 1)[:, 0]
        one = normalize(cut.flip(3) if flip < 0.5 else cut, recipe.preprocessing())
        mean = one.mean((2, 3, 4), keepdim=True)
        assert torch.allclose(x[i], (mean + (1 + 0.2 * (2 * contrast - 1)) * (one - mean))[0], atol=1e-5)
