"""A model that comes as an ONNX file: what it takes, by what the file says, and what stands in front of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fxpullback.contract.ends import EMBEDDINGS
from fxpullback.contract.errors import CaptureError, ModelSourceError
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo.arrays import read_examples
from fxpullback.export.zoo.hubs import Source
from fxpullback.importer.load import load
from fxpullback.importer.module import OnnxModule
from fxpullback.importer.steps import Wanted

SIDE = 224
"""Height and width of a picture where neither the file nor an option says one."""


class ChannelsFirst(nn.Module):
    """`[batch, channels, height, width]` to the order that a file of TensorFlow takes."""

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, height, width, channels]`."""
        return x.permute(0, 2, 3, 1)


def from_onnx(
    path: Path,
    shape: tuple[int, ...],
    given: tuple[object, object, object] = (None, False, None),
    example: Path | None = None,
    output: str | int | None = None,
    first: str | None = None,
    held: Mapping[str, float] | None = None,
    beside: bool = False,
) -> Source:
    """The model of an ONNX file.

    Args:
        path: the file.
        shape: sides or shape of an input, as `--size` or `--input-shape` say; empty where they do not.
        given: what other models take, `--weights`, `--pretrained`, `--model-option`: none may be set.
        example: a file of example inputs.
        output: what the logits are: an output, or any value in the file.
        first: which of several inputs is explained; by default the file's first.
        held: inputs that are held, and the number that each holds.
        beside: whether the pullback is put beside the file's own nodes, and its inputs stay as they are.

    Raises:
        ModelSourceError: the file cannot be read, or does not say what it takes.
    """
    options = ("--weights", "--pretrained", "--model-option")
    if asked := [name for name, value in zip(options, given, strict=True) if value]:
        raise ModelSourceError(f"{path}: an ONNX file brings its own weights; leave {', '.join(asked)} out.")
    try:
        model = load(path, output, first, held)
    except CaptureError as error:
        raise ModelSourceError(str(error)) from error
    model.beside = beside
    if example is not None:
        examples = tuple(read_examples(example, model))
        shown = None if model.ids else _pictures(examples[0].shape[1:])
        return Source(model, tuple(examples[0].shape[1:]), shown, examples=examples, explains=_at(model))
    explained, *others = model.wanted
    if others:
        names = ", ".join(value.name for value in model.wanted)
        raise ModelSourceError(
            f"{path}: the file takes {names}. Pass --example FILE with one tensor for each, in this order; --input "
            "NAME says which of them is explained. --hold NAME=NUMBER holds one that is the same each time: a rate, a "
            "state at its start."
        )
    sizes, notes = _sizes(path, explained, shape, ids=bool(model.ids))
    if model.ids:
        notes.append(f"the file takes ids, 0 to {model.ids - 1}: what they are looked up as is explained")
        ids = model.example(explained, [2, *sizes])
        return Source(model, sizes, None, notes=tuple(notes), examples=(ids,), explains=_at(model))
    if len(sizes) == 3 and sizes[2] in (1, 3) and sizes[0] not in (1, 3):
        if beside:
            notes.append(
                f"the file takes {explained.said()}: pass arrays of that, fxpullback explain takes channels first"
            )
            return Source(model, sizes, None, notes=tuple(notes))
        return _turned(model, sizes, notes)
    return Source(model, sizes, _pictures(sizes), notes=tuple(notes))


def _at(model: OnnxModule) -> dict[str, str]:
    """Where a file is explained: at the embeddings of its ids, if it takes such."""
    return {"at": EMBEDDINGS} if model.ids else {}


def _turned(model: OnnxModule, sizes: tuple[int, ...], notes: list[str]) -> Source:
    """A file that takes channels last, behind what brings them there."""
    height, width, channels = sizes
    notes.append(
        "the file takes [batch, height, width, channels]; what is written takes [batch, channels, height, width]"
    )
    return Source(
        in_front(ChannelsFirst(), model),
        (channels, height, width),
        _pictures((channels, height, width)),
        notes=tuple(notes),
    )


def in_front(front: nn.Module, model: nn.Module) -> nn.Module:
    """A model behind another module, still held to the file that it came in."""
    made = nn.Sequential()
    made.add_module("front", front)
    made.add_module("network", model)
    return held(made, model, front)


def held(made: nn.Module, model: nn.Module, front: nn.Module) -> nn.Module:
    """`made`, which is `model` behind `front`, held to the file that `model` came in, if it did."""
    original = getattr(model, "original", None)
    if original is not None:
        made.original = original.behind(front)
        made.notes = model.notes
    return made.eval().requires_grad_(False)


def _pictures(sizes: Sequence[int]) -> Preprocessing | None:
    return Preprocessing.plain(sizes) if len(sizes) == 3 and sizes[0] in (1, 3) else None


def _sizes(path: Path, value: Wanted, shape: tuple[int, ...], *, ids: bool) -> tuple[tuple[int, ...], list[str]]:
    """The shape of one sample, of what the file says and what is asked for."""
    if value.dtype != torch.float32 and not ids:
        raise ModelSourceError(
            f"{path}: its input {value.name} holds {value.dtype}, and what is explained holds float32. Pass --example "
            "FILE, or name the value that it is looked up as."
        )
    own = list(value.sizes[1:]) if value.sizes is not None else [None] * len(shape)
    missing = [i for i, size in enumerate(own) if size is None]
    asked = list(shape)[-len(missing) :] if missing and len(shape) >= len(missing) else []
    if missing and not asked and len(own) == 3 and len(missing) == 2:
        sizes = tuple(SIDE if size is None else size for size in own)
        return sizes, [f"the file leaves height and width free; {SIDE} is taken, --size says another"]
    if missing and not asked:
        raise ModelSourceError(
            f"{path}: its input {value.name} is {value.said()}. Pass --input-shape, one sample's sizes."
        )
    filled = iter(asked)
    sizes = tuple(next(filled) if size is None else size for size in own)
    if shape and sizes[-len(shape) :] != shape and sizes[: len(shape)] != shape:
        raise ModelSourceError(f"{path}: its input {value.name} is {value.said()}, which --size cannot change.")
    return sizes, []
