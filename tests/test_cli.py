"""The commands as their users type them: output, exit codes, and one line for every mistake."""

import csv
import json
import logging
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY

from msfnet import __version__
from msfnet.cli import main
from msfnet.cli.app import StderrHandler
from msfnet.cli.networks import split_words
from msfnet.run_folder import BUNDLED, BUNDLED_FILE
from msfnet.types import Interrupted, UserError


@pytest.fixture(autouse=True)
def _own_log():
    """Commands configure the logger; afterwards it is what it was before."""
    log = logging.getLogger("msfnet")
    handlers, level = log.handlers, log.level
    yield
    log.handlers, log.level = handlers, level


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


# Results


def test_models_json(capsys):
    code, out, _ = run(capsys, "models", "--num-classes", "400", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["r3d_18"] == {"name": "r3d_18", "params": 33371472, "macs": 20348379136, "input": [3, 8, 112, 112]}
    assert rows["c3d"]["input"] == [3, 16, 112, 112]


def test_models_table(capsys):
    code, out, _ = run(capsys, "models", "msf_r3d_18_f*")
    assert code == 0
    assert out.splitlines()[1:] == ["msf_r3d_18_fsam           21.881    14.05  3x8x112x112"]


def test_train_evaluate_predict(capsys, video_folder, tmp_path):
    settings = [word for item in TINY for word in ("--set", item)]
    folder = tmp_path / "run"
    code, out, err = run(
        capsys, "train", video_folder, "--model", "r3d_18", *settings, "--out", folder, "--device", "cpu"
    )
    assert (code, out.strip()) == (0, str(folder))
    assert "epoch 2/2" in " ".join(err.split())
    assert (folder / "report.html").exists()

    code, out, _ = run(
        capsys, "evaluate", folder, video_folder, "--views", "2x3", "--json", "--out", tmp_path / "scores"
    )
    scores = json.loads(out)
    assert code == 0
    assert {"classes", "n_videos", "n_unreadable", "n_padded", "clip", "video", "views", "per_class"} <= scores.keys()
    assert {"chance", "mean_class_accuracy", "confusion", "videos"} <= scores.keys()
    assert sum(map(sum, scores["confusion"])) == scores["n_videos"]
    assert scores["views"] == "2x3"
    assert {"top1", "top5", "ci95"} == scores["video"].keys()
    assert json.loads((tmp_path / "scores" / "scores.json").read_text()) == scores
    assert "<html" in (tmp_path / "scores" / "report.html").read_text()
    assert "| video |" in (tmp_path / "scores" / "scores.md").read_text()

    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    code, out, _ = run(capsys, "predict", folder, video, "--top-k", "1", "--json")
    prediction = json.loads(out)
    assert code == 0
    assert prediction.keys() == {"path", "predictions", "error", "warning"}
    assert prediction["error"] is None
    assert prediction["predictions"][0].keys() == {"label", "score"}


def test_train_groups(capsys, video_folder, tmp_path):
    """Both clips of a take are in one split: `c01` and `c02` name the groups here, not `g01` to `g05`."""
    settings = [word for item in (*TINY, "train.epochs=1") for word in ("--set", item)]
    code, _, err = run(capsys, "train", video_folder, "--groups", "_(c[0-9]+)", *settings, "--out", tmp_path / "run")
    assert code == 0, err
    with (tmp_path / "run" / "split.csv").open() as file:
        splits = {(row["group"], row["split"] == "test") for row in csv.DictReader(file)}
    assert len(splits) == 2


def test_resume_of_a_finished_run(capsys, tiny_run):
    code, out, _ = run(capsys, "train", "--resume", tiny_run)
    assert (code, out.strip()) == (0, str(tiny_run))


def test_report_and_compare(capsys, tiny_run, tmp_path):
    code, out, _ = run(capsys, "report", tiny_run, "--out", tmp_path / "page.html")
    assert (code, out.strip()) == (0, str(tmp_path / "page.html"))
    assert "<html" in (tmp_path / "page.html").read_text()
    code, out, err = run(capsys, "compare", tiny_run, tmp_path, "--out", tmp_path / "compare.html", "--json")
    assert code == 1
    assert len(json.loads(out)["runs"]) == 1
    assert f"left out: {tmp_path}: " in err
    assert "<html" in (tmp_path / "compare.html").read_text()


def test_preview(capsys, video_folder, tmp_path):
    sizes = ("--set", "clip.crop_size=32", "--set", "clip.resize=[43, 32]")
    code, out, _ = run(capsys, "preview", video_folder, *sizes, "--out", tmp_path / "page.html")
    assert (code, out.strip()) == (0, str(tmp_path / "page.html"))
    assert "<html" in (tmp_path / "page.html").read_text()


def test_predict_continues_after_a_bad_file(capsys, tiny_run, video_folder, tmp_path):
    bad, good = tmp_path / "bad, name.mp4", video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    bad.write_bytes(b"no")
    code, out, err = run(capsys, "predict", tiny_run, bad, good)
    lines = out.splitlines()
    assert code == 1
    assert "bad, name.mp4: unreadable: cannot be read as a video" in lines[0]
    assert "GoLeft" in lines[1]
    assert "1 of 2 videos could not be read" in err
    code, out, _ = run(capsys, "predict", tiny_run, bad, good, "--csv")
    rows = list(csv.reader(out.splitlines()))
    assert code == 1
    assert rows[0] == ["path", "rank", "label", "score", "error", "warning"]
    assert (rows[1][0], rows[1][1:4], rows[1][5]) == (str(bad), ["", "", ""], "")
    assert rows[1][4].startswith("cannot be read as a video")
    assert [row[1] for row in rows[2:]] == ["1", "2"]


def test_predict_csv_has_warnings(capsys, tiny_run, tmp_path):
    """A video of two frames is shorter than a clip of four."""
    from conftest import moving_square, write_lossless

    write_lossless(tmp_path / "short.mkv", moving_square(2))
    code, out, _ = run(capsys, "predict", tiny_run, tmp_path / "short.mkv", "--csv", "--top-k", "1")
    assert code == 0
    warning = "2 frames, shorter than a clip of 4; the last frame is repeated"
    assert list(csv.reader(out.splitlines()))[1][4:] == ["", warning]


# The words of predict


@pytest.mark.parametrize(
    ("words", "weights", "n_sources"),
    [
        ("clip.mp4 b.mp4", BUNDLED, 2),
        ("missing.MKV", BUNDLED, 1),
        ("*.avi", BUNDLED, 1),
        ("videos", BUNDLED, 1),
        ("run clip.mp4", "run", 1),
        ("weights.safetensors videos", "weights.safetensors", 1),
        ("net.onnx a b", "net.onnx", 2),
        ("runs/missing clip.mp4", "runs/missing", 1),
        (f"{BUNDLED} clip.mp4", BUNDLED, 1),
        ("clip.mp4 run", BUNDLED, 2),
    ],
)
def test_words_of_predict(monkeypatch, tmp_path, words, weights, n_sources):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "weights.safetensors").touch()
    found, sources = split_words(words.split())
    assert (found, len(sources)) == (weights, n_sources)


