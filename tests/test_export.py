"""Exported files: they give the outputs of the weights, carry what they need, or do not exist at all."""

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import logged, moving_square, write_lossless
from small_networks import PREPROCESSING, foreign_checkpoint, small_checkpoint
from test_cli import run
from torch import nn

from msfnet.exporting import export as export_module
from msfnet.exporting import openvino_file
from msfnet.exporting.export import export
from msfnet.exporting.libraries import library
from msfnet.inference.network import load_network, score_views
from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import load_weights, save_weights
from msfnet.models.registry import list_models
from msfnet.types import UserError, Views

ROOT = Path(__file__).resolve().parent.parent
TRUST = ("--trust",)  # that .pt2 files, which can run code, are loaded
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A weights file of the network with the smallest graph: two classes, two views."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, small_checkpoint("c3d"))
    return path


@pytest.fixture(scope="module")
def exported(weights_file, video_folder, tmp_path_factory):
    """The same network as a file of each kind."""
    folder = tmp_path_factory.mktemp("exported")
    paths = {to: folder / f"small{suffix}" for to, suffix in SUFFIXES.items()}
    for to, path in paths.items():
        export(weights_file, to, path, data=video_folder)
    return paths


# Files


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_file_has_the_header_of_the_weights(exported, weights_file, to):
    original, read = load_weights(weights_file), load_network(exported[to])
    assert (read.name, read.classes) == (original.name, original.classes)
    assert read.kwargs == original.kwargs
    assert read.preprocessing == original.preprocessing
    assert read.notes == {"seed": 3, "export": {"to": to, "precision": "fp32"}}
    assert b"site-packages" not in exported[to].read_bytes()  # no paths of the machine that wrote it
    assert str(ROOT).encode() not in exported[to].read_bytes()


@pytest.mark.parametrize("to", SUFFIXES)
def test_any_number_of_clips_and_views(exported, weights_file, to):
    original, read = load_weights(weights_file), load_network(exported[to])
    for videos, views, crops in ((1, 1, 1), (3, 2, 1), (2, 1, 3), (1, 7, 3), (3, 2, 1)):
        frames = torch.randint(0, 255, (videos, views, 4, 16, 22, 3), dtype=torch.uint8)
        right = score_views(original.model, frames, original.preprocessing, crops)
        found = score_views(read.model, frames, read.preprocessing, crops)
        torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("to", SUFFIXES)
def test_predict_and_evaluate_take_a_file_like_weights(capsys, exported, weights_file, video_folder, to):
    evaluated = [run(capsys, "evaluate", path, video_folder, "--json", *TRUST) for path in (weights_file, exported[to])]
    right, found = (json.loads(out) for _, out, _ in evaluated)
    assert [code for code, _, _ in evaluated] == [0, 0]
    for mine, theirs in zip(found.pop("videos"), right.pop("videos"), strict=True):
        assert mine == theirs | {"score": pytest.approx(theirs["score"], abs=1e-5)}
    assert found == right
    answers = []
    for path in (weights_file, exported[to]):
        code, out, _ = run(capsys, "predict", path, video_folder / "GoLeft", "--json", *TRUST)
        assert code == 0
        answers.append([json.loads(line) for line in out.splitlines()])
    for mine, theirs in zip(*answers, strict=True):
        assert mine["path"] == theirs["path"]
        assert [p["label"] for p in mine["predictions"]] == [p["label"] for p in theirs["predictions"]]
        assert [p["score"] for p in mine["predictions"]] == pytest.approx(
            [p["score"] for p in theirs["predictions"]], abs=1e-5
        )


def test_the_command_prints_parity(capsys, weights_file, video_folder, tmp_path):
    out = tmp_path / "new" / "x.pt2"
    code, printed, err = run(capsys, "export", weights_file, "--to", "torch", "--out", out, "--data", video_folder)
    assert code == 0
    assert re.match(rf"{re.escape(str(out))}: 20 of 20 clips of training videos get the same label; logits", printed)
    assert "20 to compare on" in err
    assert [path.name for path in out.parent.iterdir()] == ["x.pt2"]
    code, printed, err = run(capsys, "export", weights_file, "--to", "torch", "--precision", "bf16", "--out", out)
    assert code == 0
    assert "clips of noise" in printed
    assert "says little about real videos" in err
    network = load_network(out).model
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert network(torch.zeros(3, 3, 4, 16, 16)).dtype == torch.float32


