"""Logits at many positions: a further input says at which ones they are explained, and they become those of a sample.

Tagging and next-token models give `[batch, positions, classes]`, segmentation `[batch, classes, height, width]`. What
is chosen is `[batch, classes]` again, linear in the logits of the model, and all else is as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.contract.ends import INDEX, MASK, POSITIONS, WEIGHTS, Ends
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import explained, outputs, placeholders, where
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.graph.shapes import places

GRID = "fxpullback_grid"
"""On the input `positions`, in its meta: the sizes of the axes of positions."""


def at_positions(gm: Graph, kind: str, compilation: Compilation | None = None) -> Graph:
    """A captured graph with logits at many positions, as one with the logits at those that a further input names.

    Args:
        gm: the graph, its output `[batch, positions, classes]`, or `[batch, classes, *positions]` of rank 4 and more;
            `[positions, batch, classes]`, too, as recurrent networks and those trained by CTC have it.
        kind: what the input `positions` holds. "index": int64 `[batch]`, or `[batch, axes]` where positions have
            several axes; from the end where negative. "mask": bool `[batch, *positions]`, for the mean. "weights":
            floating point `[batch, *positions]`, for the weighted sum.
        compilation: what the stages of one compilation share.

    Raises:
        CaptureError: the output has no positions, or another input is called `positions`.
    """
    (logits,) = outputs(gm.graph)
    shape, signature = logits.meta["val"].shape, signature_of(gm)
    if len(shape) < 3 or not logits.meta["val"].is_floating_point():
        raise CaptureError(
            f"positions={kind!r}: the model returns {list(shape)} ({where(logits)}), which has no positions. Leave "
            "positions out, or name another output with output=."
        )
    if POSITIONS in signature.extras:
        raise CaptureError("the model has an input called positions itself; wrap it in a module with another name.")
    builder, env = Builder(gm, compilation), dict[fx.Node, Any]()

    def again(site: Site) -> Any:
        with site.provenance():
            return site.copy()

    append(builder, gm, env, again)
    source = explained(gm.graph)
    env[source].node.meta.update({key: held for key, held in source.meta.items() if key != "val"})
    given = builder.placeholder(POSITIONS, _fake(logits, kind))
    given.node.meta[GRID] = _grid(logits)
    with builder.provenance(POSITIONS):
        held = env[logits].transpose(0, 1) if _batch_second(logits) else env[logits]
        chosen = _CHOOSE[kind](_last(held), given)
    extended = replace(signature, extras=(*signature.extras, POSITIONS))
    return tidy(builder.finish((chosen,), extended))


def with_class_axis(gm: Graph, compilation: Compilation | None = None) -> Graph:
    """A captured graph whose output is `[batch]` or `[batch, classes, 1, 1]`, as one of logits `[batch, classes]`."""
    (logits,) = outputs(gm.graph)
    val = logits.meta["val"]
    alone, spread = val.ndim == 1, val.ndim > 2 and all(isinstance(n, int) and n == 1 for n in val.shape[2:])
    if not (alone or spread) or not val.is_floating_point() or not isinstance(val.shape[0], torch.SymInt):
        return gm
    builder, env = Builder(gm, compilation), dict[fx.Node, Any]()

    def again(site: Site) -> Any:
        with site.provenance():
            return site.copy()

    append(builder, gm, env, again)
    source = explained(gm.graph)
    env[source].node.meta.update({key: held for key, held in source.meta.items() if key != "val"})
    with builder.provenance("classes"):
        value = env[logits]
        column = value.unsqueeze(1) if alone else value.reshape([value.shape[0], value.shape[1]])
    return tidy(builder.finish((column,)))


def example_positions(captured: fx.GraphModule, example: Tensor, kind: str) -> Tensor:
    """An example of the input `positions`, for a batch as large as the example's."""
    val = next(node for node in placeholders(captured.graph) if node.target == POSITIONS).meta["val"]
    extents = {size.node.expr: example.shape[axis] for axis, size in _free(explained(captured.graph).meta["val"])}
    shape = [extents[n.node.expr] if isinstance(n, torch.SymInt) else int(n) for n in val.shape]
    drawn = torch.Generator().manual_seed(0)
    if kind == INDEX:
        return -torch.randint(2, shape, generator=drawn).to(example.device)  # the first or the last: always there
    if kind == WEIGHTS:
        return torch.randn(shape, generator=drawn).to(example)
    mask = torch.rand(shape, generator=drawn) < 0.5
    mask.view(shape[0], -1)[:, 0] = True
    return mask.to(example.device)


