"""Nodes of the opset that is translated to, in the opset of an older file beside whose nodes they are put."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, helper

from fxpullback.contract.errors import ExportError
from fxpullback.importer.numbers import Array

OLDEST = 11
"""In front of it Slice takes no steps, so that no weight can be flipped; Pad, Clip and Resize are other operators."""
LAST = 2**31 - 1


@dataclass
class Older:
    """Nodes for one opset.

    Attributes:
        opset: of the file.
        constants: of the nodes, by name; those that are needed besides are added.
        added: these.
    """

    opset: int
    constants: dict[str, Array]
    added: dict[str, Array] = field(default_factory=dict)

    def all(self, nodes: Sequence[NodeProto]) -> list[NodeProto]:
        """The nodes in the file's opset.

        Raises:
            ExportError: an operator that it does not have.
        """
        if self.opset < OLDEST:
            raise ExportError(f"the file is of opset {self.opset}, in which no pullback can be written. {_ADVICE}")
        found = [made for node in nodes for made in self._one(node)]
        if missing := sorted({node.op_type for node in found if not self._has(node)}):
            raise ExportError(f"the file is of opset {self.opset}, which has no {', '.join(missing)}. {_ADVICE}")
        return found

    def _one(self, node: NodeProto) -> Iterator[NodeProto]:
        change = _CHANGES.get(node.op_type)
        if change is None or self.opset >= change[0]:
            yield node
        else:
            for made in change[1](self, node):
                yield from self._one(made) if made.op_type != node.op_type else (made,)

    def _has(self, node: NodeProto) -> bool:
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
        except onnx.defs.SchemaError:
            return False
        return len(node.input) <= schema.max_input and all(a.name in schema.attributes for a in node.attribute)

    def constant(self, name: str, values: Any, dtype: Any = np.int64) -> str:
        """The name of a constant that is needed besides."""
        self.added[name] = np.asarray(values, dtype)
        return name

    def values(self, node: NodeProto, place: int) -> list[int] | None:
        """The constant whole numbers of an input; None where there is no such input.

        Raises:
            ExportError: they are computed.
        """
        if place >= len(node.input) or not node.input[place]:
            return None
        if node.input[place] not in self.constants:
            raise ExportError(
                f"the file is of opset {self.opset}, in which {node.op_type} takes no computed sizes. {_ADVICE}"
            )
        return [int(n) for n in self.constants[node.input[place]].reshape(-1)]


_ADVICE = (
    "Convert the file first, onnx.version_converter.convert_version(model, 17), or write a file of its own with "
    "fxpullback compile."
)


def _made(kind: str, node: NodeProto, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> NodeProto:
    made = helper.make_node(kind, inputs, outputs, f"{outputs[0]}/{kind}", **attributes)
    made.metadata_props.extend(node.metadata_props)
    return made


def _same(node: NodeProto, inputs: Sequence[str], **attributes: Any) -> NodeProto:
    """The node with other inputs, and further attributes."""
    made = NodeProto()
    made.CopyFrom(node)
    del made.input[:]
    made.input.extend(inputs)
    names = {a.name for a in node.attribute}
    made.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items() if k not in names)
    return made


def _attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    found = next((a for a in node.attribute if a.name == name), None)
    return default if found is None else helper.get_attribute_value(found)


def _without(node: NodeProto, *names: str) -> NodeProto:
    kept = [a for a in node.attribute if a.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
    return node


def _axes(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """Axes, or sizes of parts, as an attribute."""
    name = "split" if node.op_type == "Split" else "axes"
    values = older.values(node, 1)
    yield _same(node, node.input[:1], **({} if values is None else {name: values}))


def _split(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """Into so many parts alike: their sizes are told where they are known, and by themselves where they are not."""
    made = _without(_same(node, node.input), "num_outputs")
    yield from _axes(older, made) if older.opset < 13 else (made,)


def _shape(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """Some of the sizes are cut out of all of them."""
    start, end = _attribute(node, "start", 0), _attribute(node, "end", LAST)
    whole = f"{node.output[0]}/whole"
    yield _made("Shape", node, node.input, [whole])
    bounds = [older.constant(f"{node.output[0]}/{i}", [value]) for i, value in enumerate((start, end))]
    yield _made("Slice", node, [whole, *bounds], node.output)


def _or_equal(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """`a <= b` is `a < b or a = b`."""
    strictly, equal = f"{node.output[0]}/strictly", f"{node.output[0]}/equal"
    yield _made(node.op_type.removesuffix("OrEqual"), node, node.input, [strictly])
    yield _made("Equal", node, node.input, [equal])
    yield _made("Or", node, [strictly, equal], node.output)


def _gelu(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """`x / 2 * (1 + erf(x / sqrt 2))`, or with the tanh that approximates it."""
    x, out = node.input[0], node.output[0]

    def number(name: str, value: float) -> str:
        return older.constant(f"{out}/{name}", value, np.float32)

    names = iter(f"{out}/part{i}" for i in range(9))
    if _attribute(node, "approximate", b"none") == b"tanh":
        cube, square = next(names), next(names)
        yield _made("Mul", node, [x, x], [square])
        yield _made("Mul", node, [square, x], [cube])
        small, total, scaled, inner = (next(names) for _ in range(4))
        yield _made("Mul", node, [cube, number("cubic", 0.044715)], [small])
        yield _made("Add", node, [x, small], [total])
        yield _made("Mul", node, [total, number("scale", math.sqrt(2 / math.pi))], [scaled])
        yield _made("Tanh", node, [scaled], [inner])
    else:
        scaled, inner = next(names), next(names)
        yield _made("Mul", node, [x, number("scale", math.sqrt(0.5))], [scaled])
        yield _made("Erf", node, [scaled], [inner])
    more, half = next(names), next(names)
    yield _made("Add", node, [inner, number("one", 1.0)], [more])
    yield _made("Mul", node, [x, number("half", 0.5)], [half])
    yield _made("Mul", node, [half, more], node.output)


def _layer_norm(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """Written out: less the mean, times the inverse root of the mean square, times weight, plus bias."""
    (x, weight, *bias), out = node.input, node.output[0]
    if weight not in older.constants:
        raise ExportError(f"the file is of opset {older.opset}, which has no LayerNormalization. {_ADVICE}")
    axes = list(range(-older.constants[weight].ndim, 0))
    named = [*node.output, "", ""]
    mean, inverse = named[1] or f"{out}/mean", named[2] or f"{out}/inverse"
    centred, square, variance, shifted, root, scaled = (f"{out}/part{i}" for i in range(6))
    eps = older.constant(f"{out}/epsilon", _attribute(node, "epsilon", 1e-5), np.float32)
    yield _made("ReduceMean", node, [x], [mean], axes=axes, keepdims=1)
    yield _made("Sub", node, [x, mean], [centred])
    yield _made("Mul", node, [centred, centred], [square])
    yield _made("ReduceMean", node, [square], [variance], axes=axes, keepdims=1)
    yield _made("Add", node, [variance, eps], [shifted])
    yield _made("Sqrt", node, [shifted], [root])
    yield _made("Reciprocal", node, [root], [inverse])
    yield _made("Mul", node, [centred, inverse], [scaled])
    weighted = f"{out}/weighted" if bias else out
    yield _made("Mul", node, [scaled, weight], [weighted])
    for shift in bias:
        yield _made("Add", node, [weighted, shift], [out])


def _hard_swish(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    gate = f"{node.output[0]}/gate"
    yield _made("HardSigmoid", node, node.input, [gate], alpha=1 / 6, beta=0.5)
    yield _made("Mul", node, [node.input[0], gate], node.output)


def _softmax(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """Along one axis, by way of the largest entry: in front of opset 13 it was along all axes from one on."""
    axis, x, out = _attribute(node, "axis", -1), node.input[0], node.output[0]
    largest, less, powers, total = (f"{out}/part{i}" for i in range(4))
    yield _made("ReduceMax", node, [x], [largest], axes=[axis], keepdims=1)
    yield _made("Sub", node, [x, largest], [less])
    yield _made("Exp", node, [less], [powers])
    yield _made("ReduceSum", node, [powers], [total], axes=[axis], keepdims=1)
    if node.op_type == "Softmax":
        yield _made("Div", node, [powers, total], node.output)
        return
    log = f"{out}/part4"
    yield _made("Log", node, [total], [log])
    yield _made("Sub", node, [less, log], node.output)


def _resize(older: Older, node: NodeProto) -> Iterator[NodeProto]:
    """The region of interest must be there, and is looked at by nobody."""
    empty = older.constant(f"{node.output[0]}/nowhere", np.zeros(0), np.float32)
    yield _same(node, [node.input[0], empty, *node.input[2:]])


Change = Callable[[Older, NodeProto], Iterator[NodeProto]]
_CHANGES: dict[str, tuple[int, Change]] = {
    **{f"Reduce{kind}": (18, _axes) for kind in ("Mean", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare")},
    "ReduceSum": (13, _axes),
    "Squeeze": (13, _axes),
    "Unsqueeze": (13, _axes),
    "Split": (18, _split),
    "Shape": (15, _shape),
    "LessOrEqual": (12, _or_equal),
    "GreaterOrEqual": (12, _or_equal),
    "Gelu": (20, _gelu),
    "LayerNormalization": (17, _layer_norm),
    "HardSwish": (14, _hard_swish),
    "Softmax": (13, _softmax),
    "LogSoftmax": (13, _softmax),
    "Resize": (13, _resize),
}
"""The opset from which on an operator is as it is translated, and what stands for it before."""
