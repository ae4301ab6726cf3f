"""Rows of pooling and of reductions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import aten
from tests.helpers import draw
from tests.vjp.rows.row import Make, Row, on, ties, weighted

POOLS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((7, 8), {"kernel_size": 2}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "ceil_mode": True}),
    ((8, 7), {"kernel_size": (2, 3), "stride": (3, 1), "padding": (1, 0)}),
    ((8, 8), {"kernel_size": 2, "stride": 2, "padding": 1, "ceil_mode": True}),
    ((9, 9), {"kernel_size": 2, "stride": 5}),
]
DILATED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((9, 9), {"kernel_size": 3, "dilation": 2, "padding": 1}),
    ((9, 8), {"kernel_size": 2, "dilation": (3, 2), "stride": 2, "ceil_mode": True}),
]
AVERAGED: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
    ((7, 8), {"kernel_size": 3, "stride": 2, "padding": 1, "divisor_override": 5}),
    ((6, 6), {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
]


def _pool(function: Any, options: dict[str, Any]) -> Make:
    return lambda x: function(x, **options)


POOLING = [
    *(
        Row(aten.max_pool2d.default, _pool(F.max_pool2d, o), (2, *s), ties, note=f"{i}")
        for i, (s, o) in enumerate(POOLS + DILATED)
    ),
    *(
        Row(aten.avg_pool2d.default, _pool(F.avg_pool2d, o), (2, *s), note=f"{i}")
        for i, (s, o) in enumerate(POOLS + AVERAGED)
    ),
    Row(aten.max_pool1d.default, lambda x: F.max_pool1d(x, 3, 2, 1), (2, 9), ties),
    Row(aten.max_pool3d.default, lambda x: F.max_pool3d(x, 2, ceil_mode=True), (2, 4, 5, 4)),
    Row(aten.adaptive_max_pool1d.default, lambda x: F.adaptive_max_pool1d(x, 3), (2, 7), ties),
    Row(aten.adaptive_max_pool2d.default, lambda x: F.adaptive_max_pool2d(x, (3, 2)), (2, 5, 6), ties),
    Row(aten.adaptive_max_pool2d.default, lambda x: F.adaptive_max_pool2d(x, 1), (2, 5, 6), note="global"),
    Row(aten.adaptive_max_pool3d.default, lambda x: F.adaptive_max_pool3d(x, (3, 2, 1)), (2, 5, 3, 2)),
    Row(aten.avg_pool1d.default, lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 9)),
    Row(aten.avg_pool3d.default, lambda x: F.avg_pool3d(x, 2, 1, 1), (2, 4, 5, 4)),
    Row(aten.adaptive_avg_pool1d.default, lambda x: F.adaptive_avg_pool1d(x, 3), (2, 8)),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, 1), (2, 5, 6)),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 5, 6), note="uneven"),
    Row(aten.adaptive_avg_pool2d.default, lambda x: F.adaptive_avg_pool2d(x, 7), (2, 3, 3), note="larger"),
    Row(aten.adaptive_avg_pool3d.default, lambda x: F.adaptive_avg_pool3d(x, (2, 1, 3)), (2, 4, 5, 4)),
]


def _norm(x: Tensor, order: float) -> Tensor:
    """Norms along the last axis."""
    length: Tensor = torch.linalg.vector_norm(x, order, 2)
    return length


REDUCTION = [
    on(aten.sum.dim_IntList, (3, 4), [1]),
    on(aten.sum.dim_IntList, (3, 4), [-1, 1], True, note="kept"),
    on(aten.mean.dim, (3, 4), [2]),
    on(aten.mean.dim, (3, 4, 5), [-1, 1], True, note="kept"),
    on(aten.cumsum.default, (3, 4), 1),
    Row(aten.amax.default, lambda x: x.amax(2), (3, 9), ties),
    Row(aten.amax.default, lambda x: x.amax((1, 2), True), (3, 9), ties, note="kept"),
    Row(aten.amin.default, lambda x: x.amin(1), (3, 9), ties),
    Row(aten.max.dim, lambda x: x.max(2).values, (3, 9)),
    Row(aten.max.dim, lambda x: x.max(1, True)[0], (3, 9), note="kept"),
    Row(aten.min.dim, lambda x: x.min(1).values, (3, 9)),
    Row(aten.topk.default, lambda x: x.topk(3, -1).values, (3, 9)),
    Row(aten.topk.default, lambda x: x.topk(2, 1, largest=False).values, (3, 9), note="smallest"),
    Row(aten.sort.default, weighted(lambda x, a: x.sort(-1).values * a, draw(9)), (3, 9)),
    Row(aten.sort.default, lambda x: x.sort(1, descending=True).values, (3, 9), note="falling"),
    Row(aten.sort.stable, weighted(lambda x, a: torch.sort(x, stable=True)[0] * a, draw(9)), (3, 9), ties),
    Row(aten.var.correction, lambda x: x.var(2), (3, 9)),
    Row(aten.var.correction, lambda x: x.var((1, 2), correction=0, keepdim=True), (3, 9), note="kept"),
    Row(aten.std.correction, lambda x: x.std(2), (3, 9)),
    Row(aten.std.correction, lambda x: x.std((1, 2), correction=0, keepdim=True), (3, 9), note="kept"),
    Row(aten.var_mean.correction, lambda x: torch.cat(torch.var_mean(x, 2), 1), (3, 9)),
    Row(aten.var_mean.correction, lambda x: torch.var_mean(x, 1, correction=0)[0], (3, 9), note="variance"),
    Row(aten.var_mean.correction, lambda x: torch.var_mean(x, 1, keepdim=True)[1], (3, 9), note="mean"),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x, dim=2), (3, 9)),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x * 0.0, dim=2), (3, 9), note="zero"),
    Row(aten.linalg_vector_norm.default, lambda x: torch.linalg.vector_norm(x, 1, 1, True), (3, 9), note="one"),
    *(
        Row(aten.linalg_vector_norm.default, weighted(_norm, order), (3, 9), ties, note=f"{order}")
        for order in (0.5, 1.5, 3, 7.5, math.inf, -math.inf)
    ),
    *(
        Row(aten.linalg_vector_norm.default, weighted(lambda x, p: _norm(x * 0.0, p), p), (3, 4), note=f"{p}-zero")
        for p in (0.5, 1, 1.5, 3, math.inf)
    ),
    on(aten.logsumexp.default, (3, 9), [2]),
    on(aten.logsumexp.default, (3, 9), [1], True, note="kept"),
]
