"""Times of the parts of steps, on a clock and on a GPU whose events are imitated."""

import pytest
import torch

from msfnet.training import timing
from msfnet.training.timing import StepTimer


class Gpu:
    """A device that works off a queue: `now` is the time of the CPU, `free` when the queue is empty. Milliseconds."""

    def __init__(self):
        self.now = self.free = 0.0
        self.waits = 0

    def queue(self, duration):
        self.free = max(self.free, self.now) + duration


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.time = max(gpu.now, gpu.free)

        def query(self):
            return self.time <= gpu.now

        def synchronize(self):
            gpu.waits += 1
            gpu.now = max(gpu.now, self.time)

        def elapsed_time(self, other):
            assert self.query()
            assert other.query()
            return other.time - self.time

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(timing.time, "monotonic", lambda: gpu.now / 1000)
    return gpu


def step(timer, gpu, wait):
    """Wait for data, then queue 10 ms of copying and 40 ms of forward pass, each of which takes the CPU 1 ms."""
    with timer.measure_wait("data"):
        gpu.now += wait
    for part, duration in (("h2d", 10), ("forward", 40)):
        with timer.measure(part):
            gpu.queue(duration)
            gpu.now += 1


def test_a_cpu_is_measured_by_the_clock(monkeypatch):
    times = iter([1.0, 3.5, 10.0, 10.25])
    monkeypatch.setattr(timing.time, "monotonic", lambda: next(times))
    timer = StepTimer(torch.device("cpu"))
    with timer.measure("forward"):
        pass
    with timer.measure_wait("data"):
        pass
    timer.add("worker", 7.0)
    assert {part: s for part, s in timer.seconds.items() if s} == {"forward": 2.5, "data": 0.25, "worker": 7.0}


def test_a_gpu_is_measured_without_waiting_for_it(gpu):
    timer = StepTimer(torch.device("cuda"))
    for _ in range(5):
        step(timer, gpu, wait=0)
    assert gpu.waits == 0
    assert timer.seconds["forward"] == 0  # the GPU is still at the first step
    timer.finish()
    assert gpu.waits == 1
    assert timer.seconds["h2d"] == pytest.approx(0.05)
    assert timer.seconds["forward"] == pytest.approx(0.2)


def test_events_are_read_as_they_complete(gpu):
    timer = StepTimer(torch.device("cuda"))
    step(timer, gpu, wait=0)
    step(timer, gpu, wait=1000)
    assert gpu.waits == 0
    assert timer.seconds["forward"] == pytest.approx(0.04)  # of the first step


@pytest.mark.parametrize(("wait", "idle"), [(20, 0), (100, 52), (1000, 952)])
def test_a_wait_counts_as_far_as_the_gpu_is_idle(gpu, wait, idle):
    """Each step keeps the GPU busy for 50 ms, of which 2 pass before the CPU begins to wait."""
    timer = StepTimer(torch.device("cuda"))
    step(timer, gpu, wait=0)
    step(timer, gpu, wait)
    timer.finish()
    assert timer.seconds["data"] == pytest.approx(idle / 1000)


def test_the_first_wait_counts_in_full_until_the_next_epoch(gpu):
    timer = StepTimer(torch.device("cuda"))
    step(timer, gpu, wait=300)
    assert timer.seconds["data"] == pytest.approx(0.3)
    timer.reset()
    assert set(timer.seconds.values()) == {0.0}
