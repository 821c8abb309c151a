"""Exported files: they say what the weights say, run like them, carry what they need, or are not there at all."""

import json
import re
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_square, write_lossless
from test_cli import run
from torch import nn

from msfnet.data.annotations.readers import Listing
from msfnet.exporting import calibration, openvino_file, parity
from msfnet.exporting import export as export_run
from msfnet.exporting.graph import PHASES, PhasedBlocks, WinogradConv, deal, exportable, weight_transform
from msfnet.exporting.libraries import library
from msfnet.exporting.load import load_network
from msfnet.inference.evaluation import score_views
from msfnet.inference.recognizer import Recognizer
from msfnet.models.checkpoint import Checkpoint, load_weights, save_weights
from msfnet.models.registry import create_model, list_models
from msfnet.types import Preprocessing, UserError, VideoItem, Views

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


def lively(model):
    """The network with statistics and gates as training leaves them, not as initialization does: all must matter."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.2)
    return model.eval()


def width_of(name):
    return 0.25 if "fsam" in name else 0.125


def tiny(name, frames=4, size=16):
    return lively(create_model(name, 2, width_mult=width_of(name), num_frames=frames, img_size=size))


PREPROCESSING = Preprocessing(4, 16, (22, 16), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2), "uniform", 1, Views(2, 1))


def weights_of(name, preprocessing=PREPROCESSING):
    """Checkpoint of a tiny network for clips as the preprocessing makes them."""
    channels, frames, size, _ = preprocessing.input_shape
    arguments = {"width_mult": width_of(name), "num_frames": frames, "img_size": size, "in_chans": channels}
    model = lively(create_model(name, 2, **arguments))
    return Checkpoint(model, name, arguments, ("GoLeft", "GoRight"), preprocessing, {"seed": 3})


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory):
    """A weights file of the network with the smallest graph: two classes, two views."""
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(path, weights_of("c3d"))
    return path


@pytest.fixture(scope="module")
def exported(weights_file, video_folder, tmp_path_factory):
    """The same network as a file of each kind."""
    folder = tmp_path_factory.mktemp("exported")
    paths = {to: folder / f"small{suffix}" for to, suffix in SUFFIXES.items()}
    for to, path in paths.items():
        export(weights_file, to, "fp32", path, data=video_folder)
    return paths


def export(source, to, precision, out, data=None):
    return export_run.export(source, to, precision, out, data=data, annotations=None, split=1)


# What is computed


def test_winograds_transforms_give_a_convolution():
    """A^T [(G g) * (B^T d)] in double precision, written out for one channel."""
    frames, taps = torch.randn(12, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    conv = nn.Conv3d(1, 1, 3, padding=1, bias=False).double()
    nn.init.zeros_(conv.weight)
    conv.weight.data[0, 0, :, 1, 1] = taps
    y = torch.stack(WinogradConv(conv)(deal(frames[None, None, :, None, None])), 3).flatten()
    expected = np.correlate(np.pad(frames.numpy(), 1), taps.numpy())
    assert y.detach().numpy() == pytest.approx(expected, abs=1e-12)
    assert weight_transform().shape == (6, 3)


@pytest.mark.parametrize("frames", [4, 8, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_winograd_convolution_equals_the_plain_one(frames, bias):
    torch.manual_seed(0)
    conv = nn.Conv3d(5, 7, 3, padding=1, bias=bias)
    x = torch.randn(2, 5, frames, 6, 9)
    with torch.no_grad():
        phases = WinogradConv(conv)(deal(x))
        assert [p.shape for p in phases] == [(2, 7, frames // PHASES, 6, 9)] * PHASES
        torch.testing.assert_close(torch.stack(phases, 3).flatten(2, 3), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("name", list_models())
def test_every_network_is_the_same_rearranged(name, interleaved):
    """Eight frames at 48 px: stages of one and of two tiles, and maps that are smaller than FAM's basis."""
    model = tiny(name, frames=8, size=48)
    network = exportable(model, (3, 8, 48, 48), interleaved=interleaved)
    x = torch.randn(3, 3, 8, 48, 48)
    with torch.no_grad():
        right, found = model(x), network(x)
    assert (right - found).abs().max() <= 2e-5 * right.abs().max()
    phased = sum(isinstance(module, PhasedBlocks) for module in network.modules())
    whole = name in ("c3d", "c3d_fsam", "msf_c3d", "msf_c3d_fsam", "r2plus1d_18", "msf_r3d_18_d")
    assert phased == (2 if interleaved and not whole else 0)
    assert not any(p.requires_grad for p in network.parameters())


