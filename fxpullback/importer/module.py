"""A file's graph as a module: one child for each node, so that what comes of a node can be told by its name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from fxpullback.contract.errors import CaptureError, FxPullbackError, InputError
from fxpullback.importer.numbers import MOST, Array, Known
from fxpullback.importer.operators.integers import of_integers
from fxpullback.importer.operators.quantised import Quantised
from fxpullback.importer.operators.table import OPERATORS, key_of
from fxpullback.importer.site import tensor
from fxpullback.importer.steps import Plan, Step, Wanted


class Call(nn.Module):
    """One node."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step

    def __deepcopy__(self, memo: Any) -> Call:
        return Call(self.step)

    def forward(self, *values: Any) -> tuple[Any, ...]:
        """What the node makes of what it reads.

        Raises:
            CaptureError: it cannot be computed; the message names the node.
        """
        node = self.step.node
        try:
            operator = OPERATORS[key_of(node.domain, node.kind)]
            integers = any(isinstance(value, Quantised) for value in values)
            made = of_integers(node, operator, values) if integers else operator(node, *values)
        except CaptureError as error:
            raise CaptureError(f"{node.said()}: {error}") from error
        except FxPullbackError:
            raise
        except Exception as error:
            shapes = ", ".join(str(list(v.shape)) for v in values if isinstance(v, Tensor))
            fixed = f" The file fixes its batch at {node.batch}; export it with a free one." if node.batch else ""
            raise CaptureError(f"{node.said()} cannot be computed of {shapes}: {_first_line(error)}.{fixed}") from error
        return tuple(made) if isinstance(made, tuple) else (made,)


class OnnxModule(nn.Module):
    """The graph of a file. Its forward takes the inputs of the file, by place or by name.

    Attributes:
        original: what the file is checked against, see `fxpullback.importer.original`.
        names: names of the nodes, by that of the child.
        notes: what the ledger says of the file as a whole.
        by_name: whether one output, too, is returned under its name.
        wanted: what the file says of its inputs.
    """

    original: Any = None
    notes: tuple[str, ...] = ()
    by_name = False
    wanted: tuple[Wanted, ...] = ()

    def __init__(self, plan: Plan, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.names: dict[str, str] = {}
        self.small: dict[str, Array] = {}
        self.held: dict[str, str] = {}
        used = {name for step in plan.steps for name in step.inputs} | set(outputs)
        for name, array in plan.constants.items():
            if name in used:
                self._hold(name, array)
        for i, step in enumerate(plan.steps):
            self.add_module(f"n{i}", Call(step))
            self.names[f"n{i}"] = step.node.name
        self.last = _last_reads(plan.steps, outputs)

    def _hold(self, name: str, array: Array) -> None:
        if array.dtype.kind in "iub" and array.size <= MOST:
            self.small[name] = array
            return
        key = f"c_{re.sub(r'[^0-9A-Za-z_]', '_', name)}"
        while hasattr(self, key):
            key += "_"
        self.register_buffer(key, _tensor(array))
        self.held[name] = key

    def examples(self) -> tuple[Tensor, ...]:
        """An example of each input, a batch of two: normal numbers, or zeros where they are whole.

        Raises:
            InputError: the file leaves sizes free beside the batch.
        """
        found = []
        for value in self.wanted:
            if value.sizes is None or None in value.sizes[1:]:
                raise InputError(
                    f"the input {value.name} of the file is {value.said()}: its sizes are free. Pass an example."
                )
            sizes = [self.batch if self.batch and self.batch > 1 else 2, *(int(n or 1) for n in value.sizes[1:])]
            floats = value.dtype.is_floating_point
            found.append((torch.randn if floats else torch.zeros)(sizes).to(value.dtype))
        return tuple(found)

    @property
    def batch(self) -> int | None:
        """The batch that the file fixes."""
        batch: int | None = self.original.batch if self.original is not None else None
        return batch

    def run(self, given: Sequence[Tensor]) -> Any:
        """The outputs of the file: one tensor, or a dictionary of several."""
        values: dict[str, Any] = dict(zip(self.inputs, given, strict=True))
        values |= {name: Known(array) for name, array in self.small.items()}
        values |= {name: getattr(self, key) for name, key in self.held.items()}
        for i, child in enumerate(self.children()):
            assert isinstance(child, Call)
            step = child.step
            made = child(*(values[name] if name else None for name in step.inputs))
            values.update({name: value for name, value in zip(step.outputs, made, strict=False) if name})
            for name in self.last.get(i, ()):
                values.pop(name, None)
        found = {name: _plain(values[name], name) for name in self.outputs}
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


def _last_reads(steps: Sequence[Step], outputs: Sequence[str]) -> Mapping[int, list[str]]:
    """For every step the values that nothing reads behind it."""
    seen, found = set(outputs), dict[int, list[str]]()
    for i in range(len(steps) - 1, -1, -1):
        found[i] = [n for n in dict.fromkeys(steps[i].inputs) if n and n not in seen]
        seen.update(found[i])
    return found


def _tensor(array: Array) -> Tensor:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    if array.dtype.name in ("uint16", "uint32", "uint64", "uint4", "int4", "uint2", "int2"):
        array = array.astype(np.int64)
    if array.dtype.name.startswith("float") and array.dtype.itemsize == 1:  # of 8 bits or fewer
        array = array.astype(np.float32)
    return torch.from_numpy(np.array(array))


def _plain(value: Any, name: str) -> Tensor:
    if isinstance(value, Quantised):
        raise CaptureError(f"the output {name!r} is quantised; name the value in front of it, output=.")
    made: Tensor = tensor(value)
    return made


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
