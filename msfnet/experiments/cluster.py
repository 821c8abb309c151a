"""Many runs in parallel on one machine or on a Ray cluster: the only module that uses Ray.

Every run is an ordinary run folder in a file system that all machines share. Finished runs are kept and interrupted
ones resume from their last checkpoint, within one call and in the next one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from msfnet.atomic_io import write_text
from msfnet.data.dataset import Dataset
from msfnet.environment import usable_cpus
from msfnet.experiments.trials import PlannedRun
from msfnet.experiments.worker import Resources, RunStatus, finished_status, train_run
from msfnet.progress import progress
from msfnet.recipe import differing_keys, load_recipe
from msfnet.run_folder import RECIPE
from msfnet.training.signals import handle_signals
from msfnet.types import UserError

log = logging.getLogger(__name__)

DATA, RAY_LOG = "data.json", "ray.log"  # beside the run folders: which videos the runs have; the output of Ray
MAX_ATTEMPTS = 3  # at a run whose process or machine dies


@dataclass(frozen=True)
class ClusterConfig:
    """Where runs are trained, and with which resources.

    Args:
        address: Address of a Ray cluster: `auto` for the one that this machine is part of, or HOST:PORT. None is this
            machine alone.
        cpus_per_trial: CPUs of one run; by default as many as keep all CPUs busy.
        gpus_per_trial: GPUs of one run, which may be a fraction below one; by default 1 if there are any.
    """

    address: str | None = None
    cpus_per_trial: int | None = None
    gpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        if self.cpus_per_trial is not None and self.cpus_per_trial < 1:
            raise UserError(f"expected --cpus-per-trial of 1 or more, found {self.cpus_per_trial}")
        gpus = self.gpus_per_trial
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 1 and float(gpus).is_integer())):
            raise UserError(f"expected --gpus-per-trial of 0 to 1 or a whole number, found {gpus:g}")
        if self.address and "://" in self.address:
            raise UserError(
                f"expected --ray-address auto or HOST:PORT, found {self.address}; "
                "start the command on a machine of the cluster"
            )


def train_runs(
    data: Dataset, runs: Sequence[PlannedRun], out: Path, config: ClusterConfig, *, score_test: bool
) -> list[RunStatus]:
    """Train every run in `out`/NAME to its end; a run that fails does not stop the others.

    Args:
        data: The dataset of all runs.
        runs: What to train; finished runs are left as they are.
        out: Folder of the run folders.
        config: Where to train.
        score_test: Whether runs are evaluated on the test set at their end.

    Returns:
        How each run ended, in the order of `runs`.

    Raises:
        UserError: `out` has runs with other recipes or videos, Ray is not installed or not reachable, or no machine has
            the resources for a run.
    """
    _check_folder(data, runs, out)
    ended = {run.name: status for run in runs if (status := finished_status(out, run.name))}
    waiting = [run for run in runs if run.name not in ended]
    log.info("%d runs in %s: %d finished before, %d to train", len(runs), out, len(ended), len(waiting))
    if waiting:
        with _ray(config, out) as ray, progress("runs", len(runs), len(ended)) as advance:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            resources = choose_resources(nodes, len(waiting), config)
            log.info("each run has %d CPUs and %g GPUs", resources.cpus, resources.gpus)
            for status in _train_all(ray, data, waiting, out, resources, score_test):
                ended[status.name] = status
                log.info("%s: %s", status.name, f"failed: {status.error}" if status.error else "finished")
                advance(1)
    return [ended[run.name] for run in runs]


def choose_resources(nodes: Sequence[dict[str, float]], n_runs: int, config: ClusterConfig) -> Resources:
    """Return the CPUs and GPUs of each run.

    Unless configured otherwise, a run has one GPU if there are any, with a proportional part of the machine's CPUs;
    otherwise one CPU, or more if there are fewer runs than CPUs.

    Args:
        nodes: Number of `CPU` and `GPU` of each machine, as Ray reports them.
        n_runs: Number of runs to train.
        config: What was requested.

    Raises:
        UserError: No machine has these resources.
    """
    with_gpus = [node for node in nodes if node.get("GPU")]
    gpus = config.gpus_per_trial if config.gpus_per_trial is not None else float(bool(with_gpus))
    if config.cpus_per_trial:
        cpus = config.cpus_per_trial
    elif gpus and with_gpus:
        cpus = min(int(node.get("CPU", 0) * gpus // node["GPU"]) for node in with_gpus)
    else:
        counts = [int(node.get("CPU", 0)) for node in nodes]
        cpus = min(sum(counts) // n_runs, max(counts, default=0))
    cpus = max(1, cpus)
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        found = "; ".join(f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in nodes)
        raise UserError(
            f"expected a machine with {cpus} CPUs and {gpus:g} GPUs for a run, found {found or 'none'}; "
            "lower --cpus-per-trial or --gpus-per-trial"
        )
    return Resources(cpus, gpus)


def _train_all(
    ray: Any,
    data: Dataset,
    runs: Sequence[PlannedRun],
    out: Path,
    resources: Resources,
    score_test: bool,
) -> Iterator[RunStatus]:
    """Yield the status of each run as it ends. A run whose process or machine dies is restarted a few times."""
    # One process per run, which frees its GPU memory at the end. Deaths are counted here and not by Ray, which would
    # restart a run silently, and forever if memory is short.
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0, max_calls=1)(train_run)
    shared_data, working_folder = ray.put(data), Path.cwd()

    def start(run: PlannedRun) -> Any:
        return task.remote(shared_data, run, out, working_folder, resources, score_test=score_test)

    attempts = {run.name: 1 for run in runs}
    running = {start(run): run for run in runs}
    while running:
        (ended,), _ = ray.wait(list(running), num_returns=1)
        run = running.pop(ended)
        try:
            yield ray.get(ended)
        except ray.exceptions.RayError as error:
            reason = f"its process or machine died ({type(error).__name__})"
            if attempts[run.name] == MAX_ATTEMPTS:
                yield RunStatus(run.name, f"{reason} {MAX_ATTEMPTS} times; see {RAY_LOG}")
                continue
            attempts[run.name] += 1
            log.warning(
                "%s: %s; resuming from its last checkpoint, attempt %d of %d",
                *(run.name, reason, attempts[run.name], MAX_ATTEMPTS),
            )
            running[start(run)] = run


@contextmanager
def _ray(config: ClusterConfig, out: Path) -> Iterator[Any]:
    """Start Ray on this machine, or connect to a cluster. Its output goes to a file in `out`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray = import_module("ray")
    except ImportError as error:
        raise UserError("Ray is not installed; run pip install 'msfnet[ray]'") from error
    on_main_thread = threading.current_thread() is threading.main_thread()
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if config.address not in (None, "auto"):
        _check_address(str(config.address))
    with (out / RAY_LOG).open("a", encoding="utf-8") as ray_log, redirect_stdout(ray_log):
        try:
            _start_ray(ray, config.address)
            with handle_signals():  # in place of Ray's handler of SIGTERM, which prints a stack trace
                yield ray
        finally:
            ray.shutdown()
            if on_main_thread:
                signal.signal(signal.SIGTERM, on_sigterm)


