"""What translators build with: nodes, constants, casts, shapes, and nothing about any single operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import sympy
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype

from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx.translate.values import (
    ARITHMETIC,
    BOOL,
    INT64,
    LAST,
    Dim,
    Scalar,
    Value,
    dim,
    sizes,
    static,
    where,
)


class Builder:
    """Collects the nodes and initializers of one ONNX graph.

    Nodes are hash-consed: the same operator on the same values with the same attributes is emitted once.

    Attributes:
        node: The fx node being translated.
        initializers: The constants so far.
        nodes: The nodes so far, in topological order.
    """

    def __init__(self, reserved: Sequence[str] = ()) -> None:
        self.node: torch.fx.Node
        self.nodes: list[ir.Node] = []
        self.initializers: list[Value] = []
        self._names: dict[str, int] = dict.fromkeys(reserved, 0)
        self._made: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._arrays: dict[int, npt.NDArray[Any]] = {}
        self._symbols: dict[sympy.Expr, tuple[Value, int, str, int]] = {}

    # The node being translated.

    @property
    def out(self) -> Any:
        """The fake tensor (or tuple of them) that the fx node returns."""
        return self.node.meta["val"]

    @property
    def out_sizes(self) -> tuple[Dim, ...]:
        """The sizes of the fx node's only output."""
        return tuple(dim(size) for size in self.out.shape)

    @property
    def dtype(self) -> ir.DataType:
        """The element type of the fx node's (first) output."""
        val = self.out
        return from_torch_dtype((val[0] if isinstance(val, (tuple, list)) else val).dtype)

    def error(self, what: str, advice: str) -> ExportError:
        """An `ExportError` at the node being translated."""
        return ExportError(f"{self.node.target}: {what}, at {where(self.node)}. {advice}")

    def fixed(self, size: Dim, why: str) -> int:
        """A size that must be a number."""
        return static(size, why, self.node)

    # Names.

    def unique(self, name: str) -> str:
        """`name`, or `name` with a number when it is taken."""
        if name not in self._names:
            self._names[name] = 0
            return name
        while True:
            self._names[name] += 1
            candidate = f"{name}_{self._names[name]}"
            if candidate not in self._names:
                self._names[candidate] = 0
                return candidate

    # Nodes.

    def op(self, op_type: str, *inputs: Value | None, dtype: ir.DataType | None = None, **attributes: Any) -> Value:
        """Emit a node with one output.

        Args:
            op_type: The ONNX operator.
            inputs: Its inputs; `None` leaves an optional one out.
            dtype: The element type of the output; by default what the operator returns, mostly that of its input.
            attributes: Its attributes; those that are `None` are left out.
        """
        return self.ops(op_type, *inputs, dtypes=(dtype,), **attributes)[0]

    def ops(
        self, op_type: str, *inputs: Value | None, dtypes: Sequence[ir.DataType | None], **attributes: Any
    ) -> tuple[Value, ...]:
        """Emit a node with `len(dtypes)` outputs; a dtype of `None` is the operator's usual one."""
        attributes = {name: value for name, value in attributes.items() if value is not None}
        key = (op_type, tuple(map(id, inputs)), len(dtypes), tuple(sorted((n, repr(v)) for n, v in attributes.items())))
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._emit(op_type, inputs, dtypes, attributes)
        return made

    def _emit(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        dtypes: Sequence[ir.DataType | None],
        attributes: Mapping[str, Any],
    ) -> tuple[Value, ...]:
        name = self.unique(f"{self.node.name}/{op_type}")
        usual = _RESULT.get(op_type) or _element(inputs[1 if op_type == "Where" else 0])
        outputs = [
            ir.Value(name=name if not i else self.unique(f"{name}.{i}"), type=ir.TensorType(dtype or usual))
            for i, dtype in enumerate(dtypes)
        ]
        attrs = ir.convenience.convert_attributes(attributes) if attributes else ()
        self.nodes.append(ir.Node("", op_type, inputs, attrs, outputs=outputs, name=name))
        return tuple(outputs)

    # Constants.

    def const(self, data: Any, dtype: ir.DataType = INT64) -> Value:
        """A constant, one initializer for every distinct one.

        Args:
            data: A number, nested numbers, or a numpy array.
            dtype: Its element type.
        """
        array = np.ascontiguousarray(np.asarray(data).astype(dtype.numpy())).reshape(np.shape(data))
        key = (dtype, array.shape, array.tobytes())
        if key not in self._constants:
            value = self._initializer(self.unique("constant"), ir.tensor(array, dtype=dtype), array.shape)
            self._constants[key] = value
            self._arrays[id(value)] = array
        return self._constants[key]

    def parameter(self, name: str, tensor: torch.Tensor) -> Value:
        """The initializer of a parameter or buffer; parameters on the same storage share one."""
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype) if tensor.numel() else (name,)
        if key not in self._constants:
            data = tensor.detach().cpu().contiguous()
            name = self.unique(name)
            value = self._initializer(name, TorchTensor(data, name=name), tuple(data.shape))
            value.meta["sizes"] = tuple(data.shape)
            value.meta["parameter"] = data
            self._constants[key] = value
        return self._constants[key]

    def _initializer(self, name: str, tensor: ir.TensorProtocol, shape: tuple[int, ...]) -> Value:
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(shape), const_value=tensor)
        value.meta["sizes"] = shape
        self.initializers.append(value)
        return value

    def array(self, x: Value) -> npt.NDArray[Any] | None:
        """The numbers of a constant, or None when `x` is computed."""
        if id(x) in self._arrays:
            return self._arrays[id(x)]
        parameter = x.meta.get("parameter")
        return None if parameter is None else np.asarray(parameter.numpy())

    # Element types.

    def cast(self, x: Value, dtype: ir.DataType) -> Value:
        """`x` with another element type."""
        if x.dtype == dtype:
            return x
        array = self._arrays.get(id(x))
        if array is not None:
            return self.const(array, dtype)
        return self._sized(self.op("Cast", x, dtype=dtype, to=int(dtype)), x.meta.get("sizes"))

    def operand(self, x: Value | Scalar | sympy.Expr, dtype: ir.DataType) -> Value:
        """A tensor cast to `dtype`; a Python number as a constant of that type; a free size as a computed one."""
        if isinstance(x, sympy.Expr):
            return self.scalar(x, dtype)
        return self.cast(x, dtype) if isinstance(x, ir.Value) else self.const(x, dtype)

    # Shapes.

    def bind(self, size: sympy.Expr, source: Value, axis: int, name: str) -> None:
        """Say where a free size, or a whole multiple of one, is read, and what it is called."""
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
        """Reshape, with a constant shape whenever at most one axis is free and moves."""
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
        """Broadcast to `dims`; axes that `x` has already are left to ONNX's two-way broadcasting."""
        before = sizes(x)
        if before == tuple(dims):
            return x
        padded = (1,) * (len(dims) - len(before)) + before
        target = [1 if size == have else size for size, have in zip(dims, padded, strict=True)]
        return self._sized(self.op("Expand", x, self.shape(target)), dims)

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Permute axes; `perm` is counted from the front."""
        if list(perm) == list(range(len(perm))):
            return x
        before = x.meta.get("sizes")
        return self._sized(self.op("Transpose", x, perm=list(perm)), before and [before[i] for i in perm])

    def unsqueeze(self, x: Value, *axes: int) -> Value:
        """Insert axes of size one, counted in the result."""
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
        """Remove axes of size one."""
        before = x.meta.get("sizes")
        after = None
        if before is not None:
            gone = {axis % len(before) for axis in axes}
            after = [size for i, size in enumerate(before) if i not in gone]
        return self._sized(self.op("Squeeze", x, self.const(list(axes))), after)

    def slice(self, x: Value, axis: int, start: int = 0, end: int = LAST, step: int = 1) -> Value:
        """`x[start:end:step]` along one axis."""
        return self.op("Slice", x, self.const([start]), self.const([end]), self.const([axis]), self.const([step]))

    def gather(self, x: Value, indices: Any, axis: int) -> Value:
        """Take along one axis; `indices` are numbers or a value."""
        return self.op("Gather", x, indices if isinstance(indices, ir.Value) else self.const(indices), axis=axis)

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """Join along one axis."""
        return parts[0] if len(parts) == 1 else self.op("Concat", *parts, axis=axis)

    def reduce(self, op_type: str, x: Value, axes: Sequence[int] | None, keepdims: bool) -> Value:
        """A Reduce operator; `axes` of `None` or none at all are all axes."""
        return self.op(op_type, x, self.const(list(axes)) if axes else None, keepdims=int(keepdims))

    def _sized(self, x: Value, dims: Sequence[Dim] | None) -> Value:
        if dims is not None:
            x.meta["sizes"] = tuple(dims)
        return x


def _element(x: Value | None) -> ir.DataType:
    assert x is not None
    assert x.dtype is not None
    return x.dtype


_RESULT: dict[str, ir.DataType] = {
    **dict.fromkeys(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "IsInf", "Not"), BOOL),
    **dict.fromkeys(("Shape", "ArgMax", "ArgMin"), INT64),
}
