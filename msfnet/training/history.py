"""The epochs of a run as they finish: rows of metrics.csv, the weights of the best one, and a line of the log."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

from msfnet import __version__
from msfnet.models.checkpoint import Checkpoint, save_weights
from msfnet.run_folder import WEIGHTS, EpochRow, Run, write_history

log = logging.getLogger(__name__)


class History:
    """Writes metrics.csv and the best weights: those of the highest validation top-1, else of the last epoch.

    Args:
        folder: The run folder.
        checkpoint: The network in training, with its classes and preprocessing.
        epochs: How many epochs the run has.

    Attributes:
        rows: The rows of metrics.csv, one for each finished epoch.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, epochs: int) -> None:
        self.folder, self.checkpoint, self.epochs = folder, checkpoint, epochs
        self.rows: list[EpochRow] = []
        self._started, self._n_resumed = time.monotonic(), 0

    def resume(self, n_epochs: int) -> None:
        """Keep the first `n_epochs` rows of the metrics.csv that is there: the checkpoint may be older than it."""
        self.rows = Run(self.folder).history[:n_epochs]
        self._n_resumed = len(self.rows)

    def add(self, row: EpochRow) -> None:
        """Record an epoch, while the network holds the weights that were validated."""
        best = max((r["val_top1"] for r in self.rows if "val_top1" in r), default=-1.0)
        if row.get("val_top1", 1.0) >= best:
            notes = {"version": __version__, "epoch": int(row["epoch"])}
            if "val_top1" in row:
                notes |= {"val_top1": row["val_top1"]}
            save_weights(self.folder / WEIGHTS, replace(self.checkpoint, notes=notes))
        self.rows.append(row)
        write_history(self.folder, self.rows)
        if "train_loss" in row:  # else no clip of the epoch could be read, and there is no loss to tell
            self._log(row)

    def _log(self, row: EpochRow) -> None:
        n_done = len(self.rows)
        epoch_seconds = (time.monotonic() - self._started) / (n_done - self._n_resumed)
        line = f"epoch {n_done:3d}/{self.epochs}  loss {row['train_loss']:.3f}"
        line += f"  train top-1 {row['train_top1']:6.1%}"
        if "val_top1" in row:
            line += f"  val top-1 {row['val_top1']:6.1%}"
        left_minutes = epoch_seconds * (self.epochs - n_done) / 60
        log.info("%s  %.0f s, %.0f min left", line, row["seconds"], left_minutes)
