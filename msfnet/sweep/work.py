"""What is done on a machine for one run of many: start it or go on with it, and say what became of it.

It knows nothing of the cluster that brought it there. All machines see the same files.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import traceback
from dataclasses import dataclass, field
from pathlib import Path

from msfnet.data.listing.annotations import Listing
from msfnet.data.shards.index import ShardIndex
from msfnet.files import write_text
from msfnet.sweep.trials import Run
from msfnet.types import Say, UserError

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
    with (folder / LOG).open("a", encoding="utf-8") as log:

        def say(line: str) -> None:
            print(line, file=log, flush=True)

        say(f"process {os.getpid()} on {platform.node()}")
        try:
            problems = _finish(data, run, folder, score_test, say)
        except UserError as error:
            say(f"failed: {error}")
            return Outcome(run.name, " ".join(str(error).split()))
        except Exception as error:
            traceback.print_exc(file=log)
            reason = " ".join(str(error).split())
            return Outcome(run.name, f"{type(error).__name__}: {reason[:200]} ({run.name}/{LOG} shows where)")
    write_text(folder / FINISHED, json.dumps({"problems": problems}, indent=2, ensure_ascii=False))
    return Outcome(run.name, None, problems)


def _finish(data: Listing | ShardIndex, run: Run, folder: Path, score_test: bool, say: Say) -> dict[str, str]:
    from msfnet.models.checkpoint import WEIGHTS
    from msfnet.train.folder import can_resume
    from msfnet.train.run import resume, train

    if can_resume(folder):
        say("going on from the last checkpoint")
        return resume(folder, say=say, score_test=score_test).problems
    (folder / WEIGHTS).unlink(missing_ok=True)  # of a run that was stopped before it had a checkpoint
    shutil.rmtree(folder / "last", ignore_errors=True)
    return train(data, run.recipe, folder, say=say, score_test=score_test).problems


def _keep_to(share: Share) -> None:
    """As many threads as CPUs, so that runs side by side do not starve each other; no GPU where none was given."""
    os.environ["OMP_NUM_THREADS"] = str(share.cpus)  # for the processes that read videos, too
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if not share.gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    torch.set_num_threads(share.cpus)
