"""The way in: the path of a file to a module that can be captured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from onnx import ModelProto, ValueInfoProto

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.held import Held, hold
from fxpullback.importer.lookups import looked_up
from fxpullback.importer.module import OnnxModule, module_of
from fxpullback.importer.numbers import Array
from fxpullback.importer.origin import origin
from fxpullback.importer.original import Original
from fxpullback.importer.plan import plan
from fxpullback.importer.read import read
from fxpullback.importer.site import DTYPES
from fxpullback.importer.steps import Plan, Wanted
from fxpullback.importer.strides import strided

SUFFIX = ".onnx"


def load(path: Path, output: str | int | None = None, first: str | None = None, held: Held | None = None) -> OnnxModule:
    """The module of an ONNX file.

    Args:
        path: the file.
        output: what the logits are, where the file has several outputs: the name of one, or of any value in it, or the
            place of one.
        first: the input that is explained, where it is not the file's first.
        held: inputs that are none of the module, and what they hold: a number, or an array of the input's sizes.

    Returns:
        The module in evaluation mode, with what it is checked against: the file in ONNX Runtime.

    Raises:
        CaptureError: the file cannot be read, or holds what is not imported.
    """
    model = read(path)
    hold(model, held or {}, first)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise CaptureError(f"{path.name} has no inputs; there is nothing to explain.")
    inputs = _ordered(path, inputs, first)
    outputs = _outputs(path, model, output)
    batch = _fixed_batch(inputs[0])
    made = strided(looked_up(plan(model, outputs, batch), inputs[0].name))
    module = module_of(made, [value.name for value in inputs], outputs)
    names = tuple(value.name for value in inputs)
    module.original = Original(path, names, outputs, batch, held=held or {}, origin=origin(path))
    module.wanted = tuple(_wanted(value) for value in inputs)
    module.by_name = isinstance(output, str) and not output.isdigit()
    module.ids = made.ids
    module.notes = _notes(made, made.steps[-1].node.kind if made.steps else "", outputs)
    return module


def constants_of(path: Path, outputs: Sequence[str], batch: int | None) -> dict[str, Array]:
    """The constants of a file, those that are computed of others among them, by the names of the file.

    Args:
        path: the file.
        outputs: the outputs that are explained.
        batch: the batch that the file fixes.
    """
    return plan(read(path), outputs, batch).constants


def _ordered(path: Path, inputs: list[ValueInfoProto], first: str | None) -> list[ValueInfoProto]:
    """The inputs, the explained one first."""
    if first is None:
        return inputs
    chosen = [value for value in inputs if value.name == first]
    if not chosen:
        raise CaptureError(f"{path.name} has no input called {first!r}; it takes {', '.join(v.name for v in inputs)}.")
    return [*chosen, *(value for value in inputs if value.name != first)]


def _wanted(value: ValueInfoProto) -> Wanted:
    kind = value.type.tensor_type
    sizes = None
    if kind.HasField("shape"):
        sizes = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in kind.shape.dim)
    return Wanted(value.name, sizes, DTYPES.get(kind.elem_type, torch.float32))


def _outputs(path: Path, model: ModelProto, output: str | int | None) -> tuple[str, ...]:
    names = [value.name for value in model.graph.output]
    if not isinstance(output, str) or output in names or output.isdigit():
        return tuple(names)
    inside = [name for node in model.graph.node for name in node.output if name]
    if output not in inside:
        listed = ", ".join(names[:12])
        raise CaptureError(
            f"{path.name} has no value called {output!r}. Its outputs are {listed}; name one, or a value in it."
        )
    return (output,)


def _fixed_batch(value: ValueInfoProto) -> int | None:
    """The batch that a file fixes, by the leading axis of its first input."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not kind.shape.dim:
        return None
    first = kind.shape.dim[0]
    return int(first.dim_value) if first.HasField("dim_value") and first.dim_value > 0 else None


def _notes(made: Plan, last: str, outputs: tuple[str, ...]) -> tuple[str, ...]:
    notes = [*made.notes]
    if made.dequantised:
        notes.append(f"{len(made.dequantised)} constants of the file are stored quantised, and were dequantised")
    if last in ("Softmax", "Sigmoid", "LogSoftmax") and len(outputs) == 1:
        notes.append(
            f"the output {outputs[0]!r} is made by {last}: what is explained is that, not the logits in front of it; "
            "output= names another value"
        )
    return tuple(notes)
