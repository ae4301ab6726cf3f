"""The nodes and constants of one ONNX graph, as a translator makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor, from_torch_dtype

from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx.translate.values import BOOL, INT64, Dim, Value, dim, static
from fxpullback.graph.ir import place


class Nodes:
    """Collects the nodes and initializers of one ONNX graph.

    Nodes are hash-consed: the same operator on the same values with the same attributes is emitted once.

    Attributes:
        node: The fx node being translated.
        initializers: The constants so far.
        nodes: The nodes so far, in topological order.
    """

    def __init__(self, reserved: Sequence[str] = ()) -> None:
        """Begin a graph.

        Args:
            reserved: Names that no node may take, such as those of inputs and outputs.
        """
        self.node: torch.fx.Node
        self.nodes: list[ir.Node] = []
        self.initializers: list[Value] = []
        self._names: dict[str, int] = dict.fromkeys(reserved, 0)
        self._made: dict[tuple[Any, ...], tuple[Value, ...]] = {}
        self._constants: dict[tuple[Any, ...], Value] = {}
        self._arrays: dict[int, npt.NDArray[Any]] = {}

    # The node being translated.

    @property
    def out(self) -> Any:
        """The fake tensor (or tuple of them) that the fx node returns: its shape and type, no numbers."""
        return self.node.meta["val"]

    @property
    def out_sizes(self) -> tuple[Dim, ...]:
        """The sizes of the fx node's only output; a free one is a sympy expression."""
        return tuple(dim(size) for size in self.out.shape)

    @property
    def dtype(self) -> ir.DataType:
        """The element type of the fx node's (first) output."""
        val = self.out
        return from_torch_dtype((val[0] if isinstance(val, (tuple, list)) else val).dtype)

    def error(self, what: str, advice: str) -> ExportError:
        """An `ExportError` at the node being translated, to be raised.

        Args:
            what: What is wrong, in the middle of a sentence.
            advice: What to do next, as a sentence.
        """
        return ExportError(f"{self.node.target}: {what}, at {place(self.node)}. {advice}")

    def fixed(self, size: Dim, why: str) -> int:
        """A size that must be a number.

        Args:
            size: A size, such as one of `out_sizes`.
            why: What needs it, as the error begins.

        Raises:
            ExportError: The size is free.
        """
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
        """Emit a node with one output, of the standard ONNX domain.

        Args:
            op_type: The ONNX operator, such as "Softmax".
            inputs: Its inputs; `None` leaves an optional one out.
            dtype: The element type of the output; by default what the operator returns, mostly that of its first input.
            attributes: Its attributes, by their ONNX names; those that are `None` are left out.

        Returns:
            The output.
        """
        return self.ops(op_type, *inputs, dtypes=(dtype,), **attributes)[0]

    def ops(
        self, op_type: str, *inputs: Value | None, dtypes: Sequence[ir.DataType | None], **attributes: Any
    ) -> tuple[Value, ...]:
        """Emit a node with several outputs, of the standard ONNX domain.

        Args:
            op_type: The ONNX operator, such as "TopK".
            inputs: Its inputs; `None` leaves an optional one out.
            dtypes: One element type for each output; `None` is the operator's usual one.
            attributes: Its attributes, by their ONNX names; those that are `None` are left out.

        Returns:
            One output for each of `dtypes`.
        """
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
            dtype: Its element type; give `b.dtype` for a number that meets floats.
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


def _element(x: Value | None) -> ir.DataType:
    assert x is not None
    assert x.dtype is not None
    return x.dtype


_RESULT: dict[str, ir.DataType] = {
    **dict.fromkeys(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "IsNaN", "IsInf", "Not"), BOOL),
    **dict.fromkeys(("Shape", "ArgMax", "ArgMin"), INT64),
}
