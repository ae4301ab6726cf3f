"""Stage 1: an `nn.Module`, `ExportedProgram` or `.pt2` file becomes a functional ATen fx graph.

The graph has one spelling per operator, no in-place operator, no dropout, a symbolic batch, and its weights as flat
constants. The caller's model is not touched: a copy of it is exported.
"""

from __future__ import annotations

import copy
import inspect
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from fxpullback.capture import recurrent
from fxpullback.capture.canonical import canonicalise, decompositions
from fxpullback.capture.dynamic_sizes import Watch, check_module, export_free, wanted_axes
from fxpullback.capture.quiet import no_fast_path, quiet
from fxpullback.contract.errors import CaptureError
from fxpullback.contract.names import INPUT, graph_names
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.inputs import check_example, check_extra_examples
from fxpullback.graph.ir import EXTRAS, FREE, WATCH, arg, depends_on, explained, extra_inputs, placeholders, where

Model = nn.Module | ExportedProgram | str | os.PathLike[str]


class TrainingModeWarning(UserWarning):
    """The model was in training mode; what was compiled is its evaluation mode."""


def capture(
    model: Model,
    example: Tensor,
    extras: Sequence[Tensor] = (),
    names: Sequence[str] = (),
    free_size: bool | Sequence[int] = False,
) -> fx.GraphModule:
    """Capture `model` as a functional ATen graph from `input`, and what else it takes, to logits.

    Args:
        model: a module, an exported program, or the path of a `.pt2` file.
        example: one input, `[batch, ...]`; only its shape beyond the batch, its type and device matter.
        extras: examples of the model's further inputs, in order. One whose leading axis has the extent of the example's
            batch is taken for batched; all its other extents are fixed.
        names: what the forward calls example and extras, where they are to be passed by name; none: by position.
        free_size: axes whose size stays free like the batch, or True for all behind the channels.

    Returns:
        Graph module with the placeholder `input` and one for each extra, named as the model's forward names it; flat
        constants; and one output `[batch, classes]`.

    Raises:
        CaptureError: the model cannot be exported with a symbolic batch, or its output is no `[batch, classes]`.
    """
    check_example(example)
    check_extra_examples(extras)
    axes = wanted_axes(free_size, example)
    free: tuple[FreeAxis, ...] = ()
    if axes:
        check_module(model)
        program, free = export_free(lambda dims: _program(model, example, extras, names, dims), example, axes)
    else:
        program = _program(model, example, extras, names, {})
    check_inputs(program, (example, *extras), names)
    program = program.run_decompositions(decompositions())
    gm = _flatten(program)
    gm.meta[FREE] = free
    if free:
        gm.meta[WATCH] = Watch(gm, free, example)
    gm = canonicalise(gm)
    check_free_axes(gm)
    check_output(gm)
    return gm


def _program(
    model: Model, example: Tensor, extras: Sequence[Tensor], names: Sequence[str], dims: Mapping[int, Any]
) -> ExportedProgram:
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
    return _export(copy.deepcopy(model).eval(), example, extras, names, dims)


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


def _export(
    model: nn.Module, example: Tensor, extras: Sequence[Tensor], names: Sequence[str], dims: Mapping[int, Any]
) -> ExportedProgram:
    _check_signature(model, 1 + len(extras), names)
    batch, free = Dim("batch"), ShapesCollection()
    inputs = []
    for tensor in (example, *extras):
        batched = is_batched(tensor, example)
        inputs.append(_pair(tensor) if batched else tensor.detach().clone())
        if batched:
            free[inputs[-1]] = {0: batch, **(dims if tensor is example else {})}
    try:
        with quiet(), no_fast_path(), recurrent.opaque():
            args, kwargs = ((), dict(zip(names, inputs, strict=True))) if names else (tuple(inputs), None)
            return torch.export.export(model, args, kwargs, dynamic_shapes=free, strict=False)
    except Exception as error:
        batched_extras = [i for i, extra in enumerate(extras, 2) if is_batched(extra, example)]
        raise CaptureError(_explain(model, error, batched_extras)) from error


def _pair(example: Tensor) -> Tensor:
    """A batch of two: a batch of one would be burnt in."""
    return example[:1].detach().repeat(2, *[1] * (example.ndim - 1))


def is_batched(tensor: Tensor, example: Tensor) -> bool:
    """Whether the leading axis of an input is taken for the batch: it has the extent of the example's."""
    return tensor.ndim > 0 and tensor.shape[0] == example.shape[0]


