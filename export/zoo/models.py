"""Models by name: `timm:NAME`, `torchvision:NAME`, `package.module:factory` or `file.pt2`.

timm and torchvision networks get the normalisation of their weights in front, so that they take RGB pixels scaled to
[-1, 1].
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils._pytree import tree_leaves

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.runtime.package import is_compiled
from fxpullback.export.zoo.arrays import read_examples
from fxpullback.export.zoo.hubs import Source, from_timm, from_torchvision
from fxpullback.export.zoo.normalise import Normalise
from fxpullback.export.zoo.weights import load_weights

_SIZES = (
    "Pass the size it takes with --size, for an input that is no picture its shape with --input-shape, and for "
    "several inputs a file of examples with --example."
)
FORMS = "timm:NAME, torchvision:NAME, package.module:factory, or file.pt2"
Size = int | Sequence[int] | None


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to be compiled.

    Attributes:
        model: In eval mode, with the normalisation in front where it is known. An ExportedProgram for a .pt2 file.
        example: float32 in [-1, 1], for tracing: [2, channels, height, width], or [2, ...] of the shape asked for.
        preprocessing: How a picture becomes an input; None when the input is no picture.
        classes: Class names in the order of the logits, or None.
        name: What the user called it.
        notes: What the user should be told: random weights, a size that was assumed, and the like.
        extras: Examples of the inputs that are passed through.
    """

    model: nn.Module | ExportedProgram
    example: Tensor
    preprocessing: Preprocessing | None
    classes: list[str] | None
    name: str
    notes: tuple[str, ...] = ()
    extras: tuple[Tensor, ...] = ()


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    pretrained: bool = False,
    size: Size = None,
    input_shape: Sequence[int] | None = None,
    options: Mapping[str, object] | None = None,
    classes: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    example: Path | None = None,
) -> LoadedModel:
    """Build the model that `spec` names.

    Args:
        spec: `timm:NAME`, `torchvision:NAME`, `package.module:factory` or `file.pt2`.
        weights: Weights to load: safetensors, or a torch file of tensors.
        pretrained: Fetch the weights that timm or torchvision publish.
        size: Side in pixels, (height, width) or (channels, height, width); None for the network's own.
        input_shape: Shape of one sample that is no picture, such as (channels, time); not together with `size`.
        options: Keyword arguments for the function that builds the model.
        classes: File of class names: one per line, or a JSON list.
        mean: Mean the weights were trained with, in units of [0, 1]; None for the network's own.
        std: Standard deviation, likewise.
        example: File of example inputs, the explained one first, for a model that takes several.

    Raises:
        ModelSourceError: Anything of the above is wrong; the message says what to pass instead.
    """
    if weights is not None and pretrained:
        raise ModelSourceError("--weights and --pretrained exclude each other: pass the one that is meant.")
    if (mean is None) != (std is None):
        raise ModelSourceError("--mean and --std belong together: pass both.")
    shape = _shape(size) if input_shape is None else _sample_shape(spec, size, input_shape)
    source: Source
    if spec.endswith(".pt2"):
        source = _from_file(Path(spec), shape, weights=weights, pretrained=pretrained, options=options, example=example)
    elif example is not None:
        source = _from_example(spec, shape, pretrained, dict(options or {}), example)
    elif input_shape is not None:
        _split(spec)
        made = _made(spec, pretrained, dict(options or {}))
        source = Source(made, shape, None, notes=tuple(_training_note(made)))
    else:
        kind, name = _split(spec)
        builder: Callable[..., Source] = {"timm": from_timm, "torchvision": from_torchvision}.get(kind, _from_factory)
        source = builder(
            name if builder is not _from_factory else spec, shape, weights, pretrained, dict(options or {})
        )
    if mean is not None and std is not None:
        source = _renormalised(source, mean, std)
    return _finished(spec, source, weights, classes)


