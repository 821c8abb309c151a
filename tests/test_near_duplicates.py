"""Copies are found also after re-encoding, and other videos are not copies: on synthetic scenes and on real clips."""

import numpy as np
import pytest
from conftest import write_lossless
from scenes import scene, shrunk

from msfnet.doctor.file_info import compare_videos, decoded_signature, inspect_video
from msfnet.doctor.near_duplicates import SEGMENTS, SIGNATURE_PX, GrayFrames, candidate_pairs, compare, signature
from msfnet.procedural.dataset import write_video


def no_heartbeat():
    pass


def same(a, b):
    """Whether both steps find that two files have the same content."""
    signatures = [decoded_signature(inspect_video(path, no_heartbeat)) for path in (a, b)]
    comparison = compare_videos((a, b), no_heartbeat)
    return bool(candidate_pairs(signatures)) and comparison is not None and comparison.same_content


def gray_frames(frames, fps=10.0):
    """Gray frames of a video T 64 64 3."""
    gray = frames.mean(3).reshape(len(frames), 32, 2, 32, 2).mean((2, 4))
    return GrayFrames(gray.astype(np.uint8), np.arange(len(frames)) / fps)


COPIES = {
    "half": lambda path, frames: write_video(path.with_suffix(".mp4"), shrunk(frames), 20),
    "mpeg4": lambda path, frames: write_video(path.with_suffix(".avi"), frames, 20, codec="mpeg4"),
    "mjpeg": lambda path, frames: write_video(
        path.with_suffix(".mkv"), frames, 20, codec="mjpeg", pixel_format="yuvj420p"
    ),
    "half the frame rate": lambda path, frames: write_video(path.with_suffix(".mp4"), frames[::2], 10),
    "twice the frame rate": lambda path, frames: write_video(path.with_suffix(".mp4"), frames.repeat(2, 0), 40),
    "darker": lambda path, frames: write_lossless(path.with_suffix(".mkv"), (frames * 0.7 + 9).astype(np.uint8), 20),
    "without its end": lambda path, frames: write_lossless(path.with_suffix(".mkv"), frames[:-2], 20),
}


@pytest.mark.parametrize("what", COPIES)
def test_copies_are_found(tmp_path, what):
    frames = scene(3, 48, 96, 128)
    write_video(tmp_path / "original.mp4", frames, 20)
    COPIES[what](tmp_path / "copy", frames)
    assert same(tmp_path / "original.mp4", next(tmp_path.glob("copy.*")))


def test_another_motion_in_the_same_scene(tmp_path):
    write_lossless(tmp_path / "a.mkv", scene(3))
    for motion in range(10, 15):
        write_lossless(tmp_path / "b.mkv", scene(3, motion=motion))
        assert not same(tmp_path / "a.mkv", tmp_path / "b.mkv")


def test_scenes_are_no_candidates():
    signatures = [signature(gray_frames(scene(seed, 24, 64, 64))) for seed in range(60)]
    assert candidate_pairs(signatures) == []


def test_candidates_do_not_depend_on_the_block_size():
    """Empty signatures are in no pair."""
    rng = np.random.default_rng(0)
    base = rng.integers(-100, 100, (6, (SEGMENTS + 1) * SIGNATURE_PX**2))
    near = np.concatenate([base, base + rng.integers(-20, 20, base.shape), base[:2]]).clip(-127, 127)
    signatures = [row.astype(np.int8).tobytes() for row in near]
    signatures.insert(3, b"")
    expected = {(0, 7), (1, 8), (2, 9), (4, 10), (5, 11), (6, 12), (0, 13), (7, 13), (1, 14), (8, 14)}
    for block in (1, 4, 512):
        found = candidate_pairs(signatures, block)
        assert len(found) == len(set(found))
        assert set(found) == expected


def test_too_few_frames():
    few = gray_frames(scene(1, 3, 64, 64))
    assert signature(few) == b""
    assert compare(gray_frames(scene(1, 2, 64, 64)), few) is None
    assert candidate_pairs([]) == []
    constant = GrayFrames(np.full((9, 32, 32), 7, np.uint8), np.arange(9.0))
    assert not compare(constant, constant).same_content


def test_shift_in_time():
    frames = scene(5, 60, 64, 64)
    comparison = compare(gray_frames(frames[:50], 25), gray_frames(frames[4:54], 25))
    assert comparison.correlation > 0.99
    assert abs(comparison.shift_seconds) == pytest.approx(0.16, abs=0.021)


@pytest.mark.slow
def test_real_clips(real_data):
    """Clips of one group are no copies of each other, and the original of each clip is one.

    Each group shows one person, almost without motion or in regular repetition. The originals have another size, frame
    rate and codec.
    """
    clips = real_data / "ucf101-18"
    groups = [clips.glob("PlayingPiano/*_g03_*"), clips.glob("JumpingJack/*_g03_*"), clips.glob("PushUps/*_g24_*")]
    for group in groups:
        paths = sorted(group)
        assert len(paths) >= 4
        assert not any(same(a, b) for i, a in enumerate(paths) for b in paths[:i])
    for original in (real_data / "ucf101-original").glob("*.avi"):
        label = original.name.split("_")[1]
        assert same(original, clips / label / f"{original.stem}.mp4")
