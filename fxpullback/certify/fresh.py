"""Inputs nobody has seen: what checks are made on, drawn so that they look like the examples.

A float input is drawn normal within the example's range. An extra of integers or booleans, and one that holds infinite
values as an additive mask does, is drawn of the example's own rows instead, so that every id stays one the model knows;
booleans and infinite values are shuffled within their row besides, which no row of a mask can be emptied by.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.sizes import FreeAxis, other_shape
from fxpullback.graph.inputs import Extra, Inputs
from fxpullback.target import Target

ROWS = 4  # of an example that a file carries; no check draws more


@dataclass(frozen=True)
class Spread:
    """What inputs look like: shape without the batch, mean, deviation and range; all a fresh input is drawn by."""

    shape: tuple[int, ...]
    mean: float
    deviation: float
    low: float
    high: float

    @classmethod
    def of(cls, example: Tensor) -> Spread:
        """The spread of an example; [-1, 1] where it is constant."""
        shape, deviation = tuple(example.shape[1:]), float(example.std()) if example.numel() > 1 else 0.0
        if not deviation > 0:
            return cls(shape, 0.0, 1.0, -1.0, 1.0)
        return cls(shape, float(example.mean()), deviation, float(example.min()), float(example.max()))

    def at(self, free: Sequence[FreeAxis], seed: int) -> Spread:
        """The same with other sizes along the free axes."""
        return replace(self, shape=other_shape(self.shape, free, seed))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Spread:
        """Read back what `asdict` made."""
        return cls(**{**data, "shape": tuple(data["shape"])})


@dataclass(frozen=True, eq=False)
class ExtraSpread:
    """What an extra looks like.

    Attributes:
        name: its name in the graph.
        dtype: its type, as `float32`.
        batched: whether its leading axis is the batch.
        spread: how a float extra is drawn.
        rows: what any other extra is drawn of, `[n, ...]`; n is 1 for one without a batch.
    """

    name: str
    dtype: str
    batched: bool
    spread: Spread | None
    rows: Tensor | None

    @classmethod
    def of(cls, extra: Extra) -> ExtraSpread:
        """The spread of an extra's example."""
        rows = extra.example if extra.batched else extra.example[None]
        dtype = str(extra.example.dtype).removeprefix("torch.")
        if rows.is_floating_point() and bool(torch.isfinite(rows).all()):
            return cls(extra.name, dtype, extra.batched, Spread.of(rows.double()), None)
        return cls(extra.name, dtype, extra.batched, None, rows[:ROWS].cpu())

    def draw(self, batch: int, seed: int) -> Tensor:
        """A fresh extra for a batch, in its own type."""
        count = batch if self.batched else 1
        drawn = self._normal(count, seed) if self.rows is None else _of_rows(self.rows, count, seed)
        return drawn if self.batched else drawn[0]

    def _normal(self, count: int, seed: int) -> Tensor:
        assert self.spread is not None
        return fresh_inputs(self.spread, count, seed).to(getattr(torch, self.dtype))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        data: dict[str, Any] = {"name": self.name, "dtype": self.dtype, "batched": self.batched}
        if self.spread is not None:
            return {**data, "spread": asdict(self.spread)}
        assert self.rows is not None
        held = self.rows.float() if self.rows.is_floating_point() else self.rows.long()
        packed = base64.b64encode(zlib.compress(held.contiguous().numpy().tobytes())).decode()
        return {**data, "rows": {"shape": list(held.shape), "data": packed}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExtraSpread:
        """Read back what `to_dict` wrote."""
        dtype: torch.dtype = getattr(torch, data["dtype"])
        spread = Spread.from_dict(data["spread"]) if "spread" in data else None
        rows = None
        if "rows" in data:
            raw = zlib.decompress(base64.b64decode(data["rows"]["data"]))
            held = np.frombuffer(raw, np.float32 if dtype.is_floating_point else np.int64)
            rows = torch.from_numpy(held.reshape(data["rows"]["shape"]).copy()).to(dtype)
        return cls(data["name"], data["dtype"], data["batched"], spread, rows)


def _of_rows(rows: Tensor, count: int, seed: int) -> Tensor:
    """Rows of an example in random order, over again where more are asked for; masks shuffled along their last axis."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(rows), generator=generator)
    drawn = rows[order[torch.arange(count) % len(rows)]]
    if drawn.ndim < 2 or not (drawn.dtype == torch.bool or drawn.is_floating_point()):
        return drawn
    places = torch.rand((count, drawn.shape[-1]), generator=generator).argsort(-1)
    places = places.reshape(count, *[1] * (drawn.ndim - 2), drawn.shape[-1])
    return drawn.gather(-1, places.expand_as(drawn))


def fresh_inputs(spread: Spread, batch: int, seed: int) -> Tensor:
    """Random float64 inputs `[batch, ...]`, normal within the spread's range."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((batch, *spread.shape), generator=generator, dtype=torch.float64)
    return (noise * spread.deviation + spread.mean).clamp(spread.low, spread.high)


def fresh_batch(spread: Spread, extras: Sequence[ExtraSpread], batch: int, seed: int, like: Tensor) -> Inputs:
    """A fresh batch of everything a graph takes; the explained input in the type, and all of it on the device, of
    `like`."""
    x = fresh_inputs(spread, batch, seed).to(like)
    drawn = tuple(extra.draw(batch, seed + 100 * i).to(like.device) for i, extra in enumerate(extras, 1))
    return Inputs(x, drawn, tuple(extra.batched for extra in extras))


def cotangents(batch: int, classes: int, like: Tensor, seed: int) -> Tensor:
    """Random cotangents `[batch, classes]`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, classes, generator=generator).to(device=like.device, dtype=like.dtype)


def fresh_target(target: Target, batch: int, classes: int, like: Tensor, seed: int) -> Tensor | None:
    """A random target of the kind `target`, or None for top-1."""
    if target == "top1":
        return None
    if target == "cotangent":
        return cotangents(batch, classes, like, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch,) if target == "index" else (batch, 2)
    return torch.randint(classes, shape, generator=generator).to(like.device)
