"""Whether a file with a pullback beside its nodes still returns what it did, bit for bit; and what it must not share.

ONNX Runtime computes several nodes as one where nobody else reads what is between them, and the one may round
differently. So a value that the pullback reads too may change the outputs of the file by a last bit. Such values are
found by trying, and the pullback computes them anew.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import GraphProto, ModelProto

from fxpullback.contract.certificate import Check, at_most
from fxpullback.importer.numbers import Array

LEVELS = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""How much ONNX Runtime is told to optimise; `all` is what it does unless it is told otherwise."""
Feed = Mapping[str, Array]
Model = str | bytes


@dataclass(frozen=True)
class Before:
    """What a file returns by itself.

    Attributes:
        names: its outputs.
        feeds: what it was given, beside the arguments of the pullback.
        wanted: what it returned, by level and then by feed.
    """

    names: tuple[str, ...]
    feeds: tuple[Feed, ...]
    wanted: Mapping[str, list[list[Array]]]

    @classmethod
    def of(cls, model: Model, feeds: Sequence[Feed], names: Sequence[str]) -> Before:
        """Run a file.

        Args:
            model: its path or its bytes.
            feeds: inputs by name.
            names: its outputs.
        """
        wanted = {}
        for name, level in LEVELS.items():
            session = _session(model, level)
            wanted[name] = [session.run(list(names), dict(feed)) for feed in feeds]
        return cls(tuple(names), tuple(feeds), wanted)

    def changed(self, model: Model, targets: Sequence[Feed], levels: Collection[str] = LEVELS) -> str:
        """Where the same outputs of another file differ in a bit: the level and the output; empty where they do not.

        Args:
            model: its path or its bytes.
            targets: its further inputs, for each feed.
            levels: which levels are tried.
        """
        for name in levels:
            session = _session(model, LEVELS[name])
            for feed, target, wanted in zip(self.feeds, targets, self.wanted[name], strict=True):
                found = session.run(list(self.names), {**feed, **target})
                for output, one, other in zip(self.names, found, wanted, strict=True):
                    if one.tobytes() != other.tobytes():
                        return f"{output}, optimised: {name}"
        return ""

    def check(self, model: Model, targets: Sequence[Feed]) -> Check:
        """That no output differs in a bit, at any level."""
        where = self.changed(model, targets)
        return at_most("outputs of the original file that differ in a bit", float(bool(where)), 0.0, where)


def _session(model: Model, level: Any) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def not_shared(
    original: ModelProto, shared: Collection[str], is_same: Callable[[Collection[str]], bool]
) -> frozenset[str] | None:
    """Which values of a file must be computed anew, so that its outputs stay as they are.

    Args:
        original: the file.
        shared: the values that the pullback would read.
        is_same: whether the outputs stay when some of them are computed anew.

    Returns:
        The fewest kinds of values that were found, a kind being made and read by the same operators; None where the
        outputs change whatever is not shared.
    """
    if is_same(frozenset()):
        return frozenset()
    kinds = list(_kinds(original.graph, shared).values())
    for kind in kinds:
        if is_same(frozenset(kind)):
            return frozenset(kind)
    anew = frozenset(shared)
    if not is_same(anew):
        return None
    for kind in sorted(kinds, key=len, reverse=True):
        if is_same(anew - frozenset(kind)):
            anew -= frozenset(kind)
    return anew


def _kinds(graph: GraphProto, values: Collection[str]) -> dict[Any, list[str]]:
    """Values by the operators that make and read them."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    found: dict[Any, list[str]] = {}
    for name in sorted(values):
        found.setdefault((makers.get(name), *sorted(readers.get(name, ()))), []).append(name)
    return found


def bits(array: Array) -> bytes:
    """An array as bytes."""
    return np.ascontiguousarray(array).tobytes()
