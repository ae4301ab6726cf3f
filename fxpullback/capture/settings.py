"""Weights that a forward sets while it runs, as max-norm constraints do: named with their line and a rewrite.

torch.export takes a weight for a constant of the graph, and one that is set meanwhile is none.
"""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import OutputKind

from fxpullback.capture.copied import own_copy
from fxpullback.capture.known import Noticed, memory
from fxpullback.contract.errors import CaptureError

SIGN = "fake tensor in the exported program constant's list"
"""What torch says where a forward sets a tensor of the module by its data."""


@dataclass(frozen=True)
class _Set:
    """A weight that is set.

    Attributes:
        path: the weight.
        file: where, and in which line.
        line: its number.
        of_input: whether what it is set to depends on the input.
    """

    path: str
    file: str
    line: int
    of_input: bool


def refuse_set_weights(program: ExportedProgram, model: Any, inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Refuse a program that changes a weight while it runs: two calls of it need not agree.

    Args:
        program: taken apart, as torch says only then which weights are changed.
        model: what it was made of.
        inputs: a batch.
        names: of the inputs, where they are passed by name.

    Raises:
        CaptureError: names the weight and its line, and says what to write.
    """
    kinds = {spec.kind for spec in program.graph_signature.output_specs}
    if OutputKind.PARAMETER_MUTATION not in kinds or not isinstance(model, nn.Module):
        return
    if (said := set_weight(model, inputs, names)) is not None:
        raise CaptureError(said)


def set_weight(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> str | None:
    """What is said of the first weight or buffer that a forward sets; None where it sets none.

    Args:
        model: the module; a copy of it runs.
        inputs: a batch.
        names: of the inputs, where they are passed by name.
    """
    copied, passed = own_copy(model), [tensor.detach().clone() for tensor in inputs]
    try:
        with torch.no_grad(), _Watched(copied, passed) as watched:
            copied(**dict(zip(names, passed, strict=True))) if names else copied(*passed)
    except Exception:  # what was set before is known all the same
        pass
    return _said(watched.found[0], copied) if watched.found else None


class _Watched(Noticed):
    """Takes note of every tensor of a model that is written to."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor]) -> None:
        super().__init__(inputs)
        self.own = {memory(tensor): path for path, tensor in [*model.named_parameters(), *model.named_buffers()]}
        self.found: list[_Set] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        written = args[0] if args and isinstance(args[0], Tensor) else None
        in_place = name == "__setitem__" or (name.endswith("_") and not name.startswith(("_", "requires_grad")))
        sets_data = name == "__set__" and getattr(func, "__self__", None) is torch.Tensor.data
        path = self.own.get(memory(written)) if written is not None and (in_place or sets_data) else None
        if path is not None:
            self.found.append(_Set(path, *_own_place(), any(self.depends(leaf) for leaf in args[1:])))
        result = super().__torch_function__(func, types, args, kwargs)
        if path is not None and sets_data:
            self.own[memory(args[0])] = path
        return result


def _own_place() -> tuple[str, int]:
    """File and line of the innermost frame that is neither torch's nor this package's."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in ("torch", "fxpullback"):
            break
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def _said(found: _Set, model: nn.Module) -> str:
    module, _, name = found.path.rpartition(".")
    code = linecache.getline(found.file, found.line).strip()
    head = (
        f"the forward sets {found.path} while it runs, at {Path(found.file).name}:{found.line}"
        f"{f' ({code})' if code else ''}. A graph has its weights as constants"
    )
    if found.of_input:
        return (
            f"{head}, and this one is computed of the input. Compute it into a variable, and pass that to the function "
            "in place of the layer: torch.nn.functional.linear(x, weight, bias), conv2d(x, weight, bias), ..."
        )
    if name not in dict(model.get_submodule(module).named_parameters(recurse=False)):
        return f"{head}. Compute it into a variable in place of the buffer, or set it in training alone."
    layer = f"model.get_submodule({module!r})" if module else "model"
    return (
        f"{head}. Take that line out, and have a parametrisation compute it:\n"
        "  class Kept(torch.nn.Module):\n"
        f"      def forward(self, weight): return {_of_weight(code, name) or '...  # what that line computes'}\n"
        f"  torch.nn.utils.parametrize.register_parametrization({layer}, {name!r}, Kept())"
    )


def _of_weight(code: str, name: str) -> str | None:
    """What a line computes of a weight, called `weight`; None where it needs anything else of the module."""
    try:
        statements = list(ast.walk(ast.parse(code + (" pass" if code.endswith(":") else ""))))
    except SyntaxError:
        return None
    for node in statements:
        if isinstance(node, ast.Assign):
            return _alone(ast.unparse(node.value), node.targets[0], name)
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Attribute)
        ):
            call, method = node.value, node.value.func
            if method.attr == "copy_":
                return _alone(ast.unparse(call.args[0]), method.value, name)
            given = ", ".join(ast.unparse(argument) for argument in [*call.args, *call.keywords])
            return _alone(f"{ast.unparse(method.value)}.{method.attr.removesuffix('_')}({given})", method.value, name)
    return None


def _alone(expression: str, target: ast.expr, name: str) -> str | None:
    """An expression with `weight` in place of what is set, where it then holds nothing else of the module."""
    set_one = ast.unparse(target).removesuffix(".data")
    owner, _, attribute = set_one.rpartition(".")
    if attribute != name or not owner:
        return None
    for spelled in (f"{set_one}.data", f"{set_one}.detach()", set_one):
        expression = expression.replace(spelled, "weight")
    base = owner.partition(".")[0]
    names = {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}
    return None if base in names else expression
