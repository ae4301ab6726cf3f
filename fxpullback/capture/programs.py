"""Exported programs whose sizes are free in other ways than by a symbol for the batch: exported anew from their graph.

torch cannot take apart a program whose batch is a multiple of a symbol (`8 * Dim("k")`), and which sizes of height and
width are allowed is found out by exporting. So the graph of the program is run as a module, its operators noted as they
were: module path and line of each come through.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from fxpullback.capture.flatten import user_inputs
from fxpullback.capture.guards import symbol_of
from fxpullback.contract.errors import CaptureError
from fxpullback.contract.sizes import FreeAxis, axis_name
from fxpullback.graph.shapes import is_free


def as_module(model: Any) -> tuple[Any, dict[int, FreeAxis]]:
    """A program whose graph must be exported anew as a module, and the sizes that it says are allowed, by axis.

    Args:
        model: what was given; anything but such a program comes back as it is, with no axis.

    Raises:
        CaptureError: free sizes of the program depend on each other.
    """
    if not isinstance(model, ExportedProgram):
        return model, {}
    first, *others = user_inputs(model)
    val = first.meta.get("val")
    if not isinstance(val, Tensor) or not val.ndim or not is_free(val.shape[0]):
        return model, {}
    free = [axis for axis in range(1, val.ndim) if is_free(val.shape[axis])]
    if not free and val.shape[0].node.expr.is_Symbol:  # type: ignore[attr-defined] # a free size is a SymInt
        return model, {}
    return _module_of(model, [first, *others]), {axis: _allowed(model, val, axis) for axis in free}


def _allowed(program: ExportedProgram, val: Tensor, axis: int) -> FreeAxis:
    """The sizes of one axis that a program was exported for."""
    symbol, unit = symbol_of(val.shape[axis])
    shared = [other for other in range(val.ndim) if other != axis and symbol_of(val.shape[other])[0] == symbol]
    name = axis_name(axis, val.ndim)
    if symbol is None or shared:
        others = " and ".join(axis_name(other, val.ndim) for other in shared)
        raise CaptureError(
            f"the program takes {list(val.shape)}: {name} depends on {others or 'more than one free size'}. Export it "
            "with a torch.export.Dim of its own for each free axis, or with all but the batch fixed."
        )
    bounds = program.range_constraints.get(symbol)
    least = 1 if bounds is None else max(1, int(bounds.lower))
    most = None if bounds is None or not bounds.upper.is_Integer else int(bounds.upper) * unit
    return FreeAxis(axis, name, unit, least * unit, most)


def _module_of(program: ExportedProgram, inputs: list[fx.Node]) -> nn.Module:
    """The graph of a program as a module that takes its inputs by position or by name."""
    parameters = [inspect.Parameter(node.name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for node in inputs]
    names = [node.name for node in inputs]

    def forward(self: Any, *args: Tensor, **named: Tensor) -> Any:
        given = [*args, *(named[name] for name in names[len(args) :])]
        with fx.traceback.preserve_node_meta():
            return fx.Interpreter(self.program).run(*given)

    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    forward.__signature__ = inspect.Signature([own, *parameters])  # type: ignore[attr-defined]
    module: nn.Module = type(type(program).__name__, (nn.Module,), {"forward": forward})()
    with torch.no_grad():
        module.add_module("program", program.module(check_guards=False))
    module.training = False
    return module
