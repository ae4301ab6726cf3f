"""Which operators of a half-precision graph stay in float32.

Half precision is safe for products, which accumulate in float32 inside, for what moves numbers, and for plain
arithmetic. Everything else is an island: exponentials, Phi and softmax, statistics and other sums, roots and
reciprocals, and every operator of which the table of traits says nothing. So is what reads a number or a constant that
the type cannot hold.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import (
    GETITEM,
    arg,
    aten,
    attribute,
    calls,
    input_nodes,
    is_float_tensor,
    is_size,
    schema_arguments,
)
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait, Traits

FLEXIBLE = (Trait.MOVES, Trait.ONE_ROUNDING)
"""Done in float32 where all that reads it is, else in half precision."""

NARROW = (Trait.CONTRACTION, Trait.HALF_SAFE, Trait.ONE_ROUNDING)
"""Of what computes numbers, all that may be done in half precision."""

CAST = aten._to_copy.default


def float32_nodes(gm: fx.GraphModule, dtype: torch.dtype, operators: OperatorTable = OPERATORS) -> set[fx.Node]:
    """The nodes that stay in float32.

    Args:
        gm: lowered graph in float32.
        dtype: the half-precision type of all others.
        operators: what is true of every operator.

    Returns:
        Islands; and of moves and plain arithmetic what is read by them alone, or lies between two of them. Constants
        that the type cannot hold are among them, and those that a rule computed in float64, for sums that cancel.
    """
    exact = gm.exact.keys() - gm.scaled if isinstance(gm, Graph) else frozenset()
    constants = [n for n in gm.graph.nodes if n.op == "get_attr"]
    islands = {n for n in constants if n.target in exact or not held(attribute(gm, str(n.target)), dtype)}
    for node in calls(gm.graph):
        if not is_size(node) and _is_island(node, islands, dtype, operators):
            islands.add(node)
    wide: set[fx.Node] = set()
    for node in reversed(gm.graph.nodes):
        users = [user for user in node.users if user.op == "output" or not is_size(user)]
        wanted = [user.op == "output" or user in wide for user in users]
        traits = operators.at(node)
        flexible = traits.any_of(*FLEXIBLE)
        between = Trait.MOVES in traits and _origin(node, operators) in islands and any(wanted)
        if node in islands or (flexible and bool(wanted) and all(wanted)) or between:
            wide.add(node)
    return wide


def _is_island(node: fx.Node, islands: set[fx.Node], dtype: torch.dtype, operators: OperatorTable) -> bool:
    traits = operators.at(node)
    if dtype is torch.bfloat16 and (Trait.NO_BFLOAT16 in traits or _is_transposed(node)):
        return True
    if Trait.MOVES in traits:
        return False
    if node.target is CAST:
        return is_float_tensor(arg(node, 0))
    if not traits.any_of(*NARROW) or not _numbers_held(node, dtype, traits):
        return True
    origins = [_origin(n, operators) for n in input_nodes(node) if not is_size(n)]
    if any(n.op == "get_attr" and n in islands for n in origins):
        return True
    if Trait.ONE_ROUNDING not in traits:
        return False
    divides = traits.divisor is not None and is_float_tensor(arg(node, 1)) and origins[-1].op != "get_attr"
    wide = [n for n in origins if operators.at(n).any_of(Trait.WIDE, Trait.OPAQUE)]
    return divides or any(not _is_normalised(n, node, operators) for n in wide)


def _is_transposed(node: fx.Node) -> bool:
    return node.target is aten.convolution.default and bool(schema_arguments(node)[6])


def _is_normalised(origin: fx.Node, reader: fx.Node, operators: OperatorTable) -> bool:
    """Whether a reader sees the first result of a norm, which is of size one, and none of its statistics."""
    if origin.target is not aten.native_layer_norm.default:
        return False
    found = [n for n in input_nodes(reader) if not is_size(n) and _origin(n, operators) is origin]
    return all(_item(n) == 0 for n in found)


def _item(node: fx.Node) -> int:
    while node.target is not GETITEM:
        node = input_nodes(node)[0]
    return int(arg(node, 1))


def _origin(node: fx.Node, operators: OperatorTable) -> fx.Node:
    """What made the numbers that a chain of moves brings here, by the first input of each."""
    while Trait.MOVES in operators.at(node) and input_nodes(node):
        node = input_nodes(node)[0]
    return node


def _numbers_held(node: fx.Node, dtype: torch.dtype, traits: Traits) -> bool:
    """Whether the type holds the plain numbers among an operator's arguments."""
    kinds: Any = (int, float) if Trait.ONE_ROUNDING in traits else float
    numbers = [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, kinds) and not isinstance(a, bool)]
    return all(held(torch.tensor(float(n), dtype=torch.float64), dtype) for n in numbers)


def held(constant: Tensor, dtype: torch.dtype) -> bool:
    """Whether a type holds a constant: no finite entry overflows, and none is off by more than the type's rounding of
    the largest entry, as all are where the whole constant underflows."""
    if not constant.is_floating_point() or not constant.numel():
        return True
    finite = constant.detach().double()
    finite = finite[torch.isfinite(finite)]
    largest = float(finite.abs().max()) if finite.numel() else 0.0
    if largest > torch.finfo(dtype).max:
        return False
    error = float((finite.to(dtype).double() - finite).abs().max()) if finite.numel() else 0.0
    return math.isfinite(error) and error <= torch.finfo(dtype).eps * largest