def read_classes(path: Path) -> list[str]:
    """Class names from a file: a JSON list, or one name per line.

    Raises:
        ModelSourceError: The file is absent, no text, or holds an empty name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelSourceError(f"{path}: the class names cannot be read ({error}). Pass a text file.") from error
    if text.lstrip().startswith(("[", "{")):
        try:
            names = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelSourceError(
                f"{path}: not valid JSON ({error}). Pass a list of names, or one per line."
            ) from error
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelSourceError(f"{path}: a JSON list of names is wanted, in the order of the logits.")
    else:
        names = text.rstrip().splitlines()
    names = [name.strip() for name in names]
    if not names or not all(names):
        empty = names.index("") + 1 if names else 1
        raise ModelSourceError(f"{path}: class {empty} has no name. One name per logit is wanted, in their order.")
    return names


def _split(spec: str) -> tuple[str, str]:
    """`timm:resnet50` to `("timm", "resnet50")`."""
    kind, colon, name = spec.partition(":")
    if colon and kind and name:
        return kind, name
    if spec.endswith(".onnx"):
        raise ModelSourceError(
            f"{spec}: an ONNX file cannot be compiled; name the PyTorch model it came from: {FORMS}."
        )
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


def _shape(size: Size) -> tuple[int, ...]:
    """`size` as (), (height, width) or (channels, height, width)."""
    shape = () if size is None else (size, size) if isinstance(size, int) else tuple(size)
    if shape and (len(shape) not in (2, 3) or min(shape) < 1 or max(shape) > 8192):
        raise ModelSourceError(
            f"size {'x'.join(map(str, shape))}: SIDE, HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH is wanted."
        )
    return shape


def _sample_shape(spec: str, size: Size, given: Sequence[int]) -> tuple[int, ...]:
    """The shape of a sample that is no picture."""
    if size is not None:
        raise ModelSourceError("--size and --input-shape exclude each other: pass the one that is meant.")
    if spec.partition(":")[0] in ("timm", "torchvision"):
        raise ModelSourceError(
            f"{spec}: it takes pictures; pass --size. For other inputs write a factory (package.module:factory)."
        )
    if not given or min(given) < 1:
        raise ModelSourceError(
            f"--input-shape {','.join(map(str, given))}: the extents of one sample are wanted, without the batch, "
            "such as 2,16000 for two channels over time."
        )
    return tuple(given)


def _from_factory(
    spec: str, shape: tuple[int, ...], weights: Path | None, pretrained: bool, options: dict[str, object]
) -> Source:
    """The module that `package.module:factory` returns, for pictures."""
    notes = [] if shape else ["input taken as [batch, 3, 224, 224]; pass --size if it is another"]
    shape = shape or (224, 224)
    full = shape if len(shape) == 3 else (3, *shape)
    model = _made(spec, pretrained, options)
    notes = _training_note(model) + notes
    pictures = Preprocessing.plain(full) if full[0] in (1, 3) else None
    return Source(model, full, pictures, notes=tuple(notes))


def _from_example(
    spec: str, shape: tuple[int, ...], pretrained: bool, options: dict[str, object], example: Path
) -> Source:
    """The module that `package.module:factory` returns, with the example inputs of a file."""
    if shape:
        raise ModelSourceError(
            "--example holds an input of the size that is meant; leave --size and --input-shape out."
        )
    if _split(spec)[0] in ("timm", "torchvision"):
        raise ModelSourceError(f"{spec}: it takes pictures alone; --example is for package.module:factory and .pt2.")
    model = _made(spec, pretrained, options)
    return _with_examples(Source(model, (), None, notes=tuple(_training_note(model))), read_examples(example, model))


def _with_examples(source: Source, examples: Sequence[Tensor]) -> Source:
    """`source` with its examples, and a picture's preprocessing where the first of them is one."""
    own = tuple(examples[0].shape[1:])
    pictures = Preprocessing.plain(own) if len(own) == 3 and own[0] in (1, 3) else None
    return replace(source, shape=own, preprocessing=pictures, examples=tuple(examples))


def _made(spec: str, pretrained: bool, options: dict[str, object]) -> nn.Module:
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


def _training_note(model: nn.Module) -> list[str]:
    return ["the model was in training mode and was switched to eval mode"] if model.training else []


