"""The libraries behind the runtimes, imported where they are needed and not before. None of them may call home."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any

from msfnet.types import UserError


def library(name: str) -> Any:
    """A module of the extra `export`, without OpenVINO's telemetry. Raises UserError where it is not installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # an import of it fails, and is caught
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"this needs {package}, which is not there ({error}): pip install 'msfnet[export]'") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Bars of progress go where progress goes. What the libraries say of themselves is no news to the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
