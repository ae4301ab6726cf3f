"""What watches the stages behind capture where more sizes than the batch are dynamic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sympy
from torch import Tensor, fx

from fxpullback.capture.guards import guards_of, holds, many_values, symbol_of
from fxpullback.contract.errors import DifferentiateError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.graph.ir import placeholders


class Watch:
    """Sees to it that no stage decides anything that holds for some of the dynamic sizes only.

    A rule that asks, say, whether an axis is longer than its window gets the answer for the example, and torch notes it
    as a guard. Each one is checked over many allowed sizes. One that small sizes alone break makes those sizes be
    refused from then on; any other is an error.

    Attributes:
        free: the axes of dynamic size, as they are allowed by now.
    """

    def __init__(self, gm: fx.GraphModule, free: Sequence[FreeAxis], example: Tensor) -> None:
        val = placeholders(gm.graph)[0].meta["val"]
        self.environment = val.fake_mode.shape_env
        self.checked = 0
        self.free = tuple(free)
        self.units = {axis.axis: symbol_of(val.shape[axis.axis]) for axis in free}
        self.extents = {axis.axis: int(example.shape[axis.axis]) for axis in free}

    def check(self, place: str) -> None:
        """Check what was noted since the last time.

        Raises:
            DifferentiateError: at some allowed sizes it does not hold.
        """
        first, self.checked = self.checked, len(self.environment.guards)
        for guard in guards_of(self.environment, {symbol for symbol, _ in self.units.values()}, first):
            if not holds(guard, self._sizes()).all() and not self._narrowed(guard):
                raise DifferentiateError(
                    f"free_size: {place} needs to know whether {guard}, which differs between the sizes "
                    "that are allowed. Compile the model for one size."
                )

    def _sizes(self) -> dict[Any, Any]:
        """Many combinations of allowed sizes, as arrays of values of the symbols."""
        units = {axis: self.units[axis.axis] for axis in self.free}
        return {symbol: many_values(axis, unit) for axis, (symbol, unit) in units.items()}

    def _narrowed(self, guard: sympy.Basic) -> bool:
        """Whether the guard holds once small sizes of its one axis are no longer allowed."""
        concerned = [axis for axis in self.free if self.units[axis.axis][0] in guard.free_symbols]
        if len(concerned) != 1:
            return False
        (axis,), (symbol, unit) = concerned, self.units[concerned[0].axis]
        sizes = np.arange(axis.least, self.extents[axis.axis] + 1, axis.multiple)
        broken = np.flatnonzero(~holds(guard, {symbol: sizes // unit}))
        if not len(broken) or broken[-1] + 1 >= len(sizes):
            return False
        least = int(sizes[broken[-1] + 1])
        self.free = tuple(replace(a, least=least) if a is axis else a for a in self.free)
        return bool(holds(guard, self._sizes()).all())
