"""Each trait as a check on numbers: of one call of an operator, does what the table says hold?

A check returns False where the call says nothing about the trait, and fails where the trait is not true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.traits import Trait, Traits
from tests.graph.every_operator import Call
from tests.helpers import assert_near, draw

Check = Callable[[Call, Traits], bool]
EPS, TINY = torch.finfo(torch.float16).eps, 2.0**-24


def floats(value: Any) -> list[Tensor]:
    """The floating-point tensors of an argument or a result."""
    return [part for part in tensors(value) if part.is_floating_point()]


def tensors(value: Any) -> list[Tensor]:
    """The tensors of an argument or a result."""
    parts = value if isinstance(value, tuple | list) else [value]
    return [part for part in parts if isinstance(part, Tensor)]


def changed(call: Call, positions: tuple[int, ...], function: Callable[[Tensor], Tensor]) -> tuple[Any, ...]:
    """A call's arguments with those at some positions changed."""

    def each(value: Any) -> Any:
        if isinstance(value, tuple | list):
            return [each(part) for part in value]
        return function(value) if isinstance(value, Tensor) and value.is_floating_point() else value

    return tuple(each(a) if i in positions else a for i, a in enumerate(call.arguments))


def near(found: Any, wanted: Any) -> None:
    """Float results within rounding of each other, all others equal."""
    for a, b in zip(tensors(found), tensors(wanted), strict=True):
        if b.is_floating_point() and b.any():
            assert_near(a, b)
        else:
            assert torch.equal(a, b)


def combined(parts: list[tuple[float, Any]]) -> list[Tensor]:
    """A sum of results, each times a number."""
    results = [[factor * t for t in floats(value)] for factor, value in parts]
    return [sum(column[1:], column[0]) for column in zip(*results, strict=True)]


def in_float64(call: Call, positions: tuple[int, ...]) -> bool:
    """Whether there are float64 tensors, and nothing else, at some positions, and finite ones in the result."""
    given = [call.arguments[i] for i in positions]
    there = [part for a in given for part in (a if isinstance(a, tuple | list) else [a])]
    made = [t for t in floats(call()) if t.dtype is torch.float64 and bool(torch.isfinite(t).all())]
    return bool(made) and all(isinstance(t, Tensor) and t.dtype is torch.float64 for t in there)


def _linear_in(call: Call, positions: tuple[int, ...], affine: bool) -> bool:
    if not in_float64(call, positions):
        return False
    inside = [t for i in positions for t in floats(call.arguments[i])]
    others = {id(t): draw(*t.shape, seed=31, dtype=t.dtype) for t in inside}
    both = call(*changed(call, positions, lambda t: 2 * t - 3 * others[id(t)]))
    one, two = call(), call(*changed(call, positions, lambda t: others[id(t)]))
    # 2 f(x) - 3 f(y) = f(2x - 3y) - 2 f(0), and f(0) is zero if nothing is added
    parts = [(1.0, both)] + ([(-2.0, call(*changed(call, positions, torch.zeros_like)))] if affine else [])
    near(combined(parts), combined([(2.0, one), (-3.0, two)]))
    return True


def linear(call: Call, traits: Traits) -> bool:
    return _linear_in(call, traits.linear, Trait.AFFINE in traits)


def factors(call: Call, traits: Traits) -> bool:
    """Linear in each, together with what is added: what is neither a factor nor divided by."""
    held = {*traits.factors, traits.divisor}
    added = tuple(i for i in range(len(call.arguments)) if i not in held)
    added = tuple(i for i in added if floats(call.arguments[i]))
    said = [_linear_in(call, (i, *added), False) for i in traits.factors]
    return any(said)


def homogeneous(call: Call, traits: Traits) -> bool:
    if not in_float64(call, traits.homogeneous):
        return False
    for a in (0.37, 5.0):
        made = call(*changed(call, traits.homogeneous, lambda t, a=a: a * t))  # type: ignore[misc]
        near(made, [a * t if t.is_floating_point() else t for t in tensors(call())])
    return True


def _numbers(*values: Any) -> set[float]:
    return {float(n) for value in values for t in tensors(value) for n in t.flatten().tolist()}


def _distinct(call: Call) -> tuple[Any, ...]:
    """The arguments with numbers that are all different, and none of them zero."""
    count = iter(range(1, 10**6))
    return changed(
        call,
        tuple(range(len(call.arguments))),
        lambda t: torch.tensor([next(count) + 0.5 for _ in range(t.numel())], dtype=t.dtype).reshape(t.shape),
    )


def moves(call: Call, traits: Traits) -> bool:
    arguments = _distinct(call)
    if not any(floats(a) for a in arguments):
        return False
    given = {float(a) for a in arguments if isinstance(a, int | float)} if Trait.FILLS in traits else set()
    assert _numbers(call(*arguments)) <= _numbers(*arguments) | given | {0.0}
    return True


