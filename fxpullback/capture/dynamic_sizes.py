"""Dynamic sizes beside the batch: which sizes a model allows, and its capture with them symbolic.

torch.export records as guards everything that a capture takes for granted about dynamic sizes. Here the guards are
evaluated over many sizes, which gives the sizes that are allowed. Later stages may take nothing more for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.export import Dim, ExportedProgram

from fxpullback.capture.flatten import flatten, user_inputs
from fxpullback.capture.guards import guards_of, holds, many_values, symbol_of
from fxpullback.contract.errors import CaptureError
from fxpullback.contract.sizes import FreeAxis, axis_name
from fxpullback.graph.ir import where

FEWEST = 8  # an axis with fewer sizes than that is fixed for all that matters


def wanted_axes(free_size: bool | Sequence[int], example: Tensor) -> tuple[int, ...]:
    """The axes whose size is to be dynamic: with True all behind the channels.

    Raises:
        CaptureError: an axis that the input does not have, or the batch.
    """
    if isinstance(free_size, bool):
        axes = tuple(range(2, example.ndim)) if free_size else ()
        if free_size and not axes:
            raise CaptureError(f"free_size: an input {list(example.shape)} has no axis behind its channels.")
        return axes
    axes = tuple(sorted({axis % example.ndim for axis in free_size if -example.ndim <= axis < example.ndim}))
    if len(axes) != len(set(free_size)) or 0 in axes:
        raise CaptureError(
            f"free_size is {list(free_size)}; pass axes of the input {list(example.shape)} other than the batch, "
            "which is dynamic already, or True for all axes behind the channels."
        )
    return axes


Export = Callable[[dict[int, Any]], ExportedProgram]


def export_dynamic(
    export: Export, example: Tensor, axes: Sequence[int], limits: Mapping[int, FreeAxis] | None = None
) -> tuple[ExportedProgram, tuple[FreeAxis, ...]]:
    """Capture with symbolic sizes, and find out which sizes are allowed.

    Args:
        export: runs torch.export with the given dynamic axes beside the batch.
        example: the example input.
        axes: the axes whose size is to be dynamic.
        limits: sizes beyond which the model is not known to hold, by axis.

    Raises:
        CaptureError: the model fixes one of them; the message says where.
    """
    limits = limits or {}
    program = _first_export(export, example, axes)
    found = _allowed(program, example, axes, limits)
    if _strangers(program):
        program = export({a.axis: Dim(f"_{a.name}", min=a.least, max=a.most) for a in found})
        found = _allowed(program, example, axes, limits)
    units = [symbol_of(_input_value(program).shape[axis.axis])[1] for axis in found]
    if all(axis.multiple == unit for axis, unit in zip(found, units, strict=True)):
        return program, found
    return export({axis.axis: _dimension(axis.name, axis.multiple, axis.least) for axis in found}), found


def _strangers(program: ExportedProgram) -> bool:
    """Whether an axis of a further input is free of which the model does not say that it is one of the example's."""
    known = {symbol for size in _input_value(program).shape if (symbol := symbol_of(size)[0]) is not None}
    sizes = [size for node in user_inputs(program)[1:] for size in node.meta["val"].shape]
    return any(isinstance(size, torch.SymInt) and symbol_of(size)[0] not in known for size in sizes)


def _first_export(export: Export, example: Tensor, axes: Sequence[int]) -> ExportedProgram:
    """With sizes as free of guards as can be; by multiples where torch cannot solve what a model asks of them."""
    try:
        return export(dict.fromkeys(axes, Dim.AUTO))
    except CaptureError as error:
        if not isinstance(error.__cause__, NotImplementedError):
            raise
        for multiple in (2**n for n in range(1, 8)):
            if all(example.shape[axis] % multiple == 0 for axis in axes):
                names = {axis: axis_name(axis, example.ndim) for axis in axes}
                try:
                    return export({axis: _dimension(name, multiple, 2 * multiple) for axis, name in names.items()})
                except CaptureError:
                    continue
        raise


def _dimension(name: str, multiple: int, least: int) -> Any:
    return multiple * Dim(f"_{name}", min=least // multiple) if multiple > 1 else Dim.AUTO


def _input_value(program: ExportedProgram) -> Any:
    name = program.graph_signature.user_inputs[0]
    return next(node.meta["val"] for node in program.graph.nodes if node.name == name)


def _replay(program: ExportedProgram) -> None:
    """Run every operator once more on fake values: torch drops the guards of sizes that it was given as multiples."""
    val = _input_value(program)
    with val.fake_mode, enable_python_dispatcher(), torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "call_function" and not isinstance(node.meta.get("val"), torch.SymInt | int | bool):
                args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: n.meta["val"])
                node.target(*args, **kwargs)


