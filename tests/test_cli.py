"""The commands as their users type them: output, exit codes, one line for every mistake."""

import csv
import json
import socket
import subprocess
import sys

import pytest
from conftest import TINY

from msfnet.cli import main


def run(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    with pytest.raises(SystemExit) as stopped:
        main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


def test_models_json_is_the_contracts(capsys):
    code, out, _ = run(capsys, "models", "--num-classes", "400", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["r3d_18"] == {"name": "r3d_18", "params": 33371472, "macs": 20348379136, "input": [3, 8, 112, 112]}
    assert rows["c3d"]["input"] == [3, 16, 112, 112]


def test_models_table(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    assert "msf_r3d_18_fsam            21.881    14.05  3x8x112x112" in out


def test_train_evaluate_predict(capsys, video_folder, tmp_path):
    settings = [word for item in TINY for word in ("--set", item)]
    folder = tmp_path / "run"
    code, out, err = run(capsys, "train", video_folder, "--model", "r3d_18", *settings, "--out", folder)
    assert (code, out.strip()) == (0, str(folder))
    assert "epoch   2/2" in err
    assert "test: " in err

    code, out, _ = run(
        capsys, "evaluate", folder, video_folder, "--views", "2x3", "--json", "--out", tmp_path / "scores"
    )
    scores = json.loads(out)
    assert code == 0
    assert {"n_videos", "n_unreadable", "clip", "video", "views", "per_class"} <= scores.keys()
    assert sum(map(sum, scores["confusion"])) == scores["n_videos"]
    assert scores["views"] == "2x3"
    assert set(scores["video"]) == {"top1", "top5"}
    assert json.loads((tmp_path / "scores" / "scores.json").read_text()) == scores
    assert "<html" in (tmp_path / "scores" / "report.html").read_text()
    assert "| video |" in (tmp_path / "scores" / "scores.md").read_text()

    video = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    code, out, _ = run(capsys, "predict", folder, video, "--top-k", "1", "--json")
    answer = json.loads(out)
    assert code == 0
    assert set(answer) >= {"path", "predictions", "error"}
    assert answer["error"] is None
    assert answer["predictions"][0].keys() == {"label", "score"}


def test_predict_goes_on_after_a_bad_file_and_exits_1(capsys, tiny_run, video_folder, tmp_path):
    (tmp_path / "bad, name.mp4").write_bytes(b"no")
    good = video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"
    code, out, err = run(capsys, "predict", tiny_run, tmp_path / "bad, name.mp4", good)
    lines = out.splitlines()
    assert code == 1
    assert "bad, name.mp4: failed: cannot be read as a video" in lines[0]
    assert "GoLeft" in lines[1]
    assert "1 of 2 files could not be read" in err
    code, out, _ = run(capsys, "predict", tiny_run, tmp_path / "bad, name.mp4", good, "--csv")
    rows = list(csv.reader(out.splitlines()))
    assert code == 1
    assert rows[0] == ["path", "rank", "label", "score", "error"]
    assert rows[1][0].endswith("bad, name.mp4")
    assert [row[1] for row in rows[2:]] == ["1", "2"]


def test_resume_of_a_finished_run_scores_it_again(capsys, tiny_run, video_folder):
    code, out, _ = run(capsys, "train", video_folder, "--out", tiny_run, "--resume")
    assert (code, out.strip()) == (0, str(tiny_run))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train nowhere", "found nothing at nowhere"),
        ("train {videos} --recipe papr", "did you mean paper"),
        ("train {videos} --model r3d81", "did you mean r3d_18"),
        ("train {videos} --set train.epoch=1", "did you mean train.epochs"),
        ("train {videos} --resume", "--resume needs --out DIR"),
        ("train {videos} --resume --out {run} --set train.epochs=9", "takes its recipe as it is"),
        ("train {videos} --out {run}", "holds a run already"),
        ("train {videos} --annotations {videos}", "found none of them"),
        ("evaluate {videos} {videos}", "expected weights (.safetensors), a run folder"),
        ("evaluate {video} {videos}", "expected a .safetensors file, found something else"),
        ("evaluate {run} {videos} --views 3", "CLIPSxCROPS"),
        ("evaluate {run} {videos} --views 0x1", "1 clip or more"),
        ("predict {run} nowhere.mp4", "found 'nowhere.mp4'"),
        ("predict {run} {video} --top-k 0", "--top-k of 1 or more"),
        ("predict {run} {video} --json --csv", "one of --json and --csv"),
        ("predict nowhere.safetensors {video}", "found none at nowhere.safetensors"),
        ("predict {run}", "alone; add some"),
        ("predict", "found nothing; add some"),
        ("models --num-classes 0", "num_classes above 0"),
        ("models --bogus", "--bogus"),
        ("frobnicate", "frobnicate"),
        ("evaluate", "requires an argument"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(capsys, tiny_run, video_folder, words, message):
    places = {"videos": video_folder, "run": tiny_run, "video": video_folder / "GoLeft" / "v_GoLeft_g01_c01.mp4"}
    code, out, err = run(capsys, *(word.format(**places) for word in words.split()))
    assert code == 2
    assert out == ""
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_unforeseen_errors_get_one_line_too_and_a_traceback_with_debug(capsys, monkeypatch, tiny_run):
    monkeypatch.setattr("msfnet.inference.sources.find_sources", lambda sources: 1 / 0)
    code, _, err = run(capsys, "predict", tiny_run, "x.mp4")
    assert code == 2
    assert err.strip() == "msfnet: ZeroDivisionError: division by zero (--debug shows where)"
    with pytest.raises(ZeroDivisionError):
        main(["predict", str(tiny_run), "x.mp4", "--debug"])


def test_help_does_not_import_torch():
    script = "import sys; from msfnet.cli import app; app(['--help'], result_action='return_value')\n"
    script += "print([m for m in ('torch', 'numpy', 'av', 'pydantic', 'lightning') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "evaluate" in done.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="counts processor time as POSIX does")
def test_help_takes_less_than_half_a_second_of_work():
    """The best of several, in the time of the processor: other work may share the machine."""
    import resource

    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "msfnet", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


def test_version(capsys):
    from msfnet import __version__

    assert run(capsys, "--version")[1].strip() == __version__


def test_nothing_talks_to_the_network(capsys, monkeypatch, tiny_run, video_folder):
    connect = socket.socket.connect

    def local_only(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            pytest.fail(f"asked the network for {address}")
        return connect(self, address)  # worker processes of one machine talk through such sockets

    monkeypatch.setattr(socket.socket, "connect", local_only)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *address, **options: pytest.fail(f"asked the network for {address}")
    )
    assert run(capsys, "evaluate", tiny_run, video_folder)[0] == 0
    assert run(capsys, "predict", tiny_run, video_folder)[0] == 0
    assert run(capsys, "models")[0] == 0
