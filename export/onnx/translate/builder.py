"""What a translator builds with: nodes and constants, and beyond those casts and shapes, a free batch included.

There is nothing about any single operator in here. This is also what a translation of your own gets as its first
argument: see `own`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import sympy

from fxpullback.export.onnx.translate.nodes import Nodes
from fxpullback.export.onnx.translate.values import ARITHMETIC, LAST, Dim, Scalar, Value, sizes


class Builder(Nodes):
    """Builds one ONNX graph: `op` emits a node, `const` makes a constant, the rest are common steps in few words.

    A size is an `int`, or a sympy expression where it depends on a free axis of the graph's inputs; both may stand
    wherever a method takes sizes. `sizes(x)` of `fxpullback.export.onnx` gives those of a translator's arguments, of
    constants, and of what `cast`, `reshape`, `expand`, `transpose`, `unsqueeze` and `squeeze` make of such values.
    """

    def __init__(self, reserved: Sequence[str] = ()) -> None:
        """Begin a graph; see `Nodes`."""
        super().__init__(reserved)
        self._symbols: dict[sympy.Expr, tuple[Value, int, str, int]] = {}

    # Element types.

    def cast(self, x: Value, dtype: ir.DataType) -> Value:
        """`x` with another element type; no node where it has that type already."""
        if x.dtype == dtype:
            return x
        array = self._arrays.get(id(x))
        if array is not None:
            return self.const(array, dtype)
        return self._sized(self.op("Cast", x, dtype=dtype, to=int(dtype)), x.meta.get("sizes"))

    def operand(self, x: Value | Scalar | sympy.Expr, dtype: ir.DataType) -> Value:
        """An argument that may be a tensor or a number, as a tensor of the type `dtype`.

        Args:
            x: A value, which is cast; a Python number, which becomes a constant; or a free size, which is computed.
            dtype: The element type, mostly `b.dtype`.
        """
        if isinstance(x, sympy.Expr):
            return self.scalar(x, dtype)
        return self.cast(x, dtype) if isinstance(x, ir.Value) else self.const(x, dtype)

    # Shapes.

    def bind(self, size: sympy.Expr, source: Value, axis: int, name: str) -> None:
        """Say where a free size, or a whole multiple of one, is read, and what it is called; the first place stays."""
        if size.free_symbols <= self._symbols.keys():
            return
        (symbol,) = size.free_symbols
        self._symbols.setdefault(symbol, (source, axis, name, int(size / symbol)))

    def named(self, size: Dim) -> int | str:
        """A size as it stands in the ONNX file: "batch" and expressions of it."""
        if isinstance(size, int):
            return size
        names = {symbol: sympy.Symbol(name) / multiple for symbol, (_, _, name, multiple) in self._symbols.items()}
        return str(size.xreplace(names)).replace(" ", "")

    def size(self, size: Dim) -> Value:
        """A size as an int64 tensor of shape [1], computed from the graph's inputs where it is not a number."""
        if isinstance(size, (int, sympy.Integer)):
            return self.const([int(size)])
        if size in self._symbols:
            source, axis, _, multiple = self._symbols[size]
            whole = self.op("Shape", source, start=axis, end=axis + 1)
            return whole if multiple == 1 else self.op("Div", whole, self.const([multiple]))
        if isinstance(size, sympy.Pow) and isinstance(size.exp, sympy.Integer) and size.exp > 0:
            return self._folded("Mul", [size.base] * int(size.exp))
        op_type = ARITHMETIC.get(type(size))
        if op_type is None:
            raise self.error(f"cannot compute the size {size}", "Capture the model with fixed sizes but for the batch.")
        if op_type == "Div" and not (size.args[0].is_nonnegative and size.args[1].is_positive):
            return self._floor_division(*(self.size(argument) for argument in size.args))
        return self._folded(op_type, list(size.args))

    def _folded(self, op_type: str, arguments: Sequence[Dim]) -> Value:
        result, *rest = (self.size(argument) for argument in arguments)
        for value in rest:
            result = self.op(op_type, result, value)
        return result

    def _floor_division(self, numerator: Value, divisor: Value) -> Value:
        """Rounded down like in Python; ONNX rounds towards zero. Its remainder has the divisor's sign, as Python's."""
        return self.op("Div", self.op("Sub", numerator, self.op("Mod", numerator, divisor)), divisor)

    def scalar(self, size: Dim, dtype: ir.DataType) -> Value:
        """A size as a number among numbers of the type `dtype`."""
        return self.cast(self.squeeze(self._sized(self.size(size), [1]), 0), dtype)

    def shape(self, dims: Sequence[Dim]) -> Value:
        """A list of sizes as an int64 tensor; a constant when they are all numbers."""
        if all(isinstance(size, int) for size in dims):
            return self.const(np.asarray(dims, dtype=np.int64))
        return self.op("Concat", *(self.size(size) for size in dims), axis=0) if len(dims) > 1 else self.size(dims[0])

    def reshape(self, x: Value, dims: Sequence[Dim]) -> Value:
        """Reshape to the sizes `dims`; the shape is a constant whenever at most one axis is free and moves."""
        before: tuple[Dim, ...] | None = x.meta.get("sizes")
        if before == tuple(dims):
            return x
        maker = x.producer()
        if maker is not None and maker.op_type == "Reshape" and maker.inputs[0] is not None:
            source = maker.inputs[0]
            if "sizes" in source.meta:
                return self.reshape(source, dims)
        if 0 in dims:
            raise self.error("an empty tensor", "Empty tensors are not exported.")
        moved = [
            not isinstance(size, int) and not (before is not None and i < len(before) and before[i] == size)
            for i, size in enumerate(dims)
        ]
        if sum(moved) <= 1:
            target = [
                -1 if moves else size if isinstance(size, int) else 0 for size, moves in zip(dims, moved, strict=True)
            ]
            shape = self.const(np.asarray(target, dtype=np.int64))
        else:
            shape = self.shape(dims)
        return self._sized(self.op("Reshape", x, shape), dims)

    def expand(self, x: Value, dims: Sequence[Dim]) -> Value:
        """Broadcast `x`, whose sizes are known, to `dims`; axes that it has already are left to ONNX's broadcasting."""
        before = sizes(x)
        if before == tuple(dims):
            return x
        padded = (1,) * (len(dims) - len(before)) + before
        target = [1 if size == have else size for size, have in zip(dims, padded, strict=True)]
        return self._sized(self.op("Expand", x, self.shape(target)), dims)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Permute axes: axis i of the result is axis `perm[i]` of `x`, counted from the front."""
        if list(perm) == list(range(len(perm))):
            return x
        before = x.meta.get("sizes")
        return self._sized(self.op("Transpose", x, perm=list(perm)), before and [before[i] for i in perm])

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        """Insert axes of size one, counted in the result; negative ones only where the sizes of `x` are known."""
        before = x.meta.get("sizes")
        after: list[Dim] | None = None
        if before is not None:
            total = len(before) + len(axes)
            axes = tuple(sorted(axis % total for axis in axes))
            after = list(before)
            for axis in axes:
                after.insert(axis, 1)
        return self._sized(self.op("Unsqueeze", x, self.const(list(axes))), after)

    def squeeze(self, x: Value, *axes: int) -> Value:
        """Remove axes of size one, counted in `x`."""
        before = x.meta.get("sizes")
        after = None
        if before is not None:
            gone = {axis % len(before) for axis in axes}
            after = [size for i, size in enumerate(before) if i not in gone]
        return self._sized(self.op("Squeeze", x, self.const(list(axes))), after)

    def slice(self, x: Value, axis: int, start: int = 0, end: int = LAST, step: int = 1) -> Value:
        """`x[start:end:step]` along one axis, by numbers."""
        return self.op("Slice", x, self.const([start]), self.const([end]), self.const([axis]), self.const([step]))

    def gather(self, x: Value, indices: Any, axis: int) -> Value:
        """Take the places `indices` along one axis; they are numbers (one number removes the axis) or a value."""
        return self.op("Gather", x, indices if isinstance(indices, ir.Value) else self.const(indices), axis=axis)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Join along one axis, counted from the front."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=axis)

    def reduce(self, op_type: str, x: Value, axes: Sequence[int] | None, keepdims: bool) -> Value:
        """A Reduce operator.

        Args:
            op_type: "ReduceSum", "ReduceMax" and the like.
            x: What is reduced.
            axes: Along which axes; `None` or none at all are all of them.
            keepdims: Whether they stay, with size one.
        """
        return self.op(op_type, x, self.const(list(axes)) if axes else None, keepdims=int(keepdims))

    def _sized(self, x: Value, dims: Sequence[Dim] | None) -> Value:
        if dims is not None:
            x.meta["sizes"] = tuple(dims)
        return x
