"""What a VJP rule is: for one operator, (cotangent of the output, output, arguments) -> cotangents of the arguments.

Every rule states its formula in its docstring. The formulas keep to these conventions:

- `ct` is the cotangent of the output. y is the primal output; the code calls it `out`.
- A rule returns one cotangent for each tensor argument of the operator, in the order of the schema. ct_x is the
  cotangent of the argument x. A rule may return a function that makes the cotangent: the reverse walk calls it where
  the cotangent is needed.
- For an operator of several outputs, `ct` and `out` are tuples: ct[i] is the cotangent of y[i]. It is ABSENT if no
  cotangent arrived at y[i].
- ZERO instead of a cotangent: nothing goes to this argument. NOT_DIFFERENTIABLE: this rule has no cotangent for it, and
  the reverse walk refuses a model in which the argument is a floating-point tensor that depends on the input.
- 1[c] is one where c holds and zero elsewhere. `ct * 1[c]` is ct where c holds and exactly zero elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, fx

from fxpullback.graph.ir import input_nodes

Kind = Literal["linear", "product", "nonlinear", "constant"]


class Missing(enum.Enum):
    """The three reasons why there may be no cotangent. None never stands for one of them."""

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
        function: `(ct, out, *arguments) -> cotangents`, written in forward operators. It returns one cotangent for
            each tensor argument of the operator's schema, in order: a tensor, a function that makes one, or a
            `Missing`; a list of them for an argument that is a list of tensors. For an operator of several outputs,
            `ct` and `out` are tuples, and `ct` has `ABSENT` where no cotangent arrived.
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
        """The kind at one node, where some arguments may be constants.

        A product with two active factors is a product. With one active factor it is linear, or nonlinear if that
        factor is the divisor. Every other kind is the same at all nodes.

        Args:
            node: a call of one of the targets.
            active: the nodes that depend on the input.
        """
        if self.kind != "product":
            return self.kind
        chosen = input_nodes(node) if self.factors is None else [node.args[i] for i in self.factors]
        if sum(n in active for n in chosen) > 1:
            return "product"
        return "nonlinear" if self.divisor is not None and node.args[self.divisor] in active else "linear"


def vjp(
    *targets: Any, kind: Kind, factors: tuple[int, ...] | None = None, divisor: int | None = None
) -> Callable[[VJPFunction], VJPRule]:
    """Make the decorated function the VJP rule of the operators `targets`.

    Args:
        targets: the operators that the rule transposes.
        kind: what kind of operator they are; see `VJPRule`.
        factors: for a product, positions of the arguments that are multiplied; None means all of them.
        divisor: position of an argument that is divided by, or None.
    """

    def decorate(function: VJPFunction) -> VJPRule:
        return VJPRule(function.__name__, targets, function, kind, factors, divisor)

    return decorate
