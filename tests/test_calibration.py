"""The clips that an export is calibrated and compared on, and the limits of the comparison."""

from pathlib import Path

import pytest
import torch
from conftest import logged, moving_square, write_lossless
from small_networks import PREPROCESSING

from msfnet.data.cache.content import fingerprint
from msfnet.data.video_files import VideoFiles
from msfnet.exporting import calibration, parity
from msfnet.run_folder import RecordedVideo, write_split
from msfnet.types import UserError, VideoItem

# Clips


def dataset(folder, *splits):
    """Videos 0.mp4, 1.mp4, ... of different contents."""
    items = [VideoItem(folder / f"{i}.mp4", "a", split) for i, split in enumerate(splits)]
    for i, item in enumerate(items):
        item.path.write_bytes(bytes([i]))
    return VideoFiles(tuple(items), "a test")


def names(items):
    return [item.path.name for item in items]


def test_training_videos_are_the_training_split(tmp_path):
    assert names(calibration.training_items(dataset(tmp_path, "train", "test", "val", "train"), None)) == [
        "0.mp4",
        "3.mp4",
    ]
    assert len(calibration.training_items(dataset(tmp_path, None, None), tmp_path)) == 2
    with pytest.raises(UserError, match="expected training videos"):
        calibration.training_items(dataset(tmp_path, "test", "val"), None)


def test_videos_that_a_run_is_scored_on_are_left_out(tmp_path):
    videos = dataset(tmp_path, None, None, None, None)  # the run does not know the last one
    splits = zip(videos.items, ("train", "test", "val"), strict=False)
    write_split(
        tmp_path, [RecordedVideo(item.path.name, "a", split, "", fingerprint(item.path)) for item, split in splits]
    )
    assert names(calibration.training_items(videos, tmp_path)) == ["0.mp4", "3.mp4"]


def test_drawn_videos_are_apart():
    items = [VideoItem(Path(f"{i}.mp4"), "a") for i in range(300)]
    compared, calibrated = calibration.draw(items, calibrate=True)
    assert (len(compared), len(calibrated)) == (64, 128)
    assert not {item.path for item in compared} & {item.path for item in calibrated}
    assert calibration.draw(items, calibrate=True) == (compared, calibrated)
    assert [len(part) for part in calibration.draw(items[:5], calibrate=True)] == [2, 3]
    assert [len(part) for part in calibration.draw(items[:5], calibrate=False)] == [5, 0]


def test_unreadable_videos_are_left_out(tmp_path):
    write_lossless(tmp_path / "a.mkv", moving_square(6))
    (tmp_path / "b.mkv").write_bytes(b"no")
    items = [VideoItem(tmp_path / name, "a") for name in ("a.mkv", "b.mkv")]
    videos, lines = VideoFiles(tuple(items), "a test"), []
    with logged(lines.append):
        assert calibration.read(videos, items, PREPROCESSING).shape == (1, 3, 4, 16, 16)
    assert any(line.startswith(f"left out: {tmp_path / 'b.mkv'}: cannot be read") for line in lines)
    with pytest.raises(UserError, match=r"expected readable videos .* found none among 1"):
        calibration.read(videos, items[1:], PREPROCESSING)


# Comparison


def test_parity_counts_labels_and_measures_logits():
    right = torch.tensor([[2.0, 0.0], [0.0, 4.0], [1.0, 0.0]])
    found = torch.tensor([[2.0, 0.0], [0.0, 3.6], [0.0, 1.0]])
    compared = parity.compare(right, found, "clips")
    assert (compared.n, compared.agreeing) == (3, 2)
    assert compared.absolute == pytest.approx(1.0)
    assert compared.relative == pytest.approx(0.25)
    changes = [0, torch.tensor(4.0).sigmoid() - torch.tensor(3.6).sigmoid(), 2 * torch.tensor(1.0).sigmoid() - 1]
    assert compared.probability == pytest.approx(float(sum(changes)) / 3, rel=1e-4)
    assert "2 of 3 clips" in str(compared)


@pytest.mark.parametrize(
    ("precision", "n", "agreeing", "relative", "probability", "kept"),
    [
        ("fp32", 50, 50, 9e-5, 1e-6, True),
        ("fp32", 50, 50, 2e-4, 1e-6, False),
        ("fp32", 50, 49, 1e-5, 1e-6, False),
        ("bf16", 50, 49, 0.1, 0.009, True),
        ("bf16", 50, 48, 0.1, 0.001, False),
        ("bf16", 200, 194, 0.1, 0.001, True),
        ("bf16", 50, 50, 0.1, 0.02, False),
        ("int8", 50, 45, 0.3, 0.04, True),
        ("int8", 50, 44, 0.3, 0.04, False),
        ("int8", 4, 3, 0.3, 0.04, True),
        ("int8", 50, 50, 0.3, float("nan"), False),
    ],
)
def test_limits(precision, n, agreeing, relative, probability, kept):
    found = parity.Parity(n, "clips", relative, 1.0, agreeing, probability)
    if kept:
        parity.require(found, precision)
    else:
        with pytest.raises(UserError, match=f"the {precision} file was not kept"):
            parity.require(found, precision)
