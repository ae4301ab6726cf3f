"""What a VJP rule is: for one operator, (inputs, cotangent of the output) -> cotangents of the inputs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx

from fxpullback.graph.ir import input_nodes

Kind = Literal["linear", "product", "nonlinear", "constant"]


class Missing(enum.Enum):
    """Three things that a cotangent which is not there can mean; None means none of them."""

    ABSENT = "no cotangent arrived at this output"
    ZERO = "the derivative to this argument is zero everywhere"
    NOT_DIFFERENTIABLE = "this argument takes no cotangent"


ABSENT, ZERO, NOT_DIFFERENTIABLE = Missing.ABSENT, Missing.ZERO, Missing.NOT_DIFFERENTIABLE

Cotangent = Tensor | Missing | Callable[[], Tensor] | list[Any]
VJPFunction = Callable[..., tuple[Any, ...]]


@dataclass(frozen=True)
class VJPRule:
    """A VJP rule.

    Attributes:
        name: name of the function, on every node it emits.
        targets: the operators it transposes.
        function: `(ct, out, *arguments) -> cotangents`, written in forward operators. One cotangent for each tensor
            argument of the operator's schema, in order: a tensor, a function that makes one when it is needed, or a
            `Missing`; a list for an argument that is a list of tensors. For an operator of several outputs `ct` and
            `out` are tuples, `ABSENT` where no cotangent arrived.
        kind: `linear` (the exact transpose), `product` (linear in each factor), `nonlinear`, or `constant`.
        factors: for a product, positions of the arguments that are multiplied; None means all of them.
        divisor: position of an argument that is divided by, or None.
    """

    name: str
    targets: tuple[Any, ...]
    function: VJPFunction
    kind: Kind
    factors: tuple[int, ...] | None = None
    divisor: int | None = None

    def kind_at(self, node: fx.Node, active: set[fx.Node]) -> Kind:
        """The kind at one node: a product of one factor with a constant is linear, a constant over x is not."""
        if self.kind != "product":
            return self.kind
        chosen = input_nodes(node) if self.factors is None else [node.args[i] for i in self.factors]
        if sum(n in active for n in chosen) > 1:
            return "product"
        return "nonlinear" if self.divisor is not None and node.args[self.divisor] in active else "linear"


def vjp(
    *targets: Any, kind: Kind, factors: tuple[int, ...] | None = None, divisor: int | None = None
) -> Callable[[VJPFunction], VJPRule]:
    """Make the decorated function the VJP rule of the operators `targets`."""

    def decorate(function: VJPFunction) -> VJPRule:
        return VJPRule(function.__name__, targets, function, kind, factors, divisor)

    return decorate
