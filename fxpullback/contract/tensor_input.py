"""The inputs of a file: their names, types and shapes, and what may be passed for them. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fxpullback.contract.errors import InputError

_TYPES = {"float": "float32", "double": "float64"}


@dataclass(frozen=True, slots=True)
class TensorInput:
    """One input of a file.

    Attributes:
        name: Its name.
        dtype: Its type as numpy calls it, such as `float32`, `int64` or `bool`.
        shape: Its shape; a dimension that is free is its name, such as `"batch"`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [{', '.join(map(str, self.shape))}]"

    def checked(self, value: Any, sizes: Mapping[str, int]) -> npt.NDArray[Any]:
        """`value` in the type the graph takes, or an InputError; for an input that is passed through.

        Args:
            value: What was passed.
            sizes: The sizes of the explained input that are free, by name; `batch` among them.
        """
        data = array(self.name, value)
        wanted = tuple(sizes.get(size, size) if isinstance(size, str) else size for size in self.shape)
        if data.shape != wanted:
            raise InputError(f"{self.name}: the shape is {data.shape}, and {wanted} is wanted: the file takes {self}.")
        kind = np.dtype(self.dtype).kind
        fits = data.dtype == self.dtype or (kind == "f" and data.dtype.kind == "f") or (kind == data.dtype.kind == "i")
        if not fits:
            raise InputError(f"{self.name}: the type is {data.dtype}, and the file takes {self}.")
        held = data.astype(self.dtype, copy=False)
        if kind == "i" and not np.array_equal(held, data):
            raise InputError(f"{self.name}: it holds integers that are no {self.dtype}.")
        if kind == "f" and np.isnan(held).any():
            raise InputError(f"{self.name}: it holds NaN; look at the step that made it.")
        return np.ascontiguousarray(held)


def input_of(value: Any) -> TensorInput:
    """What ONNX Runtime says of an input."""
    element = str(value.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorInput(value.name, _TYPES.get(element, element), shape)


def array(name: str, value: npt.ArrayLike) -> npt.NDArray[Any]:
    """`value` as an array, or an InputError when numpy cannot make one of it."""
    if type(value) is np.ndarray:
        return value
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name}: a numpy array is wanted, and {type(value).__name__} is not one ({error})."
        ) from error
