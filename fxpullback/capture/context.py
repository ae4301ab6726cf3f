"""Spellings that depend on the nodes around a call: constants among its arguments, and what reads its result.

Each is a handler of `fxpullback.graph.rebuild`. It returns NotImplemented for a call that stays as it is, and says in
its docstring which calls do.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from fxpullback.capture.matrices import MATRICES
from fxpullback.capture.rows import is_counted, rows_of_samples
from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import GETITEM, arg, aten, attribute, is_call
from fxpullback.graph.rebuild import Handler, Site
from fxpullback.graph.value import Value


def clamp_by_constants(site: Site) -> Any:
    """Bounds that are constants of one number each, as numbers; an infinite one bounds nothing.

    The call stays where a bound is computed or has more than one number, and where the tensor holds integers.
    `F.cosine_similarity` makes its bound of a number.
    """
    x, *bounds = site.arguments()
    bounds = [None, *bounds] if site.node.target is aten.clamp_max.Tensor else [*bounds, None][:2]
    low, high = (_number(site.builder, bound, x) for bound in bounds)
    if low is NotImplemented or high is NotImplemented or not x.dtype.is_floating_point:
        return NotImplemented
    low, high = (None if low == -math.inf else low), (None if high == math.inf else high)
    if low is None and high is None:
        return x
    return site.builder.call(aten.clamp.default, (x, low) if high is None else (x, low, high), {})


def _number(builder: Builder, bound: Value | None, like: Value) -> Any:
    """The value of a constant of one number, None for none, NotImplemented for any other bound."""
    if bound is None:
        return None
    if is_call(bound.node, aten.scalar_tensor.default):
        return bound.node.args[0]
    if bound.node.op != "get_attr" or bound.ndim > like.ndim:
        return NotImplemented
    held = attribute(builder.source, str(bound.node.target))
    return float(held) if held.numel() == 1 else NotImplemented


_MAX_POOLS = {
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
}


def pad_for_maximum(site: Site) -> Any:
    """Padding with -inf in front of a max-pool, as "same" padding has it, pads with the smallest finite number.

    The maximum is the same; and a soft maximum may multiply what it left out by zero. Any other padding stays.
    """
    x, sides, *_, value = site.arguments()
    readers = site.node.users
    if value != -math.inf or not readers or any(user.target not in _MAX_POOLS for user in readers):
        return NotImplemented
    return site.builder.call(aten.constant_pad_nd.default, (x, sides, torch.finfo(x.dtype).min), {})


def max_pool_with_indices(site: Site) -> Any:
    """Without the places of the maxima; the call stays where something reads them."""
    if any(not is_call(user, GETITEM) or user.args[1] != 0 for user in site.node.users):
        return NotImplemented
    return (site.builder.call(aten.max_pool2d.default, site.arguments(), {}),)


def _is_every_sample(index: Any, x: Value) -> bool:
    """Whether an index counts the samples of a batch, each once and in order."""
    counted = isinstance(index, Value) and index.ndim == 1 and is_counted(index.node)
    return counted and str(index.shape[0]) == str(x.shape[0])


def index(site: Site) -> Any:
    """`x[arange(batch), place]`, one place for each sample, is a gather; as an index its adjoint would mix samples.

    One place for all samples is a gather as well, and `x[arange(batch)]` is `x`. Every other indexing by tensors stays.
    """
    x, indices = site.arguments()
    if len(indices) == 1 and _is_every_sample(indices[0], x):
        return x
    if len(indices) == 1:
        return rows_of_samples(site)
    if len(indices) != 2 or not all(isinstance(i, Value) and i.ndim <= 1 for i in indices):
        return NotImplemented
    samples, place = indices
    whole = _is_every_sample(samples, x)
    one = place.ndim == 0 or place.shape[0] == 1
    if not whole or place.dtype == torch.bool or not (one or str(place.shape[0]) == str(x.shape[0])):
        return NotImplemented
    if one:
        place = place.reshape([1]).expand([x.shape[0]])
    place = site.builder.call(aten._to_copy.default, (place,), {"dtype": torch.int64})
    place = torch.where(place < 0, place + x.shape[1], place)
    spread = place.reshape([-1] + [1] * (x.ndim - 1)).expand([-1, 1, *x.shape[2:]])
    return x.gather(1, spread).squeeze(1)


def root_of_sums(site: Site) -> Any:
    """The root of `F.lp_pool`, `(sign(y) relu(|y|) k) ** (1 / p)`, is zero where y is, and has a derivative of zero.

    Its relu is no gate: it stops what the root would carry on at zero, which has no derivative there. A soft one does
    not. `sign(y) relu(|y|)` is y, and the choice at zero is written out. Every other power stays.
    """
    base, exponent = arg(site.node, 0), arg(site.node, 1)
    factor = 1.0
    if is_call(base, aten.mul.Tensor, aten.mul.Scalar) and isinstance(arg(base, 1), int | float):
        base, factor = arg(base, 0), arg(base, 1)
    if not (is_call(base, aten.mul.Tensor) and isinstance(exponent, float) and 0 < exponent < 1):
        return NotImplemented
    sign, size = arg(base, 0), arg(base, 1)
    if not (is_call(sign, aten.sign.default) and is_call(size, aten.relu.default)):
        return NotImplemented
    inner = arg(size, 0)
    if not (is_call(inner, aten.abs.default) and arg(inner, 0) is arg(sign, 0)):
        return NotImplemented
    y = site.whole(arg(sign, 0))
    zero = y == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, y * factor) ** exponent)


IN_CONTEXT: dict[Any, Handler] = {
    **MATRICES,
    aten.clamp.Tensor: clamp_by_constants,
    aten.clamp_min.Tensor: clamp_by_constants,
    aten.clamp_max.Tensor: clamp_by_constants,
    aten.constant_pad_nd.default: pad_for_maximum,
    aten.pad.default: pad_for_maximum,
    aten.max_pool2d_with_indices.default: max_pool_with_indices,
    aten.index.Tensor: index,
    aten.pow.Tensor_Scalar: root_of_sums,
}
