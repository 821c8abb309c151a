"""Whether a network is run, or written down to be run by something else."""

from __future__ import annotations

import torch


def traced() -> bool:
    """While torch.compile, torch.export or torch.jit.trace look on: then layers do what they are, without our ways
    of doing it faster, which compilers and other runtimes would have to see through."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
