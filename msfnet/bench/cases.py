"""A case: one network in one runtime and precision, ready to be called, and how much memory that takes.

Which cases there are to measure: networks x runtimes x precisions, as far as they can be had here."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import torch

from msfnet.bench.memory import growth_bytes
from msfnet.bench.networks import Network, find_network
from msfnet.bench.runtimes import ALL, RUNTIMES, training_step
from msfnet.inference.network import choose_device
from msfnet.models.registry import list_models
from msfnet.types import UserError, nearest

log = logging.getLogger(__name__)

MEMORY_CALLS = 2  # a first training step allocates gradients and momentum, and the second finds them there


@dataclass(frozen=True)
class Conditions:
    """What all cases share: clips at once, training steps or forward passes, threads, and the device."""

    batch: int
    train: bool
    threads: int
    device: str

    def __post_init__(self) -> None:
        if self.batch < 1 or self.threads < 1:
            raise UserError(f"expected a batch and threads of 1 or more, found {self.batch} and {self.threads}")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise UserError("expected a GPU that PyTorch can use for --device cuda, found none")

    @classmethod
    def here(cls, batch: int, train: bool, threads: int | None, device: str | None) -> Conditions:
        """With this machine's own where nothing else is said."""
        threads = torch.get_num_threads() if threads is None else threads
        return cls(batch, train, threads, device or choose_device().type)


@dataclass(frozen=True)
class Case:
    network: Network
    runtime: str
    precision: str

    def reference(self) -> Case:
        """R3D-18 in eager PyTorch and full precision, under the same conditions."""
        return Case(self.network.reference(), "eager", "fp32")

    def __str__(self) -> str:
        return f"{self.network.label} in {self.runtime}, {self.precision}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Case:
        return cls(Network.from_dict(values["network"]), values["runtime"], values["precision"])


def ready(case: Case, conditions: Conditions) -> Callable[[], None]:
    """A function that runs one batch of the case from beginning to end, on a GPU too."""
    torch.manual_seed(0)
    device = torch.device(conditions.device)
    shape = (conditions.batch, *case.network.input_shape)
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
    """Without the progress and advice of converters, which would stand in the midst of our own output."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def working_bytes(case: Case, conditions: Conditions) -> int:
    """The most memory that running the case took beyond what was held once it was ready.

    On a CPU it is found in a process of its own, whose allocator is told to give back at once what tensors leave (glibc
    would keep those below 32 MB, more or less of them by chance). Raises RuntimeError when that fails.
    """
    if conditions.device != "cpu":
        return _on_gpu(case, conditions)
    task = json.dumps({"case": case.to_dict(), "conditions": asdict(conditions)})
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-m", "msfnet.bench.cases", task]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise RuntimeError(f"the memory of {case} could not be measured: {reason}")
    return int(done.stdout.split()[-1])


def _on_gpu(case: Case, conditions: Conditions) -> int:
    call = ready(case, conditions)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(MEMORY_CALLS):
        call()
    return torch.cuda.max_memory_allocated() - before


def _in_this_process(task: str) -> int:
    values = json.loads(task)
    conditions = Conditions(**values["conditions"])
    torch.set_num_threads(conditions.threads)
    call = ready(Case.from_dict(values["case"]), conditions)
    return growth_bytes(lambda: [call() for _ in range(MEMORY_CALLS)])


if __name__ == "__main__":
    print(_in_this_process(sys.argv[1]))


def plan_cases(
    models: Sequence[str],
    kwargs: Mapping[str, Any],
    runtimes: str | None,
    precisions: str,
    conditions: Conditions,
) -> list[Case]:
    """Every network in every runtime and precision that can be had; says which cannot, and why.

    `models` are names, made with `arguments`, run folders or weights files; none are all names. `runtimes` and
    `precisions` are names with commas between them; no runtimes are all that are installed.
    Raises UserError for a name that there is none of, a runtime that is asked for and not installed, or no case left.
    """
    networks = dict.fromkeys(find_network(text, kwargs) for text in models or list_models())
    asked = _names(runtimes, RUNTIMES, "--runtime") if runtimes else list(RUNTIMES)
    wanted = _names(precisions, ALL, "--precision")
    possible = []
    for name in asked:
        runtime, reason = RUNTIMES[name], _refusal(name, conditions)
        if reason and runtimes:
            raise UserError(f"{name} {reason}")
        if reason:
            log.info(f"left out: {name} {reason}")
            continue
        for precision in wanted:
            if precision in runtime.precisions:
                possible.append((name, precision))
            else:
                log.info(f"left out: {name} in {precision}; it has {', '.join(runtime.precisions)}")
    if not possible:
        raise UserError(f"expected a runtime that can run {', '.join(wanted)}, found {', '.join(asked)}")
    return [Case(network, *pair) for network, pair in product(networks, possible)]


def _names(text: str, known: Mapping[str, object] | Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(
                f"expected names for {option} with commas between them, found {name!r}; {nearest(name, known)}"
            )
    return list(dict.fromkeys(names))


def _refusal(name: str, conditions: Conditions) -> str | None:
    """Why a runtime cannot be measured under these conditions."""
    runtime = RUNTIMES[name]
    if conditions.train and not runtime.train:
        return "cannot train"
    if conditions.device not in runtime.devices:
        return f"does not run on {conditions.device} here"
    return runtime.missing()
