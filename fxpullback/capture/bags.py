"""Models that take one sample at a time, as those of multiple-instance learning take one bag: told from others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from fxpullback.capture.quiet import no_fast_path, quiet
from fxpullback.capture.reasons import own_place

_BY_HAND = (
    "Write its forward for a batch: keep the leading axis in place of x.squeeze(0) or x[0], name axes from the end "
    "(dim=-1, transpose(-1, -2)), and reshape to x.shape[0]."
)


def one_at_a_time(
    model: nn.Module, inputs: Sequence[Tensor], batched: Sequence[bool], names: Sequence[str]
) -> str | None:
    """What is said of a model that runs on one sample and not on two; None of any other.

    Args:
        model: the module.
        inputs: a batch of two.
        batched: which of them are batched.
        names: what they are called, where they are passed by name.
    """
    one = [tensor[:1] if is_batched else tensor for tensor, is_batched in zip(inputs, batched, strict=True)]
    try:
        made = _run(model, one, names)
    except Exception:
        return None
    try:
        _run(model, inputs, names)
    except Exception as error:
        place = own_place(error)
        return (
            f"{type(model).__name__} takes one sample at a time: it runs on a batch of one, and on a batch of two it "
            f"raises {type(error).__name__}{f' at {place}' if place else ''} ({' '.join(str(error).split())[:160]}). A "
            f"graph takes batches, each sample by itself. {_advice(model, inputs, names, made)}"
        )
    return None


def _run(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> Any:
    with torch.no_grad(), quiet(), no_fast_path():
        given = [tensor.detach().clone() for tensor in inputs]
        return model(**dict(zip(names, given, strict=True))) if names else model(*given)


class _Each(nn.Module):
    """A model mapped over the samples of a batch."""

    def __init__(self, model: nn.Module, is_batch: bool) -> None:
        super().__init__()
        self.model, self.is_batch = model, is_batch

    def forward(self, x: Tensor) -> Any:
        return torch.vmap(lambda sample: self.model(sample[None])[0] if self.is_batch else self.model(sample[None]))(x)


def _advice(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str], made: Any) -> str:
    """To wrap the model where that can be exported, which is tried; else to write it for a batch."""
    if len(inputs) > 1 or names or not isinstance(made, Tensor):
        return _BY_HAND
    is_batch = made.ndim > 1 and made.shape[0] == 1
    try:
        with quiet(), no_fast_path():
            wrapped = _Each(model, is_batch).eval()
            torch.export.export(wrapped, tuple(inputs), dynamic_shapes=({0: Dim("batch")},), strict=False)
    except Exception:
        return _BY_HAND
    return (
        "Wrap it, Each(model), and compile that:\n"
        "  class Each(torch.nn.Module):\n"
        "      def __init__(self, model): super().__init__(); self.model = model\n"
        "      def forward(self, x): return torch.vmap(lambda sample: self.model(sample[None])"
        f"{'[0]' if is_batch else ''})(x)"
    )
