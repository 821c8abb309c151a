"""Cases to measure: networks x runtimes x precisions. A case can be prepared for calls, and its peak memory measured.

Peak memory on a CPU is measured in a process of its own, which runs this module as a program.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

from msfnet.bench.memory import growth_bytes
from msfnet.bench.networks import Network, find_network
from msfnet.bench.runtimes import RUNTIMES, training_step
from msfnet.exporting.export import PRECISIONS
from msfnet.inference.network import choose_device
from msfnet.models.registry import list_models
from msfnet.types import UserError, nearest

log = logging.getLogger(__name__)

MEMORY_CALLS = 2  # the first training step allocates gradients and momentum; memory peaks in the second one


@dataclass(frozen=True)
class Conditions:
    """What all cases have in common.

    Attributes:
        batch_size: Clips per call.
        train: Whether training steps are measured instead of forward passes.
        threads: CPU threads of PyTorch.
        device: `cpu` or `cuda`.

    Raises:
        UserError: A number is below 1, or PyTorch cannot use the device.
    """

    batch_size: int
    train: bool
    threads: int
    device: str

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.threads < 1:
            found = f"{self.batch_size} and {self.threads}"
            raise UserError(f"expected a batch size and threads of 1 or more, found {found}")
        choose_device(self.device)

    @classmethod
    def here(cls, batch_size: int, train: bool, threads: int | None, device: str | None) -> Conditions:
        """Return conditions with this machine's defaults for threads and device, where they are None."""
        threads = torch.get_num_threads() if threads is None else threads
        return cls(batch_size, train, threads, str(choose_device(device)))


@dataclass(frozen=True)
class Case:
    """One network in one runtime and precision."""

    network: Network
    runtime: str
    precision: str

    def reference(self) -> Case:
        """Return the case that it is compared with: R3D-18 in eager PyTorch in fp32."""
        return Case(self.network.reference(), "eager", "fp32")

    def __str__(self) -> str:
        return f"{self.network.label} in {self.runtime}, {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Case:
        """Invert `to_dict`, after a round trip through JSON."""
        return cls(Network.from_dict(values["network"]), values["runtime"], values["precision"])


# Choice of cases


def plan_cases(
    models: Sequence[str],
    kwargs: Mapping[str, Any],
    runtimes: str | None,
    precisions: str,
    conditions: Conditions,
) -> list[Case]:
    """Return every network in every runtime and precision that is possible here, and log those that are not.

    Args:
        models: Names, run folders or weights files; empty for all names.
        kwargs: Arguments of `create_model` for names; weights have their own.
        runtimes: Names, separated by commas; None for all that are installed.
        precisions: Names, separated by commas.
        conditions: What the cases have in common.

    Raises:
        UserError: A name is unknown, a requested runtime is not installed, or no case is left.
    """
    networks = dict.fromkeys(find_network(text, kwargs) for text in models or list_models())
    requested = _split_names(runtimes, RUNTIMES, "--runtime") if runtimes else list(RUNTIMES)
    wanted = _split_names(precisions, PRECISIONS, "--precision")
    possible = []
    for name in requested:
        runtime, obstacle = RUNTIMES[name], _obstacle(name, conditions)
        if obstacle and runtimes:
            raise UserError(f"{name} {obstacle}")
        if obstacle:
            log.info("left out: %s %s", name, obstacle)
            continue
        for precision in wanted:
            if precision in runtime.precisions:
                possible.append((name, precision))
            else:
                log.info("left out: %s in %s; it supports %s", name, precision, ", ".join(runtime.precisions))
    if not possible:
        raise UserError(f"expected a runtime that supports {', '.join(wanted)}, found {', '.join(requested)}")
    return [Case(network, *pair) for network, pair in product(networks, possible)]


def _split_names(text: str, known: Mapping[str, object] | Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(f"expected names for {option} separated by commas, found {name!r}; {nearest(name, known)}")
    return list(dict.fromkeys(names))


def _obstacle(name: str, conditions: Conditions) -> str | None:
    """Return why a runtime cannot be measured under these conditions, or None."""
    runtime = RUNTIMES[name]
    if conditions.train and not runtime.train:
        return "cannot train"
    if torch.device(conditions.device).type not in runtime.devices:
        return f"does not run on {conditions.device} here"
    return runtime.missing()


# Calls


def prepare(case: Case, conditions: Conditions) -> Callable[[], None]:
    """Return a function that runs one batch of a case and waits until it has ended, also on a GPU."""
    torch.manual_seed(0)
    device = torch.device(conditions.device)
    shape = (conditions.batch_size, *case.network.input_shape)
    clips = torch.randn(shape, device=device)
    model = case.network.make().to(device)
    run: Callable[[torch.Tensor], object]
    with _quiet():
        if conditions.train:
            run = training_step(model, case.precision, compile_model=case.runtime == "compile")
        else:
            run = RUNTIMES[case.runtime].make(model.eval(), shape, case.precision)

    def call() -> None:
        run(clips)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return call


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress and the advice that converters print."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


# Memory


def working_bytes(case: Case, conditions: Conditions) -> int:
    """Measure the peak memory of running a case, minus the memory that it holds once it is prepared.

    On a CPU it is measured in a process of its own, whose allocator returns the memory of freed tensors at once: glibc
    would keep a varying part of those below 32 MiB.

    Raises:
        RuntimeError: The case cannot be run there.
    """
    if torch.device(conditions.device).type != "cpu":
        return _measure_on_gpu(case, conditions)
    task = json.dumps({"case": case.to_dict(), "conditions": asdict(conditions)})
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.json"  # not standard output, to which runtimes print as well
        command = [sys.executable, "-m", "msfnet.bench.cases", task, str(file)]
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment).returncode
        result = json.loads(file.read_text("utf-8")) if file.exists() else {"error": f"its process ended with {code}"}
    if "error" in result:
        raise RuntimeError(f"the memory of {case} could not be measured: {result['error']}")
    return int(result["bytes"])


def _measure_on_gpu(case: Case, conditions: Conditions) -> int:
    call, device = prepare(case, conditions), torch.device(conditions.device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(MEMORY_CALLS):
        call()
    return torch.cuda.max_memory_allocated(device) - before


def _measure_in_this_process(task: str) -> dict[str, Any]:
    """Return the bytes, or the error, of a case and its conditions in JSON."""
    values = json.loads(task)
    try:
        conditions = Conditions(**values["conditions"])
        torch.set_num_threads(conditions.threads)
        call = prepare(Case.from_dict(values["case"]), conditions)
        return {"bytes": growth_bytes(lambda: [call() for _ in range(MEMORY_CALLS)])}
    except Exception as error:  # converters raise errors of all types
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(_measure_in_this_process(sys.argv[1])), "utf-8")
