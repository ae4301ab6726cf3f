"""Models of one's own: what `package.module:factory` returns, and the program in a `file.pt2`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from fxpullback.capture.program import is_script, load_program
from fxpullback.capture.reasons import SCRIPTED
from fxpullback.contract.errors import CaptureError, ModelSourceError
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.runtime.package import is_compiled
from fxpullback.export.zoo.arrays import read_examples
from fxpullback.export.zoo.hubs import Source
from fxpullback.graph.shapes import is_free

FORMS = "timm:NAME, torchvision:NAME, hf:FOLDER, package.module:factory, file.pt2 or file.onnx"


def split_spec(spec: str) -> tuple[str, str]:
    """`timm:resnet50` to `("timm", "resnet50")`."""
    kind, colon, name = spec.partition(":")
    if colon and kind and name:
        return kind, name
    if Path(spec).is_file() and is_script(Path(spec)):
        raise ModelSourceError(f"{spec}: it {SCRIPTED}")
    if Path(spec).suffix in (".pt", ".pth", ".safetensors", ".bin"):
        raise ModelSourceError(
            f"{spec}: weights alone are no model. Name the architecture and pass the file beside it: "
            f"fxpullback compile timm:NAME --weights {spec}"
        )
    raise ModelSourceError(f"{spec!r} names no model: {FORMS} is wanted{_also(spec)}.")


def _also(name: str) -> str:
    """The full spelling, where a bare name is one that timm or torchvision has."""
    import timm
    from torchvision import models

    hubs = {"timm": timm.is_model(name), "torchvision": name in models.list_models(module=models)}
    found = [f"{hub}:{name}" for hub, there in hubs.items() if there]
    return f"; {' or '.join(found)}, perhaps" if found else ""


def from_factory(
    spec: str, shape: tuple[int, ...], weights: Path | None, pretrained: bool, options: dict[str, object]
) -> Source:
    """The module that `package.module:factory` returns, for pictures."""
    notes = [] if shape else ["input taken as [batch, 3, 224, 224]; pass --size if it is another"]
    shape = shape or (224, 224)
    full = shape if len(shape) == 3 else (3, *shape)
    model = made_by(spec, pretrained, options)
    notes = training_note(model) + notes
    pictures = Preprocessing.plain(full) if full[0] in (1, 3) else None
    return Source(model, full, pictures, notes=tuple(notes))


def from_example(
    spec: str, shape: tuple[int, ...], pretrained: bool, options: dict[str, object], example: Path
) -> Source:
    """The module that `package.module:factory` returns, with the example inputs of a file."""
    if shape:
        raise ModelSourceError(
            "--example holds an input of the size that is meant; leave --size and --input-shape out."
        )
    if split_spec(spec)[0] in ("timm", "torchvision"):
        raise ModelSourceError(f"{spec}: it takes pictures alone; --example is for package.module:factory and .pt2.")
    model = made_by(spec, pretrained, options)
    return _with_examples(Source(model, (), None, notes=tuple(training_note(model))), read_examples(example, model))


def from_file(
    path: Path,
    shape: tuple[int, ...],
    *,
    weights: Path | None,
    pretrained: bool,
    options: Mapping[str, object] | None,
    example: Path | None,
) -> Source:
    """The program in a .pt2 file."""
    if weights is not None or pretrained or options:
        raise ModelSourceError(f"{path}: a .pt2 file brings its own weights and options; leave the others out.")
    if not path.is_file():
        raise ModelSourceError(
            f"{path}: there is no such file. Write one with torch.export.save(program, {str(path)!r})."
        )
    if is_compiled(path):
        raise ModelSourceError(f"{path}: this is no model; fxpullback compiled it already.")
    if is_script(path):
        raise ModelSourceError(f"{path}: it {SCRIPTED}")
    try:
        program = load_program(path)
    except CaptureError as error:
        reason = " ".join(str(error.__cause__).split())[:160]
        raise ModelSourceError(f"{path}: not a whole .pt2 file ({reason}). Write it with torch.export.save.") from error
    names = program.graph_signature.user_inputs
    held = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values = [held.get(name) for name in names if isinstance(name, str)]
    if not values or not isinstance(values[0], Tensor) or values[0].dim() < 2:
        raise ModelSourceError(f"{path}: the first input of the program is no batch of tensors, which it must be.")
    own = _sample(path, values[0], shape, program)
    if shape and own[-len(shape) :] != shape:
        raise ModelSourceError(
            f"{path}: the program takes {list(own)} per sample, which neither --size nor --input-shape can change."
        )
    if example is not None:
        return _with_examples(Source(program, own, None), read_examples(example, program))
    if len(values) > 1:
        return _with_examples(Source(program, own, None), _carried(path, program))
    pictures = Preprocessing.plain(own) if len(own) == 3 and own[0] in (1, 3) else None
    return Source(program, own, pictures)


def _sample(path: Path, value: Tensor, shape: tuple[int, ...], program: ExportedProgram) -> tuple[int, ...]:
    """The shape of one sample: sizes that the program leaves free are those asked for, or those of its own example."""
    fits = len(shape) < value.dim()
    asked = (*(None for _ in value.shape[1 + len(shape) :]), *shape) if fits else (None,) * (value.dim() - 1)
    carried = tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    known = carried[0].shape[1:] if carried and isinstance(carried[0], Tensor) else (None,) * (value.dim() - 1)
    found = []
    for axis, (extent, wanted, seen) in enumerate(zip(value.shape[1:], asked, known, strict=True), 1):
        size = (wanted or seen) if is_free(extent) else int(extent)
        if size is None:
            raise ModelSourceError(
                f"{path}: the program leaves axis {axis} of its input free, and its file holds no example. Pass --size "
                "HEIGHTxWIDTH, or --input-shape."
            )
        found.append(int(size))
    return tuple(found)


def _with_examples(source: Source, examples: Sequence[Tensor]) -> Source:
    """`source` with its examples, and a picture's preprocessing where the first of them is one."""
    own = tuple(examples[0].shape[1:])
    pictures = Preprocessing.plain(own) if len(own) == 3 and own[0] in (1, 3) else None
    return replace(source, shape=own, preprocessing=pictures, examples=tuple(examples))


