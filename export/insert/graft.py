"""The pullback put beside a file's own nodes: further nodes, inputs and outputs; what was there stays byte for byte."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from fxpullback.export.insert.older import Older
from fxpullback.export.onnx.translate import OPSET
from fxpullback.importer.numbers import Array
from fxpullback.importer.read import graphs_of, opset_of

Names = dict[str, str]


@dataclass(frozen=True)
class Grafted:
    """A file with its pullback.

    Attributes:
        model: the file.
        inputs: what each input of the graph is called in it.
        outputs: what each output is called.
        constants: names that the constants of the graph have in it, by that of the graph's.
        sizes: what the graph calls free sizes, by what the file does.
    """

    model: ModelProto
    inputs: Names
    outputs: Names
    constants: Names
    sizes: Names


def names_of(graph: GraphProto) -> set[str]:
    """Every name of a value or a node of a graph, those of its inner graphs included."""
    found = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    found |= {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        found |= {node.name, *node.input, *node.output}
        for attribute in node.attribute:
            for inner in graphs_of(attribute):
                found |= names_of(inner)
    return found


def values_of(graph: GraphProto) -> set[str]:
    """Every value that a further node of a graph may read."""
    made = {name for node in graph.node for name in node.output if name}
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    return made | given


def graft(
    original: ModelProto, part: ir.Model, given: Mapping[str, str], shared: Mapping[str, str], held: Mapping[str, Array]
) -> Grafted:
    """Put a translated part beside the nodes of a file.

    Args:
        original: the file; left as it is.
        part: what was translated: inputs are those of `given`, of `shared`, and new ones.
        given: names of the file's inputs by those of the part.
        shared: names of the file's values by those of the part's inputs.
        held: the constants of the file by name, all of which further nodes may read.
    """
    made = _in_opset(ir.to_proto(part), opset_of(original))
    taken = names_of(original.graph)
    renamed: Names = {**given, **shared}
    inputs = {value.name: renamed.get(value.name, free(value.name, taken)) for value in made.graph.input}
    outputs = {value.name: free(value.name, taken) for value in made.graph.output}
    renamed |= inputs | outputs
    constants = _constants(made.graph.initializer, held)
    renamed |= constants
    model = ModelProto()
    model.CopyFrom(original)
    for node in made.graph.node:
        model.graph.node.append(_renamed(node, renamed))
    new = [tensor for tensor in made.graph.initializer if tensor.name not in constants]
    _add_constants(model, new)
    sizes = _sizes(model.graph.input, made.graph.input, given)
    fresh = [value for value in made.graph.input if value.name not in given and value.name not in shared]
    model.graph.input.extend(_value(value, renamed, sizes) for value in fresh)
    model.graph.output.extend(_value(value, renamed, sizes) for value in made.graph.output)
    names = {name: inputs[name] for name in inputs if name not in shared}
    called = {theirs: ours for ours, theirs in sizes.items() if isinstance(theirs, str)}
    return Grafted(model, names, outputs, constants, called)


def _in_opset(made: ModelProto, opset: int) -> ModelProto:
    """The part in the opset of the file."""
    if opset >= OPSET:
        return made
    older = Older(opset, {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer})
    nodes = older.all(made.graph.node)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in read]
    kept += [numpy_helper.from_array(array, name) for name, array in older.added.items()]
    del made.graph.node[:], made.graph.initializer[:]
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(kept)
    return made


def _sizes(
    theirs: Sequence[ValueInfoProto], ours: Sequence[ValueInfoProto], given: Mapping[str, str]
) -> dict[str, str | int]:
    """What the file calls the free sizes of the part, or fixes them at; those without a name get one."""
    found: dict[str, str | int] = {}
    of_file = {value.name: value.type.tensor_type.shape.dim for value in theirs}
    for value in ours:
        for dim, other in zip(
            value.type.tensor_type.shape.dim, of_file.get(given.get(value.name, ""), ()), strict=False
        ):
            if not dim.dim_param:
                continue
            if not other.dim_param and not other.HasField("dim_value"):
                other.dim_param = dim.dim_param
            found.setdefault(dim.dim_param, other.dim_param or other.dim_value)
    return found


def free(name: str, taken: Collection[str]) -> str:
    """A name that is not taken, beginning with one."""
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def _constants(tensors: Sequence[TensorProto], held: Mapping[str, Array]) -> Names:
    """The constants that the file holds already, under what name."""
    by_bytes: dict[Any, str] = {}
    for name, array in held.items():
        by_bytes.setdefault(key_of(array), name)
    found: Names = {}
    for tensor in tensors:
        array = numpy_helper.to_array(tensor)
        if math.prod(array.shape) > 1 and (key := key_of(array)) in by_bytes:
            found[tensor.name] = by_bytes[key]
    return found


def key_of(array: Array) -> Any:
    """What two arrays have in common that are the same: type, sizes and bytes."""
    return array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes()


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    del made.input[:], made.output[:]
    made.input.extend(names.get(name, name) for name in node.input)
    made.output.extend(names.get(name, name) for name in node.output)
    return made


def _value(value: ValueInfoProto, names: Mapping[str, str], sizes: Mapping[str, str | int]) -> ValueInfoProto:
    made = ValueInfoProto()
    made.CopyFrom(value)
    made.name = names.get(value.name, value.name)
    for dim in made.type.tensor_type.shape.dim:
        size = sizes.get(dim.dim_param)
        if isinstance(size, int):
            dim.dim_value = size
        elif size is not None:
            dim.dim_param = size
    return made


def _add_constants(model: ModelProto, tensors: Sequence[TensorProto]) -> None:
    """New constants as initialisers; in front of version 4 of the format those must be inputs too."""
    model.graph.initializer.extend(tensors)
    if model.ir_version < 4:
        for tensor in tensors:
            value = model.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            value.type.tensor_type.shape.SetInParent()
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add(dim_value=size)
