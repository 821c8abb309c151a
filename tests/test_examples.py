"""The examples in docs/examples run, each as its own process, on small videos and for one epoch."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_square

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def run_example(name, *arguments):
    """Standard output of an example."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def arrays(tmp_path):
    """An .npz file of twenty videos of two classes."""
    videos = {
        f"{label}/{i}": moving_square(12 + i, step=step)
        for label, step in (("right", 3), ("left", -3))
        for i in range(10)
    }
    np.savez(tmp_path / "arrays.npz", **videos)
    return tmp_path / "arrays.npz"


@pytest.mark.slow
def test_folder_to_predictions(video_folder, tmp_path):
    out = run_example("folder_to_predictions.py", video_folder, tmp_path, 1)
    assert "20 videos of 2 classes" in out
    assert "frames (1, 8, 112, 149, 3) at [" in out
    assert "top-1 of 4 held-out videos: " in out
    assert out.count("v_GoLeft") >= 10  # a prediction for each video of the first class
    assert (tmp_path / "run" / "report.html").exists()
    assert (tmp_path / "scores" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [("folder_to_predictions", "VIDEOS"), ("custom_model", "VIDEOS"), ("custom_dataset", "ARRAYS.npz")],
)
def test_examples_without_arguments(name, data):
    command = [sys.executable, str(EXAMPLES / f"{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"usage: python {name}.py {data} OUT [EPOCHS]\n")


@pytest.mark.slow
def test_custom_model(video_folder, tmp_path):
    out = run_example("custom_model.py", video_folder, tmp_path, 1).splitlines()
    assert [line.partition(":")[0] for line in out] == ["tiny_net", "msf_r3d_18_gate"]
    assert (tmp_path / "tiny_net.pt2").exists()
    assert (tmp_path / "msf_r3d_18_gate.pt2").exists()


@pytest.mark.slow
def test_custom_dataset(arrays, tmp_path):
    out = run_example("custom_dataset.py", arrays, tmp_path, 1).splitlines()
    assert out[0].startswith("top-1 of 4 held-out videos: ")
    assert out[1] in ("right/0: right", "right/0: left")


def test_every_example_has_a_test():
    tested = {"folder_to_predictions.py", "custom_model.py", "custom_dataset.py", "predict_onnx.py"}  # test_export
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested
