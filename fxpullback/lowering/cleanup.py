"""What is computed twice is computed once, and what does nothing is dropped."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import GETITEM, arg, aten, is_size
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OperatorTable, Trait, Traits
from fxpullback.graph.rebuild import Site, rebuild
from fxpullback.graph.shapes import alike
from fxpullback.graph.value import Value


def simplify(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Merge equal nodes and drop no-ops and dead nodes; also run on the unrolled program."""
    merged = eliminate_common_subexpressions(gm, compilation)
    return eliminate_common_subexpressions(drop_no_ops(merged, compilation), compilation)


def eliminate_common_subexpressions(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Compute equal expressions once (CSE).

    Before: a = exp(x); b = exp(x); y = a + b
    After:  a = exp(x); y = a + a
    """
    seen: dict[Any, Any] = {}

    def merge(site: Site) -> Any:
        node = site.node
        if is_size(node) or node.op == "get_attr" or node.target is GETITEM:
            return NotImplemented
        args, kwargs = fx.map_arg((node.args, node.kwargs), site.whole)
        key = (node.target, _key(args), _key(kwargs))
        if key not in seen:
            seen[key] = site.copy()
        return seen[key]

    return rebuild(gm, merge, compilation)


def _key(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return (type(value).__name__, *map(_key, value))
    if isinstance(value, dict):
        return tuple(sorted((k, _key(v)) for k, v in value.items()))
    if isinstance(value, Value):
        return value.node
    if isinstance(value, torch.SymInt):
        return value.node.expr
    return (type(value).__name__, value)


def drop_no_ops(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Reshapes and expansions to a shape a value has or gets, whole slices, factors of one, double transposes.

    Before: y = transpose(transpose(reshape(x, x.shape) * 1, 0, 1), 0, 1)
    After:  y = x
    """
    return rebuild(gm, _without_no_op, compilation)


def _without_no_op(site: Site) -> Any:
    node, env = site.node, site.env
    if node.op != "call_function" or is_size(node) or node.target is GETITEM:
        return NotImplemented
    source = node.args[0] if node.args else None
    idle = Trait.SAME_IF_SHAPED in site.traits or (_scales(site.traits) and arg(node, 1) == 1)
    if idle and isinstance(source, fx.Node) and alike(node, source) and _same_type(node, source):
        return env[source]
    if node.target is aten.reshape.default and isinstance(source, fx.Node):
        inner = env[source].node
        if inner.target is aten.reshape.default:
            return site.copy({source: Value(site.builder, inner.args[0])})
    if node.target is aten.transpose.int:
        inner = env[arg(node, 0)].node
        if inner.target is aten.transpose.int and _axes(node) == _axes(inner):
            return Value(site.builder, inner.args[0])
    narrow = _spread_anyway(node, site.traits)
    if narrow is not None and env[narrow].node.target is aten.expand.default:
        return site.copy({narrow: Value(site.builder, env[narrow].node.args[0])})
    return NotImplemented


def _same_type(node: fx.Node, source: fx.Node) -> bool:
    """A mask times 1.0 has the numbers of the mask, and is no mask."""
    return bool(node.meta["val"].dtype == source.meta["val"].dtype)


def _spread_anyway(node: fx.Node, traits: Traits) -> fx.Node | None:
    """An operand whose expansion an operator on it and a value of the full shape would make itself."""
    if not traits.broadcasts or len(node.args) < 2:
        return None
    operands = [n for n in node.args[:2] if isinstance(n, fx.Node) and not is_size(n)]
    for n, other in (operands, operands[::-1]) if len(operands) == 2 else ():
        if n.target is aten.expand.default and other.target is not aten.expand.default and alike(node, other):
            return n
    return None


def merge_factors(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, int]:
    """Numbers that one value is multiplied by one after the other are one number.

    Before: y = x / 4 * 2
    After:  y = x * 0.5
    """
    changed = 0

    def merge(site: Site) -> Any:
        nonlocal changed
        outer = _factor(site.node, site.operators)
        inner = site.env[arg(site.node, 0)].node if outer is not None else None
        below = _factor(inner, site.operators) if inner is not None else None
        if inner is None or outer is None or below is None or not 1e-30 < abs(below * outer) < 1e30:
            return NotImplemented
        changed += 1
        return site.builder.call(aten.mul.Tensor, (Value(site.builder, inner.args[0]), below * outer), {})

    return rebuild(gm, merge, compilation), changed


def _factor(node: fx.Node, operators: OperatorTable) -> float | None:
    """By what number a node multiplies a floating-point tensor; None if it does something else."""
    number = operators.number_of(node)
    return number if number is not None and node.meta["val"].is_floating_point() else None


def _axes(node: fx.Node) -> set[int]:
    ndim = node.meta["val"].ndim
    return {int(arg(node, 1)) % ndim, int(arg(node, 2)) % ndim}


def _scales(traits: Traits) -> bool:
    """A product or quotient of the first argument and the second."""
    return Trait.SCALING in traits and bool(traits.factors)