def test_norms_behind_convolutions_are_gone_and_the_model_is_untouched():
    model = tiny("r3d_18")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    network = exportable(model, (3, 4, 16, 16), interleaved=False)
    assert not any(isinstance(module, nn.BatchNorm3d) for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# Files


@pytest.mark.parametrize("to", SUFFIXES)
def test_a_file_carries_what_the_weights_carry(exported, weights_file, to):
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
def test_predict_and_evaluate_run_a_file_like_weights(capsys, exported, weights_file, video_folder, to):
    evaluated = [run(capsys, "evaluate", path, video_folder, "--json") for path in (weights_file, exported[to])]
    right, found = (json.loads(out) for _, out, _ in evaluated)
    assert [code for code, _, _ in evaluated] == [0, 0]
    for mine, theirs in zip(found.pop("videos"), right.pop("videos"), strict=True):
        assert mine == theirs | {"score": pytest.approx(theirs["score"], abs=1e-5)}
    assert found == right
    answers = []
    for path in (weights_file, exported[to]):
        code, out, _ = run(capsys, "predict", path, video_folder / "GoLeft", "--json")
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
    code, printed, said = run(capsys, "export", weights_file, "--to", "torch", "--out", out, "--data", video_folder)
    assert code == 0
    assert re.match(rf"{re.escape(str(out))}: 20 of 20 clips of training videos get the same label; logits", printed)
    assert "20 to compare on" in said
    assert [path.name for path in out.parent.iterdir()] == ["x.pt2"]
    code, printed, said = run(capsys, "export", weights_file, "--to", "torch", "--precision", "bf16", "--out", out)
    assert code == 0
    assert "clips of noise" in printed
    assert "says little of real videos" in said
    network = load_network(out).model
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}
    assert network(torch.zeros(3, 3, 4, 16, 16)).dtype == torch.float32


def test_recognizer_takes_a_file_and_the_threads_of_torch(exported, video_folder):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    recognizer = Recognizer.load(str(exported["onnx"]))
    assert len(recognizer.predict(video, views=Views(3, 3)).predictions) == 2
    session, network = recognizer.model.session, load_network(exported["openvino"]).model
    assert session.get_session_options().intra_op_num_threads == torch.get_num_threads()
    network(torch.zeros(1, 3, 4, 16, 16))
    assert network.programs[1].get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()


def test_openvino_keeps_a_few_programs(exported):
    network = load_network(exported["openvino"]).model
    for n in (1, 2, 3, 4, 5, 3):
        assert network(torch.zeros(n, 3, 4, 16, 16)).shape == (n, 2)
    assert list(network.programs) == [2, 3, 4, 5]


# Refusals


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--to onx --out x.onnx", "did you mean onnx"),
        ("--to onnx --out x.xml", "expected --out PATH.onnx with --to onnx, found"),
        ("--to onnx --out x.onnx --precision fp16", "expected --precision fp32, bf16 or int8"),
        ("--to onnx --out x.onnx --precision bf16", "next to nothing in bf16"),
        ("--to torch --out x.pt2 --precision int8", "no 3D convolution in int8"),
        ("--to openvino --out x.xml --precision int8", "expected --data DATA, found none"),
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
def test_files_that_are_none(capsys, video_folder, tmp_path, name):
    code, _, err = run(capsys, "predict", tmp_path / name, video_folder)
    assert code == 2
    assert f"found none at {tmp_path / name}" in err
    (tmp_path / name).write_bytes(b"no")
    for _ in range(2):
        code, _, err = run(capsys, "predict", tmp_path / name, video_folder)
        assert code == 2
        assert "expected" in err
        assert len(err.strip().splitlines()) == 1
        (tmp_path / "x.bin").write_bytes(b"")  # what is missing beside an .xml


