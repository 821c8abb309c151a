"""Work in other processes: whatever happens to one piece, the others are done."""

import os
import signal
import subprocess
import sys
import time

import pytest

from msfnet.doctor.process_pool import Lost, isolated


def work(task, beat):
    """Run in another process, on real trouble."""
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV if sys.platform != "win32" else signal.SIGTERM)
    if task == "exit":
        os._exit(7)
    if task == "hang":
        time.sleep(60)
    if task == "raise":
        raise ValueError("no\nsuch luck")
    if task == "long":
        for _ in range(24):
            time.sleep(0.1)
            beat()
    return task.upper()


def test_trouble_costs_one_piece_of_work():
    tasks = ["a", "crash", "b", "raise", "hang", "c", "exit", "long", "d"]
    results = dict(isolated(work, tasks, processes=2, silence_seconds=1.8))
    assert sorted(results) == list(range(9))
    assert {tasks[i]: r for i, r in results.items() if isinstance(r, str)} == {t: t.upper() for t in "abcd"} | {
        "long": "LONG"
    }
    assert results[1].reason.startswith("crashed the decoder (")
    assert results[3] == Lost("ValueError: no such luck")
    assert results[4] == Lost("nothing came of it for 2 seconds")
    assert results[6] == Lost("crashed the decoder (exit code 7)")


def test_nothing_to_do_starts_nothing():
    assert list(isolated(work, [], processes=2, silence_seconds=1)) == []


def test_stopping_half_way_leaves_no_process():
    results = isolated(work, ["a", "hang", "hang"], processes=2, silence_seconds=60)
    assert next(results) == (0, "A")
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5


def test_a_script_without_a_guard_is_told(tmp_path):
    script = "from msfnet.doctor.process_pool import isolated\nfrom test_isolated import work\n"
    script += "list(isolated(work, ['a'], processes=1, silence_seconds=9))\n"
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}  # noqa: PTH120
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=environment)
    assert "worker processes cannot be started; a script that calls this needs" in done.stderr


@pytest.mark.parametrize("processes", [1, 3])
def test_all_results_come_whatever_the_number_of_processes(processes):
    tasks = [f"task {i}" for i in range(7)]
    assert sorted(isolated(work, tasks, processes=processes, silence_seconds=30)) == [
        (i, task.upper()) for i, task in enumerate(tasks)
    ]