def layout(call: Call, traits: Traits) -> bool:
    arguments = _distinct(call)
    if not floats(arguments[0]):
        return False
    assert _numbers(call(*arguments)) == _numbers(arguments[0])
    return True


def part(call: Call, traits: Traits) -> bool:
    arguments = _distinct(call)
    whole = tensors(arguments[0])
    if not whole or not all(floats(t) for t in whole):
        return False
    taken = [float(n) for t in tensors(call(*arguments)) for n in t.flatten().tolist()]
    assert len(taken) == len(set(taken))
    assert set(taken) <= _numbers(arguments[0])
    return True


def same_if_shaped(call: Call, traits: Traits) -> bool:
    x, result = call.arguments[0], call()
    if not isinstance(x, Tensor) or x.shape != result.shape:
        return False
    assert torch.equal(x, result)
    return True


def cast(call: Call, traits: Traits) -> bool:
    (x,) = tensors(call.arguments[0])
    exact = call().dtype.is_floating_point
    assert torch.allclose(call().double(), x.double(), rtol=1e-2 if exact else 0, atol=0 if exact else 1)
    return True


def _other(x: Tensor, place: int) -> Tensor:
    """Another number, or answer, at one place."""
    there = (torch.arange(x.numel()) == place).reshape(x.shape)
    if x.dtype is torch.bool:
        return x ^ there
    return torch.where(there, x * 1.5 + 0.25, x) if x.is_floating_point() else x + there


