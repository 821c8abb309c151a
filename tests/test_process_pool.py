"""Worker processes: a task that crashes, hangs or raises does not affect the others."""

import os
import signal
import subprocess
import sys
import time

import pytest

from msfnet.doctor.process_pool import Failure, imap_unordered


def work(task, heartbeat):
    """Run in a worker process, where it really crashes and hangs."""
    if task == "crash":
        os.kill(os.getpid(), signal.SIGSEGV if sys.platform != "win32" else signal.SIGTERM)
    if task == "exit":
        os._exit(7)
    if task == "hang":
        time.sleep(60)
    if task == "raise":
        raise ValueError("no\nsuch luck")
    if task == "none":
        return None
    if task == "long":
        for _ in range(24):
            time.sleep(0.1)
            heartbeat()
    return task.upper()


def test_failure_costs_one_task():
    tasks = ["a", "crash", "b", "raise", "hang", "c", "exit", "long", "d"]
    results = dict(imap_unordered(work, tasks, processes=2, timeout_seconds=1.8))
    assert results == {
        **{index: task.upper() for index, task in enumerate(tasks)},
        1: Failure("crash", "signal 11" if sys.platform != "win32" else "exit code 15"),
        3: Failure("exception", "ValueError: no such luck"),
        4: Failure("timeout", "2 seconds"),
        6: Failure("crash", "exit code 7"),
    }


def test_none_is_a_result():
    assert sorted(imap_unordered(work, ["none", "none"], processes=1, timeout_seconds=5)) == [(0, None), (1, None)]


def test_no_task_starts_no_process():
    assert list(imap_unordered(work, [], processes=2, timeout_seconds=1)) == []


def test_closing_ends_processes():
    results = imap_unordered(work, ["a", "hang", "hang"], processes=2, timeout_seconds=60)
    assert next(results) == (0, "A")
    started = time.monotonic()
    results.close()
    assert time.monotonic() - started < 5


def test_script_without_guard(tmp_path):
    script = "from msfnet.doctor.process_pool import imap_unordered\nfrom test_process_pool import work\n"
    script += "list(imap_unordered(work, ['a'], processes=1, timeout_seconds=9))\n"
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([os.path.dirname(__file__), *sys.path])}  # noqa: PTH120
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, env=environment)
    assert "worker processes cannot be started; a script that calls this needs" in done.stderr


@pytest.mark.parametrize("processes", [1, 3])
def test_any_number_of_processes(processes):
    tasks = [f"task {i}" for i in range(7)]
    assert sorted(imap_unordered(work, tasks, processes=processes, timeout_seconds=30)) == [
        (i, task.upper()) for i, task in enumerate(tasks)
    ]
