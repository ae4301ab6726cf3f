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
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.sizes import FreeAxis, other_shape
from fxpullback.graph.entry import Entry, Part
from fxpullback.graph.inputs import Extra, Inputs
from fxpullback.target import Target

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

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
        follows: its axes that have the size of a free axis of the explained input, and which.
    """

    name: str
    dtype: str
    batched: bool
    spread: Spread | None
    rows: Tensor | None
    follows: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, extra: Extra) -> ExtraSpread:
        """The spread of an extra's example."""
        rows = extra.example if extra.batched else extra.example[None]
        dtype = str(extra.example.dtype).removeprefix("torch.")
        if rows.is_floating_point() and bool(torch.isfinite(rows).all()):
            return cls(extra.name, dtype, extra.batched, Spread.of(rows.double()), None, extra.follows)
        return cls(extra.name, dtype, extra.batched, None, rows[:ROWS].cpu(), extra.follows)

    def at(self, sizes: Mapping[int, int]) -> ExtraSpread:
        """The same at other sizes of the explained input's axes; what stands at either end of a row stays there."""
        own = {(axis if self.batched else axis + 1): sizes[of] for axis, of in self.follows if of in sizes}
        if self.spread is not None:
            shape = [own.get(axis, size) for axis, size in enumerate(self.spread.shape, 1)]
            return replace(self, spread=replace(self.spread, shape=tuple(shape)))
        rows = self.rows
        for axis, size in own.items():
            assert rows is not None
            rows = rows.index_select(axis, _spread_over(rows.shape[axis], size))
        return replace(self, rows=rows)

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
        if self.follows:
            data["follows"] = [list(pair) for pair in self.follows]
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
        follows = tuple((int(axis), int(of)) for axis, of in data.get("follows", ()))
        return cls(data["name"], data["dtype"], data["batched"], spread, rows, follows)


def _spread_over(extent: int, size: int) -> Tensor:
    """Which of `extent` places each of `size` places is a copy of; the first and the last stay at the ends."""
    return torch.linspace(0, extent - 1, size, dtype=torch.float64).round().long()


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


@dataclass(frozen=True)
class Looks:
    """What the inputs of a graph look like: all that fresh ones are drawn by.

    Attributes:
        spread: how the explained input is drawn, where it is no embedding of ids.
        extras: what the extras look like; the ids are the first of them where there is an entry.
        entry: what the explained input is made by of ids; None where it is given.
    """

    spread: Spread
    extras: tuple[ExtraSpread, ...]
    entry: Entry | None = None

    @classmethod
    def of(cls, pb: Compiled) -> Looks:
        """Of the examples that a model was compiled with."""
        return cls(Spread.of(pb.example), tuple(ExtraSpread.of(extra) for extra in pb.extras), pb.entry)

    def draw(self, batch: int, seed: int, like: Tensor) -> Inputs:
        """A fresh batch of everything a graph takes; the explained input in the type, and all of it on the device, of
        `like`."""
        drawn = [extra.draw(batch, seed + 100 * i) for i, extra in enumerate(self.extras, 1)]
        for i, part in enumerate(self.entry.parts if self.entry is not None else ()):
            if part.vocabulary is not None:
                drawn[i] = other_ids(drawn[i], part.vocabulary, seed)
        held = tuple(extra.to(like.device) for extra in drawn)
        x = fresh_inputs(self.spread, batch, seed) if self.entry is None else self.entry.value(held)
        return Inputs(x.to(like), held, tuple(extra.batched for extra in self.extras))

    def passed(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """What of a batch the graph that runs is given: not the explained input where ids stand for it."""
        return tuple(inputs) if self.entry is None else inputs.extras

    def at(self, free: Sequence[FreeAxis], seed: int) -> Looks:
        """The same with other sizes along the free axes."""
        spread = self.spread.at(free, seed)
        sizes = {axis.axis: spread.shape[axis.axis - 1] for axis in free}
        return replace(self, spread=spread, extras=tuple(extra.at(sizes) for extra in self.extras))

    @property
    def size(self) -> str:
        """The size of an input behind its channels, `32x48`; of ids how many they are."""
        return "x".join(map(str, self.spread.shape[1:] if self.entry is None else self.spread.shape[:-1]))

    def to_dict(self, tables: Mapping[str, Sequence[str]] = MappingProxyType({})) -> dict[str, Any]:
        """Plain values, as a file carries them; `tables` are the names under which it holds those of each part."""
        data: dict[str, Any] = {"inputs": asdict(self.spread), "extras": [extra.to_dict() for extra in self.extras]}
        if self.entry is None:
            return data
        parts = [{"name": p.name, "tables": list(tables[p.name]), "sample": p.sample} for p in self.entry.parts]
        return {**data, "entry": parts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Looks:
        """Read back what `to_dict` wrote; the tables are among the weights of the file."""
        extras = tuple(ExtraSpread.from_dict(extra) for extra in data["extras"])
        held = data.get("entry")
        entry = None if held is None else Entry(tuple(_part(part, weights) for part in held))
        return cls(Spread.from_dict(data["inputs"]), extras, entry)


def _part(data: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Part:
    return Part(data["name"], {name: weights[name] for name in data["tables"]}, tuple(data["sample"]))


def inside(looks: Looks, drawn: Inputs) -> Inputs:
    """A batch with values strictly inside the range of the example's, no two of them equal.

    At the ends of its range a function may have no derivative, and of equal values torch chooses one.
    """
    if looks.entry is not None:
        return drawn
    share = torch.rand(drawn.x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.98 + 0.01
    return drawn.at((looks.spread.low + (looks.spread.high - looks.spread.low) * share).to(drawn.x))


def other_ids(ids: Tensor, vocabulary: int, seed: int) -> Tensor:
    """Ids `[batch, tokens]` with every other one drawn anew, but for those that frame or fill a row.

    What stands first or last in a row, or more than once in it, marks its beginning, its end or its padding: a model
    may look for it. Any id may stand anywhere else.
    """
    generator = torch.Generator().manual_seed(seed + 7)
    drawn = torch.randint(vocabulary, ids.shape, generator=generator).to(ids.dtype)
    often = (ids[..., :, None] == ids[..., None, :]).sum(-1) > 1
    kept = often | (ids == ids[..., :1]) | (ids == ids[..., -1:]) | (torch.rand(ids.shape, generator=generator) < 0.5)
    return torch.where(kept, ids, drawn)


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
