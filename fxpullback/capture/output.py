"""Which of a model's outputs holds the logits, and what is said of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind
from torch.utils._pytree import tree_flatten_with_path, tree_unflatten

from fxpullback.capture.buffers import check_unchanged
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import FILE_VALUE, arg
from fxpullback.importer.steps import INSIDE


def logits_of(program: ExportedProgram, output: fx.Node, wanted: str | int | None) -> fx.Node:
    """The output that holds the logits.

    Args:
        program: the exported program.
        output: its output node.
        wanted: which one, by its name or place; names of nested outputs are joined by dots, as in "aux.0". None for
            the only one there is.

    Raises:
        CaptureError: there are several, or none that is so called, or it is no tensor of the graph's own; or it
            depends on a buffer that the model changes.
    """
    logits = _chosen(program, output, wanted)
    check_unchanged(program, output, logits)
    return logits


def hand_on_file_values(program: ExportedProgram, output: fx.Node, env: Mapping[fx.Node, fx.Node]) -> None:
    """Have nodes say which values of an imported file they are, where it was exported with those.

    Args:
        program: the exported program.
        output: its output node.
        env: what stands for its nodes in the graph that is made of it.
    """
    results = _results(program, output)
    named = list(zip(_places(program, results), results, strict=True))
    if not any(place.startswith(INSIDE) for place, _ in named):
        return
    for place, result in named:
        if isinstance(result, fx.Node):
            meta = env[result].meta
            meta[FILE_VALUE] = {**meta.get(FILE_VALUE, {}), place.removeprefix(INSIDE): 1.0}


def _results(program: ExportedProgram, output: fx.Node) -> list[Any]:
    specs = program.graph_signature.output_specs
    return [r for r, spec in zip(arg(output, 0), specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]


def _chosen(program: ExportedProgram, output: fx.Node, wanted: str | int | None) -> fx.Node:
    results = _results(program, output)
    if wanted is not None:
        return _named(program, results, wanted)
    named = zip(_places(program, results), results, strict=True)
    values = [result for place, result in named if result is not None and not place.startswith(INSIDE)]
    if len(values) == 1 and isinstance(values[0], fx.Node):
        return values[0]
    raise CaptureError(
        f"the model returns {len(values)} values; fxpullback explains one tensor of logits [batch, classes]. "
        f"{_returned(program, results)}"
    )


def _named(program: ExportedProgram, results: list[Any], wanted: str | int) -> fx.Node:
    places = _places(program, results)
    held = {place: result for place, result in zip(places, results, strict=True) if result is not None}
    if isinstance(wanted, int) or wanted.lstrip("-").isdigit():
        listed, number = list(held.values()), int(wanted)
        found = listed[number] if -len(listed) <= number < len(listed) else None
        found = held.get(str(wanted), found)
    else:
        found = held.get(wanted)
    if not isinstance(found, fx.Node) or not isinstance(found.meta.get("val"), Tensor):
        raise CaptureError(
            f"output={wanted!r}: the model has no such output, or it is no tensor. {_listed(program, results)}. Pass "
            "one of these names, or a number that counts them from 0."
        )
    return found


def _places(program: ExportedProgram, results: list[Any]) -> list[str]:
    """What each output is called: the keys on the way to it, joined by dots."""
    tree = tree_unflatten(list(range(len(results))), program.call_spec.out_spec)
    found = {index: ".".join(_key(part) for part in path) for path, index in tree_flatten_with_path(tree)[0]}
    return [found[index] for index in range(len(results))]


def _key(part: Any) -> str:
    return str(next(getattr(part, name) for name in ("key", "idx", "name") if hasattr(part, name)))


def _listed(program: ExportedProgram, results: list[Any]) -> str:
    """What a model returns, each with its name."""
    listed = []
    for place, result in zip(_places(program, results), results, strict=True):
        val = result.meta["val"] if isinstance(result, fx.Node) else result
        if isinstance(val, Tensor):
            kind = str(val.dtype).removeprefix("torch.")
            listed.append(f"{place or 'one tensor'} [{', '.join(_sizes(val))}] {kind}")
        elif val is not None:
            listed.append(f"{place} = {val!r}")
    return f"It returns {', '.join(listed)}"


def _sizes(val: Tensor) -> list[str]:
    return ["batch" if i == 0 and isinstance(n, torch.SymInt) else str(n) for i, n in enumerate(val.shape)]


def _returned(program: ExportedProgram, results: list[Any]) -> str:
    """What a model returns, and how to say which of it is meant."""
    likely = []
    for place, result in zip(_places(program, results), results, strict=True):
        val = result.meta["val"] if isinstance(result, fx.Node) else result
        if isinstance(val, Tensor) and val.ndim == 2 and val.is_floating_point() and _sizes(val)[0] == "batch":
            likely.append(place)
    if not likely:
        return f"{_listed(program, results)}; none of them is [batch, classes]. Name the one that is meant: output=."
    named = " and ".join(likely)
    return f"{_listed(program, results)}; {named} may be the logits. Name the one that is meant: output={likely[0]!r}."
