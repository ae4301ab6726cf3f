"""What a file becomes with its pullback beside its nodes, and what holds it to what it was."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from onnx import GraphProto, ModelProto
from torch import fx

from fxpullback.certify.fresh import Looks, fresh_target
from fxpullback.contract import metadata as md
from fxpullback.contract.beside import Beside, nodes_sha256
from fxpullback.contract.certificate import Certificate, Check, at_most
from fxpullback.contract.errors import ExportError
from fxpullback.contract.names import TARGET
from fxpullback.export.certify.file import carried_form, certify
from fxpullback.export.insert.graft import Grafted, graft, key_of, names_of, values_of
from fxpullback.export.insert.same import Before, Feed, optimised, sharing_of
from fxpullback.export.insert.shared import GUARD, Sharing, cut_at_values, guard
from fxpullback.export.onnx.digest import weights_sha256
from fxpullback.export.onnx.translate import translate
from fxpullback.graph.ir import FILE_VALUE, placeholders
from fxpullback.importer.load import constants_of
from fxpullback.importer.numbers import Array
from fxpullback.importer.original import BATCHES, Original

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled


@dataclass(frozen=True)
class Inserted:
    """A pullback, and the file beside whose nodes it is put.

    Attributes:
        pb: the pullback.
        path: the file.
        model: the file as it is read, data that lies beside it left there.
        held: its constants, which further nodes may read, by name.
        given: what it calls the inputs of the graph.
        before: what it returns by itself.
        drawn: what its pullback is given besides then, by the names of the graph.
    """

    pb: Compiled
    path: Path
    model: ModelProto
    held: Mapping[str, Array]
    given: Mapping[str, str]
    before: Before
    drawn: tuple[Feed, ...]

    @classmethod
    def of(cls, pb: Compiled) -> Inserted:
        """Of what was compiled.

        Raises:
            ExportError: it cannot be put beside a file.
        """
        original = pb.original
        if not isinstance(original, Original) or not any(FILE_VALUE in node.meta for node in pb.graph.graph.nodes):
            raise ExportError(
                "the pullback was not compiled beside a file: fxpullback.export.insert.insert(path, output) does both."
            )
        if original.fronts:
            raise ExportError(
                f"{original.path.name}: something stands in front of the file, and its inputs are to stay. Leave the "
                "normalisation out, or write a file of its own with fxpullback compile."
            )
        model = onnx.load_model(os.fspath(original.path), load_external_data=False)
        constants = constants_of(original.path, original.outputs, original.batch)
        available = values_of(model.graph) - set(original.inputs)
        inputs = [str(node.target) for node in placeholders(pb.graph.graph) if node.target != TARGET]
        given = dict(zip(inputs, original.inputs, strict=False))
        feeds = [_drawn(pb, inputs, batch) for batch in ([original.batch] if original.batch else BATCHES)]
        before = Before.of(
            os.fspath(original.path),
            [{given[name]: array for name, array in feed.items() if name in given} for feed in feeds],
            [value.name for value in model.graph.output],
        )
        more = tuple({name: array for name, array in feed.items() if name not in given} for feed in feeds)
        held = {name: array for name, array in constants.items() if name in available}
        return cls(pb, original.path, model, held, given, before, more)

    def into(self, draft: Path) -> Grafted:
        """The file with its pullback, whose outputs stay as they were.

        Args:
            draft: where it may be written to be tried.

        Raises:
            ExportError: they do not stay, whatever is computed anew.
        """
        put = lru_cache(2)(self.put)  # each holds the whole file

        def written(sharing: Sharing) -> Grafted:
            draft.write_bytes(put(sharing).model.SerializeToString())
            return put(sharing)

        def is_same(sharing: Sharing) -> bool:
            return not self.before.changed(os.fspath(draft), self.more(written(sharing)))

        def by_runtime(sharing: Sharing | None) -> GraphProto:
            if sharing is not None:
                written(sharing)
            return optimised(os.fspath(self.path if sharing is None else draft))

        values = frozenset(name for node in self.model.graph.node for name in node.output if name)
        read = cut_at_values(self.pb.graph, values, Sharing())[1].values()
        chosen = sharing_of(self.model, read, by_runtime, is_same)
        if chosen is None:
            raise ExportError(
                f"{self.path.name}: with further nodes beside its own, ONNX Runtime computes its outputs otherwise, "
                "and they differ in the last bits. Write a file of its own with fxpullback compile."
            )
        return put(chosen)

    def put(self, sharing: Sharing) -> Grafted:
        """The file with its pullback, which reads some of its values."""
        graph, shared = cut_at_values(self.pb.graph, values_of(self.model.graph), sharing)
        part = translate(graph, translations={GUARD: guard}, reserved=names_of(self.model.graph))
        return graft(self.model, part, self.given, shared, self.held)

    def more(self, grafted: Grafted) -> list[Feed]:
        """What the pullback is given besides, by the names of the file."""
        return [{grafted.inputs[name]: array for name, array in feed.items()} for feed in self.drawn]

    def texts(self, grafted: Grafted, draft: Path) -> dict[str, str]:
        """The metadata that a file with its pullback has besides."""
        own = self.model.graph.node
        beside = Beside(len(own), nodes_sha256(own), grafted.inputs, grafted.outputs, grafted.sizes)
        draft.write_bytes(grafted.model.SerializeToString())
        whole = ir.load(draft)
        texts = {
            md.BESIDE: json.dumps(beside.to_dict()),
            md.WEIGHTS_SHA256: weights_sha256(whole),
            f"{md.PREFIX}output_names": json.dumps(list(grafted.outputs.values())),
        }
        carried = carried_form(self.pb, _names((self.pb.folded, self.pb.graph), whole))
        return texts if carried is None else {**texts, md.ORACLE: carried}

    def certificate(self, grafted: Grafted, draft: Path) -> Certificate:
        """What the file is worth: that of its pullback, and that what was there stayed."""
        written = onnx.load_model(os.fspath(draft), load_external_data=False)
        return certify(self.pb, draft).with_checks(
            (self.before.check(os.fspath(draft), self.more(grafted)), *kept(self.model, written))
        )


def kept(before: ModelProto, after: ModelProto) -> tuple[Check, ...]:
    """That the nodes and initialisers of a file are in another one, byte for byte, and first."""
    found = []
    for name in ("node", "initializer", "sparse_initializer", "output"):
        old, new = getattr(before.graph, name), getattr(after.graph, name)
        same = [a.SerializeToString() == b.SerializeToString() for a, b in zip(old, new, strict=False)]
        wrong = len(old) - sum(same)
        found.append(at_most(f"original file: of its {name}s not byte for byte as they were", float(wrong), 0.0))
    return tuple(found)


def _drawn(pb: Compiled, inputs: list[str], batch: int) -> Feed:
    """A fresh batch of everything that the graph takes, by its names."""
    looks = Looks.of(pb)
    given = looks.draw(batch, batch, pb.example)
    feed = {name: t.detach().cpu().numpy() for name, t in zip(inputs, looks.passed(given), strict=True)}
    target = fresh_target(pb.target, batch, pb.classes, given.x, batch)
    return feed if target is None else {**feed, TARGET: target.detach().cpu().numpy()}


def _names(graphs: Sequence[fx.GraphModule], model: ir.Model) -> dict[str, str]:
    """What a file calls the constants of graphs that it holds."""
    held: dict[Any, str] = {}
    for name, value in model.graph.initializers.items():
        if value.const_value is not None:
            held.setdefault(key_of(value.const_value.numpy()), name)
    found = {}
    for name, tensor in (pair for gm in graphs for pair in (*gm.named_parameters(), *gm.named_buffers())):
        if (key := key_of(tensor.detach().cpu().numpy())) in held:
            found[name] = held[key]
    return found
