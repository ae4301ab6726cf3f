"""Programs by eager autograd through a graph in injected form: slow, and what the certificate compares with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.graph.inputs import Inputs
from fxpullback.target import Target, cotangent_of
from fxpullback.unroll import Program, run_program


def soft_pullback(model: Callable[..., Any], inputs: Inputs, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """(logits, pullback) of a batch by autograd through `model`, a graph module in injected form."""
    leaf = inputs.x.detach().clone().requires_grad_(True)
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        logits = model(*inputs.at(leaf))[0]
        (pullback,) = torch.autograd.grad((logits * cotangent).sum(), leaf)
    return logits.detach(), pullback


def run_eagerly(
    model: fx.GraphModule, program: Program, target: Target, inputs: Inputs, given: Tensor | None
) -> dict[str, Tensor]:
    """What the compiled graph of (program, target) must return for a batch, by eager autograd.

    Args:
        model: graph in injected form.
        program: soft, double or ascent.
        target: what `given` holds.
        inputs: the batch; its extras are the same in every step.
        given: target, or None for top-1.

    Returns:
        Tensors by output name.
    """

    def step(here: Tensor, u: Tensor | Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        if callable(u) and not isinstance(u, Tensor):
            with torch.no_grad():
                u = u(model(*inputs.at(here))[0])
        logits, pullback = soft_pullback(model, inputs.at(here), u)
        return logits, pullback, u

    with torch.no_grad():
        outputs: dict[str, Tensor] = run_program(
            program, step, inputs.x, lambda logits: cotangent_of(target, given, logits)
        )
    return outputs
