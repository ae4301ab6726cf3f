"""An exported program as one flat graph: weights under flat names, one input that is explained, one output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from fxpullback.contract.errors import CaptureError
from fxpullback.contract.names import INPUT, graph_names
from fxpullback.contract.signature import Signature
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.ir import arg, depends_on, explained, extra_inputs, placeholders, where
from fxpullback.graph.module import Graph, signature_of


def user_inputs(program: ExportedProgram) -> list[fx.Node]:
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return [n for n in placeholders(program.graph) if kinds[n.name] is InputKind.USER_INPUT]


def flatten(program: ExportedProgram, free: tuple[FreeAxis, ...] = ()) -> Graph:
    """Weights, buffers and constants become `get_attr` nodes on flat names; the first user input becomes `input`."""
    constants = {**program.state_dict, **program.constants}
    root, graph, env = nn.Module(), fx.Graph(), {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    users = user_inputs(program)
    names = dict(zip(users, [INPUT, *graph_names([n.name for n in users[1:]])], strict=True))
    for node in program.graph.nodes:
        if node.op == "placeholder" and node not in names:
            spec = specs[node.name]
            _register(root, node.name, constants[str(spec.target)])
            env[node] = graph.get_attr(node.name)
            env[node].meta = dict(node.meta)
        elif node.op == "placeholder":
            env[node] = graph.placeholder(names[node])
            env[node].meta = dict(node.meta)
        elif node.op == "output":
            graph.output((env[_logits(program, node)],))
        else:
            env[node] = graph.node_copy(node, lambda n: env[n])
    graph.eliminate_dead_code()
    return Graph(root, graph, Signature(extras=tuple(names[user] for user in users[1:]), free=free))


def _register(root: nn.Module, name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise CaptureError(f"the model holds a constant {name} that is a {type(tensor).__name__} and no tensor.")
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(name, tensor)
    else:
        root.register_buffer(name, tensor.detach())


def _logits(program: ExportedProgram, output: fx.Node) -> fx.Node:
    specs = program.graph_signature.output_specs
    if any(spec.kind is OutputKind.BUFFER_MUTATION for spec in specs):
        raise CaptureError("the model changes its buffers while it runs; call model.eval() before exporting it.")
    results = [r for r, spec in zip(arg(output, 0), specs, strict=True) if spec.kind is OutputKind.USER_OUTPUT]
    values = [result for result in results if result is not None]
    if len(values) == 1 and isinstance(values[0], fx.Node):
        return values[0]
    raise CaptureError(
        f"the model returns {len(values)} values; fxpullback explains one tensor of logits [batch, classes]. "
        f"{_returned(program, results)} Wrap the model in a module whose forward returns that tensor alone."
    )


def _returned(program: ExportedProgram, results: list[Any]) -> str:
    """What a model returns, each with its place, and which of it may be the logits."""
    tree = tree_unflatten(list(range(len(results))), program.call_spec.out_spec)
    places = {index: f"output{keystr(path)}" for path, index in tree_flatten_with_path(tree)[0]}
    listed, likely = [], []
    for index, result in enumerate(results):
        val = result.meta["val"] if isinstance(result, fx.Node) else result
        if not isinstance(val, Tensor):
            listed.append(f"{places[index]} = {val!r}")
            continue
        sizes = ["batch" if i == 0 and isinstance(n, torch.SymInt) else str(n) for i, n in enumerate(val.shape)]
        listed.append(f"{places[index]} [{', '.join(sizes)}] {str(val.dtype).removeprefix('torch.')}")
        if val.ndim == 2 and val.is_floating_point() and sizes[0] == "batch":
            likely.append(places[index])
    looks = f"{' and '.join(likely)} may be the logits" if likely else "none of them can be the logits"
    return f"It returns {', '.join(listed)}; {looks}."


def check_free_axes(gm: fx.GraphModule) -> None:
    """Refuse an extra with a free axis whose size is none of the explained input's: nothing would say what it is."""
    source = explained(gm.graph)
    known = {n.node.expr for n in source.meta["val"].shape if isinstance(n, torch.SymInt)}
    if len(known) > 1 and not signature_of(gm).free:
        raise CaptureError(
            f"the program leaves more of its input free than the batch: {list(source.meta['val'].shape)}. Export it "
            "with the other axes fixed, or pass the module itself with free_size=True."
        )
    for node in extra_inputs(gm):
        for axis, size in enumerate(node.meta["val"].shape):
            if isinstance(size, torch.SymInt) and size.node.expr not in known:
                raise CaptureError(
                    f"axis {axis} of the input {node.target} is free, and no axis of the explained input has its size. "
                    "Export the program with one torch.export.Dim for the batch of all inputs, other axes fixed."
                )


def check_output(gm: fx.GraphModule) -> None:
    """Refuse a graph whose output is not one `[batch, classes]` tensor with a symbolic batch."""
    (logits,) = arg(gm.graph.output_node(), 0)
    assert isinstance(logits, fx.Node)
    val = logits.meta["val"]
    shape = list(val.shape)
    if val.ndim != 2 or not val.is_floating_point():
        raise CaptureError(
            f"the model returns a tensor {shape} of {val.dtype} ({where(logits)}); fxpullback explains logits "
            "[batch, classes]. Wrap the model in a module that returns them, e.g. after pooling over positions."
        )
    if not isinstance(shape[0], torch.SymInt):
        raise CaptureError(
            f"the model returns {shape}: the batch was fixed at {shape[0]}. Export it with a symbolic batch, "
            'torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},)), from a batch of two.'
        )
    if logits.op == "placeholder" or logits not in depends_on(gm.graph, [explained(gm.graph)]):
        raise CaptureError("the logits do not depend on the input; there is nothing to explain.")
