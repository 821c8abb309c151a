"""What all commands share: the app that they belong to, parameters of one meaning, and where progress goes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from msfnet import __version__

log = logging.getLogger("msfnet")

app = App(
    name="msfnet",
    version=__version__,
    help="Train a recognizer for the actions in your videos. `msfnet COMMAND --help` explains a command.",
    help_format="markdown",
)

DataPath = Annotated[
    Path, Parameter(help="Folder of class folders, manifest CSV, or folder of videos with --annotations.")
]
DataOrShards = Annotated[
    str,
    Parameter(
        help="Folder of class folders, manifest CSV, folder of videos with --annotations, folder or URL of shards."
    ),
]
WeightsPath = Annotated[Path, Parameter(help="A .safetensors file or a run folder.")]
NetworkPath = Annotated[
    Path, Parameter(help="A .safetensors file, a run folder, a file of msfnet export, or msfnet_ucf101_18.")
]
Annotations = Annotated[
    Path | None, Parameter(help="Folder of official lists: UCF101, HMDB51, Kinetics, Something-Something or Jester.")
]
Split = Annotated[int, Parameter(help="Which of several official splits.")]
Json = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
RayAddress = Annotated[str | None, Parameter(help="Ray cluster: auto or HOST:PORT; default: this machine alone.")]
CpusPerTrial = Annotated[int | None, Parameter(help="Default: a fair share of what there is.")]
GpusPerTrial = Annotated[float | None, Parameter(help="Or part of one; default: 1 where there are any.")]
ViewsText = Annotated[str | None, Parameter(help="CLIPSxCROPS averaged for each video; default: as trained.")]


def log_to_stderr() -> None:
    """Send what msfnet logs to standard error, a plain line for each message."""
    handler = logging.StreamHandler()
    log.handlers = [handler]
    log.setLevel(logging.INFO)
