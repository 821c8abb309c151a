"""What a run counts: losses and accuracies of an epoch, its memory, and problems of videos."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from msfnet import distributed


@dataclass
class Sums:
    """Sums over the clips of one split in one epoch."""

    loss: float = 0.0
    correct: float = 0.0
    n_clips: int = 0  # clips that the network was given
    n_unreadable: int = 0  # clips that count as wrong predictions and have no loss

    def add(self, loss: float, correct: float, n_clips: int) -> None:
        """Add the sums over a batch."""
        self.loss += loss
        self.correct += correct
        self.n_clips += n_clips

    def over_processes(self) -> Sums:
        """Return the sums over all processes of the run."""
        total = Sums()
        for own in distributed.gather(self):
            total.add(own.loss, own.correct, own.n_clips)
            total.n_unreadable += own.n_unreadable
        return total

    def means(self, split: str) -> dict[str, float]:
        """Return the columns of metrics.csv, mean loss and top-1, as far as anything was counted for them."""
        row = {f"{split}_loss": self.loss / self.n_clips} if self.n_clips else {}
        if n := self.n_clips + self.n_unreadable:
            row[f"{split}_top1"] = self.correct / n
        return row


@dataclass
class VideoProblems:
    """Videos of a run that could not be read, or not as they should be, by their number in their split."""

    unreadable: dict[int, str] = field(default_factory=dict)  # training videos -> the reason
    val_unreadable: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)  # damaged training videos, which were read in part
    padded: dict[int, bool] = field(default_factory=dict)  # training videos that are shorter than a clip

    def merge_processes(self) -> None:
        """Give every process what all of them have found."""
        for found in distributed.gather(self):
            for part in fields(self):
                getattr(self, part.name).update(getattr(found, part.name))

    def to_dict(self) -> dict[str, Any]:
        """Return the value for a checkpoint; the constructor takes it back."""
        return asdict(self)


def peak_memory(device: torch.device) -> dict[str, float]:
    """Return `peak_memory_mib`, the most memory that this process has held so far.

    Args:
        device: For a GPU, its allocated memory is measured; for the CPU, the resident memory of the process.

    Returns:
        A column of metrics.csv; none on Windows, which does not report it.
    """
    if device.type == "cuda":
        return {"peak_memory_mib": torch.cuda.max_memory_allocated(device) / 2**20}
    try:
        import resource
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20}
