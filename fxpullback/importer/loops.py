"""Loops of a file, written out: each step is run on what the one before has made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Known
from fxpullback.importer.site import Node, tensor

LONGEST = 1024
"""Steps of the longest loop that is written out."""

Once = Callable[..., list[Any]]
"""One step: what its graph makes of its inputs."""


def repeated(node: Node, given: Sequence[Any], once: Once) -> tuple[Any, ...]:
    """`Loop`: while a condition holds, at most a number of times.

    Args:
        node: the loop.
        given: the most steps, the condition, and what is carried from one step to the next; the first two may be left
            out.
        once: one step, of its number, the condition, and what is carried.

    Returns:
        What is carried at the end, then what is collected, stacked along a new first axis.

    Raises:
        CaptureError: how often it runs depends on values, or on a size that is free; or it runs too often.
    """
    most, condition, carried = given[0], given[1], [*given[2:]]
    limit = None if most is None else _number(most, "the number of its steps")
    holds = True if condition is None else bool(_number(condition, "its condition"))
    collected: list[list[Any]] = []
    step = 0
    while holds and (limit is None or step < limit):
        _check(step)
        wanted = Known(np.array(True)) if condition is None else condition
        again, *made = once(Known(np.array(step, np.int64)), wanted, *carried)
        carried = made[: len(carried)]
        collected.append(made[len(carried) :])
        condition, step = again, step + 1
        holds = bool(_number(again, "its condition"))
    return (*carried, *_stacked(collected, repeat(0), repeat(0)))


def scanned(node: Node, given: Sequence[Any], once: Once) -> tuple[Any, ...]:
    """`Scan`: one step for each entry along an axis of some inputs.

    Args:
        node: the loop.
        given: what is carried from one step to the next, then what is gone along.
        once: one step, of what is carried and one entry of each.

    Returns:
        What is carried at the end, then what is collected.

    Raises:
        CaptureError: the axis is one whose size is free, or it is too long.
    """
    if node.opset < 9:
        raise CaptureError("it is of opset 8, which has a batch of its own; export with opset 9 or later")
    count = int(node.get("num_scan_inputs"))
    carried, along = [*given[:-count]], [tensor(value) for value in given[-count:]]
    axes = node.get("scan_input_axes") or [0] * count
    turned = node.get("scan_input_directions") or [0] * count
    length = along[0].shape[axes[0]]
    if not isinstance(length, int):
        raise CaptureError("it goes along an axis whose size is free; compile it for one size")
    collected = []
    for step in range(length):
        _check(step)
        places = [length - 1 - step if back else step for back in turned]
        entries = [x.select(axis, place) for x, axis, place in zip(along, axes, places, strict=True)]
        made = once(*carried, *entries)
        carried = made[: len(carried)]
        collected.append(made[len(carried) :])
    ends = (node.get(name) or repeat(0) for name in ("scan_output_axes", "scan_output_directions"))
    return (*carried, *_stacked(collected, *ends))


def _stacked(collected: Sequence[Sequence[Any]], axes: Iterable[int], turned: Iterable[int]) -> list[Tensor]:
    columns = zip(*collected, strict=True)
    return [
        torch.stack([tensor(value) for value in (column[::-1] if back else column)], axis)
        for column, axis, back in zip(columns, axes, turned, strict=False)
    ]


def _number(value: Any, what: str) -> int | bool:
    if not isinstance(value, Known):
        raise CaptureError(
            f"{what} depends on the values of the model's input, and a graph has one length. Export the model with a "
            "fixed number of steps"
        )
    found = value.array.reshape(-1)[0]
    if isinstance(found, torch.SymInt | torch.SymBool):
        raise CaptureError(f"{what} depends on a size that is free; compile it for one size")
    return bool(found) if isinstance(found, bool | np.bool_) else int(found)


def _check(step: int) -> None:
    if step >= LONGEST:
        raise CaptureError(f"it runs more than {LONGEST} steps, and each is written out; export a shorter one")
