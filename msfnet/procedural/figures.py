"""Draw videos of stick figures that act in front of a moving background; arrays only, no files.

Three motions of a figure never stop: those of its limbs, its place and its height. In six classes one of them goes in
one direction (limbs open or close, a step left or right, crouch or rise) while the others oscillate; in the last two
all three oscillate, fast or slowly. In every class each motion takes all its positions equally often, so that neither
a single frame nor a set of frames without their order tells the class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msfnet.types import Frames

Floats = npt.NDArray[np.float32]
Point = tuple[Floats, Floats]  # x T, y T: a position in each frame

WIDTH_PX, HEIGHT_PX, FRAMES, FPS = 96, 72, 24, 12

CLASSES = ("open", "close", "step-left", "step-right", "crouch", "rise", "fast", "slow")

# Class -> the motion that goes in one direction (0 limbs, 1 place, 2 height), its start and its end.
ONE_DIRECTION = {
    "open": (0, 0.0, 1.0),
    "close": (0, 1.0, 0.0),
    "step-left": (1, 1.0, 0.0),
    "step-right": (1, 0.0, 1.0),
    "crouch": (2, 1.0, 0.0),
    "rise": (2, 0.0, 1.0),
}
CYCLES = {"fast": 3.0, "slow": 1.0}


def triangle_wave(time: Floats, cycles: float, phase: float) -> Floats:
    """Return a wave from 0 to 1 and back, `cycles` times while `time` goes from 0 to 1."""
    position = (cycles * time + phase) % 1.0
    return 1 - np.abs(2 * position - 1)


def motions(label: str, rng: np.random.Generator) -> Floats:
    """Draw the motions of a video of a class: the positions of limbs, place and height in each frame, from 0 to 1.

    Args:
        label: One of CLASSES.
        rng: Draws the phases of the oscillations.

    Returns:
        3 T, float32.
    """
    time = (np.arange(FRAMES, dtype=np.float32) + np.float32(0.5)) / np.float32(FRAMES)
    cycles = CYCLES.get(label, 1.0)
    paths = np.stack([triangle_wave(time, cycles, rng.random()) for _ in range(3)])
    if label in ONE_DIRECTION:
        which, start, end = ONE_DIRECTION[label]
        paths[which] = start + (end - start) * time
    return paths.astype(np.float32)


@dataclass(frozen=True)
class Appearance:
    """How a figure looks, which is independent of its class. Lengths are fractions of the height of the frame."""

    size: float
    thickness: float
    center: float  # middle of its range of places, as a fraction of the width of the frame
    color: Floats  # 3
    shirt: Floats  # 3

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Appearance:
        size, thickness, center = rng.uniform(0.76, 0.88), rng.uniform(0.036, 0.048), rng.uniform(0.44, 0.56)
        return cls(size, thickness, center, _uniform(rng, 0.55, 1, 3), _uniform(rng, 0.55, 1, 3))


def _distance(x: Floats, y: Floats, start: Point, end: Point) -> Floats:
    """Return the distance of every pixel to a moving line segment: pixels H W, ends T -> T H W."""
    (x0, y0), (x1, y1) = ([c[:, None, None] for c in point] for point in (start, end))
    dx, dy = x1 - x0, y1 - y0
    along = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy + 1e-9)
    along = np.clip(along, 0, 1)
    return np.sqrt((x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)


def _bend(length: float, distance: Floats) -> Floats:
    """Return the distance of a limb's joint from the line between its ends, which are `distance` apart: T."""
    return np.sqrt(np.maximum((length / 2) ** 2 - (distance / 2) ** 2, 0))


