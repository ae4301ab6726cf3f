"""Rows of the normalisations that torch has as operators."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.rules import normalization as rules
from tests.helpers import draw
from tests.rules.rows import Row

X = draw(3, 6, 4, 5, seed=2) * 2 + 1
GAMMA, BETA = draw(6, seed=3), draw(6, seed=4)


def spread(x: Tensor, dims: tuple[int, ...], centred: bool = True) -> Tensor:
    """Mean square over `dims`, around the mean or around zero."""
    away = x - x.mean(dims, keepdim=True) if centred else x
    return (away * away).mean(dims, keepdim=True)


def layer_norm(affine: bool, shape: tuple[int, ...], eps: float, note: str) -> Row:
    gamma, beta = (draw(*shape, seed=3), draw(*shape, seed=4)) if affine else (None, None)
    dims = tuple(range(-len(shape), 0))

    def like(x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (None, None) if gamma is None or beta is None else (gamma.to(x.dtype), beta.to(x.dtype))

    return Row(
        rules.layer_norm,
        lambda x: F.layer_norm(x, shape, *like(x), eps),
        lambda x, t: rules.layer_norm(x, list(shape), *like(x), eps),
        lambda x, ct, t: ct * (1 if gamma is None else gamma) / torch.sqrt(spread(x, dims) + eps),
        X,
        note=note,
    )


def group_norm(groups: int, affine: bool, note: str) -> Row:
    """With as many groups as channels it is instance norm."""
    eps = 1e-5

    def like(x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (GAMMA.to(x.dtype), BETA.to(x.dtype)) if affine else (None, None)

    def primal(x: Tensor) -> Tensor:
        gamma, beta = like(x)
        return F.instance_norm(x, weight=gamma, bias=beta) if groups == 6 else F.group_norm(x, groups, gamma, beta)

    def adjoint(x: Tensor, ct: Tensor, temperature: float) -> Tensor:
        result = torch.zeros_like(x)
        for channel in range(6):
            first = channel // (6 // groups) * (6 // groups)
            of_group = spread(x[:, first : first + 6 // groups], (1, 2, 3))[:, 0]
            factor = GAMMA[channel] if affine else 1
            result[:, channel] = ct[:, channel] * factor / torch.sqrt(of_group + eps)
        return result

    return Row(rules.group_norm, primal, lambda x, t: rules.group_norm(x, groups, *like(x)), adjoint, X, note=note)


def rms_norm(affine: bool, eps: float | None, note: str) -> Row:
    gamma = draw(5, seed=3) if affine else None
    added = torch.finfo(torch.float64).eps if eps is None else eps
    return Row(
        rules.rms_norm,
        lambda x: F.rms_norm(x, [5], None if gamma is None else gamma.to(x.dtype), eps),
        lambda x, t: rules.rms_norm(x, [5], None if gamma is None else gamma.to(x.dtype), eps),
        lambda x, ct, t: ct * (1 if gamma is None else gamma) / torch.sqrt(spread(x, (-1,), False) + added),
        X,
        note=note,
    )


ROWS = [
    layer_norm(True, (5,), 1e-5, "affine"),
    layer_norm(False, (5,), 0.3, "plain"),
    layer_norm(True, (4, 5), 1e-6, "two-axes"),
    group_norm(2, True, "affine"),
    group_norm(3, False, "plain"),
    group_norm(1, True, "one-group"),
    group_norm(6, True, "instance"),
    rms_norm(True, 0.1, "affine"),
    rms_norm(False, None, "plain"),
]