def pointwise(call: Call, traits: Traits) -> bool:
    """One entry changed changes nothing at other places."""
    (result,) = tensors(call())
    same = [i for i, a in enumerate(call.arguments) if isinstance(a, Tensor) and a.shape == result.shape]
    for i in same:
        for place in (0, result.numel() // 2):
            there = call(*(_other(a, place) if j == i else a for j, a in enumerate(call.arguments)))
            differs = ~torch.isclose(there.double(), result.double(), equal_nan=True).flatten()
            assert set(differs.nonzero().flatten().tolist()) <= {place}
    return bool(same)


def choice(call: Call, traits: Traits) -> bool:
    """With every answer turned round the other one is taken; and it is one of the two."""
    conditions = [i for i, a in enumerate(call.arguments) if isinstance(a, Tensor) and a.dtype is torch.bool]
    assert len(conditions) == 1
    (place,) = conditions
    first, other = call(), call(*(~a if i == place else a for i, a in enumerate(call.arguments)))
    options = [a for i, a in enumerate(call.arguments) if i != place]
    one, two = (torch.as_tensor(o, dtype=first.dtype).expand(first.shape) for o in options)
    assert ((first == one) & (other == two) | (first == two) & (other == one)).all()
    return True


def _ordered(call: Call, above: bool | None) -> bool:
    a, b = call.arguments[:2]
    result = call()
    assert result.dtype is torch.bool
    if above is None or not isinstance(a, Tensor):
        return above is None
    assert result[(a > b) if above else (a < b)].all()
    assert not result[(a < b) if above else (a > b)].any()
    return True


def bounded(call: Call, traits: Traits) -> bool:
    """Tensors ten thousand times as large make nothing larger than ten."""
    if not floats(call.arguments[0]):
        return False
    for size in (1e-4, 1.0, 1e2, 1e4):
        made = call(*changed(call, (0,), lambda t, size=size: size * t))  # type: ignore[misc]
        assert all(t.abs().max() <= 10 for t in floats(made))
    return True


def selector(call: Call, traits: Traits) -> bool:
    """From one level to another, never falling."""
    x = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    made = call(x, *call.arguments[1:])
    assert (made.diff() >= -1e-12).all()
    assert made[-1] > made[0]
    return bounded(call, traits)


def reduction(call: Call, traits: Traits) -> bool:
    (x, *_), (result, *_) = tensors(call.arguments[0]), tensors(call())
    if result.numel() >= x.numel():
        return False
    axes = [i for i in range(x.ndim) if x.shape[i] > 1]
    shorter = [i for i in axes if result.ndim != x.ndim or result.shape[i] == 1]
    assert shorter
    return True


def statistic(call: Call, traits: Traits) -> bool:
    x = call.arguments[0]
    size, twice, turned = (tensors(call(y, *call.arguments[1:]))[0] for y in (x, 2 * x, -x))
    assert (size >= 0).all()
    assert ((twice > size) | (size == 0)).all()
    near(turned, size)
    return bool(size.any())


def root(call: Call, traits: Traits) -> bool:
    """Four times the square that the root is taken of is twice the root, or half of it."""
    x = call.arguments[0]
    factor = 2.0 if Trait.STATISTIC in traits else 4.0
    one, four = call(), call(factor * x, *call.arguments[1:])
    ratio = (four / one)[one != 0]
    assert (torch.isclose(ratio, ratio.new_tensor(2.0)) | torch.isclose(ratio, ratio.new_tensor(0.5))).all()
    return bool(ratio.numel())


def zeros(call: Call, traits: Traits) -> bool:
    assert not call().any()
    return True


def constant(call: Call, traits: Traits) -> bool:
    """No derivative by autograd, or none but zero."""
    arguments = changed(call, tuple(range(len(call.arguments))), lambda t: t.clone().requires_grad_())
    leaves = [t for a in arguments for t in floats(a)]
    with torch.enable_grad():
        for result in (t for t in floats(call(*arguments)) if t.requires_grad):
            for grad in torch.autograd.grad(result.sum(), leaves, retain_graph=True, allow_unused=True):
                assert grad is None or not grad.any()
    return True


def _halves(call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """What a call makes in float16, and in float64 of the same numbers."""
    everything = tuple(range(len(call.arguments)))
    narrow = changed(call, everything, Tensor.half)
    wide = changed(Call(call.operator, narrow), everything, Tensor.double)
    return tensors(call(*narrow)), tensors(call(*wide))


def _within(found: Tensor, exact: Tensor, roundings: float, size: Tensor | None = None) -> None:
    """So many roundings away at most, of a size that is the exact value's if none is given; booleans are equal."""
    if not exact.is_floating_point():
        assert torch.equal(found, exact)
        return
    fits = torch.isfinite(exact) & (exact.abs() < torch.finfo(torch.float16).max)
    error = roundings * EPS * (exact if size is None else size).abs() + TINY
    assert ((found.double() - exact).abs() <= error)[fits].all()


def one_rounding(call: Call, traits: Traits) -> bool:
    if Trait.SHIFTING in traits and call.arguments[2] != 1:
        return False  # `alpha` is a product of its own, with its own rounding
    for found, exact in zip(*_halves(call), strict=True):
        _within(found, exact, 1)
    return True


def half_safe(call: Call, traits: Traits) -> bool:
    """One rounding, or one for each of the few numbers that it adds; and nothing infinite of large numbers."""
    sizes = tensors(call(*changed(call, (0,), torch.abs)))
    for found, exact, size in zip(*_halves(call), sizes, strict=True):
        _within(found, exact, *((4, size) if traits.linear else (1,)))
    large = changed(call, (0,), lambda t: (t * (3e4 / t.abs().max())).half())
    assert torch.isfinite(tensors(call(*large))[0]).all()
    return True


def contraction(call: Call, traits: Traits) -> bool:
    """Half precision costs two roundings of the sum of all sizes: one of the operands' products, one of the result."""
    (found,), (exact,) = _halves(call)
    _within(found, exact, 2, call(*changed(call, tuple(range(len(call.arguments))), torch.abs)))
    return factors(call, traits)


def scaling(call: Call, traits: Traits) -> bool:
    a, *rest = call.arguments
    if not rest:
        assert torch.equal(call(), -a)
    else:
        near(call(), a / rest[0] if traits.divisor == 1 else a * rest[0])
    return True


def shifting(call: Call, traits: Traits) -> bool:
    a, b, *rest = call.arguments
    made, alpha = call(), rest[0] if rest else 1
    assert any(torch.allclose(made, sum_) for sum_ in (a + alpha * b, a - alpha * b, b - alpha * a))
    return True


CHECKS: dict[Trait, Check] = {
    Trait.MOVES: moves,
    Trait.LAYOUT: layout,
    Trait.PART: part,
    Trait.SAME_IF_SHAPED: same_if_shaped,
    Trait.CAST: cast,
    Trait.POINTWISE: pointwise,
    Trait.SCALING: scaling,
    Trait.SHIFTING: shifting,
    Trait.CHOICE: choice,
    Trait.COMPARISON: lambda call, traits: _ordered(call, None),
    Trait.ABOVE: lambda call, traits: _ordered(call, True),
    Trait.BELOW: lambda call, traits: _ordered(call, False),
    Trait.BOUNDED: bounded,
    Trait.GATE: bounded,
    Trait.SELECTOR: selector,
    Trait.REDUCTION: reduction,
    Trait.STATISTIC: statistic,
    Trait.ROOT: root,
    Trait.ZEROS: zeros,
    Trait.CONSTANT: constant,
    Trait.CONTRACTION: contraction,
    Trait.ONE_ROUNDING: one_rounding,
    Trait.HALF_SAFE: half_safe,
}
"""The traits that numbers can prove false. The others follow from positions, or say what is to be done."""
