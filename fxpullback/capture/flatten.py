"""An exported program as one flat graph: weights under flat names, one input that is explained, one output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fxpullback.capture.output import hand_on_file_values, logits_of
from fxpullback.capture.reasons import FIXED_BATCH
from fxpullback.contract.errors import CaptureError
from fxpullback.contract.names import INPUT, graph_names
from fxpullback.contract.signature import Signature
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.ir import arg, depends_on, explained, extra_inputs, placeholders, where
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.shapes import is_free


def user_inputs(program: ExportedProgram) -> list[fx.Node]:
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return [n for n in placeholders(program.graph) if kinds[n.name] is InputKind.USER_INPUT]


def flatten(program: ExportedProgram, free: tuple[FreeAxis, ...] = (), wanted: str | int | None = None) -> Graph:
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
            hand_on_file_values(program, node, env)
            graph.output((env[logits_of(program, node, wanted)],))
        else:
            env[node] = graph.node_copy(node, lambda n: env[n])
    graph.eliminate_dead_code()
    return Graph(root, graph, Signature(extras=tuple(names[user] for user in users[1:]), free=free))


def ids_name(program: ExportedProgram) -> str:
    """What to call the first input where it holds ids."""
    name, *others = [node.name for node in user_inputs(program)]
    return graph_names([name, *others])[0]


def _register(root: nn.Module, name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise CaptureError(f"the model holds a constant {name} that is a {type(tensor).__name__} and no tensor.")
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(name, tensor)
    else:
        root.register_buffer(name, tensor.detach())


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
        advice = (
            "Where they are logits at many positions, say at which: positions='index', 'mask' or 'weights'; else wrap "
            "the model in a module that returns [batch, classes]."
            if val.ndim > 2 and val.is_floating_point()
            else "Wrap the model in a module that returns them, or name another output: output=."
        )
        raise CaptureError(
            f"the model returns a tensor {shape} of {val.dtype} ({where(logits)}); fxpullback explains logits "
            f"[batch, classes]. {advice}"
        )
    if not isinstance(shape[0], torch.SymInt):
        raise CaptureError(f"the model returns {shape}: the batch was fixed at {shape[0]}. {FIXED_BATCH}")
    if is_free(shape[1]):
        raise CaptureError(
            f"the model returns {shape} ({where(logits)}): as many logits as there are samples, each sample against "
            "every other. A sample must have logits of its own: wrap the model in a module that takes the pairs, such "
            "as output.logits_per_image.diagonal()[:, None]; docs/pairs.md."
        )
    if logits is explained(gm.graph):
        raise CaptureError("the logits are the input itself, and there is nothing to explain between the two.")
    if logits not in depends_on(gm.graph, [explained(gm.graph)]):
        raise CaptureError("the logits do not depend on the input; there is nothing to explain.")