def test_runtimes_use_the_threads_of_torch(exported, video_folder):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    recognizer = Recognizer.load(str(exported["onnx"]))
    assert len(recognizer(video, views=Views(3, 3)).predictions) == 2
    session, network = recognizer.model.session, load_network(exported["openvino"]).model
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    network(torch.zeros(1, 3, 4, 16, 16))
    assert network.programs[1].get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_openvino_keeps_few_compiled_programs(exported):
    network = load_network(exported["openvino"]).model
    for n in (1, 2, 3, 4, 5, 3):
        assert network(torch.zeros(n, 3, 4, 16, 16)).shape == (n, 2)
    assert list(network.programs) == [2, 3, 4, 5]


# Networks of others


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_network_of_somebody_else_is_exported(video_folder, tmp_path, to):
    """From a Checkpoint of any module, which stays as it is."""
    checkpoint = foreign_checkpoint()
    checkpoint.model.train()
    before = {key: value.clone() for key, value in checkpoint.model.state_dict().items()}
    out = tmp_path / f"x{SUFFIXES[to]}"
    parity = export(checkpoint, to, str(out), data=video_folder)
    assert (parity.n, parity.agreeing) == (20, 20)
    assert load_network(out).name == "foreign"
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    expected = dict(Recognizer.load(checkpoint)(video).predictions)
    assert dict(Recognizer.load(out)(video).predictions) == pytest.approx(expected, abs=1e-5)
    assert checkpoint.model.training
    assert all(torch.equal(before[key], value) for key, value in checkpoint.model.state_dict().items())


class Untraceable(nn.Module):
    """Its outputs depend on the values of its inputs by a branch in Python."""

    def forward(self, x):
        return x.mean((2, 3, 4))[:, :2] if x.sum() > 0 else x.amax((2, 3, 4))[:, :2]


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_network_that_cannot_be_traced_is_one_line(tmp_path, to):
    checkpoint = replace(foreign_checkpoint(), model=Untraceable(), name="branching")
    with pytest.raises(UserError, match="cannot convert the network branching") as error:
        export(checkpoint, to, tmp_path / f"x{SUFFIXES[to]}")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


# Refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to onx --out x.onnx", "did you mean onnx"),
        ("--to onnx --out x.xml", "expected a file .onnx to write for onnx, found x.xml"),
        ("--to onnx --out x.onnx --precision fp16", "expected a precision of fp32, bf16 or int8, found 'fp16'"),
        ("--to onnx --out x.onnx --precision bf16", "almost no bf16 operations"),
        ("--to torch --out x.pt2 --precision int8", "no 3D convolution in int8"),
        ("--to openvino --out x.xml --precision int8", "expected data (--data DATA), found none"),
        ("--to torch --out x.pt2 --data nowhere", "found nothing at nowhere"),
        ("--to torch", "requires an argument"),
    ],
)
def test_what_cannot_be_exported(capsys, weights_file, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, "export", weights_file, *words.split())
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.onnx", "x.xml", "x.pt2"])
def test_files_that_are_missing_or_damaged(capsys, video_folder, tmp_path, name):
    code, _, err = run(capsys, "predict", tmp_path / name, video_folder, *TRUST)
    assert code == 2
    assert f"found none at {tmp_path / name}" in err
    (tmp_path / name).write_bytes(b"no")
    for _ in range(2):
        code, _, err = run(capsys, "predict", tmp_path / name, video_folder, *TRUST)
        assert code == 2
        assert "expected" in err
        assert len(err.strip().splitlines()) == 1
        (tmp_path / "x.bin").write_bytes(b"")  # what is missing beside an .xml


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_runtimes_of_the_cpu_refuse_other_devices(exported, monkeypatch, to):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="runs on the CPU: expected the device cpu or none, found cuda"):
        load_network(exported[to], "cuda")
    assert load_network(exported[to], "cpu").classes == ("GoLeft", "GoRight")