def test_files_of_others(tmp_path):
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


def test_a_file_that_says_something_else_is_not_kept(capsys, monkeypatch, weights_file, tmp_path):
    """The writer of the old file is replaced by one that changes a weight: the old file stays what it was."""
    out = tmp_path / "x.pt2"
    export(weights_file, "torch", "fp32", out)
    before, target = out.read_bytes(), export_run.TARGETS["torch"]

    def write(path, weights, *rest):
        weights.model.fc8.bias.data[0] += 0.1
        target.write(path, weights, *rest)
        weights.model.fc8.bias.data[0] -= 0.1

    monkeypatch.setitem(export_run.TARGETS, "torch", replace(target, write=write))
    code, printed, err = run(capsys, "export", weights_file, "--to", "torch", "--out", out)
    assert (code, printed) == (2, "")
    assert "the fp32 file was not kept: expected at most 0 other labels" in err
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt2"]
    assert out.read_bytes() == before


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


def test_calibration_never_sees_what_is_scored(tmp_path):
    def listing(*splits):
        return Listing(tuple(VideoItem(Path(f"{i}.mp4"), "a", split) for i, split in enumerate(splits)), "a test")

    assert [str(i.path) for i in calibration.training_items(listing("train", "test", "val", "train"), tmp_path)] == [
        "0.mp4",
        "3.mp4",
    ]
    assert len(calibration.training_items(listing(None, None), tmp_path)) == 2
    with pytest.raises(UserError, match="expected training videos"):
        calibration.training_items(listing("test", "val"), tmp_path)
    (tmp_path / "split.csv").write_text(
        "path,label,split\n0.mp4,a,train\n1.mp4,a,test\n2.mp4,a,val\n", encoding="utf-8"
    )
    recorded = [VideoItem(tmp_path / f"{i}.mp4", "a") for i in range(4)]  # the last is none of the run's
    for item in recorded:
        item.path.touch()
    assert [i.path.name for i in calibration.training_items(Listing(tuple(recorded), "a test"), tmp_path)] == [
        "0.mp4",
        "3.mp4",
    ]


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
    said = []
    items = [VideoItem(tmp_path / name, "a") for name in ("a.mkv", "b.mkv")]
    assert calibration.read(items, PREPROCESSING, said.append).shape == (1, 3, 4, 16, 16)
    assert re.match("left out: .*b.mkv: cannot be read", said[0])
    with pytest.raises(UserError, match="found none among 1 that can be read"):
        calibration.read(items[1:], PREPROCESSING, said.append)


# Libraries


def test_a_missing_library_is_one_line(monkeypatch, exported):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"needs onnxruntime, .*: pip install 'msfnet\[export\]'"):
        load_network(exported["onnx"])


def test_starting_imports_none_of_them():
    script = "import sys, msfnet, msfnet.inference.recognizer, msfnet.inference.evaluation\n"
    script += "print([m for m in ('onnx', 'onnxscript', 'onnxruntime', 'openvino', 'nncf') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def no_network(monkeypatch):
    """Whoever asks the network for anything fails. Processes of one machine may talk."""

    def guarded(call):
        def local_only(self, *arguments):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                pytest.fail(f"asked the network for {arguments}")
            return call(self, *arguments)

        return local_only

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *address, **options: pytest.fail(f"asked for {address}"))


