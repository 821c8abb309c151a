"""The command line: one function for each command, without logic. A command imports the libraries that it needs.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 all done; 1 done, but some inputs
failed and are named; 2 the request is wrong; 70 an error of msfnet; 128 + number for a signal (130, 143).
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

from cyclopts import CycloptsError, Group, Parameter

from msfnet import __version__
from msfnet.cli import datasets, networks, training  # these modules register their commands with the app
from msfnet.cli.app import app, log, log_to_stderr
from msfnet.training.signals import handle_signals
from msfnet.types import UserError, one_line

__all__ = ["app", "datasets", "main", "networks", "training"]

REQUEST_ERROR, INTERNAL_ERROR = 2, 70
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ends; Python ignores that signal
EVERYWHERE = Group("Options of every command", sort_key=1)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code.

    Args:
        arguments: The words after `msfnet`; by default those of this process.
    """
    # A long active wait of OpenMP threads takes CPU time from other processes, our own workers included; no active
    # wait at all loses what a second thread gains. OpenMP reads this variable when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    log_to_stderr()
    try:
        with handle_signals():
            code = app.meta(arguments, exit_on_error=False, print_error=False, result_action="return_value")
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        by = f"interrupted by {stop}" if str(stop) else "interrupted"
        log.warning("; ".join([by, *getattr(stop, "__notes__", ())]))
        code = 128 + getattr(stop, "signal_number", signal.SIGINT)
    except BrokenPipeError:
        sys.stderr.close()  # the reader closed the pipe; flushing at exit would print a traceback
        code = BROKEN_PIPE
    except Exception as error:
        if "--debug" in arguments:
            traceback.print_exc()
        code = _report(error)
    sys.exit(code if isinstance(code, int) else 0)


def _report(error: Exception) -> int:
    """Print an error as one line and return the exit code."""
    message = one_line(error)
    if isinstance(error, UserError | CycloptsError):
        log.error("msfnet: %s", message)
        return REQUEST_ERROR
    if isinstance(error, OSError) and error.filename and error.strerror:  # such as a folder without write permission
        log.error("msfnet: cannot access %s: %s", error.filename, error.strerror)
        return REQUEST_ERROR
    log.error(
        "msfnet: internal error: %s: %s; please report it with the traceback that --debug prints and the versions of "
        "msfnet, torch and Python",
        type(error).__name__,
        message,
    )
    return INTERNAL_ERROR


@app.meta.default
def _run(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    quiet: Annotated[
        bool, Parameter(group=EVERYWHERE, help="No progress and no notes, only warnings and errors.")
    ] = False,
    verbose: Annotated[
        bool,
        Parameter(
            group=EVERYWHERE, help="Versions, weights file and device too, with the time and module of each line."
        ),
    ] = False,
    debug: Annotated[bool, Parameter(group=EVERYWHERE, help="As --verbose, and tracebacks of errors.")] = False,
) -> object:
    log_to_stderr(quiet=quiet, verbose=verbose or debug)
    if verbose or debug:
        log.debug("msfnet %s, torch %s, Python %s", __version__, version("torch"), platform.python_version())
    return app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
