"""What a graph takes: the input that is explained, and extras that are passed through (a mask, ids, a second picture).

Extras are constants to every rule: they shape the logits, and no cotangent is carried to them. A leading axis that has
the extent of the batch in the examples is the batch; every other extent of an extra is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.contract.names import complain
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.ir import explained


@dataclass(frozen=True, eq=False)
class Extra:
    """An input that is passed through and not explained.

    Attributes:
        name: its name in the graph and in the file, after the parameter of the model's forward.
        example: the example it was compiled with.
        batched: whether its leading axis is the batch.
        follows: its axes beside the batch that have the size of a free axis of the explained input, and which.
    """

    name: str
    example: Tensor
    batched: bool
    follows: tuple[tuple[int, int], ...] = ()

    def wanted(self, free: Sequence[FreeAxis] = ()) -> list[Any]:
        """Its shape, a name where that is free: `"batch"`, or what a free axis of the explained input is called."""
        shape: list[Any] = list(self.example.shape)
        names = {axis.axis: axis.name for axis in free}
        for axis, followed in (((0, 0),) if self.batched else ()) + self.follows:
            shape[axis] = "batch" if followed == 0 else names.get(followed, shape[axis])
        return shape


@dataclass(frozen=True, eq=False)
class Inputs:
    """A batch of what a graph takes: the explained input and its extras; unpacks into a graph's arguments.

    Attributes:
        x: the explained input, `[batch, ...]`.
        extras: what else the model takes, in order.
        batched: which of the extras have the batch as leading axis.
    """

    x: Tensor
    extras: tuple[Tensor, ...] = ()
    batched: tuple[bool, ...] = ()

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.x, *self.extras))

    def __getitem__(self, rows: slice) -> Inputs:
        """Some samples of the batch."""
        pairs = zip(self.extras, self.batched, strict=True)
        return Inputs(self.x[rows], tuple(e[rows] if b else e for e, b in pairs), self.batched)

    def each(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """With `change` made to every floating-point tensor."""
        floats = tuple(change(e) if e.is_floating_point() else e for e in self.extras)
        return Inputs(change(self.x), floats, self.batched)

    def double(self) -> Inputs:
        """In float64, integers and booleans as they are."""
        return self.each(lambda t: t.double())

    def at(self, x: Tensor) -> Inputs:
        """The same extras with another explained input."""
        return Inputs(x, self.extras, self.batched)


def extra_of(node: fx.Node, example: Tensor) -> Extra:
    """The extra that a placeholder of the captured graph stands for."""
    sizes, wanted = node.meta["val"].shape, explained(node.graph).meta["val"].shape
    places = {size.node.expr: axis for axis, size in enumerate(wanted) if isinstance(size, torch.SymInt)}
    found = {i: places.get(size.node.expr) for i, size in enumerate(sizes) if isinstance(size, torch.SymInt)}
    follows = tuple((axis, followed) for axis, followed in found.items() if followed)
    return Extra(str(node.target), example.detach().clone(), found.get(0) == 0, follows)


def check_example(example: Any, is_ids: bool = False) -> None:
    """Refuse an example input that no graph could be captured from."""
    if not isinstance(example, Tensor):
        raise CaptureError(
            f"the example input is a {type(example).__name__}; pass one tensor [batch, ...], or a tuple of one for "
            "each input of the model, the explained one first."
        )
    if is_ids:
        _check_ids(example)
    elif example.ndim < 2 or example.shape[0] == 0 or not example.is_floating_point():
        raise CaptureError(
            f"the example input is {list(example.shape)} of {example.dtype}; a floating-point tensor [batch, ...] "
            f"with at least one sample is needed, e.g. torch.zeros(1, 3, 224, 224).{_ids_advice(example)}"
        )


def _ids_advice(example: Tensor) -> str:
    whole = not example.is_floating_point() and not example.is_complex() and example.dtype != torch.bool
    return " Of ids, what they are looked up as can be explained: at='embeddings'." if whole else ""


def _check_ids(example: Tensor) -> None:
    if example.dtype not in (torch.int64, torch.int32) or example.ndim < 2 or not example.numel():
        raise CaptureError(
            f"the example input is {list(example.shape)} of {example.dtype}; at='embeddings' takes ids first, integers "
            "[batch, tokens], e.g. torch.tensor([[101, 7592, 102]])."
        )


def check_extra_examples(extras: Sequence[Any]) -> None:
    """Refuse an example of an extra that is no tensor a graph could take."""
    for position, extra in enumerate(extras, 2):
        if isinstance(extra, Tensor):
            if extra.is_complex() or extra.numel() == 0:
                raise CaptureError(
                    f"example input {position} is {list(extra.shape)} of {extra.dtype}; extras are real numbers, "
                    "integers or booleans, with at least one entry."
                )
            continue
        raise CaptureError(
            f"example input {position} is a {type(extra).__name__}, and a graph takes tensors alone. {_instead(extra)}"
        )


def _instead(extra: Any) -> str:
    if extra is None:
        return "Leave it out where it is the last one; else wrap the model in a module that passes None by itself."
    if isinstance(extra, bool | int | float | str):
        return (
            "A setting is no input: wrap the model in a module that passes it by itself, or give torch.tensor(...) "
            "where it varies from call to call."
        )
    return "Wrap the model in a module whose forward takes the tensors one by one and puts them together."


def given_examples(example_inputs: Any, explain: Sequence[str] = ()) -> tuple[list[str], list[Any]]:
    """The example inputs, the explained ones first, and their names where they are passed by name."""
    names = [str(name) for name in example_inputs] if isinstance(example_inputs, Mapping) else []
    if names:
        names = [*(n for n in explain if n in names), *(n for n in names if n not in explain)]
        inputs = [example_inputs[name] for name in names]
    else:
        inputs = list(example_inputs) if isinstance(example_inputs, tuple | list | Mapping) else [example_inputs]
    if not inputs:
        raise InputError("no example inputs; pass one for each tensor the model takes, the explained one first.")
    return names, [_plain(value) for value in inputs]


def _plain(value: Any) -> Any:
    """A tensor that was made in inference mode as one that autograd takes."""
    if not isinstance(value, Tensor) or not value.is_inference():
        return value
    with torch.inference_mode(False):
        return value.clone()


def arguments(
    extras: Sequence[Extra], given: Sequence[Any], named: Mapping[str, Any], like: Tensor, free: Sequence[FreeAxis] = ()
) -> tuple[Any, ...]:
    """The extras of one call in the graph's order, checked.

    Args:
        extras: what the graph takes.
        given: extras by position.
        named: extras by name.
        like: the explained input, or the ids it is looked up by.
        free: its axes whose size is free.

    Raises:
        InputError: one is missing, unknown, given twice, or of the wrong kind, shape, type or values.
    """
    names = [extra.name for extra in extras]
    complain(names, len(given), named)
    held = {**dict(zip(names, given, strict=False)), **named}
    for extra in extras:
        _check_extra(extra, held[extra.name], like, free)
    return tuple(held[name] for name in names)


def _check_extra(extra: Extra, value: Any, like: Tensor, free: Sequence[FreeAxis]) -> None:
    if not isinstance(value, Tensor):
        raise InputError(f"{extra.name} is a {type(value).__name__}; pass a tensor.")
    sizes: dict[Any, int] = {"batch": like.shape[0]} | {axis.name: like.shape[axis.axis] for axis in free}
    shape = [sizes.get(n, n) for n in extra.wanted(free)]
    if list(value.shape) != shape:
        wanted = ", ".join(map(str, extra.wanted(free)))
        here = f", {shape} here" if extra.batched or extra.follows else ""
        raise InputError(f"{extra.name} is {list(value.shape)}; this graph was compiled for [{wanted}]{here}.")
    if value.dtype != extra.example.dtype:
        raise InputError(f"{extra.name} is of {value.dtype}; this graph was compiled for {extra.example.dtype}.")
    if value.is_floating_point() and bool(torch.isnan(value).any()):
        raise InputError(f"{extra.name} holds NaN.")
