"""What is done on a machine for one run of many: start it or go on with it, and say what became of it.

It knows nothing of the cluster that brought it there. All machines see the same files.


Runs side by side on one machine or many, each brought to its end: the only file that knows the engine (Ray).

Every run is an ordinary run folder that all machines see. What is finished stays, what was broken off goes on from its
last checkpoint, in this call and in the next one.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from msfnet.atomic_io import write_text
from msfnet.data.annotations.readers import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.experiments.trials import Run
from msfnet.recipe import Recipe, load_recipe
from msfnet.training.history import fingerprint
from msfnet.types import UserError

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

log = logging.getLogger(__name__)

FINISHED, LOG = "finished.json", "log.txt"  # in a run folder: that the run is through, and what it said


@dataclass(frozen=True)
class Share:
    """What of a machine one run gets. A part of a GPU is shared with other runs."""

    cpus: int
    gpus: float


@dataclass(frozen=True)
class Outcome:
    """What became of a run: `error` is why it did not finish, in one line; `problems` are videos it could not read."""

    name: str
    error: str | None = None
    problems: dict[str, str] = field(default_factory=dict)  # path -> reason


def finished(out: Path, name: str) -> Outcome | None:
    """The outcome of a run that is through; None if it has yet to finish."""
    file = out / name / FINISHED
    return Outcome(name, None, json.loads(file.read_text("utf-8"))["problems"]) if file.is_file() else None


def perform(data: Listing | ShardIndex, run: Run, out: Path, cwd: Path, share: Share, *, score_test: bool) -> Outcome:
    """Bring one run to its end in `out`/NAME, from its last checkpoint if it has one. Errors become its outcome.

    `cwd` is where relative paths of the data and of the recipe start.
    """
    try:
        os.chdir(cwd)
        folder = out / run.name
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return Outcome(run.name, f"{error.strerror}: {error.filename}; all machines need the same file system")
    _keep_to(share)
    with _log_to(folder / LOG):
        log.info("process %d on %s", os.getpid(), platform.node())
        try:
            problems = _finish(data, run, folder, score_test)
        except UserError as error:
            log.error("failed: %s", error)
            return Outcome(run.name, " ".join(str(error).split()))
        except Exception as error:
            log.exception("failed")
            reason = " ".join(str(error).split())
            return Outcome(run.name, f"{type(error).__name__}: {reason[:200]} ({run.name}/{LOG} shows where)")
    write_text(folder / FINISHED, json.dumps({"problems": problems}, indent=2, ensure_ascii=False))
    return Outcome(run.name, None, problems)


@contextmanager
def _log_to(file: Path) -> Iterator[None]:
    """Append what msfnet logs within the block to a file."""
    handler = logging.FileHandler(file, encoding="utf-8")
    logger = logging.getLogger("msfnet")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def _finish(data: Listing | ShardIndex, run: Run, folder: Path, score_test: bool) -> dict[str, str]:
    from msfnet.models.checkpoint import WEIGHTS
    from msfnet.training.history import can_resume
    from msfnet.training.trainer import resume, train

    if can_resume(folder):
        log.info("going on from the last checkpoint")
        return resume(folder, score_test=score_test).problems
    (folder / WEIGHTS).unlink(missing_ok=True)  # of a run that was stopped before it had a checkpoint
    shutil.rmtree(folder / "last", ignore_errors=True)
    return train(data, run.recipe, folder, score_test=score_test).problems


def _keep_to(share: Share) -> None:
    """As many threads as CPUs, so that runs side by side do not starve each other; no GPU where none was given."""
    os.environ["OMP_NUM_THREADS"] = str(share.cpus)  # for the processes that read videos, too
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if not share.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    torch.set_num_threads(share.cpus)


DATA, ENGINE_LOG = "data.json", "engine.log"  # beside the run folders: which videos these are; what the engine said
ATTEMPTS = 3  # at a run whose process or machine dies under it


@dataclass(frozen=True)
class Machines:
    """Where runs are done: this machine, or the Ray cluster at `address` (`auto`: the one that this machine is in).

    What a run gets is a share that keeps all CPUs or GPUs at work, unless it is given.
    """

    address: str | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_trial is not None and self.cpus_per_trial < 1:
            raise UserError(f"expected 1 CPU or more for a run, found {self.cpus_per_trial}")
        gpus = self.gpus_per_trial
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise UserError(f"expected a part of a GPU or whole ones for a run, found {gpus:g}")
        if self.address and "://" in self.address:
            raise UserError(
                f"expected the address of a Ray cluster as auto or HOST:PORT, found {self.address}; "
                "start the sweep on one of its machines"
            )


def do_runs(
    data: Listing | ShardIndex, runs: Sequence[Run], out: Path, machines: Machines, *, score_test: bool
) -> list[Outcome]:
    """Bring every run to its end in `out`/NAME; returns what became of each, in their order.

    A run that fails is named with its reason and the others go on; called again, finished runs are left as they are
    and the rest goes on. With `score_test`, runs score their test videos as `msfnet train` does.

    Raises UserError when `out` holds runs of other recipes or videos, and when no machine can give what a run needs.
    """
    _refuse_others(data, runs, out)
    outcomes = {run.name: done for run in runs if (done := finished(out, run.name))}
    waiting = [run for run in runs if run.name not in outcomes]
    log.info(f"{len(runs)} runs in {out}: {len(outcomes)} finished before, {len(waiting)} to do")
    if waiting:
        with _engine(machines, out) as ray:
            share = fair_share([node["Resources"] for node in ray.nodes() if node["Alive"]], len(waiting), machines)
            log.info(f"each on {share.cpus} CPU" + (f" and {share.gpus:g} GPU" if share.gpus else ""))
            started = time.monotonic()
            for number, outcome in enumerate(_results(ray, data, waiting, out, share, score_test), 1):
                outcomes[outcome.name] = outcome
                left_seconds = (time.monotonic() - started) / number * (len(waiting) - number)
                told = f"failed: {outcome.error}" if outcome.error else "finished"
                log.info(f"{len(outcomes):3d}/{len(runs)}  {outcome.name}  {told}  {left_seconds / 60:.0f} min to go")
    return [outcomes[run.name] for run in runs]


def fair_share(nodes: Sequence[dict[str, float]], n_runs: int, machines: Machines) -> Share:
    """What each run gets of machines with so many CPU and GPU, as the engine counts them.

    One GPU each where there are any, with its part of the machine's CPUs; else one CPU each, more where there are
    fewer runs than CPUs. Raises UserError when no machine has as much.
    """
    with_gpus = [node for node in nodes if node.get("GPU")]
    gpus = machines.gpus_per_trial if machines.gpus_per_trial is not None else float(bool(with_gpus))
    if machines.cpus_per_trial:
        cpus = machines.cpus_per_trial
    elif gpus and with_gpus:
        cpus = min(int(node.get("CPU", 0) * gpus // node["GPU"]) for node in with_gpus)
    else:
        counts = [int(node.get("CPU", 0)) for node in nodes]
        cpus = min(sum(counts) // n_runs, max(counts, default=0))
    cpus = max(1, cpus)
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
        raise UserError(f"expected a machine with {cpus} CPU and {gpus:g} GPU for a run, found {found or 'none'}")
    return Share(cpus, gpus)


def usable_cpus() -> int:
    """CPUs that this process may compute on: under taskset and in a SLURM job fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _results(
    ray: Any, data: Listing | ShardIndex, runs: Sequence[Run], out: Path, share: Share, score_test: bool
) -> Iterator[Outcome]:
    """Outcomes as they come. A run whose process or machine dies is started again, a few times."""
    # A process for each run: nothing of one is left to the next, and its GPU memory is free. Deaths are told and
    # counted here rather than by the engine, which starts again without a word, and without end where memory is short.
    task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0, max_calls=1)(perform)
    shared_data, cwd = ray.put(data), Path.cwd()

    def start(run: Run) -> Any:
        return task.remote(shared_data, run, out, cwd, share, score_test=score_test)

    attempts = {run.name: 1 for run in runs}
    doing = {start(run): run for run in runs}
    while doing:
        (done,), _ = ray.wait(list(doing), num_returns=1)
        run = doing.pop(done)
        try:
            yield ray.get(done)
        except ray.exceptions.RayError as error:
            reason = f"its process or machine died ({type(error).__name__})"
            if attempts[run.name] == ATTEMPTS:
                yield Outcome(run.name, f"{reason} {ATTEMPTS} times; see {ENGINE_LOG}")
                continue
            attempts[run.name] += 1
            log.info(
                f"{run.name}: {reason}; going on from its last checkpoint, attempt {attempts[run.name]} of {ATTEMPTS}"
            )
            doing[start(run)] = run


