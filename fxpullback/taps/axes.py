"""What the axes of a value are: the batch, places of a grid, features; and how they are split, joined and moved.

An axis is a product of atoms, the slowest first, as in the names that einops gives. An atom of the grid says which axis
of the grid it is of and how far apart its places are there, so that a picture that was cut into windows is known again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

BATCH, FEATURES, OTHER = -1, -2, -3


class Atom(NamedTuple):
    """A part of an axis.

    Attributes:
        role: which axis of the grid it is of, from 0; or `BATCH`, `FEATURES`, `OTHER`.
        size: how many places it has.
        stride: how far apart they are along that axis of the grid.
    """

    role: int
    size: int
    stride: int = 1


@dataclass(frozen=True)
class Axis:
    """One axis of a value.

    Attributes:
        size: its size; symbols stand for themselves as primes.
        atoms: what it is a product of.
        start: where they begin; before and behind them stands what is no place of the grid, as a class token.
    """

    size: int
    atoms: tuple[Atom, ...] = ()
    start: int = 0

    @property
    def length(self) -> int:
        """How many entries the atoms are."""
        return math.prod(atom.size for atom in self.atoms)

    @property
    def ragged(self) -> bool:
        """Whether other entries stand around the atoms."""
        return self.length != self.size

    @property
    def places(self) -> bool:
        """Whether it holds places of the grid."""
        return any(atom.role >= 0 for atom in self.atoms)

    @property
    def known(self) -> bool:
        """Whether it is known what all of its atoms are."""
        return all(atom.role != OTHER for atom in self.atoms)

    def only(self, *roles: int) -> bool:
        """Whether all of its atoms have one of some roles; true of an axis of size one."""
        return all(atom.role in roles for atom in self.atoms) and not (self.ragged and self.places)


Layout = tuple[Axis, ...]


def axis(size: int, role: int) -> Axis:
    """An axis of one atom."""
    return Axis(size, (Atom(role, size),) if size != 1 else ())


def unknown(sizes: Iterable[int], batch: int) -> Layout:
    """Axes of which nothing is known but the batch, where the first has its size."""
    return tuple(axis(size, BATCH if i == 0 and size == batch else OTHER) for i, size in enumerate(sizes))


def joined(atoms: Sequence[Atom]) -> tuple[Atom, ...]:
    """Neighbours that continue each other as one atom."""
    found: list[Atom] = []
    for atom in atoms:
        last = found[-1] if found else None
        if last is not None and last.role == atom.role and (atom.role < 0 or last.stride == atom.stride * atom.size):
            found[-1] = Atom(atom.role, last.size * atom.size, atom.stride)
        else:
            found.append(atom)
    return tuple(found)


def reshaped(layout: Layout, sizes: Sequence[int]) -> Layout | None:
    """The axes of a reshape; None where it cuts through an axis in a way that nothing is known of."""
    left: list[Axis] = []
    for one in layout:
        left += [one] if one.ragged else [Axis(atom.size, (atom,)) for atom in one.atoms]
    made = []
    for size in sizes:
        taken = _taken(left, size)
        if taken is None:
            return None
        made.append(taken)
    return tuple(made)


def _taken(left: list[Axis], size: int) -> Axis | None:
    """One axis of a size, taken off what is left."""
    needed, atoms = size, list[Atom]()
    while needed > 1:
        if not left:
            return None
        first = left.pop(0)
        if first.ragged:
            return first if first.size == size and not atoms else None
        role, count, stride = first.atoms[0]
        if needed % count == 0:
            atoms.append(first.atoms[0])
            needed //= count
        elif count % needed == 0:
            minor = count // needed
            atoms.append(Atom(role, needed, stride * minor))
            left.insert(0, Axis(minor, (Atom(role, minor, stride),)))
            needed = 1
        else:
            return None
    return Axis(size, joined(atoms))


def broadcast(layouts: Sequence[Layout], sizes: Sequence[int]) -> Layout:
    """The axes of what is computed entry by entry: of each, the first that knows what it is, places first."""
    made = []
    for back, size in zip(range(len(sizes), 0, -1), sizes, strict=True):
        own = [layout[-back] for layout in layouts if len(layout) >= back and layout[-back].size == size]
        known = [one for one in own if one.known] or own
        made.append(next((one for one in known if one.places), known[0] if known else axis(size, OTHER)))
    return tuple(made)


def concatenated(layouts: Sequence[Layout | None], sizes: Sequence[Sequence[int]], dim: int) -> Layout | None:
    """The axes of a concatenation; None for an argument stands for what does not depend on the input."""
    known = [layout for layout in layouts if layout is not None]
    total = sum(size[dim] for size in sizes)
    shape = [*sizes[0][:dim], total, *sizes[0][dim + 1 :]]
    made = list(
        broadcast([tuple(one for i, one in enumerate(x) if i != dim) for x in known], shape[:dim] + shape[dim + 1 :])
    )
    starts = [sum(size[dim] for size in sizes[:i]) for i in range(len(sizes))]
    parts = [(start, x[dim]) for start, x in zip(starts, layouts, strict=True) if x is not None]
    grids = [(start, one) for start, one in parts if one.places and one.known]
    if not grids:
        along = axis(total, FEATURES if all(one.only(FEATURES) for _, one in parts) else OTHER)
    elif len(grids) == 1:
        start, one = grids[0]
        along = replace(one, size=total, start=start + one.start)
    else:
        along = axis(total, OTHER)
    made.insert(dim, along)
    return tuple(made)


def narrowed(one: Axis, start: int, length: int) -> Axis:
    """A part of an axis."""
    if length == one.size:
        return one
    inside = start <= one.start and one.start + one.length <= start + length
    if one.places and one.known and inside:
        return replace(one, size=length, start=one.start - start)
    role = FEATURES if one.only(FEATURES) else OTHER
    return axis(length, role)
