"""A batch that a file fixes, made free: where its shapes name it, the batch that is given stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from fxpullback.importer.site import Node


def reshaped(node: Node, x: Tensor, sizes: list[Any]) -> list[Any]:
    """The sizes of a reshape, the first of them as large as the batch asks for.

    A file that fixes its batch names sizes of one batch. The batch is the outermost axis there, alone or joined with
    others, and so it is what the first size grows by.
    """
    grown = _grown(node, x)
    if grown is None or not sizes or (isinstance(sizes[0], int) and sizes[0] == -1):
        return sizes
    given, fixed = grown
    computed = node.constant(1) is None and "shape" not in node.attributes
    if not isinstance(sizes[0], int) or sizes[0] == 0 or sizes[0] % fixed or (computed and sizes[0] != fixed):
        return sizes
    if -1 in [n for n in sizes[1:] if isinstance(n, int)]:
        return [sizes[0] // fixed * given, *sizes[1:]]
    return [sizes[0] // fixed * given if isinstance(given, int) else -1, *sizes[1:]]


def expanded(node: Node, x: Tensor, sizes: Sequence[Any]) -> Tensor:
    """x repeated to sizes, each no smaller than its own; the batch that is given where they name the file's."""
    lead = max(0, len(sizes) - x.ndim)
    wanted: list[Any] = [*([-1] * max(0, x.ndim - len(sizes))), *sizes]
    for axis, extent in enumerate(x.shape, lead):
        given, whole = wanted[axis], isinstance(wanted[axis], int)
        stays = whole and (given in (-1, 1) or (isinstance(extent, int) and extent > 1))
        if stays or (axis == 0 and _is_batch(node, given) and not isinstance(extent, int)):
            wanted[axis] = extent
    return x.expand(wanted)


def joinable(node: Node, parts: list[Tensor], axis: int) -> list[Tensor]:
    """Parts of a concatenation, those of the file's batch repeated to the one that is given."""
    if node.batch is None or parts[0].ndim == 0 or axis % parts[0].ndim == 0:
        return parts
    batch = next((part.shape[0] for part in parts if not _is_batch(node, part.shape[0])), None)
    if batch is None:
        return parts
    return [
        part.expand([batch, *part.shape[1:]]) if isinstance(part.shape[0], int) and part.shape[0] == 1 else part
        for part in parts
    ]


def states(state: Tensor | None, batch: Any) -> Tensor | None:
    """A state `[directions, batch, width]` of a recurrent layer, repeated to the batch that is given.

    A file may fix its state at one sample while it calls its batch free.
    """
    if state is None or not isinstance(state.shape[1], int) or state.shape[1] != 1:
        return state
    return state.expand(state.shape[0], batch, state.shape[2])


def _is_batch(node: Node, size: Any) -> bool:
    return node.batch is not None and isinstance(size, int) and size == node.batch


def _grown(node: Node, x: Tensor) -> tuple[Any, int] | None:
    """The batch that is given and the file's, where the outermost axis of x is not what the file says."""
    if node.batch is None or x.ndim == 0:
        return None
    said = node.shapes[0] if node.shapes else None
    first = (said[0] if said else None) or node.batch
    if (isinstance(x.shape[0], int) and x.shape[0] == first) or first % node.batch:
        return None
    given = x.shape[0] // (first // node.batch) if first != node.batch else x.shape[0]
    return given, node.batch
