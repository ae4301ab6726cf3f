"""Graphs of one operator, with a free batch, and what eager makes of the same arguments."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils._pytree import tree_leaves, tree_map_only

from fxpullback.contract.signature import Signature
from fxpullback.graph.module import Graph

aten = torch.ops.aten
Make = Callable[[tuple[int, ...]], torch.Tensor]


@dataclass(frozen=True)
class Input:
    """A graph input of the given sizes behind the batch (or without a batch)."""

    shape: tuple[int, ...]
    make: Make
    batched: bool = True

    def at(self, batch: int) -> torch.Tensor:
        """The tensor for one batch size."""
        return self.make((batch, *self.shape) if self.batched else self.shape)


@dataclass(frozen=True)
class Batch:
    """The batch size, times a factor, as an argument of its own."""

    factor: int = 1


B = Batch()


def normal(shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers round zero, zero itself among them."""
    values = torch.randn(shape)
    if values.numel():
        values.view(-1)[0] = 0.0
    return values


def x(*shape: int) -> Input:
    """float32 [batch, *shape], standard normal."""
    return Input(shape, normal)


def ranged(low: float, high: float, *shape: int) -> Input:
    """float32 [batch, *shape] between bounds."""
    return Input(shape, lambda size: torch.rand(size) * (high - low) + low)


def integers(high: int, *shape: int, low: int = 0) -> Input:
    """int64 [batch, *shape] below `high`."""
    return Input(shape, lambda size: torch.randint(low, high, size))


def bools(*shape: int) -> Input:
    """bool [batch, *shape]."""
    return Input(shape, lambda size: torch.rand(size) > 0.5)


def fixed(*shape: int) -> Input:
    """float32 [*shape], a graph input without a batch."""
    return Input(shape, normal, batched=False)


def each(names: str) -> list[str]:
    """Names, one a word."""
    return names.split()


def constant(*shape: int) -> torch.Tensor:
    """A weight."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def positive(*shape: int) -> torch.Tensor:
    """A weight above zero."""
    return constant(*shape).abs() + 0.5


def whole(high: int, *shape: int) -> torch.Tensor:
    """Indices below `high`."""
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(1))


@dataclass(frozen=True)
class Row:
    """One operator and the arguments to try it with; tensors among them become constants.

    A row that is not `captured` is one that torch.export does not take by itself with a free batch.
    """

    operator: OpOverload
    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[int, ...] | None = None
    tolerance: float = 1e-5
    captured: bool = True

    def __str__(self) -> str:
        return str(self.operator).removeprefix("aten.")

    def call(self, concrete: Callable[[Any], Any]) -> list[torch.Tensor]:
        """The results that the row asks for, of the operator called with `concrete` of its inputs and batch sizes."""
        args, kwargs = tree_map_only((Input, Batch), concrete, (self.args, self.kwargs), is_leaf=_is_leaf)
        return _listed(self.operator(*args, **kwargs), self.outputs)


def leaves(case: Row) -> list[Any]:
    """Everything a row passes to its operator, inputs and batch sizes among it."""
    found: list[Any] = tree_leaves((case.args, case.kwargs), is_leaf=_is_leaf)
    return found


def row(
    operator: OpOverload,
    *args: Any,
    outputs: tuple[int, ...] | None = None,
    tol: float = 1e-5,
    captured: bool = True,
    **kwargs: Any,
) -> Row:
    """A row; `outputs` picks results of an operator with several."""
    return Row(operator, args, kwargs, outputs, tol, captured)


def eager(case: Row, batch: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The inputs for one batch size, and what eager returns."""
    torch.manual_seed(0)
    feed: list[torch.Tensor] = []

    def concrete(leaf: Any) -> Any:
        if isinstance(leaf, Batch):
            if not feed:
                feed.append(x(1).at(batch))
            return batch * leaf.factor
        feed.append(leaf.at(batch))
        return feed[-1]

    return feed, case.call(concrete)


def _is_leaf(leaf: object) -> bool:
    return isinstance(leaf, (Input, Batch))


def _listed(result: Any, outputs: tuple[int, ...] | None) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [result[i] for i in (range(len(result)) if outputs is None else outputs)]
    return [result]


def one_node(case: Row, batch: int = 2) -> torch.fx.GraphModule:
    """The graph of one operator, captured at one batch size and free of it."""
    graph, root = torch.fx.Graph(), torch.nn.Module()
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    seen: list[torch.fx.Node] = []

    def enter(leaf: Any) -> torch.fx.Node:
        if isinstance(leaf, Batch):
            first = next((node for node in seen if isinstance(node.meta["val"].shape[0], torch.SymInt)), None)
            first = enter(x(1)) if first is None else first
            node = graph.call_function(aten.sym_size.int, (first, 0))
            node.meta["val"] = first.meta["val"].shape[0]
            if leaf.factor == 1:
                return node
            product = graph.call_function(torch.ops.aten.mul.Scalar, (node, leaf.factor))
            product.meta["val"] = node.meta["val"] * leaf.factor
            return product
        if isinstance(leaf, torch.Tensor):
            name = f"weight{len(root._buffers)}"
            root.register_buffer(name, leaf)
            node = graph.get_attr(name)
            node.meta["val"] = mode.from_tensor(leaf, static_shapes=True)
            return node
        node = graph.placeholder(f"input{len(seen)}")
        node.meta["val"] = _fake(mode, leaf, batch, node.meta, seen)
        seen.append(node)
        return node

    args, kwargs = tree_map_only((Input, Batch, torch.Tensor), enter, (case.args, case.kwargs), is_leaf=_is_leaf)
    call = graph.call_function(case.operator, args, kwargs)
    with mode, enable_python_dispatcher():
        fake_args, fake_kwargs = torch.fx.map_arg((args, kwargs), lambda node: node.meta["val"])
        call.meta["val"] = case.operator(*fake_args, **fake_kwargs)
    graph.output(tuple(_results(graph, call, case.outputs)))
    count = len(graph.output_node().args[0])  # type: ignore[arg-type]
    return Graph(root, graph, Signature(outputs=tuple(f"out{i}" for i in range(count))))


def _fake(
    mode: FakeTensorMode, leaf: Input, batch: int, meta: dict[str, Any], seen: list[torch.fx.Node]
) -> torch.Tensor:
    real = leaf.at(batch)
    if not leaf.batched:
        return mode.from_tensor(real, static_shapes=True)
    for node in seen:
        other = node.meta["val"]
        if isinstance(other.shape[0], torch.SymInt):
            with mode:
                return torch.empty((other.shape[0], *leaf.shape), dtype=real.dtype)
    sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * len(leaf.shape)
    return mode.from_tensor(real, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))


def _results(graph: torch.fx.Graph, call: torch.fx.Node, outputs: tuple[int, ...] | None) -> list[torch.fx.Node]:
    val = call.meta["val"]
    if not isinstance(val, (tuple, list)):
        return [call]
    results = []
    for i in range(len(val)) if outputs is None else outputs:
        part = graph.call_function(operator.getitem, (call, i))
        part.meta["val"] = val[i]
        results.append(part)
    return results
