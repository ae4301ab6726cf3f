"""What is computed twice is computed once, and what does nothing is dropped."""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import torch
from torch import fx

from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import GETITEM, ORIGIN, arg, aten, is_size
from fxpullback.graph.operators import OPERATORS, Trait, Traits
from fxpullback.graph.rebuild import walk
from fxpullback.graph.value import Value
from fxpullback.lowering.rewrite import same_shape


def simplify(gm: fx.GraphModule) -> fx.GraphModule:
    """Merge equal nodes and drop no-ops and dead nodes; also run on the unrolled program."""
    return merge_equal(drop_no_ops(merge_equal(gm)))


def merge_equal(gm: fx.GraphModule) -> fx.GraphModule:
    """Compute equal expressions once."""
    seen: dict[Any, Any] = {}

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if is_size(node) or node.op == "get_attr" or node.target is GETITEM:
            return builder.copy(node, env)
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
        key = (node.target, _key(args), _key(kwargs))
        if key not in seen:
            seen[key] = builder.copy(node, env)
        return seen[key]

    return walk(gm, visit)


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


def drop_no_ops(gm: fx.GraphModule) -> fx.GraphModule:
    """Reshapes and expansions to a shape a value has or gets, whole slices, factors of one, double transposes."""

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        if node.op != "call_function" or is_size(node) or node.target is GETITEM:
            return builder.copy(node, env)
        source = node.args[0] if node.args else None
        traits = OPERATORS.at(node)
        idle = Trait.SAME_IF_SHAPED in traits or (_scales(traits) and arg(node, 1) == 1)
        if idle and isinstance(source, fx.Node) and same_shape(node, source) and _same_type(node, source):
            return env[source]
        if node.target is aten.reshape.default and isinstance(source, fx.Node):
            inner = env[source].node
            if inner.target is aten.reshape.default:
                return builder.copy(node, ChainMap({source: Value(builder, inner.args[0])}, env))
        if node.target is aten.transpose.int:
            inner = env[arg(node, 0)].node
            if inner.target is aten.transpose.int and _axes(node) == _axes(inner):
                return Value(builder, inner.args[0])
        narrow = _spread_anyway(node)
        if narrow is not None and env[narrow].node.target is aten.expand.default:
            return builder.copy(node, ChainMap({narrow: Value(builder, env[narrow].node.args[0])}, env))
        return builder.copy(node, env)

    return walk(gm, visit)


def _same_type(node: fx.Node, source: fx.Node) -> bool:
    """A mask times 1.0 has the numbers of the mask, and is no mask."""
    return bool(node.meta["val"].dtype == source.meta["val"].dtype)


def _spread_anyway(node: fx.Node) -> fx.Node | None:
    """An operand whose expansion an operator on it and a value of the full shape would make itself."""
    if not OPERATORS.at(node).broadcasts or len(node.args) < 2:
        return None
    operands = [n for n in node.args[:2] if isinstance(n, fx.Node) and not is_size(n)]
    for n, other in (operands, operands[::-1]) if len(operands) == 2 else ():
        if n.target is aten.expand.default and other.target is not aten.expand.default and same_shape(node, other):
            return n
    return None


def merge_factors(gm: fx.GraphModule) -> tuple[fx.GraphModule, int]:
    """`x * a * b` and `x / a * b`, a and b numbers, are one product."""
    changed = 0

    def visit(builder: Builder, node: fx.Node, env: dict[fx.Node, Any]) -> Any:
        nonlocal changed
        outer = _factor(node)
        inner = env[arg(node, 0)].node if outer is not None else None
        below = _factor(inner) if inner is not None else None
        if inner is None or outer is None or below is None:
            return builder.copy(node, env)
        changed += 1
        kept = {k: v for k, v in node.meta.items() if k != "val"}
        with builder.provenance(node.name, **{ORIGIN: node.name, **kept}):
            return builder.call(aten.mul.Tensor, (Value(builder, inner.args[0]), below * outer), {})

    return walk(gm, visit), changed


def _factor(node: fx.Node) -> float | None:
    """By what number a node multiplies a floating-point tensor; None if it does something else."""
    traits = OPERATORS.at(node)
    if not _scales(traits) or len(node.args) < 2 or not isinstance(node.args[0], fx.Node):
        return None
    number, value = node.args[1], node.meta["val"]
    if isinstance(number, bool) or not isinstance(number, int | float) or not value.is_floating_point():
        return None
    if traits.divisor is None:
        return float(number)
    return 1 / number if number and not node.kwargs else None


def _axes(node: fx.Node) -> set[int]:
    ndim = node.meta["val"].ndim
    return {int(arg(node, 1)) % ndim, int(arg(node, 2)) % ndim}


def _scales(traits: Traits) -> bool:
    """A product or quotient of the first argument and the second."""
    return Trait.SCALING in traits and bool(traits.factors)
