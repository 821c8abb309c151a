"""Generated videos that near-duplicate detection tells apart: each scene has a background and two moving objects."""

import numpy as np


def scene(seed, n_frames=24, height=48, width=64, motion=None):
    """Frames T H W 3. The background is a function of `seed`, the motion of `motion`, which is `seed` by default."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (4, 5, 3))
    background = np.kron(coarse, np.ones((height // 4, width // 5 + 1, 1)))[:height, :width]
    rng = np.random.default_rng(1000 + (seed if motion is None else motion))
    y, x = np.mgrid[:height, :width]
    t = np.linspace(0, 1, n_frames, endpoint=False)
    frames = np.repeat(background[None], n_frames, axis=0)
    for _ in range(2):
        phases, rates, color = rng.uniform(0, 6.28, 2), rng.uniform(3, 9, 2), rng.integers(0, 255, 3)
        at_y = height * (0.5 + 0.35 * np.sin(phases[0] + rates[0] * t))
        at_x = width * (0.5 + 0.35 * np.sin(phases[1] + rates[1] * t))
        for i in range(n_frames):
            frames[i][(y - at_y[i]) ** 2 + (x - at_x[i]) ** 2 < (height / 6) ** 2] = color
    return frames.astype(np.uint8)


def shrunk(frames):
    """Half the width and height: the mean of each block of four pixels."""
    t, height, width, _ = frames.shape
    return frames.reshape(t, height // 2, 2, width // 2, 2, 3).mean((2, 4)).astype(np.uint8)