def test_files_that_others_wrote(tmp_path):
    onnx = library("onnx")
    value = onnx.helper.make_tensor_value_info("x", 1, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value], [onnx.helper.make_tensor_value_info("y", 1, [1])]
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10),
        tmp_path / "x.onnx",
    )
    openvino = library("openvino")
    openvino.save_model(openvino.convert_model(nn.ReLU(), example_input=torch.zeros(1)), tmp_path / "x.xml")
    torch.export.save(torch.export.export(nn.ReLU(), (torch.zeros(1),)), tmp_path / "x.pt2")
    for name in ("x.onnx", "x.xml", "x.pt2"):
        with pytest.raises(UserError, match="was not written by msfnet"):
            load_network(tmp_path / name)


def test_a_file_of_other_outputs_is_not_kept(capsys, monkeypatch, weights_file, tmp_path):
    """The writer is replaced by one that changes a weight. An older file of that name stays as it was."""
    out = tmp_path / "x.pt2"
    export(weights_file, "torch", out)
    before, target = out.read_bytes(), export_module.TARGETS["torch"]

    def write(path, weights, *rest):
        weights.model.fc8.bias.data[0] += 0.1
        target.write(path, weights, *rest)
        weights.model.fc8.bias.data[0] -= 0.1

    monkeypatch.setitem(export_module.TARGETS, "torch", replace(target, write=write))
    code, printed, err = run(capsys, "export", weights_file, "--to", "torch", "--out", out)
    assert (code, printed) == (2, "")
    assert "the fp32 file was not kept: expected at most 0 other labels" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]
    assert out.read_bytes() == before


# Libraries


def test_a_missing_library_is_one_line(monkeypatch, exported):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnxruntime is not installed .*; run pip install 'msfnet\[export\]'"):
        load_network(exported["onnx"])


def test_inference_imports_no_runtime():
    script = "import sys, msfnet, msfnet.inference.recognizer, msfnet.inference.evaluation\n"
    script += "print([m for m in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def no_network(monkeypatch):
    """Any use of the network fails. Processes of one machine may talk."""

    def guarded(call):
        def local_only(self, *arguments):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                pytest.fail(f"asked the network for {arguments}")
            return call(self, *arguments)

        return local_only

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: pytest.fail(f"asked for {address}"))


def test_nothing_is_sent_over_the_network(no_network, weights_file, exported, tmp_path):
    export(weights_file, "openvino", tmp_path / "x.xml")
    library("nncf")
    telemetry = [m for m in sys.modules if m.startswith("openvino_telemetry") and sys.modules[m] is not None]
    assert telemetry == []
    load_network(exported["onnx"]).model(torch.zeros(1, 3, 4, 16, 16))


def test_a_processor_without_bf16(monkeypatch, weights_file, exported, tmp_path):
    monkeypatch.setattr(openvino_file, "_computes_bf16", lambda core: False)
    with pytest.raises(UserError, match="expected a processor that computes in bf16"):
        export(weights_file, "openvino", tmp_path / "x.xml", "bf16")
    assert list(tmp_path.iterdir()) == []
    for name in ("small.xml", "small.bin"):
        content = exported["openvino"].with_name(name).read_bytes()
        content = content.replace(
            b"&quot;precision&quot;: &quot;fp32&quot;", b"&quot;precision&quot;: &quot;bf16&quot;"
        )
        (tmp_path / name).write_bytes(content)
    lines = []
    with logged(lines.append):
        network = load_network(tmp_path / "small.xml").model
    assert lines == [f"this processor has no bf16: {tmp_path / 'small.xml'} runs in fp32"]
    assert network.settings["INFERENCE_PRECISION_HINT"] == "f32"


# The example


def run_example(onnx_path, video):
    """Run the example where neither msfnet nor torch can be imported; returns labels and scores that it prints."""
    script = ROOT / "docs" / "examples" / "predict_onnx.py"
    code = "import runpy, sys; sys.modules['torch'] = sys.modules['msfnet'] = None; del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, script, onnx_path, video], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line.split()[1]: float(line.split()[0]) for line in done.stdout.splitlines()}


def assert_example_agrees(weights, onnx_path, video):
    scores = dict(Recognizer(weights)(video).predictions)
    assert run_example(onnx_path, video) == pytest.approx(scores, abs=2e-4)


