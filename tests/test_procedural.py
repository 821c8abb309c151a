"""Drawn videos differ between classes only by motion, and are written as they are drawn."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from conftest import moving_square

from msfnet.data.annotations.readers import MANIFEST, read_dataset
from msfnet.data.video.decode import read_video
from msfnet.procedural.dataset import write_dataset, write_video
from msfnet.procedural.figures import CLASSES, CYCLES, FRAMES, HEIGHT_PX, ONE_DIRECTION, WIDTH_PX, draw_video, motions
from msfnet.types import FrameFormat


def test_one_motion_has_a_direction_and_the_others_oscillate():
    for label in CLASSES:
        for seed in range(20):
            paths = motions(label, np.random.default_rng(seed))
            directed = [abs(np.sign(np.diff(path)).sum()) == FRAMES - 1 for path in paths]
            expected = [False] * 3
            if label in ONE_DIRECTION:
                expected[ONE_DIRECTION[label][0]] = True
            assert directed == expected, (label, seed)


def test_opposite_classes_are_reversed():
    for a, b in (("open", "close"), ("step-left", "step-right"), ("rise", "crouch")):
        which = ONE_DIRECTION[a][0]
        forward, backward = (motions(label, np.random.default_rng(0))[which] for label in (a, b))
        assert np.allclose(forward, backward[::-1], atol=1e-6)


def test_positions_are_equally_frequent_in_every_class():
    """A single frame does not tell the class: the positions of each motion are distributed equally."""
    histograms = {}
    for label in CLASSES:
        paths = np.stack([motions(label, np.random.default_rng(seed)) for seed in range(400)])  # n 3 T
        histograms[label] = np.stack([np.histogram(paths[:, i], bins=6, range=(0, 1))[0] for i in range(3)])
    shares = np.stack(list(histograms.values())) / (400 * FRAMES)
    assert np.abs(shares - 1 / 6).max() < 0.02


def test_fast_is_faster_than_slow():
    speed = {
        label: np.mean([np.abs(np.diff(motions(label, np.random.default_rng(s)))).mean() for s in range(20)])
        for label in CYCLES
    }
    assert speed["fast"] > 2 * speed["slow"]


def test_videos_are_a_function_of_the_seed():
    one = draw_video("open", np.random.default_rng(1))
    assert one.shape == (FRAMES, HEIGHT_PX, WIDTH_PX, 3)
    assert np.array_equal(one, draw_video("open", np.random.default_rng(1)))
    assert not np.array_equal(one, draw_video("open", np.random.default_rng(2)))
    assert all((a != b).any() for a, b in pairwise(one))


def test_dataset_is_completed_after_an_interruption(tmp_path):
    write_dataset(tmp_path / MANIFEST, {"train": 2, "test": 1}, seed=0)
    dataset = read_dataset(tmp_path)
    assert len(dataset.items) == 3 * len(CLASSES)
    assert len(dataset.in_split("test")) == len(CLASSES)
    assert read_video(dataset.items[0].path, FrameFormat((WIDTH_PX, HEIGHT_PX))).video_frames == FRAMES
    kept = dataset.items[5].path
    date = kept.stat().st_mtime_ns
    dataset.items[0].path.unlink()
    write_dataset(tmp_path / MANIFEST, {"train": 2, "test": 1}, seed=0)
    assert dataset.items[0].path.exists()
    assert kept.stat().st_mtime_ns == date


def test_frame_rate_is_written_as_given(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(6), 12)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(12)
