"""Whether a file with a pullback beside its nodes still returns what it did, bit for bit; and what it must not share.

ONNX Runtime computes several nodes as one where nobody else reads what is between them, and the one may round
differently. So a value that the pullback reads too may change the outputs of the file by a last bit. Such values are
found by trying, and the pullback computes them anew.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, NodeProto

from fxpullback.contract.certificate import Check, at_most
from fxpullback.export.insert.shared import Sharing
from fxpullback.importer.numbers import Array

LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
"""How much ONNX Runtime is told to optimise; `all` is what it does unless it is told otherwise."""
ROUNDS = 8
"""How often more values are left unread, until nodes are put together as before."""
Feed = Mapping[str, Array]


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
    def of(cls, model: str, feeds: Sequence[Feed], names: Sequence[str]) -> Before:
        """Run a file.

        Args:
            model: its path.
            feeds: inputs by name.
            names: its outputs.
        """
        wanted = {}
        for name, level in LEVELS.items():
            session = _session(model, level)
            wanted[name] = [session.run(list(names), dict(feed)) for feed in feeds]
        return cls(tuple(names), tuple(feeds), wanted)

    def changed(self, model: str, targets: Sequence[Feed]) -> str:
        """Where the same outputs of another file differ in a bit: the level and the output; empty where they do not.

        Args:
            model: its path.
            targets: its further inputs, for each feed.
        """
        for name, level in LEVELS.items():
            session = _session(model, level)
            for feed, target, wanted in zip(self.feeds, targets, self.wanted[name], strict=True):
                found = session.run(list(self.names), {**feed, **target})
                for output, one, other in zip(self.names, found, wanted, strict=True):
                    if one.tobytes() != other.tobytes():
                        return f"{output}, optimised: {name}"
        return ""

    def check(self, model: str, targets: Sequence[Feed]) -> Check:
        """That no output differs in a bit, at any level."""
        where = self.changed(model, targets)
        return at_most("outputs of the original file that differ in a bit", float(bool(where)), 0.0, where)


def _session(model: str, level: Any) -> ort.InferenceSession:
    return ort.InferenceSession(model, _options(level), providers=["CPUExecutionProvider"])


def _options(level: Any) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 4
    return options


def sharing_of(
    before: ModelProto,
    read: Collection[str],
    optimised: Callable[[Sharing | None], GraphProto],
    is_same: Callable[[Sharing], bool],
) -> Sharing | None:
    """What of a file its pullback may read, so that the outputs of the file stay as they are.

    Nodes that ONNX Runtime puts together for the file alone, and no longer with the pullback beside it, tell what must
    not be read: what is between them, and where that is not enough, what they read themselves. Where they do not tell,
    values of one kind are tried, a kind being made and read by the same operators.

    Args:
        before: the file.
        read: the values that the pullback would read.
        optimised: the file as ONNX Runtime optimises it, alone or with its pullback beside.
        is_same: whether the outputs stay.

    Returns:
        The most that was found; None where the outputs change whatever is computed anew.
    """
    for found in (Sharing(), Sharing(guarded=True)):
        if is_same(found):
            return found
    search = _Search(before.graph, optimised)
    fused = sorted({node.op_type for node in search.missing(Sharing(guarded=True))})
    kinds = _kinds(before.graph, read)
    tried = chain(
        (search.without([kind]) for kind in fused),
        (search.without(fused) for _ in fused[1:2]),  # of one kind alone it has been tried
        (Sharing(kind, guarded=True) for kind in kinds),
    )
    for found in tried:
        if is_same(found):
            return found
    anew = frozenset(name for node in before.graph.node for name in node.output)
    if not is_same(Sharing(anew, guarded=True)):
        return None
    for kind in kinds:
        if is_same(Sharing(anew - kind, guarded=True)):
            anew -= kind
    return Sharing(anew, guarded=True)


def _kinds(graph: GraphProto, values: Collection[str]) -> list[frozenset[str]]:
    """Values by the operators that make and read them, the largest kind first."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    found: dict[Any, set[str]] = {}
    for name in sorted(values):
        found.setdefault((makers.get(name), *sorted(readers.get(name, ()))), set()).add(name)
    return sorted(map(frozenset, found.values()), key=len, reverse=True)


class _Search:
    """Which values must not be read, so that nodes are put together as before."""

    def __init__(self, graph: GraphProto, optimised: Callable[[Sharing | None], GraphProto]) -> None:
        self.makers = {name: node for node in graph.node for name in node.output}
        self.optimised, self.alone = optimised, optimised(None)

    def missing(self, sharing: Sharing) -> list[NodeProto]:
        """The nodes of the optimised file that are not there with its pullback beside it."""
        found = {name: node for node in self.optimised(sharing).node for name in node.output if name}
        return [node for node in self.alone.node if not _is_alike(node, found.get(node.output[0]))]

    def without(self, kinds: Collection[str]) -> Sharing:
        """As much as may be read if nodes of some kinds are to be put together as before."""
        sharing = Sharing(guarded=True)
        for _ in range(ROUNDS):
            nodes = [node for node in self.missing(sharing) if node.op_type in kinds]
            inside = {name for node in nodes for name in self._inside(node)}
            inside = inside - sharing.anew or {name for node in nodes for name in node.input if name in self.makers}
            if not inside - sharing.anew:
                break
            sharing = Sharing(sharing.anew | inside, guarded=True)
        return sharing

    def _inside(self, node: NodeProto) -> set[str]:
        """The values of the file between what a node of the optimised file reads and what it makes."""
        found, waiting, ends = set[str](), [name for name in node.output if name], set(node.input)
        while waiting:
            maker = self.makers.get(waiting.pop())
            for name in maker.input if maker is not None else ():
                if name in self.makers and name not in ends and name not in found:
                    found.add(name)
                    waiting.append(name)
        return found


def _is_alike(node: NodeProto, other: NodeProto | None) -> bool:
    return other is not None and (node.op_type, len(node.input)) == (other.op_type, len(other.input))


def optimised(model: str) -> GraphProto:
    """A file as ONNX Runtime optimises it, before values are laid out for the processor."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = _options(LEVELS["extended"])
        options.optimized_model_filepath = os.fspath(path)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return onnx.load_model(os.fspath(path), load_external_data=False).graph
