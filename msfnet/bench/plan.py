"""Which cases there are to measure: networks x runtimes x precisions, as far as they can be had here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from msfnet.bench.cases import Case, Conditions
from msfnet.bench.networks import find_network
from msfnet.bench.runtimes import ALL, RUNTIMES
from msfnet.models.registry import list_models
from msfnet.types import Say, UserError, nearest


def plan_cases(
    models: Sequence[str],
    arguments: Mapping[str, Any],
    runtimes: str | None,
    precisions: str,
    conditions: Conditions,
    say: Say,
) -> list[Case]:
    """Every network in every runtime and precision that can be had; says which cannot, and why.

    `models` are names, made with `arguments`, run folders or weights files; none are all names. `runtimes` and
    `precisions` are names with commas between them; no runtimes are all that are installed.
    Raises UserError for a name that there is none of, a runtime that is asked for and not installed, or no case left.
    """
    networks = dict.fromkeys(find_network(text, arguments) for text in models or list_models())
    asked = _names(runtimes, RUNTIMES, "--runtime") if runtimes else list(RUNTIMES)
    wanted = _names(precisions, ALL, "--precision")
    possible = []
    for name in asked:
        runtime, reason = RUNTIMES[name], _refusal(name, conditions)
        if reason and runtimes:
            raise UserError(f"{name} {reason}")
        if reason:
            say(f"left out: {name} {reason}")
            continue
        for precision in wanted:
            if precision in runtime.precisions:
                possible.append((name, precision))
            else:
                say(f"left out: {name} in {precision}; it has {', '.join(runtime.precisions)}")
    if not possible:
        raise UserError(f"expected a runtime that can run {', '.join(wanted)}, found {', '.join(asked)}")
    return [Case(network, *pair) for network, pair in product(networks, possible)]


def _names(text: str, known: Mapping[str, object] | Sequence[str], option: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise UserError(
                f"expected names for {option} with commas between them, found {name!r}; {nearest(name, known)}"
            )
    return list(dict.fromkeys(names))


def _refusal(name: str, conditions: Conditions) -> str | None:
    """Why a runtime cannot be measured under these conditions."""
    runtime = RUNTIMES[name]
    if conditions.train and not runtime.train:
        return "cannot train"
    if conditions.device not in runtime.devices:
        return f"does not run on {conditions.device} here"
    return runtime.missing()
