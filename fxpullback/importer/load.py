"""The way in: the path of a file to a module that can be captured."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import ModelProto

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.module import OnnxModule, module_of
from fxpullback.importer.numbers import Array
from fxpullback.importer.original import Original
from fxpullback.importer.plan import plan
from fxpullback.importer.read import read

SUFFIX = ".onnx"


def load(path: Path, output: str | int | None = None) -> OnnxModule:
    """The module of an ONNX file.

    Args:
        path: the file.
        output: what the logits are, where the file has several outputs: the name of one, or of any value in it, or the
            place of one.

    Returns:
        The module in evaluation mode, with what it is checked against: the file in ONNX Runtime.

    Raises:
        CaptureError: the file cannot be read, or holds what is not imported.
    """
    model = read(path)
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if not inputs:
        raise CaptureError(f"{path.name} has no inputs; there is nothing to explain.")
    outputs = _outputs(path, model, output)
    batch = _fixed_batch(inputs[0])
    made = plan(model, outputs, batch)
    module = module_of(made, [value.name for value in inputs], outputs)
    module.original = Original(path, tuple(value.name for value in inputs), outputs, batch)
    module.by_name = isinstance(output, str)
    module.notes = _notes(made.constants, made.dequantised, made.steps[-1].node.kind if made.steps else "", outputs)
    return module


def _outputs(path: Path, model: ModelProto, output: str | int | None) -> tuple[str, ...]:
    names = [value.name for value in model.graph.output]
    if not isinstance(output, str) or output in names:
        return tuple(names)
    inside = [name for node in model.graph.node for name in node.output if name]
    if output not in inside:
        listed = ", ".join(names[:12])
        raise CaptureError(
            f"{path.name} has no value called {output!r}. Its outputs are {listed}; name one, or a value in it."
        )
    return (output,)


def _fixed_batch(value: onnx.ValueInfoProto) -> int | None:
    """The batch that a file fixes, by the leading axis of its first input."""
    kind = value.type.tensor_type
    if not kind.HasField("shape") or not kind.shape.dim:
        return None
    first = kind.shape.dim[0]
    return int(first.dim_value) if first.HasField("dim_value") and first.dim_value > 0 else None


def _notes(constants: dict[str, Array], dequantised: list[str], last: str, outputs: tuple[str, ...]) -> tuple[str, ...]:
    notes = []
    if dequantised:
        notes.append(f"{len(dequantised)} constants of the file are stored quantised, and were dequantised")
    if last in ("Softmax", "Sigmoid", "LogSoftmax") and len(outputs) == 1:
        notes.append(
            f"the output {outputs[0]!r} is made by {last}: what is explained is that, not the logits in front of it; "
            "output= names another value"
        )
    return tuple(notes)
