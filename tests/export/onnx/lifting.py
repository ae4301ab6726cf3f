"""Graphs for the translator's tests: a module captured by torch.export, its constants lifted into get_attr nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import nn
from torch.export import Dim, export
from torch.export.graph_signature import InputKind

from fxpullback.contract.signature import Signature
from fxpullback.graph.module import Graph


def lifted(
    module: nn.Module, args: tuple[torch.Tensor, ...], dims: tuple[Any, ...] | None = None
) -> torch.fx.GraphModule:
    """Capture `module` with a free batch, as the compiler's lowered graphs look.

    Args:
        module: The module, in eval mode.
        args: Example inputs.
        dims: Their free axes; by default the first of each.
    """
    dims = dims or tuple({0: Dim("batch", min=1, max=4096)} for _ in args)
    program = export(module, args, dynamic_shapes=(dims,) if isinstance(module, Call) else dims).run_decompositions({})
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
    gm.recompile()
    return gm


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
