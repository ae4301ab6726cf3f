"""A file's graph as patterns look at it: who makes and who reads each value, and which values are one number."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import NodeProto

from fxpullback.importer.numbers import Array

NEAR = 1e-4
OURS = "fxpullback"
"""The domain of nodes that no file holds, put where a pattern was found."""


@dataclass(frozen=True)
class Graph:
    """A file's graph.

    Attributes:
        makers: the node that makes a value, by name.
        readers: the nodes that read it; one more where it is an output.
        numbers: values that are one number.
        constants: arrays that the file holds, by name.
    """

    makers: Mapping[str, NodeProto]
    readers: Mapping[str, list[NodeProto]]
    numbers: Mapping[str, float]
    constants: Mapping[str, Array]

    @classmethod
    def of(cls, nodes: Sequence[NodeProto], constants: Mapping[str, Array], outputs: Sequence[str]) -> Graph:
        """The graph of nodes in order, constants by name, and values that are read from outside."""
        held = {**constants, **{name: array for node in nodes for name, array in _constant(node)}}
        for node in nodes:  # what an exporter holds once and gives several names
            if node.op_type == "Identity" and not node.domain and node.input[0] in held:
                held[node.output[0]] = held[node.input[0]]
        readers: dict[str, list[NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        outside = NodeProto(op_type="outside")
        for name in outputs:
            readers.setdefault(name, []).append(outside)
        numbers = {name: float(array.reshape(-1)[0]) for name, array in held.items() if _is_number(array)}
        return cls({name: node for node in nodes for name in node.output}, readers, numbers, held)

    def maker(self, name: str, *kinds: str) -> NodeProto | None:
        """The node that makes a value, where it is of one of the kinds."""
        found = self.makers.get(name)
        return found if found is not None and found.op_type in kinds and not found.domain else None

    def inner(self, name: str, *kinds: str, reads: int = 1) -> NodeProto | None:
        """The node that makes a value, where it is of one of the kinds and nothing but the pattern reads the value."""
        return self.maker(name, *kinds) if len(self.readers.get(name, [])) == reads else None

    def only_reader(self, name: str, kind: str) -> NodeProto | None:
        """The one node that reads a value, where it is of a kind."""
        found = self.readers.get(name, [])
        return found[0] if len(found) == 1 and found[0].op_type == kind else None

    def times(self, name: str, factor: float) -> str | None:
        """The value that another is, but for a factor; None where it is not."""
        maker = self.maker(name, "Mul", "Div")
        if maker is None:
            return None
        a, b = maker.input
        wanted = 1 / factor if maker.op_type == "Div" else factor
        if self.is_number(b, wanted):
            return str(a)
        return str(b) if maker.op_type == "Mul" and self.is_number(a, wanted) else None

    def is_number(self, name: str, wanted: float) -> bool:
        """Whether a value is one number."""
        found = self.numbers.get(name)
        return found is not None and abs(found - wanted) <= NEAR * abs(wanted)

    def with_number(self, node: NodeProto) -> tuple[str, float] | None:
        """The value and the number that a node of two takes, in any order."""
        for one, other in (node.input, node.input[::-1]):
            if other in self.numbers:
                return str(one), self.numbers[other]
        return None

    def other(self, node: NodeProto, name: str) -> str:
        """The argument of a node of two that is not `name`."""
        a, b = node.input
        return str(b if a == name else a)


def said(node: NodeProto, name: str, default: Any = None) -> Any:
    """An attribute of a node."""
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def replaced(
    last: NodeProto, kind: str, inputs: Sequence[str], named: NodeProto, domain: str = "", **attributes: Any
) -> NodeProto:
    """One node in place of those of a pattern.

    Args:
        last: the node whose outputs it makes.
        kind: its operator.
        inputs: what it reads.
        named: the node of the pattern whose name it keeps.
        domain: of the operator.
        attributes: of the operator.
    """
    name = named.name or named.output[0]
    return onnx.helper.make_node(kind, list(inputs), list(last.output), name=name, domain=domain, **attributes)


def _constant(node: NodeProto) -> list[tuple[str, Array]]:
    if node.op_type != "Constant" or node.domain:
        return []
    found = [onnx.numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"]
    return [(node.output[0], array) for array in found]


def _is_number(array: Array) -> bool:
    return bool(array.size == 1 and array.dtype.kind == "f")


def spelled(node: NodeProto, *operators: str, silent: bool = True) -> bool:
    """Whether a node comes of one of some operators of torch, as its newer exporter says beside each node.

    Args:
        node: the node.
        operators: as `aten.silu`.
        silent: what is returned where nothing is said.
    """
    found = re.search(r"target=torch\.ops\.(\w+\.\w+)", beside(node, "fx_node"))
    return silent if found is None else found[1] in operators


def in_module(node: NodeProto, kind: str) -> bool:
    """Whether torch's newer exporter says of a node that it is of a module's forward, as `torch.nn.RMSNorm`."""
    package, name = kind.rsplit(".", 1)
    return any(
        entry.startswith(package) and entry.endswith(f".{name}")
        for entry in re.findall(r"'([^']*)'", beside(node, "class_hierarchy"))
    )


def beside(node: NodeProto, what: str) -> str:
    """What torch's newer exporter says beside a node: `fx_node` or `class_hierarchy`; empty where nothing is."""
    return next((str(p.value) for p in node.metadata_props if p.key == f"pkg.torch.onnx.{what}"), "")
