"""What the tests of the compiler share: random numbers, comparison, functions captured as models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from fxpullback import Pullback, RuleSet
from fxpullback.capture import capture
from fxpullback.differentiate import differentiate
from fxpullback.lower import lower, simplify
from fxpullback.lowering.folding import fold
from fxpullback.pipeline import account
from fxpullback.rewrite import rewrite
from fxpullback.target import check_target
from fxpullback.unroll import Program, unroll

# Relative to the largest entry expected; float64 rounding of the sums in small graphs stays far below it.
TOLERANCE = 1e-10

Function = Callable[[Tensor], Any]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same on every run."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_near(actual: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Same shape and type, and no entry off by more than `tolerance` times the largest expected one."""
    assert actual.shape == expected.shape, f"{list(actual.shape)} and {list(expected.shape)}"
    assert actual.dtype == expected.dtype
    assert bool(torch.isfinite(expected).all()), "the oracle is not finite"
    scale = float(expected.abs().max())
    worst = float((actual - expected).abs().max())
    assert worst <= tolerance * scale, f"off by {worst:.3g}, the largest entry is {scale:.3g}"


class Flat(nn.Module):
    """A function of a batch as a model: its result flattened to `[batch, classes]`.

    Args:
        function: takes the input, returns one tensor whose first dimension is the batch.
        modules: modules the function uses, so that their weights are the model's.
    """

    def __init__(self, function: Function, *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.function(x), 1)


def graph_of(function: Function, *sizes: int, dtype: torch.dtype = torch.float64) -> fx.GraphModule:
    """The captured graph of a function of an input `[batch, *sizes]`."""
    return capture(Flat(function).eval(), torch.zeros(1, *sizes, dtype=dtype))


def variant(
    pb: Pullback,
    *,
    rules: RuleSet | None = None,
    program: Program | None = None,
    target: str | None = None,
    without: Collection[str] | None = None,
) -> Pullback:
    """The same network compiled with other options; most of the time goes into the capture, which it is spared.

    Args:
        pb: as `compile` returned it, for an input of one size. It is left as it is, and shares graphs with the result.
        rules: another rule set.
        program: another program.
        target: another target.
        without: rewrites of the lowering to leave out.
    """
    rewritten, folded, step, ledger, rewrites = pb.rewritten, pb.folded, pb.step, pb.ledger, pb.rewrites
    merged: dict[str, str] = {}
    if rules is not None:
        rewritten, ledger = rewrite(pb.captured, rules)
        folded, merged = fold(rewritten)
    if rules is not None or without is not None:
        step, rewrites = lower(differentiate(folded, taps=tuple(pb.taps)), without or ())
        ledger = account(ledger, step, merged)
    rules, program, checked = rules or pb.rules, program or pb.program, check_target(target or pb.target)
    return replace(
        pb,
        graph=simplify(unroll(step, program, checked, taps=pb.taps)),
        rewritten=rewritten,
        folded=folded,
        step=step,
        ledger=ledger,
        rules=rules,
        program=program,
        target=checked,
        rewrites=rewrites,
    )


def pulled_back(function: Function, x: Tensor, ct: Tensor) -> Tensor:
    """The cotangent of `x` for the cotangent `ct` of `function(x)`, by autograd."""
    leaf = x.detach().clone().requires_grad_(True)
    result = function(leaf)
    (grad,) = torch.autograd.grad(result, leaf, ct.reshape(result.shape), allow_unused=True)
    return torch.zeros_like(x) if grad is None else grad


def changed(gm: fx.GraphModule, node: fx.Node, target: Any, *args: Any) -> None:
    """Replace what `node` hands on by target(node, *args)."""
    with gm.graph.inserting_after(node):
        wrong = gm.graph.call_function(target, (node, *args))
        wrong.meta = dict(node.meta)
    node.replace_all_uses_with(wrong, delete_user_cb=lambda user: user is not wrong)
    gm.recompile()
