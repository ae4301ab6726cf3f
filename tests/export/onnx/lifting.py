"""Graphs for the translator's tests: a module captured in canonical spelling, with any number of outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn
from torch.export import Dim, export
from torch.export.graph_signature import InputKind

from fxpullback.capture.canonical import canonicalise, decompositions
from fxpullback.contract.signature import Signature
from fxpullback.graph.module import Graph
from fxpullback.lower import REWRITES, lower
from tests.export.onnx.one_node import Batch, Input, Row, leaves, x


def lifted(
    module: nn.Module, args: tuple[torch.Tensor, ...], dims: tuple[Any, ...] | None = None
) -> torch.fx.GraphModule:
    """Capture `module` with a free batch, in the spelling that the compiler's lowered graphs have.

    Args:
        module: The module, in eval mode.
        args: Example inputs.
        dims: Their free axes; by default the first of each.
    """
    dims = dims or tuple({0: Dim("batch", min=1, max=4096)} for _ in args)
    shapes = (dims,) if isinstance(module, Call) else dims
    program = export(module, args, dynamic_shapes=shapes).run_decompositions(decompositions())
    constants: dict[str, Any] = {**program.state_dict, **program.constants}
    graph = program.graph
    gm = Graph(torch.nn.Module(), torch.fx.Graph())
    env: dict[torch.fx.Node, torch.fx.Node] = {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind != InputKind.USER_INPUT:
            name = str(spec.target).replace(".", "_")
            gm.register_buffer(name, constants[str(spec.target)].detach())
            env[node] = gm.graph.get_attr(name)
            env[node].meta.update(node.meta)
        elif node.op == "output":
            results = [arg for arg in node.args[0] if isinstance(arg, torch.fx.Node)]
            gm.graph.output(tuple(env[result] for result in results))
            gm.signature = Signature(outputs=tuple(f"out{i}" for i in range(len(results))))
        else:
            env[node] = gm.graph.node_copy(node, lambda old: env[old])
    gm.graph.eliminate_dead_code()
    return canonicalise(gm)


def lowered(module: nn.Module, args: tuple[torch.Tensor, ...]) -> torch.fx.GraphModule:
    """What `lifted` returns, lowered by those rewrites alone that every graph goes through."""
    return lower(lifted(module, args), [rewrite.name for rewrite in REWRITES if rewrite.optional])[0]


def captured_together(cases: Sequence[Row]) -> torch.fx.GraphModule:
    """One graph of a model that calls the operators of all cases, each on inputs of its own."""
    given = [x(1), *(leaf for case in cases for leaf in leaves(case) if isinstance(leaf, Input))]

    def call(*values: torch.Tensor) -> list[torch.Tensor]:
        feed = iter(values)
        batch = next(feed).shape[0]
        results = (
            case.call(lambda leaf: batch * leaf.factor if isinstance(leaf, Batch) else next(feed)) for case in cases
        )
        return [result for listed in results for result in listed]

    free = Dim("batch", min=2, max=4096)
    dims = tuple({0: free} if leaf.batched else None for leaf in given)
    return lifted(Call(call), tuple(leaf.at(2) for leaf in given), dims)


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any, constants: tuple[torch.Tensor, ...] = ()) -> None:
        super().__init__()
        self.function = function
        for i, constant in enumerate(constants):
            self.register_buffer(f"c{i}", constant)
        self.count = len(constants)

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args, *(getattr(self, f"c{i}") for i in range(self.count)))


def run(model: ir.Model, *args: torch.Tensor) -> list[np.ndarray[Any, Any]]:
    """Run a model in ONNX Runtime on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_inputs()]
    feed = {name: arg.numpy() for name, arg in zip(names, args, strict=False)}
    return list(session.run(None, feed))
