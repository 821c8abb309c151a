"""What commands that must start fast import, and what they do not. A benchmark measures the time itself."""

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "numpy", "av", "safetensors"),
    *("pydantic", "matplotlib", "jinja2", "rich", "filelock", "tomli_w", "concurrent.futures", "msfnet.recipe"),
)
UNUSED_BY_PREDICT = (
    *("torch.utils.flop_counter", "torch._dynamo", "torch._inductor", "torch.onnx", "torch.utils.tensorboard", "sympy"),
    *("scipy", "matplotlib", "pydantic", "jinja2", "rich", "filelock", "tomli_w", "torchcodec"),
    *("lightning", "torchmetrics", "tensorboardX", "ray", "onnx", "onnxruntime", "openvino"),
    *("msfnet.recipe", "msfnet.report", "msfnet.training.trainer", "msfnet.inference.evaluation", "msfnet.bench"),
    "msfnet.data.dataset",
    *("msfnet.data.cache", "msfnet.data.shards", "msfnet.data.annotations", "msfnet.data.augment"),
)


def imported(modules, *words):
    """Run a command in a new process; returns its exit code, its output and which of these modules it imported."""
    script = "import sys\nfrom msfnet.cli import main\n"
    script += f"try: main({list(map(str, words))!r})\n"
    script += f"finally: print('\\n' + ' '.join(m for m in {tuple(modules)!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    output, _, found = done.stdout.rstrip("\n").rpartition("\n")
    return done.returncode, output + done.stderr, found.split()


@pytest.mark.parametrize("words", [("--help",), ("predict", "--help"), ("--version",), ("predict",)])
def test_help_and_usage_errors_import_nothing_heavy(words):
    code, output, found = imported(HEAVY, *words)
    assert code == (2 if words == ("predict",) else 0)
    assert output.strip()
    assert found in ([], ["rich"])  # help is drawn with it


def test_predict_imports_only_what_it_uses(tiny_run, video_folder):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    code, output, found = imported((*UNUSED_BY_PREDICT, "torch", "av"), "predict", tiny_run, video)
    assert code == 0
    assert "GoLeft" in output
    assert found == ["torch", "av"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{missing} {video}", "found none at"),
        ("{run} {missing}", "found '"),
        ("{run} {video} --views 3", "CLIPSxCROPS"),
        ("{run} {video} --top-k 0", "--top-k of 1 or more"),
    ],
)
def test_predict_reports_mistakes_before_it_imports_torch(tiny_run, video_folder, tmp_path, words, message):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    places = {"missing": tmp_path / "missing", "run": tiny_run, "video": video}
    code, output, found = imported(("torch", "numpy", "av"), "predict", *(w.format(**places) for w in words.split()))
    assert (code, found) == (2, [])
    assert message in output
