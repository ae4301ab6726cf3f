"""What a file says of its contribution maps. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CONTRIBUTION = "contribution"
EACH = CONTRIBUTION + "."
"""What the names of the taps' own outputs begin with."""


@dataclass(frozen=True)
class Place:
    """Where a contribution is read off.

    Attributes:
        name: what it is called: the module that was named, or the one that made the value.
        operator: name of the captured operator whose value it is, as in the ledger.
        grid: extents of its map; None for one that is free.
        of: the one of several explained inputs whose places it has; empty where one is explained.
    """

    name: str
    operator: str
    grid: tuple[int | None, ...]
    of: str = ""


@dataclass(frozen=True)
class Contributions:
    """The contribution maps of a file.

    Attributes:
        places: where they are read off, in the order of the network.
        grid: extents of `contribution`; of several explained inputs, those of the first one's.
        each: whether every place's own map is an output besides.
        chosen: `auto`, or `named`.
        exact: whether no gate is softened: then the map of a place is what HiResCAM shows there.
        at: which input of the program the maps belong to: `input`, or `second pass` for double.
    """

    places: tuple[Place, ...]
    grid: tuple[int | None, ...]
    each: bool = False
    chosen: str = "auto"
    exact: bool = False
    at: str = "input"

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs, in order."""
        return tuple(self.extents)

    @property
    def extents(self) -> dict[str, tuple[int | None, ...]]:
        """The extents of each output, by its name, in order: that of each explained input, and then each tap's own."""
        found: dict[str, tuple[int | None, ...]] = {}
        for place in self.places:
            name = output_of(place.of) if place.of else CONTRIBUTION
            found[name] = max(found.get(name, ()), place.grid, key=lambda grid: [extent or 0 for extent in grid])
        return found | {output_of(place.name): place.grid for place in self.places if self.each}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        places = [
            {"name": p.name, "operator": p.operator, "grid": list(p.grid), **({"of": p.of} if p.of else {})}
            for p in self.places
        ]
        rest = {"each": self.each, "chosen": self.chosen, "exact": self.exact, "at": self.at}
        return {"places": places, "grid": list(self.grid), **rest}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contributions:
        """Read back what `to_dict` wrote."""
        places = tuple(
            Place(str(p["name"]), str(p["operator"]), _extents(p["grid"]), str(p.get("of", ""))) for p in data["places"]
        )
        rest = bool(data["each"]), str(data["chosen"]), bool(data["exact"]), str(data["at"])
        return cls(places, _extents(data["grid"]), *rest)

    def __str__(self) -> str:
        size = "x".join("free" if extent is None else str(extent) for extent in self.grid)
        names = ", ".join(place.name for place in self.places)
        kind = " (no gate softened: HiResCAM)" if self.exact else ""
        return f"{size}, at {names}{kind}"


def output_of(name: str) -> str:
    """The name of a tap's own output."""
    return EACH + name


def _extents(values: Sequence[Any]) -> tuple[int | None, ...]:
    return tuple(None if value is None else int(value) for value in values)
