"""Axes beyond the batch that stay free: which sizes a model allows, and its capture with them symbolic.

torch.export records as guards everything a capture takes for granted about the free sizes. Here the guards are
evaluated over many sizes, which gives the sizes that are allowed; later stages may take nothing more for granted.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sympy
import torch
from torch import Tensor, fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch.export import Dim, ExportedProgram

from fxpullback.capture.flatten import flatten
from fxpullback.contract.errors import CaptureError, DifferentiateError
from fxpullback.contract.sizes import FreeAxis, axis_name
from fxpullback.graph.ir import placeholders, where

FEWEST = 8  # an axis with fewer sizes than that is fixed for all that matters


def wanted_axes(free_size: bool | Sequence[int], example: Tensor) -> tuple[int, ...]:
    """The axes that are to be free: with True all behind the channels.

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
            "which is free already, or True for all axes behind the channels."
        )
    return axes


Export = Callable[[dict[int, Any]], ExportedProgram]


def export_free(export: Export, example: Tensor, axes: Sequence[int]) -> tuple[ExportedProgram, tuple[FreeAxis, ...]]:
    """Capture with symbolic sizes, and find out which sizes are allowed.

    Args:
        export: runs torch.export with the given dynamic axes beside the batch.
        example: the example input.
        axes: the axes that are to be free.

    Raises:
        CaptureError: the model fixes one of them; the message says where.
    """
    program = _first_export(export, example, axes)
    found = _allowed(program, example, axes)
    units = [_unit(_input_value(program).shape[axis.axis])[1] for axis in found]
    if all(axis.multiple == unit for axis, unit in zip(found, units, strict=True)):
        return program, found
    return export({axis.axis: _dimension(axis.name, axis.multiple, axis.least) for axis in found}), found


def _first_export(export: Export, example: Tensor, axes: Sequence[int]) -> ExportedProgram:
    """With the sizes as free as can be; by multiples where torch cannot solve what a model asks of them."""
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


def _unit(size: Any) -> tuple[Any, int]:
    """The symbol of a free size, and the multiple of it that the size is; no symbol where it is fixed."""
    expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
    if len(expression.free_symbols) != 1:
        return None, 1
    (symbol,) = expression.free_symbols
    ratio = expression / symbol
    return (symbol, int(ratio)) if ratio.is_Integer else (None, 1)


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "Pow": operator.pow,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Max": np.maximum,
    "Min": np.minimum,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "ToFloat": lambda a: a * 1.0,
    "TruncToInt": np.trunc,
    "FloorToInt": np.floor,
    "CeilToInt": np.ceil,
    "RoundToInt": np.round,
    "Identity": lambda a: a,
    "Equality": operator.eq,
    "Unequality": operator.ne,
    "StrictLessThan": operator.lt,
    "LessThan": operator.le,
    "StrictGreaterThan": operator.gt,
    "GreaterThan": operator.ge,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Not": np.logical_not,
}


def evaluate(expression: sympy.Basic, sizes: Mapping[sympy.Basic, Any]) -> Any:
    """The value of an expression over sizes, for arrays of them."""
    if expression in sizes:
        return sizes[expression]
    if expression.is_Boolean and not expression.args:
        return bool(expression)
    if expression.is_number and not expression.args:
        return int(expression) if expression.is_Integer else float(expression)
    name = type(expression).__name__
    if name not in _OPERATIONS:
        raise CaptureError(f"free_size: the size expression {expression} cannot be followed. Compile for one size.")
    values = [evaluate(argument, sizes) for argument in expression.args]
    operation = _OPERATIONS[name]
    with np.errstate(all="ignore"):
        return functools.reduce(operation, values) if len(values) > 1 else operation(*values)


def _holds(guard: sympy.Basic, sizes: Mapping[sympy.Basic, Any]) -> Any:
    """Where a guard holds."""
    return np.asarray(evaluate(guard, sizes)).astype(bool)


def _guards(environment: Any, symbols: set[sympy.Symbol], first: int = 0) -> list[sympy.Basic]:
    """What a capture took for granted about these sizes, from its guard number `first` on."""
    found = dict.fromkeys(guard.expr for guard in environment.guards[first:])
    return [guard for guard in found if guard.free_symbols and guard.free_symbols <= symbols]


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


