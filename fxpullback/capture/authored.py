"""Backwards that a model's author wrote: what `torch.autograd.Function` says beside its forward.

torch.export runs the forward alone, and what autograd then finds is the derivative of its operators, not the author's.
A backward that is the derivative all the same is left to the operators, so that the rules find their gates. One that
multiplies the gradient entry by entry, as a straight-through estimator or a gradient reversal does, is honoured: the
captured graph holds `authored(primal, soft)`, the value of the one and the cotangent of the other. Others are refused.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd import Function

from fxpullback.capture.gradients import explained_through
from fxpullback.certify.fresh import Spread, fresh_inputs
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.alone import alone
from fxpullback.graph.ir import AUTHORED, STOP_GRADIENT

Verdict = Literal["derivative", "factor"]
NEAR = 1e-5
SCALES = (1.0, 1e-3, 1e3)  # of the gradient: a backward that clips is linear for small ones only


@dataclass(frozen=True)
class Call:
    """One call of an author's Function.

    Attributes:
        function: the class.
        forward: its forward.
        given: what the forward is handed: a context, unless that is set up apart, and the arguments.
    """

    function: type[Function]
    forward: Callable[..., Any]
    given: tuple[Any, ...]

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What the Function is applied to."""
        return self.given if sets_up(self.function) else self.given[1:]

    @property
    def active(self) -> tuple[int, ...]:
        """Positions of the arguments that carry a gradient."""
        pairs = enumerate(self.arguments)
        return tuple(i for i, a in pairs if isinstance(a, Tensor) and a.is_floating_point() and a.requires_grad)

    def as_ever(self) -> Any:
        """What the forward returns."""
        return self.forward(*self.given)

    def apart(self, arguments: tuple[Any, ...]) -> tuple[Any, Context]:
        """The forward as plain operators, outside autograd's own, and the context that it left."""
        context = Context(arguments)
        if not sets_up(self.function):
            return self.forward(context, *arguments), context
        result = self.forward(*arguments)
        self.function.setup_context(context, arguments, result)
        return result, context

    def kept(self) -> Call:
        """The call with copies of its tensors."""
        copies = (
            a.detach().clone().requires_grad_(a.requires_grad) if isinstance(a, Tensor) else a for a in self.given
        )
        return Call(self.function, self.forward, tuple(copies))


def sets_up(function: type[Function]) -> bool:
    """Whether a Function has its context set up apart from its forward, which then takes no context."""
    return function.setup_context is not Function.setup_context


Handler = Callable[[Call], Any]


class Context:
    """What `forward`, `setup_context` and `backward` of a Function are handed, outside autograd."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.needs_input_grad = tuple(isinstance(a, Tensor) and a.is_floating_point() for a in arguments)
        self.saved_tensors: tuple[Any, ...] = ()

    def save_for_backward(self, *tensors: Any) -> None:
        """Keep what the backward needs."""
        self.saved_tensors = tensors

    def _nothing(self, *_: Any) -> None:
        """What matters to autograd alone."""

    save_for_forward = mark_dirty = mark_non_differentiable = set_materialize_grads = _nothing


def authors_functions() -> list[type[Function]]:
    """Every Function that is defined by now, but for torch's own."""
    found, waiting = [], [Function]
    while waiting:
        for sub in waiting.pop().__subclasses__():
            waiting.append(sub)
            if sub.__module__.partition(".")[0] != "torch":
                found.append(sub)
    return list(dict.fromkeys(found))


@contextmanager
def intercepted(handle: Handler) -> Iterator[None]:
    """Have `handle(function, forward, arguments)` called, in this thread, in place of every author's forward.

    `Function.apply` is written in C and looks up `forward` each time, so that an `apply` that was kept is seen as well.
    """
    before: dict[type[Function], Any] = {}
    with alone() as mine:
        for function in authors_functions():
            before[function] = function.__dict__.get("forward")
            standing_in = staticmethod(_standing_in(function, function.forward, handle, mine))
            setattr(function, "forward", standing_in)  # noqa: B010
        try:
            yield
        finally:
            for function, forward in before.items():
                if forward is None:
                    delattr(function, "forward")
                else:
                    setattr(function, "forward", forward)  # noqa: B010


def _standing_in(
    function: type[Function], forward: Callable[..., Any], handle: Handler, mine: Callable[[], bool]
) -> Callable[..., Any]:
    def run(*given: Any) -> Any:
        return handle(Call(function, forward, given)) if mine() else forward(*given)

    return functools.wraps(forward)(run)


@contextmanager
def noticed() -> Iterator[set[type[Function]]]:
    """The authors' Functions that are applied."""
    found: set[type[Function]] = set()

    def handle(call: Call) -> Any:
        found.add(call.function)
        return call.as_ever()

    with intercepted(handle):
        yield found


