"""Operators that no graph is made of, whatever else holds: those that draw random numbers or mix a batch."""

from __future__ import annotations

import torch
from torch import fx

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import aten, calls, needed_for, outputs, schema_arguments, where
from fxpullback.graph.shapes import is_free

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

_OF_THE_BATCH = (
    aten._native_batch_norm_legit.no_stats,
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit_functional.default,
)


def refuse(gm: fx.GraphModule, dtype: torch.dtype) -> None:
    """Refuse a captured graph whose logits are drawn, or depend on the other samples of a batch by their statistics.

    Or one that computes in half precision what it is given in another type.

    Raises:
        CaptureError: names the operators and says what to do.
    """
    refuse_random(gm)
    refuse_batch_statistics(gm)
    refuse_low_precision(gm, dtype)


def refuse_random(gm: fx.GraphModule) -> None:
    """Refuse a captured graph whose logits are drawn: two calls would not agree, and an explanation be of neither.

    Raises:
        CaptureError: names the operators and says what to do.
    """
    drawn = [node for node in _needed(gm) if _draws(node)]
    if drawn:
        more = f" ({len(drawn)} such operators)" if len(drawn) > 1 else ""
        raise CaptureError(
            f"{where(drawn[0])} draws random numbers in evaluation mode{more}: two calls of the model do not agree, "
            f"and no explanation is of both. {_advice(drawn[0])}"
        )


def refuse_batch_statistics(gm: fx.GraphModule) -> None:
    """Refuse a captured graph that normalises by statistics of the batch: no sample has logits of its own.

    Raises:
        CaptureError: names the operator and says what to do.
    """
    for node in _needed(gm):
        if node.target in _OF_THE_BATCH and is_free(schema_arguments(node)[0].meta["val"].shape[0]):
            raise CaptureError(
                f"{where(node)} normalises by statistics of the batch: the logits of a sample depend on the others, "
                "so none has an explanation of its own. Give the batch norm stored statistics "
                "(track_running_stats=True, its default, and statistics of training), or write an instance norm or a "
                "group norm, which take those of each sample."
            )


def _needed(gm: fx.GraphModule) -> list[fx.Node]:
    """The calls that the outputs depend on."""
    needed = needed_for(outputs(gm.graph))
    return [node for node in calls(gm.graph) if node in needed]


def refuse_low_precision(gm: fx.GraphModule, dtype: torch.dtype) -> None:
    """Refuse a graph that computes in half precision what it is given in full, as under autocast.

    Raises:
        CaptureError: names the first such operator and says what to do.
    """
    if dtype not in (torch.float32, torch.float64):
        return
    low = low_precision(gm)
    if low is not None:
        raise low


def low_precision(gm: fx.GraphModule) -> CaptureError | None:
    """What is said of the first operator of a graph that computes in half precision; None where none does."""
    for node in calls(gm.graph):
        val = node.meta.get("val")
        if isinstance(val, torch.Tensor) and val.dtype in (torch.float16, torch.bfloat16):
            kind = str(val.dtype).removeprefix("torch.")
            return CaptureError(
                f"{where(node)} computes in {kind}, under torch.autocast or by a cast inside the forward. Have that in "
                f"training alone: torch.autocast(device, dtype=torch.{kind}, enabled=self.training), or a cast "
                "if self.training. A file in half precision is asked for when it is written: "
                "to_onnx(pb, path, precision='fp16')."
            )
    return None


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
