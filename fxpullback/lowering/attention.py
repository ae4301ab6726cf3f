"""Attention written out in plain products, its weights shared by forward and adjoint."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from fxpullback.graph.ir import aten, attribute, input_nodes, is_call, is_size, node_argument
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait
from fxpullback.graph.rebuild import Site
from fxpullback.graph.shapes import alike
from fxpullback.rules.attention import attention_weights, shared_heads


def write_out_attention(site: Site) -> Any:
    """softmax(scale q k^T + mask) v in plain products; the pullback needs the same weights."""
    q, k, v, mask, _, is_causal, scale, enable_gqa = site.arguments()
    if enable_gqa:
        k, v = shared_heads(k, q.shape[-3]), shared_heads(v, q.shape[-3])
    return torch.matmul(attention_weights(q, k, mask, is_causal, scale), v)


def without_empty_rows(site: Site) -> Any:
    """Attention weights as they are, where the mask is known to leave something of every row."""
    node, kept = site.node, site.arguments()[2]
    condition, _, weights = node.args
    assert isinstance(condition, fx.Node)
    assert isinstance(weights, fx.Node)
    if not alike(node, weights):
        return NotImplemented
    if condition.op == "get_attr":
        return NotImplemented if bool(attribute(site.builder.source, str(condition.target)).any()) else kept
    if not is_call(condition, aten.eq.Scalar) or condition.args[1] != -math.inf:
        return NotImplemented
    extreme = node_argument(condition, 0)
    finite = is_call(extreme, aten.amax.default) and surely_finite(
        site.builder.source, node_argument(extreme, 0), site.operators
    )
    return kept if finite else NotImplemented


def surely_finite(gm: fx.GraphModule, node: fx.Node, operators: OperatorTable = OPERATORS) -> bool:
    """Whether a node is made of finite constants alone: moved, or tensors of them added up."""
    if node.op == "get_attr":
        constant = attribute(gm, str(node.target))
        most = torch.finfo(constant.dtype).max if constant.is_floating_point() else math.inf
        return bool((constant.double().abs() < most / 1024).all())  # far enough from where sums become infinite
    traits = operators.at(node)
    added = Trait.SHIFTING in traits and len(input_nodes(node)) == 2 and not node.kwargs
    finite = added or (Trait.MOVES in traits and Trait.FILLS not in traits)
    return finite and all(is_size(n) or surely_finite(gm, n, operators) for n in input_nodes(node))
