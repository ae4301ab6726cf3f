"""Inputs of a file that are held: a rate, a state at its start, a switch. The file reads a constant in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Array

Held = Mapping[str, Any]
"""Values by the name of an input: a number, or an array of the input's sizes, one where the batch is."""


def hold(model: ModelProto, held: Held, explained: str | None = None) -> None:
    """Have a model read constants in place of some inputs; a size that it leaves free becomes that of the batch.

    Args:
        model: it is changed.
        held: what they hold.
        explained: the input that is explained, whose leading axis is the batch; by default the first that is not held.

    Raises:
        CaptureError: there is no such input, it is the one that is explained, or the values do not fit it.
    """
    if not held:
        return
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name: value for value in model.graph.input if value.name not in constants}
    unknown = [name for name in held if name not in inputs]
    if unknown:
        raise CaptureError(f"the file has no input called {unknown[0]!r} to hold; it takes {', '.join(inputs)}.")
    free = [name for name in inputs if name not in held]
    batch = explained or next(iter(free), None)
    if batch is None or batch in held:
        raise CaptureError(f"the input {batch or next(iter(inputs))!r} is held, and it is the one that is explained.")
    nodes: list[NodeProto] = []
    for name, given in held.items():
        value = inputs[name]
        model.graph.input.remove(value)
        tensor, free_axis = _constant(value, given)
        if free_axis is None:
            model.graph.initializer.append(numpy_helper.from_array(tensor, name))
            continue
        model.graph.initializer.append(numpy_helper.from_array(tensor, f"{name}/held"))
        nodes += _repeated(model, name, tensor.shape, free_axis, batch)
    kept = [*nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _constant(value: ValueInfoProto, given: Any) -> tuple[Array, int | None]:
    """The constant of an input, and the axis of it that is the batch."""
    kind = value.type.tensor_type
    array = np.asarray(given).astype(helper.tensor_dtype_to_np_dtype(kind.elem_type or TensorProto.FLOAT))
    if not kind.HasField("shape"):
        return array, None
    sizes = [int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim]
    free = [axis for axis, size in enumerate(sizes) if size is None]
    if array.ndim == len(sizes):
        free = [axis for axis in free if array.shape[axis] == 1]
        sizes = [array.shape[axis] if size is None else size for axis, size in enumerate(sizes)]
    if len(free) > 1:
        raise CaptureError(
            f"the input {value.name!r} leaves {len(free)} sizes free. Hold an array of its sizes, 1 where the batch is."
        )
    try:
        return np.broadcast_to(array, [size or 1 for size in sizes]).copy(), free[0] if free else None
    except ValueError:
        shown = ", ".join("?" if size is None else str(size) for size in sizes)
        raise CaptureError(
            f"the input {value.name!r} is [{shown}], and what it is to hold is {list(array.shape)}."
        ) from None


def _repeated(model: ModelProto, name: str, sizes: tuple[int, ...], axis: int, batch: str) -> list[NodeProto]:
    """Nodes that repeat a constant along an axis, as often as there are samples."""

    def number(part: str, entries: list[int]) -> str:
        model.graph.initializer.append(numpy_helper.from_array(np.array(entries, np.int64), f"{name}/{part}"))
        return f"{name}/{part}"

    first = number("first", [0])
    parts = [number("before", [*sizes[:axis]]), f"{name}/batch", number("behind", [*sizes[axis + 1 :]])]
    return [
        helper.make_node("Shape", [batch], [f"{name}/shape"], name=f"{name}/shape"),
        helper.make_node("Gather", [f"{name}/shape", first], [f"{name}/batch"], name=f"{name}/batch", axis=0),
        helper.make_node("Concat", parts, [f"{name}/sizes"], name=f"{name}/sizes", axis=0),
        helper.make_node("Expand", [f"{name}/held", f"{name}/sizes"], [name], name=name),
    ]


def held_file(path: str, folder: str, held: Held, explained: str, outputs: tuple[str, ...]) -> Any:
    """A file as ONNX Runtime takes it, with inputs held and values inside as further outputs.

    Args:
        path: the file.
        folder: where its data lies.
        held: what inputs hold.
        explained: the input that is explained.
        outputs: names of the values that are wanted.

    Returns:
        The path where nothing is changed, else the bytes of the model.
    """
    model = onnx.load_model(path, load_external_data=False)
    inside = [name for name in outputs if name not in {value.name for value in model.graph.output}]
    if not inside and not held:
        return path
    hold(model, held, explained)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inside)
    onnx.load_external_data_for_model(model, folder)
    return model.SerializeToString()
