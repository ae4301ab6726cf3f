"""Norms, softmaxes and reductions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Known
from fxpullback.importer.site import Node, tensor


def batch_norm(node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any) -> Any:
    """By stored statistics, one for each channel."""
    if node.get("training_mode", 0):
        raise CaptureError("it normalises by statistics of the batch: the logits of a sample depend on the others")
    given = [tensor(value) for value in (mean, var, weight, bias)]
    return F.batch_norm(x, given[0], given[1], given[2], given[3], False, 0.0, node.get("epsilon", 1e-5))


def instance_norm(node: Node, x: Any, weight: Any, bias: Any) -> Any:
    """By the statistics of each channel of each sample."""
    return F.instance_norm(x, None, None, tensor(weight), tensor(bias), True, 0.0, node.get("epsilon", 1e-5))


def layer_norm(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    """By the statistics over the last axes."""
    axis = node.get("axis", -1)
    axis += x.ndim if axis < 0 else 0
    sizes, weight, bias, eps = list(x.shape[axis:]), tensor(weight), tensor(bias), node.get("epsilon", 1e-5)
    if list(weight.shape) == sizes and (bias is None or list(bias.shape) == sizes):
        made = F.layer_norm(x, sizes, weight, bias, eps)
    else:
        made = F.layer_norm(x, sizes, None, None, eps) * weight
        made = made if bias is None else made + bias
    if not any(node.outputs[1:]):
        return made
    axes = list(range(axis, x.ndim))
    mean = x.mean(axes, keepdim=True)
    return made, mean, torch.rsqrt(((x - mean) ** 2).mean(axes, keepdim=True) + eps)


def rms_norm(node: Node, x: Any, weight: Any) -> Any:
    """By the root of the mean square over the last axes."""
    axis = node.get("axis", -1)
    axis += x.ndim if axis < 0 else 0
    _alone(node)
    sizes, weight = list(x.shape[axis:]), tensor(weight)
    if list(weight.shape) == sizes:
        return F.rms_norm(x, sizes, weight, node.get("epsilon", 1e-5))
    return F.rms_norm(x, sizes, None, node.get("epsilon", 1e-5)) * weight


def _alone(node: Node) -> None:
    if any(node.outputs[1:3]):
        raise CaptureError("its statistics, further outputs, are not supported")


def skip_norm(node: Node, x: Any, skip: Any, weight: Any, *rest: Any) -> Any:
    """A sum, and its layer norm."""
    simple = "Simplified" in node.kind
    beta = None if simple else (rest[0] if rest else None)
    bias = (rest[0] if rest else None) if simple else (rest[1] if len(rest) > 1 else None)
    total = tensor(x) + tensor(skip)
    total = total if bias is None else total + tensor(bias)
    eps, sizes, weight = node.get("epsilon", 1e-12 if not simple else 1e-6), [total.shape[-1]], tensor(weight)
    made = F.rms_norm(total, sizes, weight, eps) if simple else F.layer_norm(total, sizes, weight, tensor(beta), eps)
    if any(node.outputs[1:3]):
        raise CaptureError("its statistics, further outputs, are not supported")
    return (made, None, None, total) if len(node.outputs) > 3 else made


def embed_norm(
    node: Node, ids: Any, segments: Any, words: Any, places: Any, kinds: Any, weight: Any, bias: Any, *rest: Any
) -> Any:
    """The sum of three lookups, and its layer norm."""
    mask, given = (rest[0] if rest else None), (rest[1] if len(rest) > 1 else None)
    ids = tensor(ids).long()
    at = torch.arange(ids.shape[1])[None] if given is None else tensor(given).long()
    total = F.embedding(ids, words) + F.embedding(at, places)
    if segments is not None and kinds is not None:
        total = total + F.embedding(tensor(segments).long(), kinds)
    made = F.layer_norm(total, [total.shape[-1]], tensor(weight), tensor(bias), node.get("epsilon", 1e-12))
    counted = None if mask is None else tensor(mask).sum(1)
    return (made, counted, total)[: max(1, len(node.outputs))] if len(node.outputs) > 1 else made


def group_norm(node: Node, x: Any, weight: Any, bias: Any) -> Any:
    """By the statistics of groups of channels of each sample."""
    groups, weight, bias = node.get("num_groups"), tensor(weight), tensor(bias)
    if weight.shape[0] != x.shape[1]:
        weight, bias = (value.repeat_interleave(x.shape[1] // groups) for value in (weight, bias))
    return F.group_norm(x, groups, weight, bias, node.get("epsilon", 1e-5))


def lp_norm(node: Node, x: Any) -> Any:
    """Divided by the p-norm along an axis."""
    norm = torch.linalg.vector_norm(x, node.get("p", 2), [node.get("axis", -1)], keepdim=True)
    return x / torch.where(norm == 0, 1.0, norm)


def local_response(node: Node, x: Any) -> Any:
    """Divided by a power of the sum of squares of neighbouring channels."""
    size, alpha, beta = node.get("size"), node.get("alpha", 1e-4), node.get("beta", 0.75)
    if size % 2:
        return F.local_response_norm(x, size, alpha, beta, node.get("bias", 1.0))
    before, behind = (size - 1) // 2, size - 1 - (size - 1) // 2
    squares = F.pad((x * x).movedim(1, -1), [before, behind])
    total = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    return x / (node.get("bias", 1.0) + total * (alpha / size)) ** beta


def mean_variance(node: Node, x: Any) -> Any:
    """Without mean, of variance one, over some axes."""
    axes = list(node.get("axes") or [0, 2, 3])
    if 0 in axes:
        raise CaptureError("it normalises over the batch: the logits of a sample depend on the others")
    centred = x - x.mean(axes, keepdim=True)
    return centred / (torch.sqrt((centred * centred).mean(axes, keepdim=True)) + 1e-9)


def softmax(node: Node, x: Any) -> Any:
    """Exponentials that sum to one along an axis; in old versions over all axes from one on."""
    return _along(node, x, torch.softmax)


def softmax_written_out(node: Node, x: Any) -> Any:
    """Exponentials that sum to one along an axis, as they were found written out."""
    return torch.softmax(x, node.get("axis"))


def log_softmax(node: Node, x: Any) -> Any:
    """The logarithm of softmax."""
    return _along(node, x, torch.log_softmax)


def hardmax(node: Node, x: Any) -> Any:
    """One at the first largest entry along an axis, else zero."""

    def first(values: Tensor, axis: int) -> Tensor:
        places = torch.arange(values.shape[axis]).reshape(
            [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        )
        return (places == torch.argmax(values, axis, keepdim=True)).to(values.dtype)

    return _along(node, x, first)


def _along(node: Node, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Any:
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    if axis == x.ndim - 1:
        return function(x, axis)
    return function(x.flatten(axis), -1).reshape(x.shape)


def reduced(function: Callable[[Tensor, list[int], bool], Tensor], since: int = 18) -> Callable[..., Any]:
    """A reduction over some axes, by default all of them."""

    def run(node: Node, x: Any, *rest: Any) -> Any:
        axes = node.get("axes") if node.opset < since else node.numbers(1, [x, *rest])
        if axes is not None and not list(axes):
            axes = None
        keep = bool(node.get("keepdims", 1))
        if isinstance(x, Known):
            return _of_known(node, x, axes, keep)
        if axes is None and node.get("noop_with_empty_axes", 0):
            return _POINTWISE[node.kind](x) if node.kind in _POINTWISE else x
        where = list(range(x.ndim)) if axes is None else [a % x.ndim for a in axes]
        return function(x, where, keep) if where else function(x.unsqueeze(0), [0], False)

    return run


_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceSumSquare": lambda x: x * x,
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceLogSum": torch.log,
}


def _of_known(node: Node, x: Known, axes: Any, keep: bool) -> Known:
    known: dict[str, Callable[..., Any]] = {
        "ReduceProd": np.prod, "ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min,
    }  # fmt: skip
    if node.kind not in known:
        raise CaptureError("it reduces sizes in a way that is not supported")
    made = known[node.kind](x.array, axis=None if axes is None else tuple(axes), keepdims=keep)
    return Known(np.asarray(made, x.array.dtype), x.floats)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = torch.prod(x, axis, keepdim=keep)
    return x


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def place(function: Callable[[Tensor, int, bool], Tensor]) -> Callable[..., Any]:
    """The place of the largest or smallest entry along an axis."""

    def run(node: Node, x: Any) -> Any:
        axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
        if not node.get("select_last_index", 0):
            return function(x, axis, keep)
        return x.shape[axis] - 1 - function(x.flip(axis), axis, keep)

    return run


OPERATORS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "SimplifiedLayerNormalization": rms_norm,
    "RMSNormalization": rms_norm,
    "GroupNormalization": group_norm,
    "LpNormalization": lp_norm,
    "LRN": local_response,
    "MeanVarianceNormalization": mean_variance,
    "Softmax": softmax,
    "fxpullback.Softmax": softmax_written_out,
    "LogSoftmax": log_softmax,
    "Hardmax": hardmax,
    "ReduceMean": reduced(lambda x, axes, keep: torch.mean(x, axes, keepdim=keep)),
    "ReduceSum": reduced(_sum, 13),
    "ReduceMax": reduced(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep)),
    "ReduceMin": reduced(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep)),
    "ReduceProd": reduced(_product),
    "ReduceL1": reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 1, axes, keepdim=keep)),
    "ReduceL2": reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep)),
    "ReduceSumSquare": reduced(lambda x, axes, keep: torch.sum(x * x, axes, keepdim=keep)),
    "ReduceLogSum": reduced(lambda x, axes, keep: torch.log(torch.sum(x, axes, keepdim=keep))),
    "ReduceLogSumExp": reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ArgMax": place(lambda x, axis, keep: torch.argmax(x, axis, keepdim=keep)),
    "ArgMin": place(lambda x, axis, keep: torch.argmin(x, axis, keepdim=keep)),
    "com.microsoft.SkipLayerNormalization": skip_norm,
    "com.microsoft.SkipSimplifiedLayerNormalization": skip_norm,
    "com.microsoft.EmbedLayerNormalization": embed_norm,
    "com.microsoft.LayerNormalization": layer_norm,
    "com.microsoft.SimplifiedLayerNormalization": rms_norm,
}