def skeleton(positions: Floats, look: Appearance) -> dict[str, tuple[Point, Point]]:
    """Return the two ends of each limb, by its name, in heights of the frame with y pointing down."""
    limbs_open, place, height = positions
    aspect = WIDTH_PX / HEIGHT_PX
    x = look.center * aspect + (place - 0.5) * 0.55
    foot_y = np.full_like(x, 0.5 + look.size / 2)
    leg = 0.42 * look.size
    hip_y = foot_y - leg * (0.45 + 0.55 * height)
    shoulder_y, head_y = hip_y - 0.32 * look.size, hip_y - 0.42 * look.size
    stride = look.size * (0.05 + 0.22 * limbs_open)
    bend = _bend(leg, np.hypot(foot_y - hip_y, stride))
    knee_y = (foot_y + hip_y) / 2
    reach = 0.4 * look.size
    raise_angle = 0.8 * np.pi * (limbs_open - 0.5)  # arms rise while the feet move apart, as in a jumping jack
    limbs = {"head": ((x, head_y), (x, head_y + 0.001)), "torso": ((x, shoulder_y), (x, hip_y))}
    for side, sign in (("left", -1), ("right", 1)):
        hand = (x + sign * reach * np.cos(raise_angle), shoulder_y - reach * np.sin(raise_angle))
        knee = (x + sign * (stride / 2 + bend), knee_y)
        foot = (x + sign * stride, foot_y)
        limbs |= {
            f"{side} arm": ((x, shoulder_y), hand),
            f"{side} thigh": ((x, hip_y), knee),
            f"{side} shin": (knee, foot),
        }
    return limbs


def _grid() -> tuple[Floats, Floats]:
    """Return x and y of every pixel in heights of the frame: H W each."""
    y, x = np.mgrid[0:HEIGHT_PX, 0:WIDTH_PX].astype(np.float32) / np.float32(HEIGHT_PX)
    return x, y


def _uniform(rng: np.random.Generator, low: float, high: float, size: int) -> Floats:
    return rng.uniform(low, high, size).astype(np.float32)


def draw_background(rng: np.random.Generator) -> Floats:
    """Return a drifting pattern with shapes that move in random directions: T H W 3 from 0 to 1."""
    x, y = _grid()
    time = np.arange(FRAMES, dtype=np.float32)[:, None, None] / np.float32(FRAMES)
    wave, (drift, phase) = _uniform(rng, -14, 14, 2), _uniform(rng, -6, 6, 2)
    stripes = np.sin(wave[0] * x + wave[1] * y + drift * time + phase)
    picture = _uniform(rng, 0.05, 0.4, 3) + _uniform(rng, -0.12, 0.12, 3) * stripes[..., None]
    for _ in range(rng.integers(3, 6)):
        color, speed = _uniform(rng, 0, 0.8, 3), _uniform(rng, -0.5, 0.5, 2)
        (start_x,), (start_y,), (radius,) = (
            _uniform(rng, *ends, 1) for ends in ((-0.1, 1.4), (-0.1, 1.1), (0.04, 0.11))
        )
        offset_x, offset_y = np.abs(x - start_x - speed[0] * time), np.abs(y - start_y - speed[1] * time)
        square = rng.random() < 0.5
        distance = np.maximum(offset_x, offset_y) if square else np.sqrt(offset_x**2 + offset_y**2)
        _paint(picture, distance - radius, color)
    return picture


def _paint(picture: Floats, distance: Floats, color: Floats) -> None:
    """Paint a color where `distance` is negative, with an antialiased edge of one pixel."""
    near = np.nonzero(distance < 0.5 / HEIGHT_PX)
    coverage = np.minimum(0.5 - distance[near] * np.float32(HEIGHT_PX), 1)[:, None]
    picture[near] += coverage * (color - picture[near])


def draw_video(label: str, rng: np.random.Generator) -> Frames:
    """Draw one video.

    Args:
        label: One of CLASSES.
        rng: Draws everything that differs between videos of a class.

    Returns:
        T H W 3 uint8, RGB, with FRAMES, HEIGHT_PX and WIDTH_PX.
    """
    look = Appearance.draw(rng)
    x, y = _grid()
    limbs = skeleton(motions(label, rng), look)
    picture = draw_background(rng)
    torso = _distance(x, y, *limbs.pop("torso")) - 1.3 * look.thickness
    head = _distance(x, y, *limbs.pop("head")) - 1.8 * look.thickness
    body = np.minimum.reduce([head, *(_distance(x, y, *ends) - look.thickness for ends in limbs.values())])
    _paint(picture, torso, look.shirt)
    _paint(picture, body, look.color)
    picture += 0.02 * rng.standard_normal((*picture.shape[:3], 1), dtype=np.float32)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8)