def with_extents(ends: Ends, captured: Graph) -> Ends:
    """What of a model is explained, with how many positions its logits have."""
    if ends.positions is None:
        return ends
    named = {axis.axis: axis.name for axis in signature_of(captured).free}
    known = {size.node.expr: named.get(axis) for axis, size in _free(explained(captured.graph).meta["val"])}
    sizes = next(node for node in placeholders(captured.graph) if node.target == POSITIONS).meta[GRID]
    extents = (known.get(n.node.expr) if isinstance(n, torch.SymInt) else int(n) for n in sizes)
    return replace(ends, extents=tuple(extents))


def _batch_second(logits: fx.Node) -> bool:
    """Whether logits are `[positions, batch, classes]`: their second size is the batch, the first is not."""
    batch, shape = explained(logits.graph).meta["val"].shape[0], logits.meta["val"].shape
    if len(shape) != 3 or not isinstance(batch, torch.SymInt):
        return False
    return [isinstance(n, torch.SymInt) and bool(n.node.expr == batch.node.expr) for n in shape[:2]] == [False, True]


def _shape(logits: fx.Node) -> list[Any]:
    """The shape of logits with the batch first."""
    first, second, *rest = logits.meta["val"].shape
    return [second, first, *rest] if _batch_second(logits) else [first, second, *rest]


def _free(val: Tensor) -> list[tuple[int, Any]]:
    return [(axis, size) for axis, size in enumerate(val.shape) if isinstance(size, torch.SymInt)]


def _grid(logits: fx.Node) -> list[Any]:
    """The sizes of the axes of positions."""
    shape = _shape(logits)
    return list(shape[1:-1] if len(shape) == 3 else shape[2:])


def _fake(logits: fx.Node, kind: str) -> Any:
    """The fake value of the input `positions`."""
    val = logits.meta["val"]
    batch, grid = _shape(logits)[0], _grid(logits)
    known = {size.node.expr for _, size in _free(explained(logits.graph).meta["val"])}
    if kind != INDEX and any(isinstance(size, torch.SymInt) and size.node.expr not in known for size in grid):
        raise CaptureError(
            f"positions={kind!r}: the model returns {list(val.shape)}, and its positions are not those of the input. "
            "Name one position, positions='index', or compile for one size."
        )
    with val.fake_mode:
        if kind == INDEX:
            return val.new_empty([batch] if len(grid) == 1 else [batch, len(grid)], dtype=torch.int64)
        return val.new_empty([batch, *grid], dtype=torch.bool if kind == MASK else val.dtype)


def _last(logits: Any) -> Any:
    """The logits with their classes last."""
    if logits.ndim == 3:
        return logits
    return logits.permute([0, *range(2, logits.ndim), 1])


def _at_index(logits: Any, index: Any) -> Any:
    """`logits[sample, index]` of every sample: a sum with the weight one there, whose adjoint needs no scatter."""
    found: Any = None
    for axis in range(logits.ndim - 2):
        size = logits.shape[axis + 1]
        place = index if index.ndim == 1 else index[:, axis]
        place = torch.where(place < 0, place + size, place).unsqueeze(-1)
        here = (place == places(size, index)).to(logits.dtype)
        found = here if found is None else found.unsqueeze(-1) * here.reshape([-1, *[1] * axis, size])
    return _weighted(logits, found)


def _weighted(logits: Any, weights: Any) -> Any:
    rows = weights.reshape([weights.shape[0], 1, -1])
    return torch.matmul(rows, logits.reshape([logits.shape[0], -1, logits.shape[-1]])).squeeze(1)


def _mean(logits: Any, mask: Any) -> Any:
    weights = mask.to(logits.dtype)
    count = weights.sum(list(range(1, mask.ndim)), keepdim=True).clamp(min=1.0)
    return _weighted(logits, weights / count)


_CHOOSE = {INDEX: _at_index, WEIGHTS: _weighted, MASK: _mean}