def test_the_example_needs_no_msfnet(exported, weights_file, video_folder, tmp_path):
    write_lossless(tmp_path / "short.mkv", moving_square(3))
    code = (ROOT / "docs" / "examples" / "predict_onnx.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 35
    assert code in (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for video in (video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4", tmp_path / "short.mkv"):
        assert_example_agrees(load_weights(weights_file), exported["onnx"], video)


def test_the_example_reads_videos_at_the_networks_frame_rate(exported, weights_file, tmp_path):
    """With a header that has a frame rate, and with one from before there was such a key."""
    weights = load_weights(weights_file)
    for fps in (None, 3.0, 5.0, 25.0):  # of videos of ten frames per second
        own = replace(weights.preprocessing, fps=fps or 0.0, eval_sampling="dense")
        graph = library("onnx").load(exported["onnx"])
        entry = next(entry for entry in graph.metadata_props if entry.key == "msfnet")
        changed = own.to_dict() if fps else {k: v for k, v in own.to_dict().items() if k != "fps"}
        entry.value = json.dumps(json.loads(entry.value) | {"preprocessing": changed})
        library("onnx").save(graph, tmp_path / "x.onnx")
        assert load_network(tmp_path / "x.onnx").preprocessing == own
        for n_frames in (1, 30):
            write_lossless(tmp_path / f"{n_frames}.mkv", moving_square(n_frames))
            assert_example_agrees(
                replace(weights, preprocessing=own), tmp_path / "x.onnx", tmp_path / f"{n_frames}.mkv"
            )


@pytest.mark.slow
@pytest.mark.parametrize("input_", ["rgb_diff", "rgb+rgb_diff"])
def test_the_example_knows_every_preprocessing(video_folder, tmp_path, input_):
    changes = {"input": input_, "eval_sampling": "dense", "frame_interval": 2, "views": Views(3, 1)}
    weights = small_checkpoint("c3d", replace(PREPROCESSING, **changes))
    save_weights(tmp_path / "w.safetensors", weights)
    export(tmp_path / "w.safetensors", "onnx", tmp_path / "x.onnx", data=video_folder)
    for n_frames in (3, 7, 12, 30):
        write_lossless(tmp_path / f"{n_frames}.mkv", moving_square(n_frames))
        assert_example_agrees(weights, tmp_path / "x.onnx", tmp_path / f"{n_frames}.mkv")


# Slow: other networks and precisions


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_exports_to_onnx(name, tmp_path):
    frames = 4 if name in ("r3d_18", "msf_r3d_18_fsam") else 2  # of four, convolutions over time are rearranged
    weights = small_checkpoint(name, replace(PREPROCESSING, num_frames=frames))
    save_weights(tmp_path / "w.safetensors", weights)
    found = export(tmp_path / "w.safetensors", "onnx", tmp_path / "x.onnx")
    assert found.relative <= 1e-4
    assert load_network(tmp_path / "x.onnx").model(torch.zeros(3, *weights.preprocessing.input_shape)).shape == (3, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "precision"), [("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("onnx", "int8")]
)
def test_a_trained_network_in_every_precision(capsys, no_network, tiny_run, video_folder, tmp_path, to, precision):
    if precision == "bf16" and not openvino_file._computes_bf16(library("openvino").Core()):
        pytest.skip("needs a processor that computes in bf16")
    out = tmp_path / f"x{SUFFIXES[to]}"
    words = ("--to", to, "--precision", precision, "--out", out, "--data", video_folder)
    code, printed, err = run(capsys, "export", tiny_run, *words)
    assert code == 0, err
    assert printed.startswith(f"{out}: ")
    assert len(printed.splitlines()) == 1
    assert load_network(out).notes["export"] == {"to": to, "precision": precision}
    if (to, precision) == ("openvino", "int8"):
        ops = library("openvino").Core().read_model(out).get_ordered_ops()
        convolutions = [op for op in ops if op.get_type_name() == "Convolution"]
        in_8_bits = [op.input_value(1).get_node().get_type_name() != "Constant" for op in convolutions]  # kernels
        assert in_8_bits == [False] + [True] * (len(convolutions) - 1)
    code, printed, _ = run(capsys, "evaluate", out, video_folder, "--json")
    assert code == 0
    assert json.loads(printed)["n_unreadable"] == 0
