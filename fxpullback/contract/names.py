"""Names of a graph's inputs and outputs, and calls by name. Needs no torch."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fxpullback.contract.errors import InputError

INPUT, TARGET, COTANGENT = "input", "target", "cotangent"
RESERVED = (INPUT, TARGET, COTANGENT, "logits", "pullback", "counterfactual", "counterfactual_logits")


_PYTHONS = {*dir(builtins), *keyword.kwlist}

OF_INPUT = ("pullback", "counterfactual")
"""The outputs that have the shape of what is explained."""


def own_output(name: str, part: str) -> str:
    """What such an output is called for one of several explained inputs."""
    return f"{name}.{part}"


def graph_names(names: Sequence[str]) -> list[str]:
    """Names for extras in the graph: identifiers that are distinct and are no name of the contract.

    Nor are they such a name, or that of a builtin of Python, with a number behind it: so fx calls the variable that
    holds an input which is called as a builtin is, and one would be taken for the other.
    """
    found: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name).strip("_") or "extra"
        base, _, number = clean.rpartition("_")
        taken = clean in RESERVED or (number.isdigit() and (base in RESERVED or base in _PYTHONS))
        clean = f"extra_{clean}" if clean[0].isdigit() or taken else clean
        free, count = clean, 0
        while free in found:
            count += 1
            free = f"{clean}_{count}"
        found.append(free)
    return found


def complain(names: Sequence[str], positional: int, named: Mapping[str, Any]) -> None:
    """Refuse a call whose extras are not those that are taken.

    Raises:
        InputError: says which are missing, unknown or given twice.
    """
    taken = f"It takes {', '.join(names)} beside input and target" if names else "It takes no extras"
    unknown = [name for name in named if name not in names]
    if unknown or positional > len(names):
        what = f"called {', '.join(unknown)}" if unknown else f"number {positional}"
        raise InputError(f"this graph has no extra input {what}. {taken}.")
    twice = [name for name in names[:positional] if name in named]
    if twice:
        raise InputError(f"{twice[0]} was given twice, by position and by name.")
    missing = [name for name in names[positional:] if name not in named]
    if missing:
        calls = ", ".join(f"{name}=..." for name in missing)
        raise InputError(f"the extra input {missing[0]} is missing. {taken}: pass (x, target, {calls}).")
