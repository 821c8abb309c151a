"""Measurements of networks: alternate timing and its statistics, memory, choice of cases, tables and user errors."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import logged
from hypothesis import given
from hypothesis import strategies as st

from msfnet.bench import memory
from msfnet.bench.cases import Case, Conditions, plan_cases, prepare, working_bytes
from msfnet.bench.machine import Peak, measure_peak
from msfnet.bench.networks import Network, find_network
from msfnet.bench.page import HEADINGS, cells, to_markdown, to_text, write_bench
from msfnet.bench.run import BenchResult, Row, in_groups
from msfnet.bench.runtimes import RUNTIMES
from msfnet.bench.timing import Speedup, Times, speedup, time_alternately
from msfnet.cli import main
from msfnet.exporting import openvino_file
from msfnet.exporting.libraries import library
from msfnet.models.registry import list_models
from msfnet.types import UserError

SMALL = {"width_mult": 0.125, "img_size": 32, "num_frames": 4}
SMALL_FLAGS = ("--width-mult", 0.125, "--img-size", 32, "--num-frames", 4)
HERE = Conditions(batch_size=2, train=False, threads=1, device="cpu")


def small(name="r3d_18", runtime="eager", precision="fp32"):
    return Case(find_network(name, SMALL), runtime, precision)


# Timing


class Clock:
    """A clock whose time advances only when a function of its own is called."""

    def __init__(self):
        self.now, self.called = 0.0, []

    def __call__(self):
        return self.now

    def function(self, name, *seconds):
        """A function whose calls take these seconds in turn, and then the last of them."""
        left = list(seconds)

        def call():
            self.called.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_every_second_repeat_runs_in_reverse_order():
    clock = Clock()
    functions = {name: clock.function(name, 1.0) for name in "abc"}
    times = time_alternately(functions, 3, min_seconds=0.5, clock=clock)
    assert "".join(clock.called) == "abc" + "abc" + "cba" + "abc"
    assert all(found.repeats == [[1.0]] * 3 for found in times.values())


def test_fast_functions_are_called_several_times():
    """The first call of each function does not count."""
    clock = Clock()
    functions = {"short": clock.function("short", 9.0, 0.25), "long": clock.function("long", 9.0, 2.0)}
    times = time_alternately(functions, 2, min_seconds=1.0, clock=clock)
    assert times["short"].repeats == [[0.25] * 4] * 2
    assert times["long"].repeats == [[2.0]] * 2


def test_drift_does_not_change_the_speedup():
    clock = Clock()
    functions = {"slow": clock.function("s", 2, 2, 4, 8), "fast": clock.function("f", 1, 1, 2, 4)}
    times = time_alternately(functions, 3, min_seconds=0, clock=clock)
    assert speedup(times["slow"], times["fast"]) == Speedup(2, 2, 2)
    assert speedup(times["fast"], times["slow"]).median == 0.5


@pytest.mark.parametrize(
    ("share", "seconds"), [(0, 1.0), (0.5, 3.0), (1, 9.0), (0.25, 2.0), (0.125, 1.5), (0.95, 8.0), (0.9, 7.0)]
)
def test_quantiles_are_interpolated(share, seconds):
    assert Times(((3.0, 1.0), (9.0,), (2.0, 4.0))).quantile(share) == pytest.approx(seconds)


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30))
def test_quantiles_equal_those_of_numpy(seconds):
    for share in (0, 0.05, 0.5, 0.95, 1):
        assert Times((seconds,)).quantile(share) == pytest.approx(np.quantile(seconds, share))


def test_speedup_is_computed_per_repeat():
    """The median of the ratios is not the ratio of the medians."""
    reference, other = Times(((4.0,), (4.0, 6.0), (9.0,))), Times(((2.0,), (1.0,), (3.0,)))
    assert speedup(reference, other) == Speedup(3.0, 2.0, 5.0)


# Cases


def test_networks_by_name_and_their_reference():
    network = find_network("msf_r3d_18_fsam", SMALL)
    assert (network.label, network.input_shape) == ("msf_r3d_18_fsam x0.125", (3, 4, 32, 32))
    assert network.reference() == find_network("r3d_18", SMALL)
    assert find_network("r3d_18", {}).reference() == find_network("r3d_18", {})
    assert find_network("c3d", {}).reference() == find_network("r3d_18", {"num_frames": 16})
    assert Network.from_dict(json.loads(json.dumps(network.to_dict()))) == network
    assert Case.from_dict(json.loads(json.dumps(small().to_dict()))) == small()


def test_cost_of_a_clip():
    """A training step needs almost three times the multiply-adds of a forward pass."""
    network = find_network("r3d_18", {})
    params, macs = network.cost(train=False)
    assert (params, macs) == (33_218_085, 20_348_226_048)
    stem_macs = 64 * 3 * 3 * 7 * 7 * 8 * 56 * 56  # the gradient of the clip is not computed
    assert network.cost(train=True) == (params, 3 * macs - stem_macs)


def test_weights_have_their_own_input_and_score(tiny_run):
    network = find_network(str(tiny_run), {"img_size": 64})
    assert (network.label, network.name, network.num_classes) == ("tiny", "msf_r3d_18_fsam", 2)
    assert network.input_shape == (3, 4, 32, 32)
    assert network.top1 == json.loads((tiny_run / "scores.json").read_text())["video"]["top1"]
    assert network.reference().kwargs["width_mult"] == 0.125
    alone = find_network(str(tiny_run / "weights.safetensors"), {})
    assert alone == network
    clips = torch.randn(2, 3, 4, 32, 32)
    with torch.inference_mode():
        assert network.make()(clips).equal(alone.make()(clips))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["eager", "fused"])
def test_runtimes_of_torch_equal_the_network(name, precision):
    check_logits(name, precision)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [("compile", "fp32"), ("onnx", "fp32"), ("onnx", "int8"), *(("openvino", p) for p in ("fp32", "bf16", "int8"))],
)
def test_other_runtimes_equal_the_network(name, precision):
    assert RUNTIMES[name].missing() is None
    if (name, precision) == ("openvino", "bf16") and not openvino_file._computes_bf16(library("openvino").Core()):
        with pytest.raises(UserError, match="expected a processor that computes in bf16"):
            check_logits(name, precision)
        return
    check_logits(name, precision)


def check_logits(name, precision):
    """A network with activations as large as in a trained one has nearly the same logits in the runtime."""
    torch.manual_seed(0)
    case = Case(find_network("msf_r3d_18_fsam", SMALL | {"num_frames": 8}), name, precision)
    model, clips = case.network.make(), torch.randn(2, *case.network.input_shape)
    for _ in range(20):
        model(clips)  # batch statistics of such clips
    with torch.inference_mode():
        expected = model.eval()(clips)
        found = RUNTIMES[name].make(model, tuple(clips.shape), precision)(clips).float()
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < {"fp32": 1e-4, "bf16": 0.15, "int8": 1.5}[precision]  # int8 is calibrated on noise, for timing only
    assert not model.training


def test_training_step_changes_parameters():
    case, conditions = small(), Conditions(batch_size=2, train=True, threads=1, device="cpu")
    made = []

    own = Network.make
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "make", lambda self: made.append(own(self)) or made[-1])
        step = prepare(case, conditions)
    before = [p.detach().clone() for p in made[0].parameters()]
    step()
    assert all(not p.equal(b) for p, b in zip(made[0].parameters(), before, strict=True) if p.grad.any())


@pytest.mark.parametrize(
    ("max_bytes", "groups"), [(1, "a b c d"), (3, "ab c d"), (4, "ab cd"), (6, "abc d"), (100, "abcd")]
)
def test_groups_fit_into_memory(max_bytes, groups):
    sizes = dict(zip("abcd", (1, 2, 3, 1), strict=True))
    cases = [Case(name, "eager", "fp32") for name in "abcd"]
    found = in_groups(cases, sizes, max_bytes)
    assert " ".join("".join(case.network for case in group) for group in found) == groups


def test_plan_of_cases():
    lines = []
    with logged(lines.append):
        cases = plan_cases(("r3d_18", "c3d", "r3d_18"), {}, "eager,onnx", "fp32,bf16", HERE)
        training = Conditions(batch_size=2, train=True, threads=1, device="cpu")
        runtimes = {case.runtime for case in plan_cases(("r3d_18",), {}, None, "fp32", training)}
    assert [str(case) for case in cases] == [
        *("r3d_18 in eager, fp32", "r3d_18 in eager, bf16", "r3d_18 in onnx, fp32"),
        *("c3d in eager, fp32", "c3d in eager, bf16", "c3d in onnx, fp32"),
    ]
    assert lines[0] == "left out: onnx in bf16; it supports fp32, int8"
    assert runtimes <= {"eager", "compile"}
    assert "left out: fused cannot train" in lines
    assert len(plan_cases((), {}, "eager", "fp32", HERE)) == len(list_models())


# The machine


def test_memory_growth():
    def hold(mebibytes):
        return lambda: np.ones(mebibytes * 2**17).sum()

    assert 60 * 2**20 < memory.growth_bytes(hold(64)) < 90 * 2**20
    assert memory.growth_bytes(hold(1)) < 20 * 2**20  # memory that was needed before does not count


def test_memory_growth_without_reset(monkeypatch):
    """On systems that cannot reset the peak, memory that was needed before hides as much."""
    monkeypatch.setattr(memory, "RESETS", {})
    np.ones(64 * 2**17).sum()
    assert memory.growth_bytes(lambda: np.ones(32 * 2**17).sum()) < 16 * 2**20


def test_peak_performance(monkeypatch):
    monkeypatch.setattr("msfnet.bench.machine.PROBE_SECONDS", 0)
    monkeypatch.setattr("msfnet.bench.machine.MATRIX_SIDES", {"cpu": (64,)})
    for precision in ("fp32", "bf16"):
        assert measure_peak(precision, torch.device("cpu")).gflops > 0.01
    assert measure_peak("int8", torch.device("cpu")) is None


# Tables


def row(label="a", top1=None, memory_bytes=3 * 2**20, peak=None, seconds=0.1):
    network = Network(label, "r3d_18", {}, 2, (3, 4, 32, 32), top1=top1)
    times = Times(((seconds, seconds), (3 * seconds,)))
    return Row(Case(network, "eager", "fp32"), 1_500_000, 10**9, 2, times, Speedup(2, 1.5, 2.25), memory_bytes, peak)


def test_cells_of_a_row():
    found = dict(zip(HEADINGS, cells(row(top1=0.875, peak=Peak(80.0, "x"))), strict=True))
    assert list(found.items()) == [
        *(("network", "a"), ("input", "3x4x32x32"), ("runtime", "eager"), ("precision", "fp32"), ("clips/s", "20")),
        *(("p50 ms", "100"), ("p95 ms", "280"), ("memory MiB", "3"), ("M parameters", "1.50"), ("GMACs", "1")),
        *(("GFLOP/s", "40"), ("of peak", "50%"), ("speedup", "2.00 (1.50 to 2.25)"), ("top-1", "87.5%")),
    ]
    unknown = dict(zip(HEADINGS, cells(row(memory_bytes=None)), strict=True))
    assert [unknown[key] for key in ("memory MiB", "of peak", "top-1")] == ["–"] * 3


def test_tables_and_files(tmp_path):
    peaks = {"fp32": Peak(80.0, "matrix product"), "int8": None}
    bench = BenchResult([row(peak=peaks["fp32"]), row("longer name")], {}, peaks, HERE, 3, "a machine")
    lines = to_text(bench).splitlines()
    assert "top-1" not in lines[0]  # no row has a value
    assert lines[0].index("runtime") == lines[1].index("eager") == lines[2].index("eager")
    assert "Peak fp32: 80 GFLOP/s, the best of several probes (matrix product)." in lines
    assert "Peak int8: unknown, there is no probe in this precision." in lines
    assert lines[-1] == "a machine."
    table = [line for line in to_markdown(bench).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {len(HEADINGS) + 1}
    assert [f.name for f in write_bench(tmp_path / "new", bench)] == ["table.md", "bench.json"]
    assert json.loads((tmp_path / "new" / "bench.json").read_text()) == json.loads(json.dumps(bench.to_dict()))
    scored = BenchResult([row(top1=0.5), row("b", top1=0.75, seconds=0.2)], {}, peaks, HERE, 3, "a machine")
    assert [f.name for f in write_bench(tmp_path, scored)] == ["table.md", "bench.json", "latency.png"]
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")


# The command


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *map(str, arguments)])
    return stopped.value.code, *capsys.readouterr()


def test_bench_of_a_run_and_a_network(capsys, tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr("msfnet.bench.machine.PROBE_SECONDS", 0)
    words = [tiny_run, "--runtime", "eager,fused", "--repeats", 2, "--threads", torch.get_num_threads()]
    code, out, err = run(capsys, *words, "--json", "--out", tmp_path)
    document = json.loads(out)
    assert code == 0
    assert [r["runtime"] for r in document["rows"]] == ["eager", "fused"]
    assert (document["repeats"], document["batch_size"], document["train"]) == (2, 2, False)
    for found in document["rows"]:
        assert found["clips_per_second"] > 0
        assert found["p50_ms"] <= found["p95_ms"]
        assert found["peak_memory_mib"] > 0
        assert found["peak_utilization"] > 0
        assert (
            found["speedup_vs_r3d_18"]["min"]
            <= found["speedup_vs_r3d_18"]["median"]
            <= found["speedup_vs_r3d_18"]["max"]
        )
    assert document["rows"][0]["top1"] is not None
    assert "timing 3 cases 2 times" in err  # the third is R3D-18
    assert {p.name for p in tmp_path.iterdir()} == {"table.md", "bench.json", "latency.png"}


def test_bench_of_training_steps(capsys, monkeypatch):
    monkeypatch.setattr("msfnet.bench.machine.PROBE_SECONDS", 0)
    code, out, _ = run(capsys, "r3d_18", "--runtime", "eager", "--train", *SMALL_FLAGS, "--repeats", 1)
    assert code == 0
    assert "Training steps" in out
    assert "1.00 (1.00 to 1.00)" in out


def test_failing_runtime_does_not_affect_others(capsys, monkeypatch):
    def broken(model, shape, precision):
        raise NotImplementedError("no such\nlayer")

    monkeypatch.setattr("msfnet.bench.machine.PROBE_SECONDS", 0)
    monkeypatch.setattr("msfnet.bench.run.working_bytes", lambda case, conditions: 2**20)
    monkeypatch.setitem(RUNTIMES, "onnx", replace(RUNTIMES["onnx"], make=broken, needs=()))
    code, out, err = run(capsys, "msf_r3d_18", "--runtime", "onnx,eager", *SMALL_FLAGS, "--repeats", 1, "--json")
    document = json.loads(out)
    assert code == 1
    assert [r["runtime"] for r in document["rows"]] == ["eager"]
    assert document["failed"] == {"msf_r3d_18 x0.125 in onnx, fp32": "NotImplementedError: no such layer"}
    assert "failed: msf_r3d_18 x0.125 in onnx, fp32" in err


@pytest.mark.slow
def test_training_needs_more_memory_than_inference():
    training = Conditions(batch_size=2, train=True, threads=1, device="cpu")
    assert working_bytes(small(), training) > working_bytes(small(), HERE) > 0


def test_failure_while_memory_is_measured():
    broken = Case(Network("gone", "r3d_18", {}, 2, (3, 4, 32, 32), weights="/nowhere/weights"), "eager", "fp32")
    with pytest.raises(RuntimeError, match=r"memory of gone in eager, fp32 could not be measured: .*found none at"):
        working_bytes(broken, HERE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("r3d81", "did you mean r3d_18"),
        ("r3d_18 --runtime eagre", "did you mean eager"),
        ("r3d_18 --precision fp33", "did you mean fp32"),
        ("r3d_18 --runtime eager --precision int8", "expected a runtime that supports int8, found eager"),
        ("r3d_18 --runtime onnx --train", "onnx cannot train"),
        ("r3d_18 --repeats 0", "--repeats of 1 or more"),
        ("r3d_18 --batch-size 0", "a batch size and threads of 1 or more"),
        ("r3d_18 --threads 0", "a batch size and threads of 1 or more"),
        ("r3d_18 --width-mult -1", "width_mult above 0"),
        ("{videos}", "found none at"),
        ("r3d_18 --device tpu", "expected a device of cpu, cuda"),
    ],
)
def test_user_errors(capsys, video_folder, words, message):
    code, out, err = run(capsys, *words.format(videos=video_folder).split())
    assert (code, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not [line for line in err.splitlines()[:-1] if line.startswith("msfnet:")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_does_not_exist(capsys):
    code, _, err = run(capsys, "r3d_18", "--device", "cuda")
    assert code == 2
    assert "expected cpu, or another device that PyTorch can use here" in err


def test_runtime_that_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("msfnet.bench.runtimes.find_spec", lambda name: None)
    code, _, err = run(capsys, "r3d_18", "--runtime", "openvino")
    assert code == 2
    assert "openvino needs openvino, nncf: pip install 'msfnet[export]'" in err


# Programs in benchmarks/

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
COST = runpy.run_path(str(BENCHMARKS / "cost.py"))


@given(st.floats(0.1, 100), st.floats(0, 100), st.sampled_from([1, 2]))
def test_fits_of_scaling(slope, offset, power):
    values = (2, 3, 5, 8)
    found = COST["fit"](values, [slope * v**power + offset for v in values], power)
    assert (found.slope, found.r2) == (pytest.approx(slope, rel=1e-6), pytest.approx(1, abs=1e-9))
    assert found.exponent <= 1 + 1e-9
    assert COST["fit"](values, [slope * v ** (1.5 * power) for v in values], power).exponent == pytest.approx(1.5)


def test_tables_of_scaling():
    sweep, groups = COST["SWEEPS"][1], COST["SWEEPS"][-1]
    curves = [
        COST["Curve"](s, n, [v**2 / 1e4 for v in s.values], [(0.1, 0.2)] * len(s.values), [7.0] * len(s.values), 3)
        for s, n in ((sweep, "R3D-18"), (groups, "MSF-R3D+FSAM"))
    ]
    lines = COST["fits_table"](curves).splitlines()
    assert lines[2:] == ["| R3D-18 | frame side² | 1.00 | 1.0000 | frame side² | -0.00 | flat |"]
    assert len(COST["points_table"](curves).splitlines()) == 2 + 5 + 5
    page = COST["fill"]("a\n<!-- cost: by a script -->\nold\n<!-- end -->\nb\n", "new")
    assert page == "a\n<!-- cost: by a script -->\nnew\n<!-- end -->\nb\n"
    assert COST["to_png"](COST["plot"](curves)).startswith(b"\x89PNG")


@pytest.mark.parametrize("name", sorted(path.name for path in BENCHMARKS.glob("*.py")))
def test_help_of_benchmarks(name, monkeypatch, capsys):
    """A benchmark that ignored its arguments would overwrite its page."""
    monkeypatch.setattr("sys.argv", [name, "--help"])
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert stopped.value.code == 0
    assert "usage:" in capsys.readouterr().out
