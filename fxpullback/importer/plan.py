"""A file's graph as a list of nodes to run: constants computed, branches on constants taken, strangers named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.fused import fused, needed
from fxpullback.importer.numbers import Array, Known
from fxpullback.importer.operators import integers
from fxpullback.importer.operators.table import OPERATORS, key_of
from fxpullback.importer.read import opset_of
from fxpullback.importer.site import Node
from fxpullback.importer.steps import Branch, Plan, Step, refuse

ENTRIES = 1 << 26
"""Entries of the largest constant that is computed when a file is read."""
RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_GROWING = {"ConstantOfShape", "Expand", "Tile", "Range", "Pad", "Resize", "OneHot", "EyeLike"}


def plan(model: ModelProto, wanted: Sequence[str], batch: int | None) -> Plan:
    """The nodes that outputs need.

    Args:
        model: the file, as `read` returns it.
        wanted: names of the outputs.
        batch: the batch that the file fixes.

    Raises:
        CaptureError: operators that are not imported, all of them named at once; random ones; branches and loops on
            values.
    """
    versions = {entry.domain: entry.version for entry in model.opset_import}
    versions[""] = opset_of(model)
    made = Plan()
    made.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    given = {value.name for value in model.graph.input} - set(made.constants)
    builder = _Builder(made, versions, _shapes(model) if batch is not None else {}, batch, given)
    builder.add(fused(needed(model.graph.node, wanted), made.constants, wanted))
    builder.check()
    return made


def _shapes(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shapes that the file says, of every value."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # a hint alone: what depends on it says so itself
        inferred = model
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return found


class _Builder:
    """Adds nodes to a plan."""

    def __init__(
        self,
        made: Plan,
        versions: Mapping[str, int],
        shapes: Mapping[str, tuple[int | None, ...]],
        batch: int | None,
        given: set[str],
    ) -> None:
        self.plan, self.versions, self.shapes, self.batch = made, versions, shapes, batch
        self.known = set(given) | set(made.constants)
        self.unknown: dict[str, list[str]] = {}
        self.names: dict[str, str] = {}

    def add(self, nodes: Iterable[NodeProto]) -> None:
        """Add nodes; `names` says what those of the inner graph are called that is being added."""
        for proto in nodes:
            inputs = tuple(self.names.get(name, name) for name in proto.input)
            outputs = tuple(self.names.get(name, name) for name in proto.output)
            self._add(proto, inputs, outputs)

    def check(self) -> None:
        """Refuse a file with operators that are not imported."""
        refuse(self.unknown)

    def _add(self, proto: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> None:
        missing = [name for name in inputs if name and name not in self.known]
        name = proto.name or next((output for output in outputs if output), proto.op_type)
        if missing:
            raise CaptureError(
                f"the file is damaged: {proto.op_type} {name!r} reads {missing[0]!r}, which nothing makes."
            )
        self.known.update(outputs)
        if proto.op_type == "If" and not proto.domain:
            self._branch(proto, inputs, outputs, name)
            return
        if proto.op_type in ("Loop", "Scan") and not proto.domain:
            self._repeat(proto, inputs, outputs, name)
            return
        if proto.op_type in RANDOM and not proto.domain:
            raise CaptureError(
                f"{proto.op_type} {name!r} draws random numbers: two runs of the file do not agree, and no explanation "
                "is of both. Export the model in evaluation mode."
            )
        constants = [self.plan.constants.get(i) if i else None for i in inputs]
        if all(c is not None for c, i in zip(constants, inputs, strict=True) if i) and self._fold(
            proto, inputs, outputs
        ):
            return
        key = key_of(proto.domain, proto.op_type)
        if key not in OPERATORS:
            self.unknown.setdefault(key, []).append(name)
            return
        if key in integers.OPERATORS:
            self.plan.dequantised += [i for i, c in zip(inputs, constants, strict=True) if integers.is_weight(c)]
        self.plan.steps.append(Step(self._node(proto, inputs, outputs), inputs, outputs))

    def _node(self, proto: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Node:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        return Node(
            proto.name or next((output for output in outputs if output), proto.op_type),
            proto.op_type,
            domain,
            self.versions.get(domain, 1),
            _attributes(proto),
            [self.plan.constants.get(i) if i else None for i in inputs],
            [self.shapes.get(i) for i in inputs],
            tuple(bool(o) for o in outputs),
            self.batch,
        )

    def _branch(self, proto: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...], name: str) -> None:
        condition = self.plan.constants.get(inputs[0])
        if condition is None:
            self._either(proto, inputs[0], outputs, name)
            return
        wanted = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        for output, source in zip(
            outputs, self._inner(next(a.g for a in proto.attribute if a.name == wanted), name), strict=True
        ):
            if source in self.plan.constants:
                self.plan.constants[output] = self.plan.constants[source]
            else:
                node = Node(name, "Identity", "", self.versions[""], {}, [None], [self.shapes.get(output)])
                self.plan.steps.append(Step(node, (source,), (output,)))

    def _inner(self, inner: GraphProto, name: str) -> list[str]:
        """Add the nodes of an inner graph; returns what its outputs are called outside."""
        outer = self.names
        made = [n for node in inner.node for n in node.output if n] + [t.name for t in inner.initializer]
        self.names = outer | {n: f"{name}/{n}" for n in made}
        for tensor in inner.initializer:
            self.plan.constants[self.names[tensor.name]] = numpy_helper.to_array(tensor)
            self.known.add(self.names[tensor.name])
        self.add(inner.node)
        found = [self.names.get(value.name, value.name) for value in inner.output]
        self.names = outer
        return found

    def _either(self, proto: NodeProto, condition: str, outputs: tuple[str, ...], name: str) -> None:
        """A branch whose condition is computed: of sizes alone, which is known when the model is run."""
        graphs = {a.name: a.g for a in proto.attribute}
        found = [self._alone(graphs[attribute], name) for attribute in ("then_branch", "else_branch")]
        node = Node(name, "If", "", self.versions[""], {}, [None], [self.shapes.get(condition)])
        reads = [condition, *found[0].inputs, *found[1].inputs]
        self.plan.steps.append(Step(node, tuple(reads), outputs, (found[0], found[1])))

    def _repeat(self, proto: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...], name: str) -> None:
        """A loop: its graph is run as often as sizes and constants say."""
        graph = next(a.g for a in proto.attribute if a.name == "body")
        body = self._alone(graph, name)
        attributes = {key: value for key, value in _attributes(proto).items() if key != "body"}
        opset = self.versions[""]
        node = Node(name, proto.op_type, "", opset, attributes, [self.plan.constants.get(i) for i in inputs], ())
        self.plan.steps.append(Step(node, (*inputs, *body.inputs), outputs, repeated=body))

    def _alone(self, graph: GraphProto, name: str) -> Branch:
        """An inner graph with a plan of its own."""
        plan = Plan(constants=dict(self.plan.constants))
        builder = _Builder(plan, self.versions, self.shapes, self.batch, self.known)
        given = tuple(f"{name}/{value.name}" for value in graph.input)
        builder.known.update(given)
        for formal in given:
            plan.constants.pop(formal, None)
        builder.names = self.names | dict(zip((value.name for value in graph.input), given, strict=True))
        ends = tuple(builder._inner(graph, name))
        reads = [n for step in plan.steps for n in step.inputs] + [*ends]
        outer = tuple(dict.fromkeys(n for n in reads if n in self.known and n not in plan.constants))
        return Branch(plan, outer, ends, builder.unknown, given)

    def _fold(self, proto: NodeProto, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> bool:
        """Compute a node of constants; whether that was possible."""
        held = {i: self.plan.constants[i] for i in inputs if i}
        if proto.op_type in _GROWING and self._entries(proto, [held[i] for i in inputs if i]) > ENTRIES:
            raise CaptureError(f"{proto.op_type} {proto.name!r} makes a constant of more than {ENTRIES} entries.")
        results = _computed(proto, inputs, held, self.versions)
        if results is None:
            results = _by_ours(self._node(proto, inputs, outputs), [held[i] if i else None for i in inputs])
        if results is None:
            return False
        if proto.op_type == "DequantizeLinear":
            self.plan.dequantised.append(inputs[0])
        for output, value in zip(outputs, results, strict=False):
            if output:
                self.plan.constants[output] = value
        return True

    def _entries(self, proto: NodeProto, arrays: Sequence[Array]) -> Any:
        """About how many entries a node makes."""
        first, last = arrays[0], arrays[-1]
        if proto.op_type == "ConstantOfShape":
            return math.prod(int(n) for n in first.reshape(-1))
        if proto.op_type == "Range":
            return abs(float(arrays[1]) - float(first)) / max(abs(float(last)), 1e-30)
        if proto.op_type == "Tile":
            return first.size * math.prod(int(n) for n in last.reshape(-1))
        if proto.op_type == "Expand":
            return math.prod(max(1, int(n)) for n in last.reshape(-1)) * max(1, first.size)
        if proto.op_type == "OneHot":
            return float(first.size * arrays[1].reshape(-1)[0])
        if proto.op_type == "Pad":
            pads = arrays[1] if len(arrays) > 1 else np.zeros(0)
            half = len(pads) // 2
            return math.prod(
                n + abs(int(pads[i])) + abs(int(pads[half + i])) if half > i else n for i, n in enumerate(first.shape)
            )
        return float(first.size)


def _computed(
    proto: NodeProto, inputs: tuple[str, ...], held: Mapping[str, Array], versions: Mapping[str, int]
) -> list[Array] | None:
    """What a node of constants makes, by the reference of onnx; None where that cannot be computed."""
    if proto.domain not in ("", "ai.onnx"):
        return None
    alone = NodeProto()
    alone.CopyFrom(proto)
    names = {name: f"v{i}" for i, name in enumerate(held)}
    del alone.input[:]
    alone.input.extend(names[i] if i else "" for i in inputs)
    graph = onnx.helper.make_graph(
        [alone], "constants", [onnx.ValueInfoProto(name=n) for n in names.values()],
        [onnx.ValueInfoProto(name=o) for o in proto.output if o],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", versions[""])])
    try:
        with np.errstate(all="ignore"):
            made = ReferenceEvaluator(model).run(None, {names[i]: value for i, value in held.items()})
    except Exception:  # its operator may still be imported
        return None
    arrays = dict(zip([o for o in proto.output if o], made, strict=True))
    found = [arrays.get(o) for o in proto.output]
    return [np.asarray(a) for a in found] if all(isinstance(a, np.ndarray | np.generic) for a in made) else None


def _by_ours(node: Node, given: Sequence[Array | None]) -> list[Array] | None:
    """What a node of constants makes, by the operator that is imported; None where that cannot be computed."""
    operator = OPERATORS.get(key_of(node.domain, node.kind))
    if operator is None:
        return None
    try:
        values = [
            None if v is None else Known(v) if v.dtype.kind in "iub" else torch.from_numpy(v.copy()) for v in given
        ]
        made = operator(node, *values)
    except Exception:  # it is run where the model runs, and says there what is wrong
        return None
    results = made if isinstance(made, tuple) else (made,)
    arrays = [value.array if isinstance(value, Known) else value for value in results]
    if not all(isinstance(value, Tensor | np.ndarray) for value in arrays):
        return None
    return [value.numpy() if isinstance(value, Tensor) else value for value in arrays]


def _value_of(array: Array) -> Known | Tensor:
    return Known(array) if array.dtype.kind in "iub" else torch.from_numpy(array.copy())


def _attributes(proto: NodeProto) -> dict[str, Any]:
    return {a.name: _value(a) for a in proto.attribute}


def _value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return numpy_helper.to_array(value) if attribute.type == AttributeProto.TENSOR else value
