"""How a value times its cotangent becomes a map: which axes are summed, and how the rest becomes the grid."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fxpullback.taps.axes import BATCH, FEATURES, Atom, Layout


@dataclass(frozen=True)
class Plan:
    """From `value * cotangent` to a map `[batch, *grid]`, in this order.

    Attributes:
        grid: extents of the grid; None for one that is free.
        summed: axes that are summed: features.
        narrow: (axis, start, length) of the places among the rest, where other entries stand around them; or None.
        split: the shape in which every axis is one part, -1 for the batch; or None where it is so already.
        inner: axes of the split shape that are summed: features among places.
        order: the permutation that puts batch first and then the parts of the grid, the slowest first.
        merged: whether parts are put together in the end.
    """

    grid: tuple[int | None, ...]
    summed: tuple[int, ...] = ()
    narrow: tuple[int, int, int] | None = None
    split: tuple[int, ...] | None = None
    inner: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    merged: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Read back what `to_dict` wrote."""
        kept: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in data.items()}
        return cls(**kept)

    def __call__(self, value: Any, cotangent: Any) -> Any:
        """The map.

        Args:
            value: what the network holds there, a tensor or a value of a graph.
            cotangent: of the same shape.

        Returns:
            `[batch, *grid]`, the sum over features of their product.
        """
        product = value * cotangent
        if self.summed:
            product = product.sum(list(self.summed))
        if self.narrow is not None:
            dim, start, length = self.narrow
            product = product[(slice(None),) * dim + (slice(start, start + length),)]
        if self.split is not None:
            product = product.reshape(list(self.split))
        if self.inner:
            product = product.sum(list(self.inner))
        if self.order != tuple(range(len(self.order))):
            product = product.permute(list(self.order))
        return product.reshape([-1, *self.grid]) if self.merged else product


def plan_of(layout: Layout, free: Collection[int] = ()) -> Plan | None:
    """The plan for a value, or None where its axes hold no grid.

    Args:
        layout: what its axes are.
        free: sizes that are free.
    """
    if not layout or not any(atom.role == BATCH for atom in layout[0].atoms) or not all(one.known for one in layout):
        return None
    ragged = [i for i, one in enumerate(layout) if one.ragged]
    if len(ragged) > 1 or (ragged and not layout[ragged[0]].places):
        return None
    grid = extents_of(layout)
    if grid is None:
        return None
    summed = tuple(i for i, one in enumerate(layout) if i and one.only(FEATURES))
    kept = [i for i in range(len(layout)) if i not in summed]
    atoms = [atom for i in kept for atom in layout[i].atoms]
    narrow = None
    if ragged:
        one = layout[ragged[0]]
        narrow = (kept.index(ragged[0]), one.start, one.length)
    extents = tuple(None if size in free else size for size in grid)
    apart = all(len(layout[i].atoms) == 1 for i in kept)
    if apart and len(atoms) == 1 + len(extents):
        return Plan(extents, summed, narrow, order=_order(atoms))
    if None in extents:
        return None
    if apart:
        return Plan(extents, summed, narrow, order=_order(atoms), merged=True)
    split = tuple(-1 if atom.role == BATCH else atom.size for atom in atoms)
    inner = tuple(i for i, atom in enumerate(atoms) if atom.role == FEATURES)
    parts = [atom for atom in atoms if atom.role != FEATURES]
    return Plan(extents, summed, narrow, split, inner, _order(parts), merged=len(parts) > 1 + len(extents))


def extents_of(layout: Layout) -> tuple[int, ...] | None:
    """Extents of the grid, if the parts of its axes are there and continue each other; a free one is a prime."""
    found = []
    atoms = [atom for one in layout for atom in one.atoms if atom.role >= 0]
    for role in sorted({atom.role for atom in atoms}):
        extent = 1
        parts = sorted((atom for atom in atoms if atom.role == role), key=lambda atom: atom.stride)
        for atom in parts:
            if atom.stride != parts[0].stride * extent:
                return None
            extent *= atom.size
        found.append(extent)
    return tuple(found) or None


def _order(atoms: list[Atom]) -> tuple[int, ...]:
    return tuple(sorted(range(len(atoms)), key=lambda i: (atoms[i].role, -atoms[i].stride)))