def test_nothing_is_reported_home(no_network, weights_file, exported, tmp_path):
    export(weights_file, "openvino", "fp32", tmp_path / "x.xml")
    library("nncf")
    telemetry = [m for m in sys.modules if m.startswith("openvino_telemetry") and sys.modules[m] is not None]
    assert telemetry == []
    load_network(exported["onnx"]).model(torch.zeros(1, 3, 4, 16, 16))


def test_a_processor_without_bf16_is_told(monkeypatch, weights_file, exported, tmp_path):
    monkeypatch.setattr(openvino_file, "_computes_bf16", lambda core: False)
    with pytest.raises(UserError, match="expected a processor that computes in bf16"):
        export(weights_file, "openvino", "bf16", tmp_path / "x.xml")
    assert list(tmp_path.iterdir()) == []
    for name in ("small.xml", "small.bin"):
        content = exported["openvino"].with_name(name).read_bytes()
        content = content.replace(
            b"&quot;precision&quot;: &quot;fp32&quot;", b"&quot;precision&quot;: &quot;bf16&quot;"
        )
        (tmp_path / name).write_bytes(content)
    with pytest.warns(UserWarning, match=r"this processor has no bf16: .*small.xml runs in fp32"):
        network = load_network(tmp_path / "small.xml").model
    assert network.settings["INFERENCE_PRECISION_HINT"] == "f32"


# The example


def run_example(onnx_path, video):
    """Labels and scores that the example prints, where neither msfnet nor torch can be imported."""
    script = ROOT / "docs" / "examples" / "predict_onnx.py"
    code = "import runpy, sys; sys.modules['torch'] = sys.modules['msfnet'] = None; del sys.argv[0]; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, script, onnx_path, video], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {line.split()[1]: float(line.split()[0]) for line in done.stdout.splitlines()}


def assert_example_agrees(weights, onnx_path, video):
    scores = dict(Recognizer(weights).predict(video).predictions)
    assert run_example(onnx_path, video) == pytest.approx(scores, abs=2e-4)


def test_example_needs_no_msfnet(exported, weights_file, video_folder, tmp_path):
    write_lossless(tmp_path / "short.mkv", moving_square(3))
    code = (ROOT / "docs" / "examples" / "predict_onnx.py").read_text(encoding="utf-8")
    assert len(code.splitlines()) <= 35
    assert code in (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    for video in (video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4", tmp_path / "short.mkv"):
        assert_example_agrees(load_weights(weights_file), exported["onnx"], video)


def test_example_reads_videos_at_the_networks_rate(exported, weights_file, tmp_path):
    """Of a file whose header has a rate, and of one from before there was such a key."""
    weights = load_weights(weights_file)
    for fps in (None, 3.0, 5.0, 25.0):  # of videos of ten frames a second
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
def test_example_knows_every_preprocessing(video_folder, tmp_path, input_):
    changes = {"input": input_, "eval_sampling": "dense", "frame_interval": 2, "views": Views(3, 1)}
    weights = weights_of("c3d", replace(PREPROCESSING, **changes))
    save_weights(tmp_path / "w.safetensors", weights)
    export(tmp_path / "w.safetensors", "onnx", "fp32", tmp_path / "x.onnx", data=video_folder)
    for n_frames in (3, 7, 12, 30):
        write_lossless(tmp_path / f"{n_frames}.mkv", moving_square(n_frames))
        assert_example_agrees(weights, tmp_path / "x.onnx", tmp_path / f"{n_frames}.mkv")


# Slow: other networks and precisions


@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
def test_every_network_exports_to_onnx(name, tmp_path):
    frames = 4 if name in ("r3d_18", "msf_r3d_18_fsam") else 2  # of four, convolutions over time are rearranged
    weights = weights_of(name, replace(PREPROCESSING, num_frames=frames))
    save_weights(tmp_path / "w.safetensors", weights)
    found = export(tmp_path / "w.safetensors", "onnx", "fp32", tmp_path / "x.onnx")
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