@contextmanager
def _engine(machines: Machines, out: Path) -> Iterator[Any]:
    """Ray, on this machine alone or joined to the cluster at an address. What it says goes to a file in `out`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it would tell its makers
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UserError("runs are shared out by Ray, which is not there: pip install 'msfnet[ray]'") from error
    on_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if machines.address not in (None, "auto"):
        _check_answers(str(machines.address))
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    with (out / ENGINE_LOG).open("a", encoding="utf-8") as log, redirect_stdout(log):
        try:
            if machines.address:
                ray.init(machines.address, **quiet)
            else:
                own = {"num_cpus": usable_cpus(), "object_store_memory": 100 * 2**20}
                ray.init("local", include_dashboard=False, **own, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"no Ray cluster answers at {machines.address}" if machines.address else "Ray does not start here"
            raise UserError(f"{where}: {str(error).splitlines()[0]}") from error
        if on_main_thread:
            # As Ctrl-C, for whoever ends a job so; the engine's own handler prints its stack.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield ray
        finally:
            ray.shutdown()
            if on_main_thread:
                signal.signal(signal.SIGTERM, on_sigterm)


def _check_answers(address: str) -> None:
    """Refuse an address where nothing listens; the engine itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"expected the address of a Ray cluster as auto or HOST:PORT, found {address}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from error


def _refuse_others(data: Listing | ShardIndex, runs: Sequence[Run], out: Path) -> None:
    """Nothing is mixed: runs that are there have the same videos and, under a name, the same recipe."""
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(data, ShardIndex):
        items, print_of_data = data.listing().items, data.fingerprint
    else:
        items, print_of_data = data.items, fingerprint(data.items)
    described = {"videos": len(items), "fingerprint": print_of_data}
    file = out / DATA
    if file.is_file() and (there := json.loads(file.read_text("utf-8"))) != described:
        counts = f"{there['videos']} there, {len(items)} here"
        raise UserError(f"{out} holds runs on other videos or another split ({counts}); choose another --out")
    write_text(file, json.dumps(described, indent=2))
    for run in runs:
        recipe = out / run.name / "recipe.toml"
        if recipe.is_file() and (difference := first_difference(load_recipe(str(recipe)), run.recipe)):
            raise UserError(f"{out} holds {run.name} with {difference}; choose another --out")


def first_difference(there: Recipe, wanted: Recipe) -> str:
    """The first key in which two recipes differ, in words; empty if none."""
    for name, table in wanted:
        for key, value in table:
            if (found := getattr(getattr(there, name), key)) != value:
                return f"{name}.{key} = {found!r}, not {value!r}"
    return ""