def _start_ray(ray: Any, address: str | None) -> None:
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            own = {"num_cpus": usable_cpus(), "object_store_memory": 100 * 2**20}
            ray.init("local", include_dashboard=False, **own, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = f"no Ray cluster answers at {address}" if address else "Ray does not start on this machine"
        raise UserError(f"{where}: {str(error).splitlines()[0]}") from error


def _check_address(address: str) -> None:
    """Refuse an address where nothing listens; Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"expected --ray-address auto or HOST:PORT, found {address}")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray cluster answers at {address}: {error}") from error


def _check_folder(data: Dataset, runs: Sequence[PlannedRun], out: Path) -> None:
    """Refuse a folder with runs on other videos, or with another recipe under the same name."""
    out.mkdir(parents=True, exist_ok=True)
    described = {"videos": len(data.items), "fingerprint": data.fingerprint}
    file = out / DATA
    if file.is_file() and (found := json.loads(file.read_text("utf-8"))) != described:
        counts = f"{found['videos']} videos there, {len(data.items)} here"
        raise UserError(f"{out} has runs on other videos or another split ({counts}); choose another folder")
    write_text(file, json.dumps(described, indent=2))
    for run in runs:
        recipe_file = out / run.name / RECIPE
        if recipe_file.is_file() and (keys := differing_keys((load_recipe(recipe_file), run.recipe))):
            raise UserError(
                f"{out} has the run {run.name} with other values of {', '.join(keys)}; choose another folder"
            )