def _allowed(
    program: ExportedProgram, example: Tensor, axes: Sequence[int], limits: Mapping[int, FreeAxis]
) -> tuple[FreeAxis, ...]:
    _replay(program)
    shape = _input_value(program).shape
    symbols: dict[int, tuple[Any, int]] = {}
    for axis in axes:
        name = axis_name(axis, example.ndim)
        symbol, unit = symbol_of(shape[axis])
        if symbol is None:
            raise _fixed(program, example, axis, f"{name} can be nothing but {shape[axis]}")
        twin = next((other for other, (known, _) in symbols.items() if known == symbol), None)
        if twin is not None:
            raise _fixed(program, example, axis, f"{axis_name(twin, example.ndim)} and {name} must be equal")
        symbols[axis] = symbol, unit
    guards = guards_of(_input_value(program).fake_mode.shape_env, {symbol for symbol, _ in symbols.values()})
    here = {symbol: example.shape[axis] // unit for axis, (symbol, unit) in symbols.items()}
    found = []
    for axis in axes:
        allowed = _along(guards, here, symbols[axis], axis, example, limits.get(axis))
        if allowed is None:
            why = _reason(guards, symbols, here, axis, example)
            raise _fixed(program, example, axis, f"{limits[axis]}, as it was exported" if axis in limits else why)
        found.append(allowed)
    sizes = {symbols[axis.axis][0]: many_values(axis, symbols[axis.axis][1]) for axis in found}
    broken = next((guard for guard in guards if not holds(guard, sizes).all()), None)
    if broken is not None:
        raise _fixed(program, example, axes[-1], f"{_named(broken, symbols, example)} must hold")
    return tuple(found)


def _along(
    guards: list[sympy.Basic],
    here: dict[Any, int],
    of: tuple[Any, int],
    axis: int,
    example: Tensor,
    limit: FreeAxis | None,
) -> FreeAxis | None:
    """The sizes of one axis that are allowed while the others are those of the example."""
    symbol, unit = of
    extent = here[symbol]
    sizes = np.arange(1, max(2048, 4 * extent) + 1)
    fine = np.array([limit is None or limit.allows(int(size) * unit) for size in sizes])
    for guard in guards:
        if symbol in guard.free_symbols:
            fine &= holds(guard, {**here, symbol: sizes})
    for multiple in (n for n in range(1, extent + 1) if extent % n == 0):
        steps = fine[multiple - 1 :: multiple]
        place = extent // multiple - 1
        if steps[place] and (steps[place + 1 : place + 3].all() or (place > 1 and steps[place - 2 : place].all())):
            bad = np.flatnonzero(~steps)
            low, high = bad[bad < place], bad[bad > place]
            least = max(int(low[-1]) + 2 if len(low) else 1, 2)  # torch takes for granted that no symbol is 1
            most = int(high[0]) if len(high) else None
            if most is not None and most - least < FEWEST:
                return None
            whole = multiple * unit
            ends = [most * whole] if most is not None else []
            ends += [limit.most] if limit is not None and limit.most is not None else []
            return FreeAxis(axis, axis_name(axis, example.ndim), whole, least * whole, min(ends, default=None))
    return None


def _reason(
    guards: list[sympy.Basic], symbols: dict[int, tuple[Any, int]], here: dict[Any, int], axis: int, example: Tensor
) -> str:
    symbol, _ = symbols[axis]
    near = np.array([here[symbol] + step for step in (-2, -1, 1, 2)])
    broken = [g for g in guards if symbol in g.free_symbols and not holds(g, {**here, symbol: near}).all()]
    told = dict.fromkeys(_named(g, symbols, example) for g in broken)
    return f"{' and '.join(list(told)[:3])} must hold"


def _named(expression: sympy.Basic, symbols: dict[int, tuple[Any, int]], example: Tensor) -> str:
    names = {symbol: sympy.Symbol(axis_name(axis, example.ndim)) / unit for axis, (symbol, unit) in symbols.items()}
    return str(expression.xreplace(names))


def _fixed(program: ExportedProgram, example: Tensor, axis: int, why: str) -> CaptureError:
    place = _first_failure(program, example, axis)
    return CaptureError(
        f"free_size: the model fixes the size of its input: {why}{f', first at {place}' if place else ''}. "
        "Compile it for one size, or take what fixes it (position embeddings, flattening, pooling to a grid) out."
    )


def _first_failure(program: ExportedProgram, example: Tensor, axis: int) -> str:
    """The first operator that fails at another size; empty where none does."""
    gm = flatten(program, wanted=0)
    for size in (example.shape[axis] * 2, example.shape[axis] + 1):
        x = torch.zeros([2, *example.shape[1:axis], size, *example.shape[axis + 1 :]], dtype=example.dtype)
        runner = _Runner(gm)
        try:
            runner.run(x.to(example.device))
        except Exception:
            return where(runner.node)
    return ""


class _Runner(fx.Interpreter):
    """Remembers which node it runs."""

    node: fx.Node

    def run_node(self, n: fx.Node) -> Any:
        self.node = n
        with torch.no_grad():
            return super().run_node(n)


def check_module(model: Any) -> None:
    """Which sizes are allowed is found out by capturing anew, which takes a module."""
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"free_size needs an nn.Module, and this is a {type(model).__name__}, captured with its sizes settled. "
            "Pass the module it came from."
        )
