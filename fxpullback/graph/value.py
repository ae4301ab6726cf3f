"""A value of the graph under construction: torch code that runs on it writes nodes.

Torch functions, tensor methods and Python operators on a `Value` resolve to the ATen overload that torch itself would
choose and become exactly that one node; nothing is decomposed on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import aten


class Recorder(Protocol):
    """What a value asks of the builder it belongs to."""

    def call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Append one node that calls `target`."""

    def call_named(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `aten.<name>` in the overload that torch would choose."""

    def exact_constant(self, exact: Tensor, dtype: torch.dtype, device: torch.device) -> Any:
        """A float64 tensor as a constant in another type."""


_METHODS = {"__add__": "add", "__radd__": "add", "__mul__": "mul", "__rmul__": "mul", "__sub__": "sub"}
_METHODS |= {"__truediv__": "div", "__neg__": "neg", "__pow__": "pow", "__matmul__": "matmul"}
_METHODS |= {"__gt__": "gt", "__ge__": "ge", "__lt__": "lt", "__le__": "le", "__and__": "bitwise_and"}
_METHODS |= {"__rsub__": "rsub", "__invert__": "bitwise_not", "__or__": "bitwise_or"}
_METHODS |= {"__eq__": "eq", "__ne__": "ne"}  # set on the finished class, so that a Value is still hashed by identity


class Value:
    """One node of the graph under construction; behaves like a tensor in torch code."""

    __slots__ = ("builder", "node")

    def __init__(self, builder: Recorder, node: fx.Node) -> None:
        self.builder, self.node = builder, node

    @property
    def fake(self) -> Tensor:
        return cast(Tensor, self.node.meta["val"])

    @property
    def shape(self) -> torch.Size:
        return self.fake.shape

    @property
    def ndim(self) -> int:
        return self.fake.ndim

    @property
    def dtype(self) -> torch.dtype:
        return self.fake.dtype

    @property
    def device(self) -> torch.device:
        return self.fake.device

    def size(self, dim: int) -> int:
        return self.fake.shape[dim]

    def exact_constant(self, exact: Tensor) -> Value:
        """A float64 tensor as a constant in this value's type; see `fxpullback.graph.ir.constant_like`."""
        lifted: Value = self.builder.exact_constant(exact, self.dtype, self.device)
        return lifted

    def places(self, count: torch.SymInt) -> Any:
        """0, 1, ... up to a free size; see `fxpullback.graph.shapes.places`."""
        return self.builder.call(aten.arange.default, (count,), {"device": self.device})

    def __getitem__(self, index: Any) -> Any:
        return _index(self, index)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_") or not hasattr(aten, name):
            raise AttributeError(f"torch has no functional operator aten.{name}")
        return lambda *args, **kwargs: self.builder.call_named(name, (self, *args), kwargs)

    def __rtruediv__(self, other: float) -> Any:
        return self.builder.call_named("mul", (self.builder.call_named("reciprocal", (self,), {}), other), {})

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        builder = next(v.builder for v in leaves((args, kwargs or {})) if isinstance(v, Value))
        if isinstance(func, torch._ops.OpOverload):
            return builder.call(func, args, kwargs or {})
        name = func.__name__ if not isinstance(func, torch._ops.OpOverloadPacket) else func._qualified_op_name
        return builder.call_named(name.removeprefix("aten::").removeprefix("special_"), args, kwargs or {})


def _operator(name: str) -> Callable[..., Any]:
    def method(self: Value, *args: Any) -> Any:
        return self.builder.call_named(name, (self, *args), {})

    return method


for _dunder, _name in _METHODS.items():
    setattr(Value, _dunder, _operator(_name))


def leaves(tree: Any) -> Iterator[Any]:
    """What is no tuple, list or dict in a tree of them."""
    if isinstance(tree, tuple | list):
        for item in tree:
            yield from leaves(item)
    elif isinstance(tree, dict):
        yield from leaves(list(tree.values()))
    else:
        yield tree


def map_tree(tree: Any, function: Callable[[Any], Any]) -> Any:
    """The same tree with `function` applied to its leaves."""
    if isinstance(tree, tuple | list):
        return (
            [map_tree(t, function) for t in tree]
            if isinstance(tree, list)
            else tuple(map_tree(t, function) for t in tree)
        )
    if isinstance(tree, dict):
        return {k: map_tree(v, function) for k, v in tree.items()}
    return function(tree)


def _index(x: Value, index: Any) -> Any:
    """Basic indexing (integers, slices, None, Ellipsis) as select, slice and unsqueeze."""
    items = list(index) if isinstance(index, tuple) else [index]
    if any(item is Ellipsis for item in items):
        at = next(i for i, item in enumerate(items) if item is Ellipsis)
        used = sum(item is not None for item in items) - 1
        items[at : at + 1] = [slice(None)] * (x.ndim - used)
    dim = 0
    for item in items:
        if item is None:
            x = x.unsqueeze(dim)
            dim += 1
        elif isinstance(item, slice):
            if item != slice(None):
                x = x.builder.call(aten.slice.Tensor, (x, dim, item.start, item.stop, item.step or 1), {})
            dim += 1
        else:
            x = x.builder.call(aten.select.int, (x, dim, item), {})
    return x
