"""Which cotangent enters at the logits: a class index, the top class, a contrast, or any vector."""

from __future__ import annotations

from typing import Any, Literal

import torch

from fxpullback.contract.errors import InputError, ProgramError
from fxpullback.contract.names import TARGET
from fxpullback.graph.builder import Builder
from fxpullback.graph.value import Value

Target = Literal["index", "top1", "cotangent", "contrast"]
TARGETS: tuple[Target, ...] = ("index", "top1", "cotangent", "contrast")


def check_target(target: str) -> Target:
    """Return `target` if it is one of `TARGETS`."""
    if target not in TARGETS:
        raise ProgramError(f"no target called {target!r}; there are {', '.join(TARGETS)}.")
    return target


def target_input(builder: Builder, target: Target, logits: torch.Tensor) -> Value | None:
    """The graph's input `target`: int64 `[batch]`, int64 `[batch, 2]`, floats `[batch, classes]`, or none."""
    if target == "top1":
        return None
    with builder.fake_mode:
        if target == "cotangent":
            val = torch.empty_like(logits)
        else:
            shape = logits.shape[:1] if target == "index" else (logits.shape[0], 2)
            val = torch.empty(shape, dtype=torch.int64, device=logits.device)
    return builder.placeholder(TARGET, val)


def cotangent_of(target: Target, given: Any, logits: Any) -> Any:
    """The cotangent at the logits.

    Args:
        target: what `given` is.
        given: class indices `[batch]`; pairs (a, b) `[batch, 2]` for e_a - e_b; a cotangent; None for top-1.
        logits: `[batch, classes]`, what top-1 is taken of.

    Returns:
        Tensor of the shape and type of the logits.
    """
    if target == "cotangent":
        return given
    classes = torch.arange(logits.shape[1], device=logits.device)
    if target == "top1":
        given = torch.argmax(logits, 1)
    if target == "contrast":
        first, second = given.select(1, 0), given.select(1, 1)
        return one_hot(first, classes, logits) - one_hot(second, classes, logits)
    return one_hot(given, classes, logits)


def one_hot(index: Any, classes: torch.Tensor, like: Any) -> Any:
    """Rows with a one at `index`, in the type of `like`."""
    return (index.unsqueeze(1) == classes).to(like.dtype)


def check_given(target: Target, given: Any, batch: int, classes: int, dtype: torch.dtype) -> None:
    """Refuse a target that names no class of the model, or has another shape than the batch or type than the logits.

    Raises:
        InputError: says what was given and what is needed.
    """
    if target == "top1":
        if given is not None:
            raise InputError("this graph explains the top class of every picture; it takes no target.")
        return
    if not isinstance(given, torch.Tensor):
        raise InputError(f"the target must be a tensor, got {type(given).__name__}: {_needed(target, batch, classes)}.")
    shape = {"index": [batch], "contrast": [batch, 2], "cotangent": [batch, classes]}[target]
    if list(given.shape) != shape or given.is_floating_point() != (target == "cotangent"):
        raise InputError(
            f"the target is {list(given.shape)} of {given.dtype}, needed: {_needed(target, batch, classes)}."
        )
    if target != "cotangent" and (int(given.min()) < 0 or int(given.max()) >= classes):
        wrong = given[(given < 0) | (given >= classes)].flatten().tolist()
        raise InputError(f"there is no class {wrong[0]}: the model has {classes} classes, 0 to {classes - 1}.")
    if target == "cotangent" and given.dtype != dtype:
        raise InputError(
            f"the cotangent is of {given.dtype}, and the logits are of {dtype}. Pass the target as target.to({dtype})."
        )
    if target == "cotangent" and not bool(torch.isfinite(given).all()):
        raise InputError("the cotangent holds NaN or infinite values.")


def _needed(target: Target, batch: int, classes: int) -> str:
    if target == "cotangent":
        return f"floats [{batch}, {classes}]"
    return f"class indices, int64 [{batch}]" if target == "index" else f"pairs of class indices, int64 [{batch}, 2]"
