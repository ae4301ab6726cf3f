"""Stage 1: an `nn.Module`, `ExportedProgram` or `.pt2` file becomes a functional ATen fx graph.

The graph has one spelling per operator, no in-place operator, no dropout, a symbolic batch, and its weights as flat
constants. The caller's model is not touched: a copy of it is exported.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from fxpullback.canonical import canonicalise, decompositions
from fxpullback.errors import CaptureError
from fxpullback.ir import arg, depends_on, placeholders, where

Model = nn.Module | ExportedProgram | str | os.PathLike[str]


class TrainingModeWarning(UserWarning):
    """The model was in training mode; what was compiled is its evaluation mode."""


def capture(model: Model, example: Tensor) -> fx.GraphModule:
    """Capture `model` as a functional ATen graph from `input` to logits.

    Args:
        model: a module, an exported program, or the path of a `.pt2` file.
        example: one input, `[batch, ...]`; only its shape beyond the batch, its type and device matter.

    Returns:
        Graph module with one placeholder `input`, flat constants, and one output `[batch, classes]`.

    Raises:
        CaptureError: the model cannot be exported with a symbolic batch, or its output is no `[batch, classes]`.
    """
    check_example(example)
    program = _program(model, example)
    program = program.run_decompositions(decompositions())
    gm = canonicalise(_flatten(program))
    check_output(gm)
    return gm


def check_example(example: Any) -> None:
    """Refuse an example input that no graph could be captured from."""
    if not isinstance(example, Tensor):
        raise CaptureError(f"the example input is a {type(example).__name__}; pass one tensor [batch, ...].")
    if example.ndim < 2 or example.shape[0] == 0 or not example.is_floating_point():
        raise CaptureError(
            f"the example input is {list(example.shape)} of {example.dtype}; a floating-point tensor [batch, ...] "
            "with at least one sample is needed, e.g. torch.zeros(1, 3, 224, 224)."
        )


def _program(model: Model, example: Tensor) -> ExportedProgram:
    if isinstance(model, str | os.PathLike):
        return _load(Path(model))
    if isinstance(model, ExportedProgram):
        return model
    if not isinstance(model, nn.Module):
        raise CaptureError(f"cannot capture a {type(model).__name__}; pass an nn.Module, ExportedProgram or .pt2 path.")
    if model.training:
        warnings.warn(
            "the model is in training mode; its evaluation mode is compiled (model.eval()), the model is left as it is",
            TrainingModeWarning,
            stacklevel=4,
        )
    return _export(copy.deepcopy(model).eval(), example)


def _load(path: Path) -> ExportedProgram:
    if not path.is_file():
        raise CaptureError(f"no file {path}; pass a .pt2 file written by torch.export.save.")
    try:
        return torch.export.load(path)
    except Exception as error:
        raise CaptureError(
            f"{path} cannot be read as an exported program: {_first_line(error)}. "
            "Write it with torch.export.save(torch.export.export(model.eval(), ...), path)."
        ) from error


def _export(model: nn.Module, example: Tensor) -> ExportedProgram:
    pair = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))  # a batch of one would be burnt in
    try:
        with _quiet(), _no_fast_path():
            return torch.export.export(model, (pair,), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception as error:
        raise CaptureError(_explain(model, error)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own warnings and dumps: what matters of them stands in the error that is raised."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [logger.disabled for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.disabled = True
        try:
            yield
        finally:
            for logger, disabled in zip(loggers, before, strict=True):
                logger.disabled = disabled


_TALKATIVE = (
    "torch.fx.experimental.symbolic_shapes",
    "torch._subclasses.fake_tensor",
    "torch.export._trace",
    "torch.fx.experimental.proxy_tensor",
    "torch._export.utils",
    "torch.export._draft_export",
)


@contextmanager
def _no_fast_path() -> Iterator[None]:
    """Keep `nn.MultiheadAttention` from its fused inference operators, which hide the attention from the rules."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "DataDependent", "UserError")


def _explain(model: nn.Module, error: Exception) -> str:
    kinds = {type(e).__name__ for e in (error, error.__cause__, error.__context__) if e is not None}
    text = str(error)
    name = type(model).__name__
    if kinds & set(_DATA_DEPENDENT) and ("data-dependent" in text.lower() or "data dependent" in text.lower()):
        why = "its control flow depends on the values of the input"
        advice = "Rewrite the branch with torch.where, or export the branch you mean."
    elif "constraint" in text.lower() or "specializ" in text.lower():
        why = "it fixes the batch size"
        advice = "Take the batch from x.shape[0] instead of a constant, so that one graph serves every batch size."
    else:
        why = _first_line(error)
        advice = "Check that model(x) runs on the example input, and that torch.export.export(model, (x,)) works."
    return f"torch.export cannot capture {name}: {why}. {advice}\n  torch said: {_first_line(error)}"


def _flatten(program: ExportedProgram) -> fx.GraphModule:
    """Weights, buffers and constants become `get_attr` nodes on flat names; the one user input becomes `input`."""
    constants = {**program.state_dict, **program.constants}
    root, graph, env = nn.Module(), fx.Graph(), {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op == "placeholder" and specs[node.name].kind is not InputKind.USER_INPUT:
            spec = specs[node.name]
            _register(root, node.name, constants[str(spec.target)])
            env[node] = graph.get_attr(node.name)
            env[node].meta = dict(node.meta)
        elif node.op == "placeholder":
            if any(n.op == "placeholder" for n in graph.nodes):
                raise CaptureError(
                    "the model takes more than one input; wrap it in a module that takes the picture alone."
                )
            env[node] = graph.placeholder("input")
            env[node].meta = dict(node.meta)
        elif node.op == "output":
            graph.output((env[_logits(program, node)],))
        else:
            env[node] = graph.node_copy(node, lambda n: env[n])
    gm = fx.GraphModule(root, graph)
    gm.graph.eliminate_dead_code()
    return gm


def _register(root: nn.Module, name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise CaptureError(f"the model holds a constant {name} that is a {type(tensor).__name__} and no tensor.")
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(name, tensor)
    else:
        root.register_buffer(name, tensor.detach())


def _logits(program: ExportedProgram, output: fx.Node) -> fx.Node:
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    users = [i for i, kind in enumerate(kinds) if kind is OutputKind.USER_OUTPUT]
    if any(kind is OutputKind.BUFFER_MUTATION for kind in kinds):
        raise CaptureError("the model changes its buffers while it runs; call model.eval() before exporting it.")
    results: Any = output.args[0]
    if len(users) != 1 or not isinstance(results[users[0]], fx.Node):
        raise CaptureError(
            f"the model returns {len(users)} values; fxpullback explains one tensor of logits [batch, classes]. "
            "Wrap the model in a module whose forward returns that tensor alone."
        )
    node = results[users[0]]
    assert isinstance(node, fx.Node)
    return node


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
    if logits.op == "placeholder" or logits not in depends_on(gm.graph, placeholders(gm.graph)):
        raise CaptureError("the logits do not depend on the input; there is nothing to explain.")
