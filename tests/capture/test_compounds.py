"""Operators that are written out in basic ones: values and derivatives as torch's own, at ties and at zero too."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fxpullback.differentiate import differentiate
from fxpullback.graph import invariants
from fxpullback.graph.compounds import COMPOUNDS
from fxpullback.graph.ir import aten
from fxpullback.lower import lower
from tests.helpers import Flat, assert_near, draw, graph_of, pulled_back
from tests.vjp.rows.row import Row, on, pointwise, positive, ties, weighted, wide

BATCH = 3
POINTS, WEIGHTS = draw(4, 5, seed=3), draw(3, 7, seed=4).abs()
MANY = draw(30, 5, seed=5)


def with_zeros(z: Tensor) -> Tensor:
    """Values, and exact zeros of both signs among them."""
    return torch.where(z > 1, 0.0, torch.where(z < -1, -0.0, z))


def of_norms(order: float | None) -> Row:
    return Row(
        aten.norm.ScalarOpt_dim, lambda x: aten.norm.ScalarOpt_dim(x, order, [2], True), (3, 5), ties, f"{order}"
    )


def of_distances(order: float) -> Row:
    function = weighted(lambda x, b: aten._cdist_forward.default(x, b, order, 2), POINTS)
    return Row(aten._cdist_forward.default, function, (3, 5), note=f"{order}")


def _rounded(x: Tensor, decimals: int) -> Tensor:
    return x * 2 + torch.round(x * 11, decimals=decimals)


def _counted(x: Tensor, right: bool) -> Tensor:
    return x * torch.bucketize(x.detach(), BORDERS, right=right)


ROWS = [
    Row(aten.norm.Scalar, lambda x: x * 2 + aten.norm.Scalar(POINTS[0], 2), (3, 5)),
    *(of_norms(order) for order in (None, 1, 2, 3, 0.5, math.inf)),
    Row(
        aten.norm.ScalarOpt_dim_dtype,
        lambda x: aten.norm.ScalarOpt_dim_dtype(x, 3, [1], False, dtype=torch.float64),
        (3, 5),
    ),
    Row(aten.cdist.default, weighted(lambda x, b: torch.cdist(x, b), POINTS), (3, 5)),
    Row(aten.cdist.default, weighted(lambda x, b: torch.cdist(x, b), MANY), (3, 5), note="many"),
    Row(aten.cdist.default, lambda x: torch.cdist(x, x.flip(1) * 2), (3, 5), note="both"),
    Row(aten.cdist.default, lambda x: torch.cdist(x[:, :1].expand(-1, 3, -1), x), (3, 5), note="zero"),
    Row(aten.cdist.default, weighted(lambda x, b: torch.cdist(x[:, 0], b), POINTS), (1, 5), note="rows-are-samples"),
    Row(aten.cdist.default, weighted(lambda x, b: torch.cdist(x[:, 0], b, p=1), POINTS), (1, 5), note="samples-1"),
    *(of_distances(order) for order in (0.5, 1.0, 1.5, 2.0, 3.0, math.inf)),
    Row(
        aten._cdist_forward.default,
        lambda x: aten._cdist_forward.default(x.repeat(1, 1, 2), x.flip(1).repeat(1, 1, 2), math.inf, 2),
        (3, 5),
        with_zeros,
        "ties",
    ),
    Row(aten._euclidean_dist.default, weighted(lambda x, b: aten._euclidean_dist.default(x[:, 0], b), POINTS), (1, 5)),
    *(Row(op.default, weighted(lambda x, op: op.default(x, 2)[0], op), (3, 7)) for op in (aten.cummax, aten.cummin)),
    *(
        Row(op.default, weighted(lambda x, op: op.default(x, -2)[0], op), (5, 2), ties, "ties")
        for op in (aten.cummax, aten.cummin)
    ),
    Row(aten.cummax.default, lambda x: x * torch.cummax(x, 1)[1], (5, 2), ties, "places"),
    on(aten.logcumsumexp.default, (3, 7), 2),
    on(aten.logcumsumexp.default, (5, 2), 1, note="front"),
    Row(
        aten.aminmax.default,
        lambda x: torch.cat([p * x[:, :1] for p in torch.aminmax(x, dim=1, keepdim=True)], 1),
        (1, 7),
    ),
    Row(aten.aminmax.default, lambda x: torch.aminmax(x, dim=2, keepdim=True)[0], (3, 7), ties, "ties"),
    Row(aten.kthvalue.default, lambda x: torch.kthvalue(x, 3)[0], (3, 7)),
    Row(aten.kthvalue.default, lambda x: torch.kthvalue(x, 1, 1, True)[0], (3, 7), note="kept"),
    Row(aten.median.dim, lambda x: torch.median(x, 2)[0], (3, 7)),
    Row(aten.median.dim, lambda x: x.gather(1, torch.median(x, 1, True)[1]), (4, 2), note="lower"),
    Row(aten.mode.default, lambda x: torch.mode(x, 2)[0], (3, 7), with_zeros),
    Row(aten.mode.default, lambda x: x.gather(1, torch.mode(x, 1, True)[1]), (5, 2), ties, "places"),
    Row(aten.lerp.Scalar, lambda x: torch.lerp(x, x * x, 0.3), (3, 7)),
    Row(aten.lerp.Tensor, weighted(lambda x, a: torch.lerp(x, x * x, a), WEIGHTS), (3, 7)),
    Row(aten.logaddexp.default, lambda x: torch.logaddexp(x[:, :1], x), (3, 7), wide),
    Row(aten.logaddexp2.default, lambda x: torch.logaddexp2(x[:, :1], x), (3, 7), ties),
    Row(aten.special_xlog1py.default, lambda x: torch.special.xlog1py(x[:, :1], x), (3, 7), positive),
    pointwise(aten.deg2rad.default),
    pointwise(aten.rad2deg.default),
    *(Row(aten.round.decimals, weighted(_rounded, n), (3, 7), note=f"{n}") for n in (0, 2, -1)),
    Row(aten.copysign.Tensor, lambda x: torch.copysign(x, x.flip(1)), (3, 7), with_zeros),
    pointwise(aten.copysign.Scalar, -0.0, values=wide),
    Row(aten.fmax.default, lambda x: torch.fmax(x[:, :1], x[:, 1:]), (4, 7), ties),
    Row(aten.fmin.default, lambda x: torch.fmin(x[:, :1], x[:, 1:]), (4, 7), ties),
    Row(aten.linalg_cross.default, lambda x: torch.linalg.cross(x[:, :1], x[:, 1:]), (4, 3)),
    Row(aten.linalg_cross.default, lambda x: torch.linalg.cross(x, x.exp(), dim=1), (3, 4), note="dim"),
    Row(aten.floor_divide.default, lambda x: x * (x.detach() // (x.detach().flip(1).abs() + 0.1)), (3, 7)),
    Row(aten.floor_divide.Scalar, lambda x: x * aten.floor_divide.Scalar(x.detach(), 0.3), (3, 7)),
    Row(aten.heaviside.default, lambda x: x * torch.heaviside(x.detach(), x.detach() + 0.5), (3, 7), wide),
]

GRID, VOLUME, THETA = draw(1, 3, 4, 2, seed=6), draw(1, 2, 2, 2, 3, seed=7), draw(2, 3, seed=8)


def _sampled(operator: Any, grid: Tensor, mode: int) -> Row:
    read = weighted(lambda x, g: operator(x, g.expand(x.shape[0], *g.shape[1:]), mode, 1, False), grid)
    return Row(operator, read, (2, 3, 4, 2)[: grid.shape[-1] + 1], note=f"{mode}")


ROWS += [
    _sampled(aten.grid_sampler.default, GRID, 0),
    _sampled(aten.grid_sampler_2d.default, GRID, 2),
    _sampled(aten.grid_sampler_3d.default, VOLUME, 0),
    Row(
        aten.affine_grid_generator.default,
        weighted(lambda x, t: aten.affine_grid_generator.default(x * t, [x.shape[0], 1, 4, 1], True), THETA),
        (2, 3),
    ),
]

PLACES, BORDERS = torch.tensor([2, 0, 2]), torch.tensor([-0.5, 0.0, 0.7], dtype=torch.float64)
NAN = torch.tensor([1.0, math.nan, 2.0], dtype=torch.float64)
ROWS += [
    Row(aten.index_add.default, lambda x: x.index_add(1, PLACES, x[:, 1:] * 2, alpha=3), (4, 3)),
    Row(aten.index_add.default, lambda x: x.index_add(-1, PLACES, x.exp()[:, :, 1:]), (2, 4), note="last"),
    Row(aten.index_copy.default, lambda x: x.index_copy(1, PLACES[:2], x[:, 1:3] * 2), (4, 3)),
    Row(aten.index_fill.int_Scalar, lambda x: x.index_fill(2, PLACES - 3, 0.5) * x, (2, 4)),
    *(
        Row(aten.diagonal.default, weighted(lambda x, o: torch.diagonal(x, o, 1, -1).exp(), o), (3, 2, 4), note=f"{o}")
        for o in (0, 2, -1)
    ),
    Row(aten.nansum.default, weighted(lambda x, n: (x * torch.nan_to_num(n) + 0 * n).nansum(2), NAN), (2, 3)),
    Row(aten.ldexp.Tensor, weighted(torch.ldexp, PLACES), (2, 3)),
    *(Row(aten.bucketize.Tensor, weighted(_counted, r), (2, 3), with_zeros, f"{r}") for r in (True, False)),
    Row(aten.searchsorted.Tensor, weighted(lambda x, b: x * torch.searchsorted(b, x.detach()), BORDERS), (2, 3)),
]


def test_every_operator_that_is_written_out_has_a_row() -> None:
    assert {row.target for row in ROWS} == set(COMPOUNDS)


@functools.cache
def together() -> tuple[Tensor, tuple[tuple[Tensor, Tensor], ...], dict[str, tuple[slice, slice]]]:
    """All rows captured as one model, differentiated, lowered and run: the cotangent, the runs, places by row."""
    places, taken, made = {}, 0, 0
    for row in ROWS:
        size, result = math.prod(row.sizes), Flat(row.function)(row.values(draw(BATCH, *row.sizes)))
        places[row.name] = (slice(taken, taken + size), slice(made, made + result.shape[1]))
        taken, made = taken + size, made + result.shape[1]

    def all_rows(x: Tensor) -> Tensor:
        parts = [x[:, places[row.name][0]].reshape(-1, *row.sizes) for row in ROWS]
        return torch.cat([Flat(row.function)(part) for row, part in zip(ROWS, parts, strict=True)], 1)

    captured = graph_of(all_rows, taken)
    invariants.check_captured(captured)
    differentiated = differentiate(captured)
    lowered, _ = lower(differentiated)
    invariants.check_lowered(lowered)
    x = torch.cat([row.values(draw(BATCH, *row.sizes)).reshape(BATCH, -1) for row in ROWS], 1)
    ct = draw(BATCH, made, seed=5)
    return ct, tuple((graph(x, ct)[0], graph(x, ct)[1]) for graph in (differentiated, lowered)), places


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_values_and_derivatives_are_those_of_torch(row: Row) -> None:
    given, runs, places = together()
    into, out = places[row.name]
    x, ct = row.values(draw(BATCH, *row.sizes)), given[:, out]
    model = Flat(row.function)
    for logits, pullback in runs:
        assert_near(logits[:, out].detach(), model(x).detach())
        assert_near(pullback[:, into].reshape(x.shape).detach(), pulled_back(model, x, ct))
