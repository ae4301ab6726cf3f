"""Rows of fake quantisation: with levels below zero, without, and one scale for each channel."""

from __future__ import annotations

import torch
from torch import Tensor

from fxpullback.rules import quantisation as rules
from tests.helpers import draw
from tests.rules.rows import Row

X = draw(3, 4, 5, 6, seed=2) * 2
SCALES, ZEROS = torch.tensor([0.05, 0.2, 0.011, 0.4]), torch.tensor([0, 3, 0, 9], dtype=torch.int32)


def by_hand(x: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """torch's own has no forward mode."""
    scale, zero = scale.to(x.dtype), zero.to(x.dtype)
    return ((torch.round(x / scale) + zero).clamp(low, high) - zero) * scale


def of_all(scale: float, zero: int, low: int, high: int, note: str, *, divided: bool = False) -> Row:
    """One scale; where no level is below zero, what lies below zero gets nothing."""
    settings = torch.tensor(scale, dtype=torch.float64), torch.tensor(float(zero), dtype=torch.float64)
    is_relu = zero <= low
    return Row(
        rules.fake_quantize,
        lambda x: by_hand(x, *settings, low, high),
        lambda x, t: rules.fake_quantize(x, *(s.to(x.dtype) for s in settings), -1, low, high, divided),
        lambda x, ct, t: ct * (x >= scale * (low - zero)) if is_relu else ct.clone(),
        X,
        note=note,
    )


def of_channels() -> Row:
    """A scale for each channel: the first and the third have no level below zero."""
    one_sided = torch.tensor([True, False, True, False])[None, :, None, None]
    return Row(
        rules.fake_quantize,
        lambda x: by_hand(x, SCALES[:, None, None], ZEROS[:, None, None], 0, 9),
        lambda x, t: rules.fake_quantize(x, SCALES.to(x.dtype), ZEROS.to(x.dtype), 1, 0, 9),
        lambda x, ct, t: torch.where(one_sided & (x < 0), torch.zeros_like(ct), ct),
        X,
        note="channels",
    )


ROWS = [
    of_all(0.2, 0, -8, 7, "signed"),
    of_all(0.3, 0, 0, 9, "one-sided"),
    of_all(0.3, 4, 0, 9, "zero inside"),
    of_all(0.3, 4, 0, 9, "divided as in ONNX", divided=True),
    of_channels(),
]
