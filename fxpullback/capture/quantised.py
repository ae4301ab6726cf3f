"""Models prepared for training with quantisation: torch's fake-quantise operators as one, weights quantised once.

Observers that are off watch nothing: ranges stay as they are. With an observer on, every input moves the range that it
is then rounded in, and the logits of a sample depend on what came before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.capture.like import call_like, fake_mode
from fxpullback.capture.reasons import CONVERTED, OF_CONVERTED, SWITCH_OFF
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.alone import alone
from fxpullback.graph.fake_quantized import FAKE_QUANTIZE
from fxpullback.graph.ir import (
    GETITEM,
    STOP_GRADIENT,
    arg,
    aten,
    attribute,
    calls,
    input_nodes,
    needed_for,
    schema_arguments,
    where,
)
from fxpullback.graph.module import Graph

_INT8 = "quantized_decomposed"  # where torch keeps the operators of models that it converted by way of torch.export


@dataclass(frozen=True)
class _Call:
    """One call of a fake-quantise operator; attributes as in `FAKE_QUANTIZE`, and two flags that are tensors or None.

    Attributes:
        learnt: whether torch rounds the zero point, and gives scale and zero point a derivative.
    """

    x: fx.Node
    scale: Any
    zero: Any
    axis: int
    low: int
    high: int
    on: fx.Node | None = None
    observing: fx.Node | None = None
    learnt: bool = False


def _fused(x: Any, observing: Any, on: Any, least: Any, most: Any, scale: Any, zero: Any, *rest: Any) -> _Call:
    _, low, high, axis, by_row, _ = rest
    return _Call(x, scale, zero, axis if by_row else -1, low, high, on, observing)


_CALLS: dict[Any, Callable[..., _Call]] = {
    aten._fused_moving_avg_obs_fq_helper_functional.default: _fused,
    aten._fused_moving_avg_obs_fq_helper.default: _fused,
    aten.fused_moving_avg_obs_fake_quant.default: _fused,
    aten.fake_quantize_per_tensor_affine.default: lambda x, s, z, low, high: _Call(x, s, z, -1, low, high),
    aten.fake_quantize_per_tensor_affine.tensor_qparams: lambda x, s, z, low, high: _Call(x, s, z, -1, low, high),
    aten.fake_quantize_per_tensor_affine_cachemask.default: lambda x, s, z, low, high: _Call(x, s, z, -1, low, high),
    aten._fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default: lambda x, s, z, on, low, high: _Call(
        x, s, z, -1, low, high, on
    ),
    aten.fake_quantize_per_channel_affine.default: lambda x, s, z, axis, low, high: _Call(x, s, z, axis, low, high),
    aten.fake_quantize_per_channel_affine_cachemask.default: lambda x, s, z, axis, low, high: _Call(
        x, s, z, axis, low, high
    ),
    aten._fake_quantize_learnable_per_tensor_affine.default: lambda x, s, z, low, high, factor: _Call(
        x, s, z, -1, low, high, learnt=True
    ),
    aten._fake_quantize_learnable_per_channel_affine.default: lambda x, s, z, axis, low, high, factor: _Call(
        x, s, z, axis, low, high, learnt=True
    ),
}


def _like(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


def _with_mask(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x, dtype=torch.bool)


_SHAPES = {
    "fake_quantize_per_tensor_affine_cachemask": _with_mask,
    "fake_quantize_per_channel_affine_cachemask": _with_mask,
    "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": _with_mask,
    "_fake_quantize_learnable_per_tensor_affine": _like,
    "_fake_quantize_learnable_per_channel_affine": _like,
}
"""The operators of which torch does not say what shape they return."""


@contextmanager
def shapes_said() -> Iterator[None]:
    """Have torch know the shapes that every fake-quantise operator returns, which it needs to export one."""
    with alone(), torch.library._scoped_library("aten", "IMPL", "Meta") as library:
        for name, shape in _SHAPES.items():
            if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
                library.impl(name, shape)
        yield


def as_one_operator(gm: Graph) -> Graph:
    """Put `FAKE_QUANTIZE` in place of torch's fake-quantise operators, and what it computes of weights in theirs.

    Args:
        gm: a functional graph, which is changed.

    Returns:
        The same graph.

    Raises:
        CaptureError: an observer is on, or values of the input switch it; or the model is converted to int8.
    """
    converted = next((node for node in calls(gm.graph) if getattr(node.target, "namespace", "") == _INT8), None)
    if converted is not None:
        raise CaptureError(f"{where(converted)}: {CONVERTED}. {OF_CONVERTED}")
    found = [node for node in calls(gm.graph) if node.target in _CALLS]
    held = Held(gm)
    for node in found:
        call = _CALLS[node.target](*schema_arguments(node))
        made = _made(gm, node, call, held)
        first = [user for user in node.users if user.target is GETITEM and arg(user, 1) == 0]
        if len(node.target._schema.returns) == 1:  # type: ignore[union-attr]
            first = [node]
        for old in first:
            old.replace_all_uses_with(made)
    if found:
        gm.graph.eliminate_dead_code()
        gm.recompile()
    return gm


def _made(gm: Graph, node: fx.Node, call: _Call, held: Held) -> fx.Node:
    """What stands for a call."""
    if call.observing is not None and _is_on(node, held.value(call.observing)):
        raise CaptureError(f"{where(node)}: {SWITCH_OFF}")
    if call.on is not None and not _is_on(node, held.value(call.on)):
        return call.x
    with gm.graph.inserting_before(node):
        x = held.value(call.x)
        like = call.x.meta["val"]
        scale, zero = (_parameter(gm, node, p, call, like.dtype, held) for p in (call.scale, call.zero))
        axis = call.axis % like.ndim if call.axis >= 0 else -1
        settings = (axis, call.low, call.high)
        if x is not None and (s := held.value(scale)) is not None and (z := held.value(zero)) is not None:
            return _constant(gm, node, FAKE_QUANTIZE(x, s, z, *settings), "fake_quantised")
        return call_like(node, FAKE_QUANTIZE, call.x, scale, zero, *settings)


def _parameter(gm: Graph, node: fx.Node, given: Any, call: _Call, dtype: torch.dtype, held: Held) -> fx.Node:
    """Scale or zero point in the type of what is quantised: a constant where it depends on constants alone."""
    is_zero = given is call.zero
    rounded = is_zero and call.learnt
    if not isinstance(given, fx.Node):
        number = torch.tensor(float(given)).to(dtype)  # by way of float32, which torch computes with
        return _constant(gm, node, number, "zero" if is_zero else "scale")
    value = held.value(given)
    if value is not None:
        value = (value.round().clamp(call.low, call.high) if rounded else value).to(dtype)
        value = value if call.axis >= 0 else value.reshape([])
        return _constant(gm, node, value, "zero" if is_zero else "scale")
    made = given if call.learnt else call_like(node, STOP_GRADIENT, given)
    if rounded:
        made = call_like(node, aten.clamp.default, call_like(node, aten.round.default, made), call.low, call.high)
    made = made if call.axis >= 0 else call_like(node, aten.reshape.default, made, [])
    return made if made.meta["val"].dtype == dtype else call_like(node, aten._to_copy.default, made, dtype=dtype)


def _is_on(node: fx.Node, flag: Tensor | None) -> bool:
    if flag is None:
        raise CaptureError(
            f"{where(node)} is switched on and off by values that the model computes. Switch it by hand before "
            "compiling: model.apply(torch.ao.quantization.disable_observer)."
        )
    return bool(flag.flatten()[0])


def _constant(gm: Graph, node: fx.Node, value: Tensor, name: str) -> fx.Node:
    """A constant under a name of its own."""
    name = f"{node.name}_{name}"
    gm.register_buffer(name, value.detach().clone())
    made = node.graph.get_attr(name)
    mode = fake_mode(node)
    made.meta["val"] = mode.from_tensor(value.detach().clone(), static_shapes=True)
    return made


class Held:
    """The values of a graph's nodes that depend on its constants alone."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.known: dict[fx.Node, Tensor | None] = {}

    def value(self, node: fx.Node) -> Any:
        """The value of a node; None where it depends on an input, on a free size, or is drawn."""
        if node not in self.known:
            for needed in _in_order(node, self.known):
                self.known[needed] = self._computed(needed)
        return self.known[node]

    def _computed(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute(self.gm, str(node.target))
        drawn = isinstance(node.target, torch._ops.OpOverload) and torch.Tag.nondeterministic_seeded in node.target.tags
        if node.op != "call_function" or drawn or any(self.known[n] is None for n in input_nodes(node)):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: self.known[n])
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]


def _in_order(node: fx.Node, known: dict[fx.Node, Any]) -> list[fx.Node]:
    """A node and what it is computed of, but for what is known, each after what it needs."""
    needed = needed_for([node], known)
    return [one for one in node.graph.nodes if one in needed]
