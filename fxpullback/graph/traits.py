"""What can be true of an operator, one sentence each."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch

Kind = Literal["linear", "product", "nonlinear", "constant"]


class Trait(enum.Enum):
    """One thing that is true of an operator for all of its arguments. Absent, nothing is assumed.

    The tests hold every row of the table to these sentences, on numbers.
    """

    MOVES = "every number of the result is one of an argument's, or zero, at a place that shapes and indices settle"
    LAYOUT = "it moves one tensor: each of its numbers stands in the result, once or more often, and no other does"
    PART = "it takes some of the numbers of one tensor, each once, and nothing else"
    FILLS = "among what it moves or chooses it puts a number that it is given"
    SAME_IF_SHAPED = "where the result has the shape of the first argument, it is the first argument"
    CAST = "the first argument in another type"
    POINTWISE = "an entry of the result depends on the entries at its own place alone, after broadcasting"
    SCALING = "the first argument times or divided by the second, or times -1"
    SHIFTING = "the first argument and the second added, or one taken from the other"
    COMPARISON = "two values compared, entry by entry: booleans"
    ABOVE = "a comparison that holds where the first argument is the larger"
    BELOW = "a comparison that holds where the first argument is the smaller"
    CHOICE = "a boolean argument says, entry by entry, which of two others is taken"
    BOUNDED = "its values lie in one interval, whatever its tensors hold"
    GATE = "bounded, and used by models to weigh something else: sigmoid, tanh, softmax"
    SELECTOR = "bounded and rising from one level to another: what selects in a gate that is written out"
    REDUCTION = "many entries along some axes become one"
    STATISTIC = "a measure of size or spread along some axes, never below zero"
    ROOT = "a square root, or one over it, is its last step"
    ZEROS = "it makes nothing but zeros"
    CONSTANT = "its derivative is zero wherever it has one"
    AFFINE = "linear in its arguments `linear`, but for something that they do not change"
    CONTRACTION = "sums of products, which every kernel of note accumulates in float32"
    HALF_SAFE = "in half precision it costs a rounding, few where it adds, and overflows only near where its input does"
    ONE_ROUNDING = "plain arithmetic: half precision costs one rounding at most, and one more for a factor `alpha`"
    WIDE = "half precision may not hold its results: what is computed of them belongs in float32 as well"
    NO_BFLOAT16 = "in ONNX it becomes something that no provider of ONNX Runtime has a documented bfloat16 kernel for"
    SIZE = "it computes a size, no tensor"
    OPAQUE = "nothing is known of it, on purpose"


@dataclass(frozen=True)
class Traits:
    """What is true of one operator.

    Positions count the arguments of the operator's schema; a list of tensors is one argument. What follows need not be
    said: a layout moves; what moves is linear in its first argument if nothing else is said; what is linear is
    homogeneous.

    Attributes:
        operator: the operator: an overload, never a name.
        traits: what is true of it.
        linear: the arguments that it is linear in, all of them scaled or added at once, the others held.
        homogeneous: the arguments that f(a x) = a f(x) holds for, all of them at once, for every a above zero.
        factors: the arguments that it is linear in one at a time, each together with whatever is added.
        divisor: the argument that it divides by.
    """

    operator: Any
    traits: frozenset[Trait] = frozenset()
    linear: tuple[int, ...] = ()
    homogeneous: tuple[int, ...] = ()
    factors: tuple[int, ...] = ()
    divisor: int | None = None

    def __post_init__(self) -> None:
        traits = self.traits | ({Trait.MOVES} if Trait.LAYOUT in self.traits else set())
        linear = self.linear or ((0,) if Trait.MOVES in traits else ())
        homogeneous = self.homogeneous or (() if Trait.AFFINE in traits else linear)
        for name, value in (("traits", traits), ("linear", linear), ("homogeneous", homogeneous)):
            object.__setattr__(self, name, value)

    def __contains__(self, trait: Trait) -> bool:
        return trait in self.traits

    def any_of(self, *traits: Trait) -> bool:
        """Whether one of several traits is true."""
        return not self.traits.isdisjoint(traits)

    @property
    def kind(self) -> Kind:
        """How it depends on its tensors: as a VJP rule says it."""
        if Trait.CONSTANT in self:
            return "constant"
        if self.factors:
            return "product"
        return "linear" if self.linear or Trait.CAST in self else "nonlinear"

    @property
    def broadcasts(self) -> bool:
        """Whether its first two arguments are tensors that it broadcasts against each other."""
        return _is_pointwise(self.operator) and _tensor_arguments(self.operator)[:2] == (0, 1)

    @property
    def lets_factors_through(self) -> bool:
        """Whether f(a x) = a f(x) for its first argument alone, above zero, and a single result."""
        return self.homogeneous == (0,) and _takes_and_returns_one(self.operator)


def row(
    *traits: Trait,
    linear: tuple[int, ...] = (),
    homogeneous: tuple[int, ...] = (),
    factors: tuple[int, ...] = (),
    divisor: int | None = None,
    of: Iterable[Any],
) -> tuple[Traits, ...]:
    """The same traits for several operators."""
    return tuple(Traits(operator, frozenset(traits), linear, homogeneous, factors, divisor) for operator in of)


def _is_pointwise(operator: Any) -> bool:
    """By torch's own tag: every operator that has it broadcasts as arithmetic does."""
    return isinstance(operator, torch._ops.OpOverload) and torch.Tag.pointwise in operator.tags


def _tensor_arguments(operator: Any) -> tuple[int, ...]:
    if not isinstance(operator, torch._ops.OpOverload):
        return ()
    return tuple(i for i, a in enumerate(operator._schema.arguments) if str(a.type) in ("Tensor", "Optional[Tensor]"))


def _takes_and_returns_one(operator: Any) -> bool:
    if not isinstance(operator, torch._ops.OpOverload):
        return False
    returned = [str(r.type) for r in operator._schema.returns]
    return returned == ["Tensor"] and str(operator._schema.arguments[0].type) == "Tensor"