def met(model: nn.Module, inputs: Sequence[Tensor], names: Sequence[str]) -> list[Call]:
    """The calls that a model makes of authors' Functions, one for each Function and its settings.

    Args:
        model: the model; a copy of it runs.
        inputs: what it takes, the explained one first, which is drawn anew in the range that it has.
        names: what they are called, where they are passed by name.
    """
    calls: dict[Any, Call] = {}

    def handle(call: Call) -> Any:
        settings = tuple(repr(a) for a in call.arguments if not isinstance(a, Tensor))
        if (call.function, settings) not in calls:
            calls[call.function, settings] = call.kept()
        return call.as_ever()

    first, is_ids = inputs[0], not inputs[0].is_floating_point()
    if not is_ids:
        first = fresh_inputs(Spread.of(first), first.shape[0], 0).to(first).requires_grad_()
    with intercepted(handle), explained_through():
        given = (first.clone(), *inputs[1:])
        copied = copy.deepcopy(model).requires_grad_(is_ids)  # of ids the tables carry the gradient
        copied(**dict(zip(names, given, strict=True))) if names else copied(*given)
    return list(calls.values())


def judged(calls: list[Call]) -> dict[type[Function], tuple[Verdict, int]]:
    """What is done with each Function, and the position of the tensor whose gradient its backward multiplies.

    Raises:
        CaptureError: a backward that is neither the derivative of its forward nor the gradient times a factor.
    """
    found: dict[type[Function], tuple[Verdict, int]] = {}
    for call in calls:
        if not call.active:
            continue
        wanted = [_own(call, scale) for scale in SCALES]
        if all(_is_derivative(call, own, scale) for own, scale in zip(wanted, SCALES, strict=True)):
            found.setdefault(call.function, ("derivative", call.active[0]))
        elif _is_factor(call, wanted):
            found[call.function] = ("factor", call.active[0])
        else:
            raise CaptureError(_refused(call, wanted))
    return found


Gradients = tuple[list[Tensor], list[Tensor]]  # of the outputs, and of the active arguments


def _leaves(call: Call) -> tuple[list[Any], list[Tensor]]:
    leaves = [call.arguments[i].clone().requires_grad_() for i in call.active]
    given = list(call.arguments)
    for i, leaf in zip(call.active, leaves, strict=True):
        given[i] = leaf * 1  # no leaf, as a forward may work in place
    return given, leaves


def _own(call: Call, scale: float) -> Gradients:
    """What the author's backward makes of a random gradient."""
    given, leaves = _leaves(call)
    with explained_through():
        return _pulled(call.function.apply(*given), leaves, scale)


def _pulled(result: Any, leaves: list[Tensor], scale: float) -> Gradients:
    results = [r for r in (result if isinstance(result, tuple) else (result,)) if isinstance(r, Tensor)]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r) * scale for r in results]
    pairs = [(r, u) for r, u in zip(results, drawn, strict=True) if r.requires_grad]
    found: list[Any] = [None] * len(leaves)
    if pairs:
        found = list(torch.autograd.grad([r for r, _ in pairs], leaves, [u for _, u in pairs], allow_unused=True))
    zeros = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(found, leaves, strict=True)]
    return drawn, zeros


def _is_derivative(call: Call, own: Gradients, scale: float) -> bool:
    given, leaves = _leaves(call)
    try:
        with explained_through():
            exact = _pulled(call.apart(tuple(given))[0], leaves, scale)
    except Exception:  # a forward that no autograd goes through, as one in numpy
        return False
    return all(_near(here, there) for here, there in zip(exact[1], own[1], strict=True))


def _is_factor(call: Call, own: list[Gradients]) -> bool:
    """Whether the backward is the gradient times what does not depend on it, entry by entry."""
    if len(call.active) != 1 or any(len(given) != 1 or given[0].shape != made[0].shape for given, made in own):
        return False
    result, context = call.apart(call.arguments)
    factor = _factor(call.function, context, result, call.active[0])
    return all(_near(given[0] * factor, made[0]) for given, made in own)


def _factor(function: type[Function], context: Context, result: Tensor, position: int) -> Tensor:
    """What a backward makes of a gradient of ones."""
    made: Any = function.backward(context, torch.ones_like(result))
    part = made[position] if isinstance(made, tuple) else made
    return torch.zeros_like(result) if part is None else part.to(result.dtype)


def _refused(call: Call, own: list[Gradients]) -> str:
    name, scales = call.function.__name__, [made[0].abs().max() / given[0].abs().max() for given, made in own]
    why = "is neither the derivative of its forward nor the gradient times a factor, entry by entry"
    if any(not _near(scale, scales[0]) for scale in scales):
        why = "is not linear in the gradient, and a pullback is"
    return (
        f"{name}.backward is the author's own, and torch.export takes {name}.forward alone. It {why}. To explain the "
        f"forward, replace {name}.apply by plain torch operators in a copy of the model."
    )


def _near(found: Tensor, wanted: Tensor) -> bool:
    scale = float(wanted.abs().max()) if wanted.numel() else 0.0
    gap = float((found - wanted).abs().max()) if wanted.numel() else 0.0
    return gap <= NEAR * scale


@contextmanager
def honoured(verdicts: Mapping[type[Function], tuple[Verdict, int]]) -> Iterator[None]:
    """While a model is exported: every backward that is a factor becomes part of the graph."""

    def handle(call: Call) -> Any:
        verdict, position = verdicts.get(call.function, ("derivative", 0))
        if verdict == "derivative":
            return call.as_ever()
        result, context = call.apart(call.arguments)
        factor = _factor(call.function, context, result, position)
        return AUTHORED(result, call.arguments[position] * STOP_GRADIENT(factor), call.function.__name__)

    with intercepted(handle):
        yield
