"""Cases measured: their times in turn, their memory, and all of that beside what the machine can do."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from msfnet.bench.cases import Case, Conditions, ready, working_bytes
from msfnet.bench.machine import Peak, describe_machine, measure_peak
from msfnet.bench.networks import Network
from msfnet.bench.timing import Ratio, Times, ratio, time_in_turn

log = logging.getLogger(__name__)

RESIDENT_BYTES = 2 * 2**30  # of weights that are in memory at the same time; further cases are timed after these
REASON_LETTERS = 200  # of what a runtime says of its failure, which may be pages
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True)
class Row:
    """What was measured of a case. `ratio` is how many times as fast as its reference; `memory_bytes` what running it
    took beyond the weights. None: it could not be found out."""

    case: Case
    params: int
    macs: int  # of a clip
    batch: int
    times: Times
    ratio: Ratio
    memory_bytes: int | None
    peak: Peak | None

    @property
    def clips_per_second(self) -> float:
        return self.batch / self.times.median_seconds

    @property
    def gflops(self) -> float:
        """Operations of the network as it was published, a second; a runtime may need fewer for the same."""
        return 2e-9 * self.macs * self.clips_per_second

    @property
    def peak_utilization(self) -> float | None:
        return self.gflops / self.peak.gflops if self.peak else None

    def to_dict(self) -> dict[str, Any]:
        network = self.case.network
        return {
            "network": network.label,
            "model": network.name,
            "weights": network.weights or None,
            "runtime": self.case.runtime,
            "precision": self.case.precision,
            "input": list(network.input_shape),
            "clips_per_second": self.clips_per_second,
            "p50_ms": 1000 * self.times.median_seconds,
            "p95_ms": 1000 * self.times.quantile(0.95),
            "calls": len(self.times.calls),
            "peak_memory_mib": None if self.memory_bytes is None else self.memory_bytes / 2**20,
            "params": self.params,
            "macs": self.macs,
            "gflops": self.gflops,
            "peak_utilization": self.peak_utilization,
            "times_r3d_18": asdict(self.ratio),
            "top1": network.top1,
        }


@dataclass(frozen=True)
class Bench:
    """All rows, in the order asked for, cases that failed, the peak of each precision, and the machine in a line."""

    rows: Sequence[Row]
    failed: Mapping[str, str]  # case -> reason
    peaks: Mapping[str, Peak | None]
    conditions: Conditions
    rounds: int
    machine: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            **asdict(self.conditions),
            "rounds": self.rounds,
            "peaks": {name: asdict(peak) if peak else None for name, peak in self.peaks.items()},
            "rows": [row.to_dict() for row in self.rows],
            "failed": dict(self.failed),
        }


def run_bench(cases: Sequence[Case], conditions: Conditions, rounds: int) -> Bench:
    """Measure the cases; says what is at work."""
    torch.set_num_threads(conditions.threads)
    device = torch.device(conditions.device)
    precisions = dict.fromkeys(case.precision for case in cases)
    log.info("looking for the machine's peak")
    peaks = {precision: measure_peak(precision, device) for precision in precisions}
    costs = {network: network.cost(conditions.train) for network in {case.network for case in cases}}
    groups = list(in_groups(cases, {network: 4 * params for network, (params, _) in costs.items()}, RESIDENT_BYTES))
    rows: dict[Case, Row] = {}
    failed: dict[Case, str] = {}
    for number, group in enumerate(groups, 1):
        calls = _calls(group, conditions, failed)
        log.info(f"timing {len(calls)} cases in {rounds} rounds, group {number} of {len(groups)}")
        times = time_in_turn(calls, rounds)
        calls.clear()
        gc.collect()
        for case in (case for case in group if case not in failed):
            params, macs = costs[case.network]
            relative = ratio(times[case.reference()], times[case])
            memory = _memory(case, conditions)
            rows[case] = Row(case, params, macs, conditions.batch, times[case], relative, memory, peaks[case.precision])
    machine = describe_machine(conditions.device, conditions.threads, PACKAGES)
    reasons = {str(case): reason for case, reason in failed.items()}
    return Bench([rows[case] for case in cases if case in rows], reasons, peaks, conditions, rounds, machine)


def in_groups(cases: Sequence[Case], weight_bytes: Mapping[Network, int], most_bytes: int) -> Iterator[list[Case]]:
    """The cases in their order, as many together as have room for their weights at the same time, and one at least."""
    group: list[Case] = []
    held = 0
    for case in cases:
        if group and held + weight_bytes[case.network] > most_bytes:
            yield group
            group, held = [], 0
        group.append(case)
        held += weight_bytes[case.network]
    if group:
        yield group


def _calls(group: Sequence[Case], conditions: Conditions, failed: dict[Case, str]) -> dict[Case, Callable[[], None]]:
    """The cases and their references, ready to be timed; those that a runtime cannot make or run go to `failed`."""
    references = dict.fromkeys(case.reference() for case in group)
    calls = {}
    for case in dict.fromkeys([*references, *group]):
        log.info(f"making {case}")
        try:
            call = ready(case, conditions)
            call()  # some compile no earlier
        except Exception as error:  # converters raise what they like
            if case in references:
                raise  # without it there is nothing to compare with
            failed[case] = f"{type(error).__name__}: {' '.join(str(error).split())[:REASON_LETTERS]}"
        else:
            calls[case] = call
    return calls


def _memory(case: Case, conditions: Conditions) -> int | None:
    try:
        return working_bytes(case, conditions)
    except RuntimeError as error:
        log.info(str(error))
        return None
