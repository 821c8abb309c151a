"""Measures cases: their times alternately, their peak memory, and both relative to R3D-18 and the machine's peak."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from msfnet.bench.cases import Case, Conditions, prepare, working_bytes
from msfnet.bench.machine import Peak, describe_machine, measure_peak
from msfnet.bench.networks import Network
from msfnet.bench.timing import Speedup, Times, speedup, time_alternately
from msfnet.progress import progress

log = logging.getLogger(__name__)

MAX_WEIGHT_BYTES = 2 * 2**30  # weights of all networks in memory at the same time
MAX_REASON_LETTERS = 200  # errors of runtimes can fill pages
PACKAGES = ("torch", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True)
class Row:
    """The measurements of one case.

    Attributes:
        case: What was measured.
        params: Parameters of the network.
        macs: Multiply-adds per clip.
        batch_size: Clips per call.
        times: Durations of all calls.
        speedup: Relative to the case's reference.
        memory_bytes: Peak memory while it ran, minus the memory before; None if it could not be measured.
        peak: Peak performance of the machine in this precision; None without a probe.
    """

    case: Case
    params: int
    macs: int
    batch_size: int
    times: Times
    speedup: Speedup
    memory_bytes: int | None
    peak: Peak | None

    @property
    def clips_per_second(self) -> float:
        """Throughput by the median duration of a call."""
        return self.batch_size / self.times.median_seconds

    @property
    def gflops(self) -> float:
        """GFLOP/s of the operations that the network's definition has; a runtime may need fewer."""
        return 2e-9 * self.macs * self.clips_per_second

    @property
    def peak_utilization(self) -> float | None:
        """GFLOP/s divided by the machine's peak; None without a probe."""
        return self.gflops / self.peak.gflops if self.peak else None

    def to_dict(self) -> dict[str, Any]:
        """Return the row as `bench --json` prints it."""
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
            "speedup_vs_r3d_18": asdict(self.speedup),
            "top1": network.top1,
        }


@dataclass(frozen=True)
class BenchResult:
    """The measurements of all cases.

    Attributes:
        rows: One per case, in the order in which they were requested.
        failed: The cases that a runtime cannot run -> the reason.
        peaks: Precision -> peak performance of the machine; None without a probe.
        conditions: What the cases have in common.
        repeats: How often each case was timed.
        machine: Machine, versions and commit, in one line.
    """

    rows: Sequence[Row]
    failed: Mapping[str, str]
    peaks: Mapping[str, Peak | None]
    conditions: Conditions
    repeats: int
    machine: str

    def to_dict(self) -> dict[str, Any]:
        """Return what `bench --json` prints."""
        return {
            "machine": self.machine,
            **asdict(self.conditions),
            "repeats": self.repeats,
            "peaks": {name: asdict(peak) if peak else None for name, peak in self.peaks.items()},
            "rows": [row.to_dict() for row in self.rows],
            "failed": dict(self.failed),
        }


def run_bench(cases: Sequence[Case], conditions: Conditions, repeats: int) -> BenchResult:
    """Measure cases and log the progress.

    Args:
        cases: What to measure.
        conditions: What the cases have in common. Its threads become those of this process.
        repeats: How often each case is timed.
    """
    torch.set_num_threads(conditions.threads)
    device = torch.device(conditions.device)
    log.info("measuring the peak performance of this machine")
    peaks = {
        precision: measure_peak(precision, device) for precision in dict.fromkeys(case.precision for case in cases)
    }
    costs = {network: network.cost(conditions.train) for network in {case.network for case in cases}}
    weight_bytes = {network: 4 * params for network, (params, _) in costs.items()}
    rows: dict[Case, Row] = {}
    failed: dict[Case, str] = {}
    for group in in_groups(cases, weight_bytes, MAX_WEIGHT_BYTES):
        calls = _prepare_all(group, conditions, failed)
        log.info("timing %d cases %d times", len(calls), repeats)
        times = time_alternately(calls, repeats)
        calls.clear()
        gc.collect()
        measured = [case for case in group if case not in failed]
        with progress("measuring memory", len(measured)) as advance:
            for case in measured:
                params, macs = costs[case.network]
                relative = speedup(times[case.reference()], times[case])
                memory_bytes, peak = _memory(case, conditions), peaks[case.precision]
                rows[case] = Row(case, params, macs, conditions.batch_size, times[case], relative, memory_bytes, peak)
                advance(1)
    machine = describe_machine(device, conditions.threads, PACKAGES)
    reasons = {str(case): reason for case, reason in failed.items()}
    return BenchResult([rows[case] for case in cases if case in rows], reasons, peaks, conditions, repeats, machine)


def in_groups(cases: Sequence[Case], weight_bytes: Mapping[Network, int], max_bytes: int) -> Iterator[list[Case]]:
    """Yield consecutive cases whose weights fit into memory at the same time, at least one per group.

    Args:
        cases: All cases.
        weight_bytes: Size of the weights of each network.
        max_bytes: Limit on the size of the weights of a group.
    """
    group: list[Case] = []
    held = 0
    for case in cases:
        if group and held + weight_bytes[case.network] > max_bytes:
            yield group
            group, held = [], 0
        group.append(case)
        held += weight_bytes[case.network]
    if group:
        yield group


def _prepare_all(
    group: Sequence[Case], conditions: Conditions, failed: dict[Case, str]
) -> dict[Case, Callable[[], None]]:
    """Prepare cases and their references; add those that a runtime cannot run to `failed`."""
    references = dict.fromkeys(case.reference() for case in group)
    calls = {}
    for case in dict.fromkeys([*references, *group]):
        log.info("preparing %s", case)
        try:
            call = prepare(case, conditions)
            call()  # torch.compile compiles in the first call
        except Exception as error:  # converters raise errors of all types
            if case in references:
                raise  # no speedup without a reference
            failed[case] = f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_REASON_LETTERS]}"
        else:
            calls[case] = call
    return calls


def _memory(case: Case, conditions: Conditions) -> int | None:
    try:
        return working_bytes(case, conditions)
    except RuntimeError as error:
        log.warning(str(error))
        return None
