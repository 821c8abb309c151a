"""The optional libraries behind the runtimes: imported when they are needed, kept quiet and kept from the network."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

from msfnet.types import UserError, one_line


def library(name: str) -> Any:
    """Import a module of the extra `export`, without OpenVINO's telemetry.

    Args:
        name: Dotted name of the module.

    Raises:
        UserError: It is not installed.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # its import fails, and is caught
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{package} is not installed ({error}); run pip install 'msfnet[export]'") from error


@contextmanager
def converting(name: str, library_name: str) -> Iterator[None]:
    """Silence a converter, and turn its errors into one line, since their cause is how the network is written.

    Args:
        name: Name of the network that is converted.
        library_name: Name of the converter.

    Raises:
        UserError: The converter failed.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):  # progress goes to standard error
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:  # converters share no exception class
        reason = one_line(error)[:300]
        raise UserError(
            f"{library_name} cannot convert the network {name}: {type(error).__name__}: {reason}"
        ) from error
    finally:
        logging.disable(disabled)
