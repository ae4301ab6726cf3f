"""One node of a file as an operator sees it: attributes, constants, and what the file says of shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Array, Known, listed


@dataclass(frozen=True, eq=False)
class Node:
    """One node of a file.

    Attributes:
        name: its name, or that of its first output where it has none.
        kind: its operator.
        domain: of the operator; empty for ai.onnx.
        opset: version of the operators of its domain.
        attributes: by name; tensors as arrays.
        constants: for each input its values where they are constant, else None.
        shapes: for each input its shape as the file says: whole numbers, or None for what is free; None where unknown.
        outputs: how many outputs are read; those that are not have no name.
        batch: the batch that the file fixes, or None where it leaves it free.
    """

    name: str
    kind: str
    domain: str = ""
    opset: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Sequence[Array | None] = ()
    shapes: Sequence[tuple[int | None, ...] | None] = ()
    outputs: tuple[bool, ...] = (True,)
    batch: int | None = None

    def __deepcopy__(self, memo: Any) -> Node:
        return self

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(name, default)

    def text(self, name: str, default: str = "") -> str:
        """An attribute that is a text."""
        return text_of(self.attributes.get(name, default))

    def numbers(self, place: int, values: Sequence[Any]) -> list[Any] | None:
        """The values of an input as numbers, some of them free sizes; None where there is no such input.

        Raises:
            CaptureError: they depend on what the model is given.
        """
        if place < len(self.constants) and (constant := self.constants[place]) is not None:
            return listed(constant)
        value = values[place] if place < len(values) else None
        if value is None:
            return None
        if isinstance(value, Known):
            return listed(value.array)
        raise CaptureError(
            f"its input {place + 1} must be constant, or computed of sizes alone, and it depends on the values of the "
            "model's input"
        )

    def number(self, place: int, values: Sequence[Any], default: Any = None) -> Any:
        """The one value of an input; the default where there is no such input."""
        found = self.numbers(place, values)
        return default if found is None else found[0]

    def constant(self, place: int) -> Array | None:
        """The values of an input where they are constant."""
        return self.constants[place] if place < len(self.constants) else None

    def said(self) -> str:
        """`Conv "/layer1/conv1/Conv"`, for messages."""
        domain = f"{self.domain}." if self.domain else ""
        return f'{domain}{self.kind} "{self.name}"'


def text_of(value: Any) -> str:
    """A text of a file, which holds it as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def tensor(value: Any) -> Any:
    """A value as a tensor; None stays."""
    return value.tensor() if isinstance(value, Known) else value


def fixed(value: Tensor) -> bool:
    """Whether all sizes of a tensor are known."""
    return all(isinstance(size, int) for size in value.shape)


DTYPES: dict[int, torch.dtype] = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16, 4: torch.int32, 12: torch.int64, 13: torch.int64,
}  # fmt: skip
"""Types of ONNX, by their numbers; unsigned ones that torch computes little with are wider ones."""


def dtype_of(number: int) -> torch.dtype:
    """The type of torch for a type of ONNX.

    Raises:
        CaptureError: there is none.
    """
    if number not in DTYPES:
        raise CaptureError(f"it makes values of the type {number} of ONNX, with which torch does not compute")
    return DTYPES[number]


def scalar(node: Node, place: int, value: Any, other: Any) -> Any:
    """A constant of one entry as a number of Python, where the result has the shape of the other argument anyway."""
    constant = node.constant(place)
    if constant is None or constant.size != 1 or not isinstance(other, Tensor):
        return tensor(value)
    fits = constant.ndim <= other.ndim and other.is_floating_point() and np.issubdtype(constant.dtype, np.floating)
    return float(constant.reshape(-1)[0]) if fits else tensor(value)