def _allowed(program: ExportedProgram, example: Tensor, axes: Sequence[int]) -> tuple[FreeAxis, ...]:
    _replay(program)
    shape = _input_value(program).shape
    symbols: dict[int, tuple[Any, int]] = {}
    for axis in axes:
        name = axis_name(axis, example.ndim)
        symbol, unit = _unit(shape[axis])
        if symbol is None:
            raise _fixed(program, example, axis, f"{name} can be nothing but {shape[axis]}")
        twin = next((other for other, (known, _) in symbols.items() if known == symbol), None)
        if twin is not None:
            raise _fixed(program, example, axis, f"{axis_name(twin, example.ndim)} and {name} must be equal")
        symbols[axis] = symbol, unit
    guards = _guards(_input_value(program).fake_mode.shape_env, {symbol for symbol, _ in symbols.values()})
    here = {symbol: example.shape[axis] // unit for axis, (symbol, unit) in symbols.items()}
    found = []
    for axis in axes:
        free = _along(guards, here, symbols[axis], axis, example)
        if free is None:
            raise _fixed(program, example, axis, _reason(guards, symbols, here, axis, example))
        found.append(free)
    sizes = {
        symbols[axis.axis][0]: (axis.least + axis.multiple * _steps(axis)) // symbols[axis.axis][1] for axis in found
    }
    broken = next((guard for guard in guards if not _holds(guard, sizes).all()), None)
    if broken is not None:
        raise _fixed(program, example, axes[-1], f"{_named(broken, symbols, example)} must hold")
    return tuple(found)


def _along(
    guards: list[sympy.Basic], here: dict[Any, int], of: tuple[Any, int], axis: int, example: Tensor
) -> FreeAxis | None:
    """The sizes of one axis that are allowed while the others are those of the example."""
    symbol, unit = of
    extent = here[symbol]
    sizes = np.arange(1, max(2048, 4 * extent) + 1)
    fine = np.ones(len(sizes), dtype=bool)
    for guard in guards:
        if symbol in guard.free_symbols:
            fine &= _holds(guard, {**here, symbol: sizes})
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
            name = axis_name(axis, example.ndim)
            return FreeAxis(axis, name, whole, least * whole, None if most is None else most * whole)
    return None


def _reason(
    guards: list[sympy.Basic], symbols: dict[int, tuple[Any, int]], here: dict[Any, int], axis: int, example: Tensor
) -> str:
    symbol, _ = symbols[axis]
    near = np.array([here[symbol] + step for step in (-2, -1, 1, 2)])
    broken = [g for g in guards if symbol in g.free_symbols and not _holds(g, {**here, symbol: near}).all()]
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
    gm = flatten(program)
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


class Watch:
    """Sees to it that no stage decides anything that holds for some of the free sizes only.

    A rule that asks, say, whether an axis is longer than its window gets the answer for the example, and torch notes it
    as a guard. Each one is checked over many allowed sizes. One that small sizes alone break makes those sizes be
    refused from then on; any other is an error.

    Attributes:
        free: the free axes, as they are allowed by now.
    """

    def __init__(self, gm: fx.GraphModule, free: Sequence[FreeAxis], example: Tensor) -> None:
        val = placeholders(gm.graph)[0].meta["val"]
        self.environment = val.fake_mode.shape_env
        self.checked = 0
        self.free = tuple(free)
        self.units = {axis.axis: _unit(val.shape[axis.axis]) for axis in free}
        self.extents = {axis.axis: int(example.shape[axis.axis]) for axis in free}

    def check(self, place: str) -> None:
        """Check what was noted since the last time.

        Raises:
            DifferentiateError: at some allowed sizes it does not hold.
        """
        first, self.checked = self.checked, len(self.environment.guards)
        for guard in _guards(self.environment, {symbol for symbol, _ in self.units.values()}, first):
            if not _holds(guard, self._sizes()).all() and not self._narrowed(guard):
                raise DifferentiateError(
                    f"free_size: {place} needs to know whether {guard}, which differs between the sizes "
                    "that are allowed. Compile the model for one size."
                )

    def _sizes(self) -> dict[Any, Any]:
        """Many combinations of allowed sizes, as arrays of values of the symbols."""
        return {self.units[a.axis][0]: (a.least + a.multiple * _steps(a)) // self.units[a.axis][1] for a in self.free}

    def _narrowed(self, guard: sympy.Basic) -> bool:
        """Whether the guard holds once small sizes of its one axis are no longer allowed."""
        concerned = [axis for axis in self.free if self.units[axis.axis][0] in guard.free_symbols]
        if len(concerned) != 1:
            return False
        (axis,), (symbol, unit) = concerned, self.units[concerned[0].axis]
        sizes = np.arange(axis.least, self.extents[axis.axis] + 1, axis.multiple)
        broken = np.flatnonzero(~_holds(guard, {symbol: sizes // unit}))
        if not len(broken) or broken[-1] + 1 >= len(sizes):
            return False
        least = int(sizes[broken[-1] + 1])
        self.free = tuple(replace(a, least=least) if a is axis else a for a in self.free)
        return bool(_holds(guard, self._sizes()).all())


def _steps(axis: FreeAxis) -> Any:
    """Steps above the least size, most of them small."""
    most = ((axis.most or axis.least + (1 << 14)) - axis.least) // axis.multiple
    draw = random.Random(axis.axis)
    return np.array([draw.randint(0, most if i % 3 == 0 else min(most, 40)) for i in range(4096)])


def check_module(model: Any) -> None:
    """Free sizes are found out by capturing anew, which takes a module."""
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"free_size needs an nn.Module, and this is a {type(model).__name__}, captured with its sizes settled. "
            "Pass the module it came from."
        )
