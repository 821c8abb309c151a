"""Shared fixtures: generated videos, trained weights, and the real data if its folder is next to the repository."""

import importlib.util
import logging
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

# Both are read when torch is imported: the first as the command line does, the second where processes share the cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from msfnet.procedural.dataset import write_video

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    """Tests neither find nor leave frames in the user's cache; commands they start inherit this."""
    os.environ["MSFNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real clips and hostile files. Where it is absent the test is skipped, but never on CI."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"expected the real videos in {SHARED} on CI")
        pytest.skip(f"needs the real videos in {SHARED}")
    return SHARED


def _tool(*names):
    """The path of a program, under any of its names. Where it is absent tests are skipped, but never on CI."""
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"needs the program {names[0]}")
    return found


@pytest.fixture(scope="session")
def ffmpeg():
    return _tool("ffmpeg")


@pytest.fixture
def ray():
    """Where it is not installed tests are skipped, but never on CI."""
    if not importlib.util.find_spec("ray"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs Ray: pip install 'msfnet[ray]'")


def kill_once_there(command, file):
    """Start a command and kill it, unasked, as soon as it has written this file."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not file.exists():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()


@contextmanager
def page_in_browser(page_file):
    """Open a page that the program wrote in Chromium.

    Afterwards no script has failed, nothing was fetched, and the page is not wider than a desktop or a phone window.
    """
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    chromium = _tool("chromium", "google-chrome", "chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        requests, errors = [], []
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(page_file.resolve().as_uri())
        yield page
        for width_px in (1000, 390):
            page.set_viewport_size({"width": width_px, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width_px
        assert errors == []
        assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
        browser.close()


@contextmanager
def logged(receive):
    """Pass every line that msfnet logs within the block to `receive`; its exceptions reach the code that logs."""

    class Handler(logging.Handler):
        def emit(self, record):
            receive(record.getMessage())

    logger, handler = logging.getLogger("msfnet"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def moving_square(n_frames, height=48, width=64, step=2):
    """Frames T H W 3 in which every frame is different: a bright square moves, the background tells the time."""
    frames = np.zeros((n_frames, height, width, 3), np.uint8)
    for t in range(n_frames):
        frames[t, :, :, 2] = (t * 7) % 200
        x = (t * step) % (width - 12)
        frames[t, 10:22, x : x + 12] = (250, 180, t % 250)
    return frames


def write_lossless(path, frames, fps=10):
    write_video(path, frames, fps, codec="ffv1", pixel_format="bgr0")


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory):
    """Two classes of ten short real videos in class folders: a square that goes right or left, in five groups."""
    root = tmp_path_factory.mktemp("videos")
    for label, step in (("GoRight", 3), ("GoLeft", -3)):
        (root / label).mkdir()
        for i in range(10):
            name = f"v_{label}_g{i // 2 + 1:02d}_c{i % 2 + 1:02d}.mp4"
            write_video(root / label / name, moving_square(12 + i, step=step), 10)
    return root


TINY = (
    "model.width_mult=0.125",
    "clip.crop_size=32",
    "clip.resize=[43, 32]",
    "clip.num_frames=4",
    "data.num_workers=0",
    "clip.views=2x1",
    "data.val_fraction=0.1",
    "train.epochs=2",
    "train.batch_size=4",
    "optim.base_batch_size=4",
)


@pytest.fixture(scope="session")
def tiny_run(video_folder, tmp_path_factory):
    """A finished run folder of a tiny network on the videos above."""
    from msfnet.data.annotations.readers import read_dataset
    from msfnet.recipe import load_recipe
    from msfnet.training.trainer import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(read_dataset(video_folder), load_recipe("small", TINY), folder)
    return folder
