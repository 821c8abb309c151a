"""What the commands share: the app, options with one meaning, and how results, problems and the log are printed."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from msfnet import __version__

log = logging.getLogger("msfnet")


def _shown_default(value: Any) -> Any:
    """Return a default as help shows it: those of flags and of lists go without saying."""
    return None if value is False or value == () else value


app = App(
    name="msfnet",
    version=__version__,
    help="Video action recognition with 3D convolutional networks. `msfnet COMMAND --help` describes a command.",
    help_format="markdown",
    default_parameter=Parameter(negative=(), show_default=_shown_default),
    suppress_keyboard_interrupt=False,  # `main` reports it
)
app.meta.suppress_keyboard_interrupt = False
app.register_install_completion_command(help="Install completion of commands and options for your shell.")

# Options with one meaning in every command that has them

DATA = "Folder of class folders, manifest CSV, folder of videos with --annotations, or folder or URL of shards."
DataPath = Annotated[str, Parameter(help=DATA)]
WeightsPath = Annotated[
    str,
    Parameter(help="A .safetensors file, a run folder, a file of msfnet export, or msfnet_ucf101_18 (bundled)."),
]
Annotations = Annotated[
    Path | None,
    Parameter(help="Folder of official annotations: UCF101, HMDB51, Kinetics, Something-Something or Jester."),
]
Split = Annotated[int, Parameter(help="Number of the official split, where there are several.")]
RecipeName = Annotated[str, Parameter(help="A bundled recipe (best, paper, small) or a TOML file.")]
Settings = Annotated[
    tuple[str, ...], Parameter(name="--set", help="Recipe key to change, as table.key=value; repeatable.")
]
ViewsText = Annotated[str | None, Parameter(help="CLIPSxCROPS averaged for each video; default: those of the weights.")]
DeviceName = Annotated[
    str | None, Parameter(help="cpu, cuda, cuda:1 or mps; default: a GPU if there is one, else the CPU.")
]
Json = Annotated[bool, Parameter(name="--json", help="Print JSON.")]
RayAddress = Annotated[str | None, Parameter(help="Ray cluster, auto or HOST:PORT; default: this machine alone.")]
CpusPerTrial = Annotated[int | None, Parameter(help="CPUs for each run; default: an equal share.")]
GpusPerTrial = Annotated[
    float | None, Parameter(help="GPUs for each run, or a part of one; default: 1 if there are any.")
]


class StderrHandler(logging.Handler):
    """Writes log records to the current `sys.stderr`, which progress bars replace while they run."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as a line."""
        print(self.format(record), file=sys.stderr)


def log_to_stderr(*, quiet: bool = False, verbose: bool = False) -> None:
    """Send what msfnet logs to standard error: warnings alone if `quiet`, with time and module if `verbose`."""
    handler = StderrHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s" if verbose else "%(message)s"))
    log.handlers = [handler]
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


def to_json(document: Any) -> str:
    """Return a result as the JSON document that `--json` prints."""
    return json.dumps(document, indent=2, ensure_ascii=False)


def finish(result: object, **problems: Mapping[str, str]) -> int:
    """Print the result of a command, name the inputs that failed, and return the exit code.

    Args:
        result: What to print on standard output.
        **problems: For each kind of problem, such as `unreadable`, names and reasons.

    Returns:
        0 if there are no problems, else 1.
    """
    for kind, reasons in problems.items():
        for name, reason in reasons.items():
            log.warning("%s: %s: %s", kind.replace("_", " "), name, reason)
    print(result)
    return 1 if any(problems.values()) else 0


@contextmanager
def resumable() -> Iterator[None]:
    """Tell the user of a command that is interrupted that the same command continues its work."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.__notes__ = ["the same command resumes"]  # in place of the hint for a single run
        raise
