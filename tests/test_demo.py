"""The embedded data set and the demo itself, watched by a real browser."""

import re
from itertools import pairwise

import numpy as np
import pytest
from conftest import page_in_browser

from msfnet.data.annotations.readers import read_dataset
from msfnet.data.video.decode import read_video
from msfnet.procedural.dataset import write_data_set
from msfnet.procedural.figures import CLASSES, CYCLES, FRAMES, HEIGHT_PX, ONE_WAY, WIDTH_PX, draw_video, motions
from msfnet.types import FrameFormat


def test_one_motion_goes_one_way_and_the_others_return():
    for label in CLASSES:
        for seed in range(20):
            paths = motions(label, np.random.default_rng(seed))
            one_way = [abs(np.sign(np.diff(path)).sum()) == FRAMES - 1 for path in paths]
            expected = [False] * 3
            if label in ONE_WAY:
                expected[ONE_WAY[label][0]] = True
            assert one_way == expected, (label, seed)


def test_opposites_are_each_other_backwards():
    for a, b in (("open", "close"), ("step-left", "step-right"), ("rise", "crouch")):
        which = ONE_WAY[a][0]
        forward, backward = (motions(label, np.random.default_rng(0))[which] for label in (a, b))
        assert np.allclose(forward, backward[::-1], atol=1e-6)


def test_every_position_is_as_frequent_in_every_class():
    """A frame alone says nothing: each motion's positions are spread alike, whatever the class."""
    histograms = {}
    for label in CLASSES:
        paths = np.stack([motions(label, np.random.default_rng(seed)) for seed in range(400)])  # n 3 T
        histograms[label] = np.stack([np.histogram(paths[:, i], bins=6, range=(0, 1))[0] for i in range(3)])
    shares = np.stack(list(histograms.values())) / (400 * FRAMES)
    assert np.abs(shares - 1 / 6).max() < 0.02


def test_fast_is_faster():
    speed = {
        label: np.mean([np.abs(np.diff(motions(label, np.random.default_rng(s)))).mean() for s in range(20)])
        for label in CYCLES
    }
    assert speed["fast"] > 2 * speed["slow"]


def test_videos_are_drawn_from_the_seed():
    one = draw_video("open", np.random.default_rng(1))
    assert one.shape == (FRAMES, HEIGHT_PX, WIDTH_PX, 3)
    assert np.array_equal(one, draw_video("open", np.random.default_rng(1)))
    assert not np.array_equal(one, draw_video("open", np.random.default_rng(2)))
    assert all((a != b).any() for a, b in pairwise(one))


def test_data_set_is_written_whole_and_goes_on_where_it_stopped(tmp_path):
    write_data_set(tmp_path, {"train": 2, "test": 1}, seed=0)
    listing = read_dataset(tmp_path)
    assert len(listing.items) == 3 * len(CLASSES)
    assert len(listing.in_split("test")) == len(CLASSES)
    assert read_video(listing.items[0].path, FrameFormat((WIDTH_PX, HEIGHT_PX))).video_frames == FRAMES
    kept = listing.items[5].path
    date = kept.stat().st_mtime_ns
    listing.items[0].path.unlink()
    write_data_set(tmp_path, {"train": 2, "test": 1}, seed=0)
    assert listing.items[0].path.exists()
    assert kept.stat().st_mtime_ns == date


@pytest.mark.slow
def test_demo_learns_what_shuffling_destroys_and_leaves_a_page(tmp_path, capsys):
    from msfnet.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["demo", "--out", str(tmp_path)])
    assert stopped.value.code == 0
    captured = capsys.readouterr()
    recognized = float(re.search(r"held-out videos recognized: ([\d.]+)%", captured.out)[1])
    shuffled = float(re.search(r"frames shuffled: ([\d.]+)%", captured.out)[1])
    assert recognized >= 90
    assert shuffled <= 30  # chance is 12.5
    assert "epoch   9/9" in captured.err
    look_at(tmp_path / "report.html")


def look_at(page_file):
    """The demo's page has all its parts, and every picture has come."""
    with page_in_browser(page_file) as page:
        assert page.locator("h1").inner_text() == "msfnet demo"
        assert page.locator(".tile").count() == 8
        widths = page.eval_on_selector_all("img", "pictures => pictures.map(p => p.naturalWidth)")
        assert len(widths) >= 3  # and examples of what was confused
        assert min(widths) > 100
