"""The command line: one function a command, no logic. Heavy libraries are imported by the command that needs them.

Results go to standard output, progress and warnings to standard error. Exit codes: 0 all done, 1 done but some inputs
failed and are named, 2 the request itself is wrong and one line says how to mend it.
"""

from __future__ import annotations

import os
import sys

from cyclopts import CycloptsError

from msfnet.cli import networks, training, videos  # whose commands join the app
from msfnet.cli.app import app, log, log_to_stderr
from msfnet.types import UserError

__all__ = ["app", "main", "networks", "training", "videos"]


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its code. `--debug` anywhere shows tracebacks."""
    # Threads that spin long while they wait starve whatever shares the machine, our own readers included; ones that
    # never spin lose what a second thread gains. Read when torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    log_to_stderr()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.exit(code if isinstance(code, int) else 0)
    except (UserError, CycloptsError) as error:
        if debug:
            raise
        log.error("msfnet: " + " ".join(str(error).split()))
        sys.exit(2)
    except KeyboardInterrupt:
        log.info("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has left; nothing more to say to it
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        log.error(f"msfnet: {type(error).__name__}: {' '.join(str(error).split())} (--debug shows where)")
        sys.exit(2)