def test_predict_refuses_a_folder_of_runs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "recipe.toml").touch()
    with pytest.raises(UserError, match=r"found a folder of runs: runs; name one of them, such as runs.a$"):
        split_words(["runs", "clip.mp4"])
    assert split_words(["runs/a", "clip.mp4"]) == ("runs/a", ["clip.mp4"])


def test_predict_without_weights(capsys, video_folder):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    code, out, err = run(capsys, "predict", video, "--json")
    assert code == 0
    assert f"using {BUNDLED}" in err
    assert run(capsys, "predict", BUNDLED, video, "--json", "--quiet")[1:] == (out, "")


# Mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train nowhere", "found nothing at nowhere"),
        ("train", "expected DATA to train on, or --resume RUN"),
        ("train {videos} --recipe papr", "did you mean paper"),
        ("train {videos} --model r3d81", "did you mean r3d_18"),
        ("train {videos} --set train.epoch=1", "did you mean train.epochs"),
        ("train {videos} --groups camera(", "expected a regular expression"),
        ("train {videos} --device tpu", "expected a device of cpu"),
        ("train {videos} --device cuda:77", "expected cpu, or another device that PyTorch can use here"),
        ("train --resume {run} --set train.epochs=9", "expected --resume RUN without --set"),
        ("train --resume {videos}", "expected a run to resume"),
        ("train {videos} --out {run}", "choose another --out"),
        ("train {videos} --annotations {videos}", "found none of them"),
        ("evaluate {videos} {videos}", "expected weights (.safetensors), a run folder"),
        ("evaluate {video} {videos}", "expected a .safetensors file, found something else"),
        ("evaluate {run} {videos} --views 3", "CLIPSxCROPS"),
        ("evaluate {run} {videos} --views 0x1", "1 clip or more"),
        ("evaluate net.pt2 {videos}", "add --trust"),
        ("predict {run} nowhere.mp4", "found 'nowhere.mp4'"),
        ("predict {run} {video} --top-k 0", "--top-k of 1 or more"),
        ("predict {run} {video} --json --csv", "one of --json and --csv"),
        ("predict {run} {video} --device cuda:77", "expected cpu, or another device that PyTorch can use here"),
        ("predict nowhere.safetensors {video}", "found none at nowhere.safetensors"),
        ("predict net.pt2 {video}", "net.pt2 can run code when it is loaded"),
        ("predict {run}", "alone; add videos"),
        ("predict", "found nothing; add videos"),
        ("report {videos}", "expected a run in"),
        ("compare {videos}", "expected"),
        ("models zzz", "found none that matches 'zzz'"),
        ("models --num-classes 0", "num_classes above 0"),
        ("models --bogus", "--bogus"),
        ("models --quiet=perhaps", "--quiet"),
        ("cache wash", "wash"),
        ("frobnicate", "frobnicate"),
        ("evaluate", "requires an argument"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(capsys, tiny_run, video_folder, words, message):
    """Whatever was logged before it, the last line is the error, and there is no traceback."""
    places = {"videos": video_folder, "run": tiny_run, "video": video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"}
    code, out, err = run(
        capsys, *(word.format(**places) for word in words.split()), *(["--quiet"][: "quiet" not in words])
    )
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert err.startswith("msfnet: ")


def test_no_permission_is_a_mistake(capsys, monkeypatch, tiny_run):
    monkeypatch.setattr("msfnet.training.report.write_report", lambda run, out: Path("/proc/page.html").touch())
    code, _, err = run(capsys, "report", tiny_run)
    assert code == 2
    assert err.startswith("msfnet: cannot access /proc/page.html: ")


def test_internal_errors(capsys, monkeypatch, tiny_run):
    monkeypatch.setattr("msfnet.inference.sources.find_sources", lambda sources: 1 / 0)
    code, _, err = run(capsys, "predict", tiny_run, "x.mp4")
    assert code == 70
    assert err.startswith("msfnet: internal error: ZeroDivisionError: division by zero; please report it")
    assert len(err.splitlines()) == 1
    code, _, err = run(capsys, "predict", tiny_run, "x.mp4", "--debug")
    assert code == 70
    assert "Traceback (most recent call last)" in err
    assert "msfnet: internal error: ZeroDivisionError" in err.splitlines()[-1]


@pytest.mark.parametrize("words", ["models zzz", "models --bogus"])
def test_debug_keeps_the_exit_code_of_mistakes(capsys, words):
    code, out, err = run(capsys, *words.split(), "--debug")
    assert (code, out) == (2, "")
    assert "Traceback (most recent call last)" in err


# Interruption


INTERRUPTIBLE = {
    "doctor {videos}": "msfnet.doctor.examination.examine",
    "shard {videos} --out {tmp}/shards": "msfnet.data.shards.write.write_shards",
    "sweep {videos} --out {tmp}/sweep --grid optim.lr=0.1": "msfnet.experiments.sweep.run_sweep",
    "reproduce --data {videos} --out {tmp}/page --runs-dir {tmp}/runs": "msfnet.experiments.reproduce.run_plan",
    "demo --out {tmp}/demo": "msfnet.demo.run_demo",
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("words", INTERRUPTIBLE)
def test_interrupted_commands(capsys, monkeypatch, video_folder, tmp_path, words, number):
    def interrupted(*arguments, **options):
        os.kill(os.getpid(), number)
        time.sleep(10)

    monkeypatch.setattr(INTERRUPTIBLE[words], interrupted)
    code, out, err = run(capsys, *words.format(videos=video_folder, tmp=tmp_path).split())
    assert (code, out) == (128 + number, "")
    assert err.splitlines()[-1] == f"interrupted by {number.name}; the same command resumes"


def test_interrupted_training_names_its_resumption(capsys, monkeypatch, tiny_run):
    def interrupted(*arguments, **options):
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("msfnet.training.trainer._run", interrupted)
    code, _, err = run(capsys, "train", "--resume", tiny_run)
    assert code == 143
    assert err.splitlines()[-1] == f"interrupted by SIGTERM; resume with msfnet train --resume {tiny_run}"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_sigterm_ends_a_process():
    script = "import time; from msfnet.cli import main; import msfnet.doctor.examination as e\n"
    script += "def examine(*a, **b): print('begun', flush=True); time.sleep(60)\n"
    script += "e.examine = examine; main(['doctor', '.'])"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        process.terminate()
        assert b"the same command resumes" in process.stderr.read()
    assert process.returncode == 143


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_closed_output_is_no_error():
    command = f"{sys.executable} -m msfnet models; echo $? >&2"
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=False)
    assert done.stderr == "141\n"


# Options of every command


def test_quiet_and_verbose(capsys, video_folder):
    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    assert run(capsys, "predict", video, "--quiet")[2] == ""
    assert run(capsys, "predict", video)[2].startswith(f"using {BUNDLED}")
    err = run(capsys, "--verbose", "predict", video, "--device", "cpu")[2]
    first = err.splitlines()[0]
    assert f" msfnet: msfnet {__version__}, torch {torch.__version__}, Python {platform.python_version()}" in first
    assert time.strftime("%Y-%m-%d") in first
    assert f"weights {BUNDLED_FILE}" in err
    assert "device cpu" in err


def test_log_goes_to_the_standard_error_of_the_moment(capsys, monkeypatch):
    """Progress bars replace standard error while they are shown."""
    handler = StderrHandler()
    with (Path(os.devnull)).open("w") as replaced:
        monkeypatch.setattr(sys, "stderr", replaced)
        handler.emit(logging.makeLogRecord({"msg": "hidden"}))
        monkeypatch.undo()
    handler.emit(logging.makeLogRecord({"msg": "shown"}))
    assert capsys.readouterr().err == "shown\n"


@pytest.mark.skipif(sys.platform == "win32", reason="shells of POSIX")
def test_install_completion(tmp_path):
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    command = [sys.executable, "-m", "msfnet", "--install-completion"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    installed = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "evaluate" in installed
    assert "--top-k" in installed


def test_version(capsys):
    assert run(capsys, "--version")[1].strip() == __version__


# Start


def test_help_does_not_import_torch():
    script = "import sys; from msfnet.cli import main\n"
    script += "try: main(['--help'])\nexcept SystemExit: pass\n"
    script += "print([m for m in ('torch', 'numpy', 'av', 'pydantic', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "evaluate" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="counts processor time as POSIX does")
def test_help_takes_less_than_half_a_second():
    """The best of several, in processor time: other work may share the machine."""
    import resource

    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "msfnet", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_no_command_uses_the_network(capsys, monkeypatch, tiny_run, video_folder):
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            pytest.fail(f"asked the network for {address}")
        return connect(self, address)  # worker processes of one machine use such sockets

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *address, **options: pytest.fail(f"asked the network for {address}")
    )
    assert run(capsys, "evaluate", tiny_run, video_folder)[0] == 0
    assert run(capsys, "predict", tiny_run, video_folder)[0] == 0
    assert run(capsys, "models")[0] == 0


def test_split_words_needs_sources():
    with pytest.raises(UserError, match="found WEIGHTS run alone"):
        split_words(["run"])