def _check_signature(model: nn.Module, count: int, names: Sequence[str]) -> None:
    """Refuse examples that the model's forward cannot be called with."""
    signature = inspect.signature(model.forward)
    try:
        signature.bind(*() if names else range(count), **dict.fromkeys(names))
    except TypeError as error:
        called = f"examples called {', '.join(names)}" if names else f"{count} example inputs"
        raise CaptureError(
            f"{type(model).__name__}.forward{signature} cannot be called with {called}: {error}. Pass one for each "
            "tensor it takes, the explained one first: fxpullback.compile(model, (x, mask)), or by name, "
            'fxpullback.compile(model, {"x": x, "mask": mask}).'
        ) from error


def check_inputs(program: ExportedProgram, examples: Sequence[Tensor], given: Sequence[str] = ()) -> None:
    """Refuse a program whose inputs are not those of the examples, or are no tensors."""
    nodes = _user_inputs(program)
    names = ", ".join(node.name for node in nodes)
    for node in nodes:
        if not isinstance(node.meta.get("val"), Tensor):
            raise CaptureError(
                f"the model's input {node.name} is a {type(node.meta.get('val')).__name__}, and a graph takes tensors "
                "alone. Wrap the model in a module that passes it by itself, and export that."
            )
    if given and [node.name for node in nodes] != list(given):
        raise CaptureError(
            f"the program takes {names}, and the examples are called {', '.join(given)}. Pass them under its names, in "
            "its order, the explained one first."
        )
    if len(nodes) != len(examples):
        raise CaptureError(
            f"the program takes {len(nodes)} inputs ({names}), and {len(examples)} examples were given. "
            "Pass one for each, the explained one first: fxpullback.compile(program, (x, mask))."
        )
    for node, example in zip(nodes, examples, strict=True):
        _check_fits(node, example)


def _check_fits(node: fx.Node, example: Tensor) -> None:
    """Refuse an example that is not what the program takes there."""
    val = node.meta["val"]
    fits = val.ndim == example.ndim and all(
        isinstance(size, torch.SymInt) or size == extent for size, extent in zip(val.shape, example.shape, strict=False)
    )
    if not fits or val.dtype != example.dtype:
        raise CaptureError(
            f"the program takes {list(val.shape)} of {val.dtype} as {node.name}, and the example is "
            f"{list(example.shape)} of {example.dtype}. Pass an example of that kind."
        )


def _user_inputs(program: ExportedProgram) -> list[fx.Node]:
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return [n for n in placeholders(program.graph) if kinds[n.name] is InputKind.USER_INPUT]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


_DATA_DEPENDENT = ("GuardOnDataDependentSymNode", "DataDependent", "UserError")


def _explain(model: nn.Module, error: Exception, batched: Sequence[int] = ()) -> str:
    kinds = {type(e).__name__ for e in (error, error.__cause__, error.__context__) if e is not None}
    text = str(error)
    name = type(model).__name__
    if kinds & set(_DATA_DEPENDENT) and ("data-dependent" in text.lower() or "data dependent" in text.lower()):
        why = "its control flow depends on the values of the input"
        advice = "Rewrite the branch with torch.where, or export the branch you mean."
    elif "in output, which is not a known type" in text:
        kind = text.partition("class '")[2].partition("'")[0].rpartition(".")[2]
        why = f"it returns a {kind}, which torch.export does not take apart"
        advice = "Wrap the model in a module whose forward returns the logits alone."
    elif "constraint" in text.lower() or "specializ" in text.lower():
        why = "it fixes the batch size"
        advice = "Take the batch from x.shape[0] instead of a constant, so that one graph serves every batch size."
    else:
        why = _first_line(error)
        advice = "Check that model(x) runs on the example input, and that torch.export.export(model, (x,)) works."
    if batched:
        advice += (
            f" Inputs {', '.join(map(str, batched))} were taken for batched, as their leading extent is the batch of "
            "the examples; where one is not, pass examples of a batch of another size."
        )
    return f"torch.export cannot capture {name}: {why}. {advice}\n  torch said: {_first_line(error)}"


def _flatten(program: ExportedProgram) -> fx.GraphModule:
    """Weights, buffers and constants become `get_attr` nodes on flat names; the first user input becomes `input`."""
    constants = {**program.state_dict, **program.constants}
    root, graph, env = nn.Module(), fx.Graph(), {}
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    users = _user_inputs(program)
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
    gm = fx.GraphModule(root, graph)
    gm.meta[EXTRAS] = len(users) - 1
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
    if len(known) > 1 and not gm.meta.get(FREE):
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
