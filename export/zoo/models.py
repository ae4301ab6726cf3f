"""Models by name: `timm:NAME`, `torchvision:NAME`, `hf:FOLDER`, `package.module:factory`, `file.pt2` or `file.onnx`.

timm and torchvision networks get the normalisation of their weights in front, so that they take RGB pixels scaled to
[-1, 1].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from fxpullback.contract.errors import ModelSourceError
from fxpullback.contract.text import Text
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo.factories import from_example, from_factory, from_file, made_by, split_spec, training_note
from fxpullback.export.zoo.hubs import Source, from_timm, from_torchvision
from fxpullback.export.zoo.hugging_face import from_folder
from fxpullback.export.zoo.normalise import Normalise
from fxpullback.export.zoo.onnx_file import from_onnx, held
from fxpullback.export.zoo.weights import load_weights

_SIZES = (
    "Pass the size it takes with --size, for an input that is no picture its shape with --input-shape, and for "
    "several inputs a file of examples with --example."
)
HF, ONNX = "hf:", ".onnx"
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
        names: Names of the examples, where the model is called by name.
        text: How a text becomes an input; None for a model that takes something else.
        explains: What is explained unless other is asked for: `output`, `positions` and `explain` of `compile`.
        is_free: Whether a text may have any length; else it is filled up to that of the examples.
        sound: How a sound becomes an input; None for a model that takes something else.
    """

    model: nn.Module | ExportedProgram
    example: Tensor
    preprocessing: Preprocessing | None
    classes: list[str] | None
    name: str
    notes: tuple[str, ...] = ()
    extras: tuple[Tensor, ...] = ()
    names: tuple[str, ...] = ()
    text: Text | None = None
    explains: Mapping[str, Any] = field(default_factory=dict)
    is_free: bool = False
    sound: Mapping[str, Any] | None = None


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
    length: int | None = None,
    **of_file: Any,
) -> LoadedModel:
    """Build the model that `spec` names.

    Args:
        spec: `timm:NAME`, `torchvision:NAME`, `hf:FOLDER`, `package.module:factory`, `file.pt2` or `file.onnx`.
        weights: Weights to load: safetensors, or a torch file of tensors. `pretrained` fetches those of the hub.
        size: Side in pixels, (height, width) or (channels, height, width); None for the network's own.
        input_shape: Shape of one sample that is no picture, such as (channels, time); not together with `size`.
        options: Keyword arguments for the function that builds the model.
        classes: File of class names: one per line, or a JSON list.
        mean: Mean the weights were trained with, in units of [0, 1]; None for the network's own. `std` likewise.
        example: File of example inputs, the explained one first.
        length: Tokens of the examples of a model of text, None for as many as they have; or samples of a sound.
        of_file: Of an ONNX file `output`, `first`, `held` and `beside`, as `from_onnx` takes them.

    Raises:
        ModelSourceError: Anything of the above is wrong; the message says what to pass instead.
    """
    if weights is not None and pretrained:
        raise ModelSourceError("--weights and --pretrained exclude each other: pass the one that is meant.")
    if (mean is None) != (std is None):
        raise ModelSourceError("--mean and --std belong together: pass both.")
    shape = _shape(size) if input_shape is None else _sample_shape(spec, size, input_shape)
    if spec.startswith(HF):
        given = [weights, pretrained, size, input_shape, options, mean, std, example]
        found = _finished(spec, _of_folder(spec, given, length), None, classes)
        return replace(found, is_free=length is None and found.text is not None and "explain" not in found.explains)
    if length is not None:
        raise ModelSourceError(f"{spec}: --length is for models of text and sound, {HF}FOLDER; leave it out.")
    if spec.endswith(ONNX):
        source = from_onnx(Path(spec), shape, (weights, pretrained, options), example, **of_file)
    elif spec.endswith(".pt2"):
        source = from_file(Path(spec), shape, weights=weights, pretrained=pretrained, options=options, example=example)
    elif example is not None:
        source = from_example(spec, shape, pretrained, dict(options or {}), example)
    elif input_shape is not None:
        split_spec(spec)
        made = made_by(spec, pretrained, dict(options or {}))
        source = Source(made, shape, None, notes=tuple(training_note(made)))
    else:
        source = _named(spec, shape, weights, pretrained, dict(options or {}))
    if mean is not None and std is not None:
        source = _renormalised(source, mean, std)
    return _finished(spec, source, weights, classes)


def _named(
    spec: str, shape: tuple[int, ...], weights: Path | None, pretrained: bool, options: dict[str, object]
) -> Source:
    """A network of a hub by its name, or what a factory makes."""
    kind, name = split_spec(spec)
    builder: Callable[..., Source] = {"timm": from_timm, "torchvision": from_torchvision}.get(kind, from_factory)
    return builder(name if builder is not from_factory else spec, shape, weights, pretrained, options)


def _of_folder(spec: str, given: Sequence[object], length: int | None) -> Source:
    """The model of a folder, which brings all that other models are told of with options."""
    if any(value for value in given):
        raise ModelSourceError(
            f"{spec}: the folder brings its own weights, options and inputs. Leave --weights, --pretrained, --size, "
            "--input-shape, --model-option, --mean, --std and --example out."
        )
    return from_folder(spec, Path(spec.removeprefix(HF)), length=length)


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
    count = None if source.text is None or source.classes is None else len(source.classes)
    if isinstance(model, nn.Module) and source.text is None:
        if weights is not None:
            load_weights(model, weights)
        if source.after_weights is not None:
            source.after_weights()
        model = model.eval().requires_grad_(False)
        if source.preprocessing is not None and source.preprocessing.mean is not None:
            assert source.preprocessing.std is not None
            front = Normalise.in_front(model, source.preprocessing.mean, source.preprocessing.std)
            model = held(front, model, front.get_submodule("normalise"))
        count = _class_count(spec, model, [example, *extras] if extras else [example[:1]])
    names = source.classes
    if classes is not None:
        names = read_classes(classes)
        if count is not None and len(names) != count:
            raise ModelSourceError(f"{classes}: {len(names)} names for a model with {count} classes.")
    if names is not None and count is not None and len(names) != count:
        names = None
        notes.append(f"no class names are known for {count} classes; pass --classes FILE")
    about = source.names, source.text, source.explains
    return LoadedModel(
        model, example, source.preprocessing, names, spec, tuple(notes), tuple(extras), *about, sound=source.sound
    )


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
    logits = getattr(output, "logits", output)
    return int(logits.shape[1]) if isinstance(logits, Tensor) and logits.dim() == 2 else None
