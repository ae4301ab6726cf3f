"""Which sizes a free axis allows, and what axes are called. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_NAMES = {3: ("time",), 4: ("height", "width"), 5: ("depth", "height", "width")}


@dataclass(frozen=True)
class FreeAxis:
    """An axis of the input whose size is free.

    Attributes:
        axis: its place, the batch counted.
        name: what the ONNX file calls it.
        multiple: sizes are multiples of this.
        least: the smallest size.
        most: the largest size, or None.
    """

    axis: int
    name: str
    multiple: int
    least: int
    most: int | None = None

    def allows(self, size: int) -> bool:
        """Whether the graph takes this size."""
        return size >= self.least and size % self.multiple == 0 and (self.most is None or size <= self.most)

    def others(self, size: int, count: int) -> list[int]:
        """The allowed sizes nearest to one, itself not among them."""
        steps = [size + sign * self.multiple * k for k in range(1, 2 * count + 2) for sign in (1, -1)]
        return [step for step in steps if self.allows(step)][:count]

    def __str__(self) -> str:
        kind = "any size" if self.multiple == 1 else f"multiples of {self.multiple}"
        end = "" if self.most is None else f" to {self.most}"
        return f"{self.name}: {kind} from {self.least}{end}"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FreeAxis:
        """Read back what `asdict` made."""
        most = data.get("most")
        numbers = (int(data["multiple"]), int(data["least"]), None if most is None else int(most))
        return cls(int(data["axis"]), str(data["name"]), *numbers)


def axis_name(axis: int, ndim: int) -> str:
    """What a file calls an axis: batch, height, width, length, ..., or its number."""
    if ndim == 2 and axis == 1:
        return "length"
    spatial = _NAMES.get(ndim, ())
    return "batch" if axis == 0 else spatial[axis - 2] if axis >= 2 and spatial else f"axis_{axis}"


def misfits(shape: Sequence[int], free: Sequence[FreeAxis]) -> list[str]:
    """What is wrong with the free sizes of an input, in words."""
    wrong = [axis for axis in free if axis.axis < len(shape) and not axis.allows(shape[axis.axis])]
    return [f"{axis.name} is {shape[axis.axis]}, and the model takes {str(axis).partition(': ')[2]}" for axis in wrong]


def other_shape(shape: Sequence[int], free: Sequence[FreeAxis], seed: int) -> tuple[int, ...]:
    """The shape of one sample with other sizes along the free axes, different ones where they can be."""
    found = list(shape)
    for i, axis in enumerate(free):
        near = axis.others(found[axis.axis - 1], 6)
        if near:
            found[axis.axis - 1] = near[(seed + 3 * i) % len(near)]
    return tuple(found)
