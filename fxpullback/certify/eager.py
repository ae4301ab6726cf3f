"""Programs by eager autograd through a graph in injected form: slow, and what the certificate compares with."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.certify.divergence import Recorder
from fxpullback.contract.errors import VerifyError
from fxpullback.graph.inputs import Inputs
from fxpullback.parts.eager import parts_by_autograd
from fxpullback.taps.contribution import Taps
from fxpullback.target import Target, cotangent_of
from fxpullback.unroll import NO_TAPS, Program, run_program


def soft_pullback(
    model: fx.GraphModule, inputs: Inputs, cotangent: Tensor, taps: Taps = NO_TAPS
) -> tuple[Tensor, Tensor, *tuple[Tensor, ...]]:
    """(logits, pullback, map of each tap, parts where asked for) of a batch by autograd through an injected form.

    A map is made of the value at its node and of autograd's gradient at that very node.

    Raises:
        VerifyError: the graph has no node of a tap.
    """
    return with_cancellation(model, inputs, cotangent, taps)[0]


def with_cancellation(
    model: fx.GraphModule, inputs: Inputs, cotangent: Tensor, taps: Taps
) -> tuple[tuple[Tensor, Tensor, *tuple[Tensor, ...]], dict[str, float]]:
    """`soft_pullback`, and by how much the products that a map sums up exceed the map, by its tap; one at least.

    Rounding is relative to what is summed. With the exact derivative of a norm behind it the products of a place cancel
    almost wholly.
    """
    logits, pullback, values, gradients = _differentiated(model, inputs, cotangent, taps)
    maps, excess = [], {}
    with torch.no_grad():
        for tap, value, gradient in zip(taps, values, gradients, strict=True):
            maps.append(tap.plan(value, gradient))
            whole, size = float(tap.plan(value.abs(), gradient.abs()).max()), float(maps[-1].abs().max())
            excess[tap.name] = max(1.0, whole / size) if size > 0 else 1.0
    pushes = {push.node: push for push in taps.pushes}
    parts = parts_by_autograd(model, inputs, cotangent, pushes) if taps.parts else ()
    return (logits, pullback, *maps, *parts), excess


def _differentiated(
    model: fx.GraphModule, inputs: Inputs, cotangent: Tensor, taps: Taps
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Logits, pullback, and the value and gradient at every tap."""
    leaf = inputs.x.detach().clone().requires_grad_(True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        values: list[Tensor] = []
        if taps:
            runner = Recorder(model, {tap.node for tap in taps})
            logits = runner.run(*inputs.at(leaf))[0]
            missing = [tap.node for tap in taps if tap.node not in runner.values]
            if missing:
                raise VerifyError(f"the injected form has no node {missing[0]}, where a contribution was read off.")
            values = [runner.values[tap.node] for tap in taps]
        else:
            logits = model(*inputs.at(leaf))[0]
        pullback, *gradients = torch.autograd.grad((logits * cotangent).sum(), [leaf, *values])
    return logits.detach(), pullback, [value.detach() for value in values], gradients


def run_eagerly(
    model: fx.GraphModule,
    program: Program,
    target: Target,
    inputs: Inputs,
    given: Tensor | None,
    taps: Taps = NO_TAPS,
) -> dict[str, Tensor]:
    """What the compiled graph of (program, target) must return for a batch, by eager autograd.

    Args:
        model: graph in injected form.
        program: soft, double or ascent.
        target: what `given` holds.
        inputs: the batch; its extras are the same in every step.
        given: target, or None for top-1.
        taps: where contributions are read off, by nodes of `model`.

    Returns:
        Tensors by output name.
    """

    def step(here: Tensor, u: Tensor | Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
        if callable(u) and not isinstance(u, Tensor):
            with torch.no_grad():
                u = u(model(*inputs.at(here))[0])
        logits, pullback, *maps = soft_pullback(model, inputs.at(here), u, taps)
        return logits, pullback, u, *maps

    with torch.no_grad():
        outputs: dict[str, Tensor] = run_program(
            program, step, inputs.x, lambda logits: cotangent_of(target, given, logits), taps
        )
    return outputs
