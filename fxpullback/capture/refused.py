"""Operators that no graph is made of, whatever else holds: those that draw random numbers."""

from __future__ import annotations

import torch
from torch import fx

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import aten, calls, input_nodes, outputs, schema_arguments, where

_DROPS = (
    aten.dropout.default,
    aten.native_dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.scaled_dot_product_attention.default,
)
_DRAWS = (*_DROPS, aten.binomial.default, aten._sample_dirichlet.default, aten.rrelu.default)
"""Beside those that torch says draw: see `torch.Tag.nondeterministic_seeded`."""


def refuse_random(gm: fx.GraphModule) -> None:
    """Refuse a captured graph whose logits are drawn: two calls would not agree, and an explanation be of neither.

    Raises:
        CaptureError: names the operators and says what to do.
    """
    needed, waiting = set[fx.Node](), list(outputs(gm.graph))
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += input_nodes(node)
    drawn = [node for node in calls(gm.graph) if node in needed and _draws(node)]
    if drawn:
        more = f" ({len(drawn)} such operators)" if len(drawn) > 1 else ""
        raise CaptureError(
            f"{where(drawn[0])} draws random numbers in evaluation mode{more}: two calls of the model do not agree, "
            f"and no explanation is of both. {_advice(drawn[0])}"
        )


def _draws(node: fx.Node) -> bool:
    """Whether an operator draws; dropout that drops nothing is gone from a captured graph."""
    if node.target is aten.scaled_dot_product_attention.default:
        return bool(schema_arguments(node)[4])
    tags = node.target.tags if isinstance(node.target, torch._ops.OpOverload) else ()
    return node.target in _DRAWS or torch.Tag.nondeterministic_seeded in tags


def _advice(node: fx.Node) -> str:
    if node.target is aten.scaled_dot_product_attention.default:
        return "Pass dropout_p=self.dropout if self.training else 0.0 to F.scaled_dot_product_attention."
    if node.target in _DROPS:
        return (
            "F.dropout drops by default: pass training=self.training, or use nn.Dropout, which eval() switches off. "
            "Samples of Monte Carlo dropout are explained one by one, each mask an extra input of the model."
        )
    return (
        "Draw in training mode alone, if self.training: ...; or take the numbers as a further input, model(x, noise), "
        "and pass an example: fxpullback.compile(model, (x, noise))."
    )
