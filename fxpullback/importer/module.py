"""A file's graph as a module: one child for each node, so that what comes of a node can be told by its name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.importer.body import Body
from fxpullback.importer.operators.quantised import Quantised
from fxpullback.importer.site import tensor
from fxpullback.importer.steps import INSIDE, Plan, Wanted


class OnnxModule(Body):
    """The graph of a file. Its forward takes the inputs of the file, by place or by name.

    Attributes:
        original: what the file is checked against, see `fxpullback.importer.original`.
        notes: what the ledger says of the file as a whole.
        by_name: whether one output, too, is returned under its name.
        beside: whether the pullback is put beside the nodes of the file: an export then says every value of it.
        wanted: what the file says of its inputs.
        ids: how many ids there are, where the first input holds such; else 0.
    """

    original: Any = None
    notes: tuple[str, ...] = ()
    by_name = False
    beside = False
    wanted: tuple[Wanted, ...] = ()
    ids = 0

    def __init__(self, plan: Plan, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__(plan, outputs)
        self.inputs = tuple(inputs)

    def examples(self) -> tuple[Tensor, ...]:
        """An example of each input, a batch of two or more: normal numbers, ids, or zeros where they are whole.

        Of the inputs behind the first, those are batched whose leading size the file leaves free, or has as that of the
        first; others have the sizes that the file says, and the batch is none of those.

        Raises:
            InputError: the file leaves sizes free beside the batch.
        """
        for value in self.wanted:
            if value.sizes is None or None in value.sizes[1:]:
                raise InputError(
                    f"the input {value.name} of the file is {value.said()}: its sizes are free. Pass an example."
                )
        batched = [i == 0 or self._is_batched(value) for i, value in enumerate(self.wanted)]
        alone = {
            value.sizes[0] for value, is_one in zip(self.wanted, batched, strict=True) if value.sizes and not is_one
        }
        batch = self.batch if self.batch and self.batch > 1 else next(n for n in range(2, 99) if n not in alone)
        found = []
        for value, is_one in zip(self.wanted, batched, strict=True):
            sizes = [int(n or 1) for n in value.sizes or ()]
            sizes = [batch, *sizes[1:]] if is_one else sizes
            found.append(self.example(value, sizes))
        return tuple(found)

    def example(self, value: Wanted, sizes: Sequence[int]) -> Tensor:
        """An example of one input, the same on every run.

        Args:
            value: the input.
            sizes: of the example.
        """
        drawn = torch.Generator().manual_seed(self.wanted.index(value))
        if value.dtype.is_floating_point:
            return torch.randn([*sizes], generator=drawn).to(value.dtype)
        if self.ids and value is self.wanted[0]:
            return torch.randint(self.ids, [*sizes], generator=drawn).to(value.dtype)
        return torch.zeros([*sizes], dtype=value.dtype)

    def _is_batched(self, value: Wanted) -> bool:
        return bool(value.sizes) and value.sizes[0] in (None, self.batch)  # type: ignore[index]

    @property
    def batch(self) -> int | None:
        """The batch that the file fixes."""
        batch: int | None = self.original.batch if self.original is not None else None
        return batch

    def run(self, given: Sequence[Tensor]) -> Any:
        """The outputs of the file: one tensor, or a dictionary of several."""
        told = self.beside and torch.compiler.is_exporting()
        values = self.compute(dict(zip(self.inputs, given, strict=True)), whole=told)
        found = {name: _plain(values[name], name) for name in self.outputs}
        if told:
            constant = {*self.inputs, *self.small, *self.held, *self.outputs}
            made = {n: v for n, v in values.items() if isinstance(v, Tensor) and n not in constant}
            return {**found, **{f"{INSIDE}{name}": value for name, value in made.items()}}
        return found if len(found) > 1 or self.by_name else found[self.outputs[0]]


def module_of(plan: Plan, inputs: Sequence[str], outputs: Sequence[str]) -> OnnxModule:
    """The module of a plan, its forward with the file's own names of inputs."""
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *identifiers(inputs))
    ]
    signature = inspect.Signature(parameters)

    def forward(self: OnnxModule, *given: Tensor, **named: Tensor) -> Any:
        return self.run([*signature.bind(self, *given, **named).arguments.values()][1:])

    forward.__signature__ = signature  # type: ignore[attr-defined]
    kind = type("OnnxModule", (OnnxModule,), {"forward": forward})
    made: OnnxModule = kind(plan, inputs, outputs)
    return made.eval()


def identifiers(names: Sequence[str]) -> list[str]:
    """Names of a file as names of Python, all different."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"\W", "_", name) or "x"
        plain = f"x_{plain}" if plain[0].isdigit() or plain in ("self", "input") else plain
        while plain in found:
            plain += "_"
        found.append(plain)
    return found


def named_after(gm: fx.GraphModule, model: Any) -> None:
    """Have the nodes of a captured graph say which node of the file they come of; other models stay."""
    inside = model.named_modules() if isinstance(model, nn.Module) else ()
    imported = [(path, part) for path, part in inside if isinstance(part, OnnxModule)]
    if not imported:
        return
    ((path, found),) = imported[:1]
    names = {f"{path}.{child}" if path else child: name for child, name in found.names.items()}
    for node in gm.graph.nodes:
        stack = node.meta.get("nn_module_stack")
        node.meta.pop("stack_trace", None)
        if stack:
            paths = [str(entry[0]) for entry in stack.values() if isinstance(entry, tuple)]
            name = next((names[p] for p in reversed(paths) if p in names), "")
            node.meta["nn_module_stack"] = {"onnx": (name, "onnx")} if name else {}


def _plain(value: Any, name: str) -> Tensor:
    if isinstance(value, Quantised):
        raise CaptureError(f"the output {name!r} is quantised; name the value in front of it, output=.")
    made: Tensor = tensor(value)
    return made
