"""The page of pictures of augmentation, on videos that the tests make."""

import re
import shutil

import pytest
from conftest import TINY

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.augment.preview import EFFECTS, write_augmentation_page
from msfnet.recipe import Recipe, load_recipe, recipe_keys
from msfnet.types import UserError


@pytest.mark.slow
def test_page_shows_every_key(video_folder, tmp_path):
    pairs = 'augment.flip_pairs=[["GoLeft", "GoRight"]]'
    recipe = load_recipe("small", [*TINY, pairs, "augment.mixup=0.8", "augment.cutmix=1"])
    write_augmentation_page(read_dataset(video_folder), recipe, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    titles = re.findall("<h2>(.*?)</h2>", page)
    assert titles[1:-1] == [effect.key for effect in EFFECTS]
    assert titles[-1] == "Operations of RandAugment"
    assert page.count("<img") == len(titles)
    assert "augment.min_crop_side = 0.5, on in this recipe" in page
    assert "augment.hue = 0.05, on in this recipe" in page
    assert re.search(r"\d+% GoLeft \+ \d+% GoRight", page)
    assert not list(tmp_path.glob(".part*"))


def test_effects_match_the_recipe_keys():
    assert {effect.key for effect in EFFECTS} <= set(recipe_keys())
    for effect in EFFECTS:
        table, _, key = effect.key.partition(".")
        default = getattr(getattr(Recipe(), table), key)
        assert effect.off == default or effect.key == "augment.hflip"


@pytest.mark.slow
def test_page_skips_unreadable_videos(video_folder, tmp_path):
    for label in ("GoLeft", "GoRight"):
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "a.mp4").write_bytes(b"no video")
    shutil.copy(next((video_folder / "GoLeft").iterdir()), tmp_path / "data" / "GoLeft" / "b.mp4")
    recipe = load_recipe("small", TINY)
    with pytest.raises(UserError, match="at least 2 videos that can be read, found 1 of 3"):
        write_augmentation_page(read_dataset(tmp_path / "data"), recipe, tmp_path / "page.html")
    shutil.copy(next((video_folder / "GoRight").iterdir()), tmp_path / "data" / "GoRight" / "b.mp4")
    write_augmentation_page(read_dataset(tmp_path / "data"), recipe, tmp_path / "page.html")
    assert "b.mp4 (GoLeft)" in (tmp_path / "page.html").read_text(encoding="utf-8")
