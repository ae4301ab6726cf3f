"""Losses, which files of training hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fxpullback.importer.site import Node, tensor


def _loss(node: Node, logs: Tensor, labels: Tensor, weight: Tensor | None) -> Tensor:
    """What is lost by logarithms of shares `[batch, classes, ...]` at the classes of `labels`."""
    ignored = node.get("ignore_index")
    labels = labels.long()
    kept = torch.ones_like(labels, dtype=torch.bool) if ignored is None else labels != ignored
    places = torch.where(kept, labels, 0)
    factors = kept.to(logs.dtype) if weight is None else weight[places] * kept
    each = -torch.gather(logs, 1, places.unsqueeze(1)).squeeze(1) * factors
    kind = node.text("reduction", "mean")
    if kind == "none":
        return each
    return each.sum() if kind == "sum" else each.sum() / factors.sum()


def likelihood(node: Node, logs: Any, labels: Any, weight: Any = None) -> Any:
    """The negative logarithm of the likelihood."""
    return _loss(node, logs, tensor(labels), tensor(weight))


def cross_entropy(node: Node, scores: Any, labels: Any, weight: Any = None) -> Any:
    """The same of a softmax; and the logarithms of the shares."""
    logs = torch.log_softmax(scores, 1)
    made = _loss(node, logs, tensor(labels), tensor(weight))
    return (made, logs) if len(node.outputs) > 1 else made


OPERATORS: dict[str, Callable[..., Any]] = {
    "NegativeLogLikelihoodLoss": likelihood,
    "SoftmaxCrossEntropyLoss": cross_entropy,
}