def _carried(path: Path, program: ExportedProgram) -> list[Tensor]:
    """The example inputs that a program was exported with."""
    found = tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    if not found or not all(isinstance(value, Tensor) for value in found):
        raise ModelSourceError(
            f"{path}: the program takes {len(program.graph_signature.user_inputs)} inputs, and its file holds no "
            "example of them that is all tensors. Pass --example FILE with one tensor for each."
        )
    return found


def made_by(spec: str, pretrained: bool, options: dict[str, object]) -> nn.Module:
    """Call a factory.

    Raises:
        ModelSourceError: There is none, or what it returns is no module.
    """
    if pretrained:
        raise ModelSourceError(f"{spec}: --pretrained is for timm and torchvision names; pass --weights FILE.")
    module_name, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as `python -m` has it
        sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except AttributeError as error:
        raise ModelSourceError(f"{spec}: the module {module_name} has no {attribute}. Check the name.") from error
    except ModuleNotFoundError as error:
        raise ModelSourceError(f"{spec}: {error}. {FORMS} is wanted; a module is looked for in {here} too.") from error
    except Exception as error:
        raise ModelSourceError(f"{spec}: importing {module_name} failed: {type(error).__name__}: {error}") from error
    try:
        model = factory(**options)
    except Exception as error:
        raise ModelSourceError(
            f"{spec}: the factory failed: {type(error).__name__}: {error}. It is called with "
            f"{', '.join(options) or 'no arguments'}; pass what it needs as --model-option KEY=VALUE."
        ) from error
    if not isinstance(model, nn.Module):
        raise ModelSourceError(
            f"{spec}: a torch.nn.Module is wanted from the factory, and it returned {type(model).__name__}."
        )
    return model


def training_note(model: nn.Module) -> list[str]:
    return ["the model was in training mode and was switched to eval mode"] if model.training else []
