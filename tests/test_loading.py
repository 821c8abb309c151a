"""Batches from worker processes: what they hold, errors that cross processes, workers that die."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from msfnet.data.loading import Batches, Sample, WorkerDiedError, collate
from msfnet.types import UserError

POSIX = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


class Numbers(Dataset):
    """Ten samples whose frames are their number; `spoil` is called with each number in the worker."""

    def __init__(self, spoil=lambda number: None):
        self.spoil = spoil

    def __len__(self):
        return 10

    def __getitem__(self, number):
        return self.spoil(number) or Sample(number, 0, torch.full((1, 1, 2, 2, 3), number, dtype=torch.uint8))


class Order:
    """Batches of three from the one that was set."""

    def __init__(self):
        self.start = 0

    def set_epoch(self, epoch, start_batch):
        self.start = start_batch

    def __iter__(self):
        return iter([list(range(i, min(i + 3, 10))) for i in range(3 * self.start, 10, 3)])


def batches(data, workers=0):
    order = Order()
    loader = DataLoader(
        data, batch_sampler=order, num_workers=workers, collate_fn=collate, persistent_workers=workers > 0
    )
    return Batches(loader, order.set_epoch, 4)


def test_collate_separates_what_was_read():
    frames = torch.zeros((2, 4, 8, 8, 3), dtype=torch.uint8)
    batch = collate(
        [
            Sample(7, 1, frames, padded=True, read_seconds=0.5),
            Sample(3, 0, None, "no video", read_seconds=0.25),
            Sample(5, 0, frames + 1, warning="damaged"),
        ]
    )
    assert batch.clips.shape == (2, 2, 4, 8, 8, 3)
    assert batch.labels.tolist() == [1, 0]
    assert (batch.indices, batch.positions) == ([7, 5], [0, 2])
    assert (batch.unreadable, batch.warnings, batch.padded) == ({3: "no video"}, {5: "damaged"}, [7])
    assert batch.worker_seconds == 0.75


def test_collate_of_unreadable_videos_has_no_clips():
    batch = collate([Sample(0, 1, None, "no video"), Sample(1, 1, None, "empty")])
    assert batch.clips is None
    assert (len(batch.labels), batch.indices, batch.positions) == (0, [], [])
    assert batch.unreadable == {0: "no video", 1: "empty"}


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_start_at_any_batch(workers):
    loaded = batches(Numbers(), workers)
    assert len(loaded) == 4
    assert [b.indices for b in loaded.epoch()] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [b.indices for b in loaded.epoch(1, 2)] == [[6, 7, 8], [9]]
    assert [b.clips[:, 0, 0, 0, 0, 0].tolist() for b in loaded.epoch(1, 3)] == [[9]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_batches_are_pinned():
    batch = collate([Sample(0, 1, torch.zeros((1, 2, 4, 4, 3), dtype=torch.uint8))]).pin_memory()
    assert batch.clips.is_pinned()
    assert batch.labels.is_pinned()


# Errors


def refuse(number):
    return UserError("expected something else at 4") if number == 4 else None


@pytest.mark.parametrize("workers", [0, 1])
def test_user_errors_cross_processes_unchanged(workers):
    loaded = batches(Numbers(refuse), workers).epoch()
    assert next(loaded).indices == [0, 1, 2]
    with pytest.raises(UserError, match=r"^expected something else at 4$"):
        next(loaded)


def fail(number):
    raise FileNotFoundError("wrong")


@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_of_the_data_are_not_deaths(workers):
    with pytest.raises(FileNotFoundError, match="wrong"):
        list(batches(Numbers(fail), workers).epoch())


def kill_at_seven(number):
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)


def exit_at_seven(number):
    if number == 7:
        os._exit(3)


@POSIX
@pytest.mark.parametrize(
    ("spoil", "how"), [(kill_at_seven, "was killed by signal 9"), (exit_at_seven, "ended with exit code 3")]
)
def test_death_of_a_worker_is_one_error_within_seconds(spoil, how):
    """Batches before it may come, in order, and the SIGCHLD handler is as it was."""
    handler = signal.getsignal(signal.SIGCHLD)
    found, started = [], time.monotonic()
    with pytest.raises(WorkerDiedError, match=f"a worker process that reads videos {how}; .*lower data.num_workers"):
        found.extend(batch.indices for batch in batches(Numbers(spoil), 2).epoch())
    assert time.monotonic() - started < 30
    assert found == [[0, 1, 2], [3, 4, 5]][: len(found)]
    assert signal.getsignal(signal.SIGCHLD) == handler


@POSIX
def test_death_is_not_raised_outside_of_the_iteration():
    """torch's own SIGCHLD handler would raise in the middle of a training step."""
    loaded = batches(Numbers(), 2)
    iterator = loaded.epoch()
    next(iterator)
    for worker in loaded._workers:
        worker.kill()
    time.sleep(0.5)  # as a training step would
    with pytest.raises(WorkerDiedError):
        list(iterator)


@pytest.mark.parametrize("error", [EOFError(), ConnectionResetError(104, "reset"), FileNotFoundError(2, "no socket")])
def test_broken_connection_to_a_dead_worker_is_a_death(error):
    """A worker that dies while it hands over a tensor leaves a broken connection, not torch's error."""

    class Loader:
        def __iter__(self):
            yield collate([])
            raise error

    class Dead:
        exitcode = -9

        def __init__(self):
            self.sentinel, other = os.pipe()
            os.close(other)  # readable at once, as the sentinel of a process that has ended

    loaded = Batches(Loader(), lambda epoch, start_batch: None, 2)
    loaded._workers.append(Dead())
    with pytest.raises(WorkerDiedError, match="signal 9"):
        list(loaded.epoch())
    os.close(loaded._workers[0].sentinel)