def _from_file(
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
    try:
        program = torch.export.load(path)
    except Exception as error:
        if is_compiled(path):
            raise ModelSourceError(f"{path}: this is no model; fxpullback compiled it already.") from error
        raise ModelSourceError(
            f"{path}: not a whole .pt2 file ({' '.join(str(error).split())[:160]}). Write it with torch.export.save."
        ) from error
    names = program.graph_signature.user_inputs
    held = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    values = [held.get(name) for name in names if isinstance(name, str)]
    if not values or not isinstance(values[0], Tensor) or values[0].dim() < 2:
        raise ModelSourceError(f"{path}: the first input of the program is no batch of tensors, which it must be.")
    own = tuple(int(extent) for extent in values[0].shape[1:])
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


def _carried(path: Path, program: ExportedProgram) -> list[Tensor]:
    """The example inputs that a program was exported with."""
    found = tree_leaves(program.example_inputs) if program.example_inputs is not None else []
    if not found or not all(isinstance(value, Tensor) for value in found):
        raise ModelSourceError(
            f"{path}: the program takes {len(program.graph_signature.user_inputs)} inputs, and its file holds no "
            "example of them that is all tensors. Pass --example FILE with one tensor for each."
        )
    return found


def _renormalised(source: Source, mean: Sequence[float], std: Sequence[float]) -> Source:
    """`source` with another normalisation in front."""
    if isinstance(source.model, ExportedProgram) or source.preprocessing is None:
        raise ModelSourceError("--mean and --std: nothing can be put in front of this model.")
    if source.examples is not None and len(source.examples) > 1:
        raise ModelSourceError("--mean and --std: the model takes several inputs; let it normalise by itself.")
    channels = source.shape[0]
    if len(mean) != channels or len(std) != channels or min(std) <= 0:
        raise ModelSourceError(
            f"--mean and --std: {channels} numbers each are wanted, one per channel, and std above 0."
        )
    return replace(source, preprocessing=replace(source.preprocessing, mean=tuple(mean), std=tuple(std)))


def _finished(spec: str, source: Source, weights: Path | None, classes: Path | None) -> LoadedModel:
    """Weights in, normalisation in front, eval mode, one trial run."""
    model, notes = source.model, list(source.notes)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand((2, *source.shape), generator=generator) * 2 - 1
    example, *extras = source.examples or (drawn,)
    count: int | None = None
    if isinstance(model, nn.Module):
        if weights is not None:
            load_weights(model, weights)
        if source.after_weights is not None:
            source.after_weights()
        model = model.eval().requires_grad_(False)
        if source.preprocessing is not None and source.preprocessing.mean is not None:
            assert source.preprocessing.std is not None
            model = Normalise.in_front(model, source.preprocessing.mean, source.preprocessing.std)
        count = _class_count(spec, model, [example, *extras] if extras else [example[:1]])
    names = source.classes
    if classes is not None:
        names = read_classes(classes)
        if count is not None and len(names) != count:
            raise ModelSourceError(f"{classes}: {len(names)} names for a model with {count} classes.")
    if names is not None and count is not None and len(names) != count:
        names = None
        notes.append(f"no class names are known for {count} classes; pass --classes FILE")
    return LoadedModel(model, example, source.preprocessing, names, spec, tuple(notes), tuple(extras))


def _class_count(spec: str, model: nn.Module, inputs: Sequence[Tensor]) -> int | None:
    """Number of logits, from one run; None when the output is no [batch, classes] tensor, which `compile` reports."""
    try:
        with torch.no_grad():
            output = model(*inputs)
    except Exception as error:
        several = len(inputs) > 1
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise ModelSourceError(
            f"{spec}: the model does not run on {'inputs of shapes' if several else 'an input of shape'} {shapes}: "
            f"{type(error).__name__}: {' '.join(str(error).split())[:240]}. "
            + ("Look at the file of examples." if several else _SIZES)
        ) from error
    return int(output.shape[1]) if isinstance(output, Tensor) and output.dim() == 2 else None
