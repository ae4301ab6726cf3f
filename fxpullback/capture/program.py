"""An `nn.Module`, `ExportedProgram` or `.pt2` file as an exported program; what cannot be exported is refused."""

from __future__ import annotations

import inspect
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from fxpullback.capture import authored, bags, distances, known, lengths, quantised, recurrent, settings
from fxpullback.capture.copied import own_copy
from fxpullback.capture.flatten import user_inputs
from fxpullback.capture.quiet import no_fast_path, quiet
from fxpullback.capture.reasons import FIXED_BATCH, SCRIPTED, explained, scripted_part
from fxpullback.contract.errors import CaptureError, FxPullbackError, InputError

Model = nn.Module | ExportedProgram | str | os.PathLike[str]


class TrainingModeWarning(UserWarning):
    """The model was in training mode; what was compiled is its evaluation mode."""


def export(
    model: Model, example: Tensor, extras: Sequence[Tensor], names: Sequence[str], dims: Mapping[int, Any]
) -> ExportedProgram:
    model = as_program(model)
    if isinstance(model, ExportedProgram):
        return model
    if (scripted := scripted_part(model)) is not None:
        raise CaptureError(f"{scripted}")
    if not isinstance(model, nn.Module):
        raise CaptureError(f"cannot capture a {type(model).__name__}; pass an nn.Module, ExportedProgram or .pt2 path.")
    if model.training:
        warnings.warn(
            "the model is in training mode; its evaluation mode is compiled (model.eval()), the model is left as it is",
            TrainingModeWarning,
            stacklevel=6,
        )
    return _export(own_copy(model), example, extras, names, dims)


def as_program(model: Model, output: str | int | None = None) -> nn.Module | ExportedProgram:
    """The program in a `.pt2` file, the module of an `.onnx` file; anything else as it is.

    Args:
        model: what was given.
        output: the output that is explained: of an `.onnx` file it may be any value inside.
    """
    if not isinstance(model, str | os.PathLike):
        return model
    path = Path(model)
    if path.suffix.lower() != ".onnx":
        return load_program(path)
    from fxpullback.importer.load import load

    return load(path, output)


def examples_of(model: nn.Module | ExportedProgram) -> tuple[Tensor, ...]:
    """The example inputs that an exported program was traced with.

    Raises:
        InputError: a model that has none.
    """
    given = model.example_inputs if isinstance(model, ExportedProgram) else None
    args, kwargs = given or ((), {})
    found = (*args, *kwargs.values())
    if not found or not all(isinstance(value, Tensor) for value in found):
        raise InputError(
            f"a {type(model).__name__} does not say what shape its input has: pass pictures, calibrate(model, "
            "pictures), or an example for noise of its shape, calibrate(model, example_inputs=x)."
        )
    return found


def load_program(path: Path) -> ExportedProgram:
    """The program in a file, without what torch logs of one that it cannot read.

    Raises:
        CaptureError: there is none.
    """
    if not path.is_file():
        raise CaptureError(f"no file {path}; pass a .pt2 file written by torch.export.save.")
    if is_script(path):
        raise CaptureError(f"{path} {SCRIPTED}")
    try:
        with quiet():
            return torch.export.load(path)
    except Exception as error:
        raise CaptureError(
            f"{path} cannot be read as an exported program: {_first_line(error)}. "
            "Write it with torch.export.save(torch.export.export(model.eval(), ...), path)."
        ) from error


def is_script(path: Path) -> bool:
    """Whether a file is an archive that torch.jit.save wrote."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())


def _export(
    model: nn.Module, example: Tensor, extras: Sequence[Tensor], names: Sequence[str], dims: Mapping[int, Any]
) -> ExportedProgram:
    _check_signature(model, 1 + len(extras), names)
    batch, free = Dim("batch"), ShapesCollection()
    inputs = []
    for tensor in (example, *extras):
        batched = is_batched(tensor, example)
        inputs.append(_pair(tensor) if batched else tensor.detach().clone())
        own = dims if tensor is example else followed(tensor, example, dims)
        if batched or own:
            free[inputs[-1]] = {**({0: batch} if batched else {}), **own}
    try:
        return exported(model, inputs, names, free)
    except FxPullbackError:
        raise
    except Exception as error:
        if settings.SIGN in str(error) and (said := settings.set_weight(model, inputs, names)) is not None:
            raise CaptureError(said) from error
        which = [is_batched(tensor, example) for tensor in (example, *extras)]
        if (said := bags.one_at_a_time(model, inputs, which, names)) is not None:
            raise CaptureError(said) from error
        batched_extras = [i for i, is_one in enumerate(which, 1) if is_one and i > 1]
        raise CaptureError(explained(model, error, batched_extras)) from error


def exported(
    model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], shapes: ShapesCollection
) -> ExportedProgram:
    """Export a module, with the backwards that its author wrote, and what its forward reads off constants."""

    def once() -> ExportedProgram:
        args, kwargs = ((), dict(zip(names, inputs, strict=True))) if names else (tuple(inputs), None)
        with (
            quiet(),
            no_fast_path(),
            recurrent.opaque(),
            distances.free_rows(),
            quantised.shapes_said(),
            lengths.remembered(),
        ):
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes, strict=False)

    def run() -> ExportedProgram:
        try:
            program, failed = once(), None
        except Exception as error:
            program, failed = None, error
        if program is not None and not known.of_values(program.graph):
            return program
        notes = known.noted(model, inputs, names, known.larger(inputs, shapes))
        if notes:
            with known.given(notes):
                return once()
        if failed is not None:
            raise failed
        assert program is not None
        return program

    with authored.noticed() as functions:
        program = run()
    if not functions:
        return program
    with torch.enable_grad(), authored.honoured(authored.judged(authored.met(model, inputs, names))):
        return run()


def _pair(example: Tensor) -> Tensor:
    """A batch of two: a batch of one would be burnt in."""
    return example[:1].detach().repeat(2, *[1] * (example.ndim - 1))


def followed(extra: Tensor, example: Tensor, dims: Mapping[int, Any]) -> dict[int, Any]:
    """The axes of an extra that have the extent of a free axis of the example, and are taken for that axis."""
    extents = {example.shape[axis]: dim for axis, dim in dims.items()}
    return {axis: extents[size] for axis, size in enumerate(extra.shape) if axis and size in extents}


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
    nodes = user_inputs(program)
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


def _misfits(val: Tensor, example: Tensor) -> list[int]:
    """The axes along which an example has another size than a program fixes; none is compared that is free."""
    if val.ndim != example.ndim:
        return list(range(max(val.ndim, example.ndim)))
    pairs = enumerate(zip(val.shape, example.shape, strict=True))
    return [axis for axis, (size, extent) in pairs if not isinstance(size, torch.SymInt) and size != extent]


def _check_fits(node: fx.Node, example: Tensor) -> None:
    """Refuse an example that is not what the program takes there."""
    val = node.meta["val"]
    if val.dtype == example.dtype and len(others := _misfits(val, example)) == 1 and others[0] == 0 < val.ndim - 1:
        raise CaptureError(
            f"the program fixes its batch: it takes {list(val.shape)} as {node.name}, {val.shape[0]} sample"
            f"{'s' if val.shape[0] > 1 else ''} alone. {FIXED_BATCH}"
        )
    if _misfits(val, example) or val.dtype != example.dtype:
        raise CaptureError(
            f"the program takes {list(val.shape)} of {val.dtype} as {node.name}, and the example is "
            f"{list(example.shape)} of {example.dtype}. Pass an example of that kind."
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
