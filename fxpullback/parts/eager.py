"""The parts of a logit another way: operator by operator with autograd, and what each one fails to pass on.

The defect of an operator y = f(a, ...) with cotangent c is `<y, c>` less the sum of `<a, c_a>` over what it passes on.
Defects of operators that are linear but for a constant are what that constant adds; all others are of gates. No formula
of `additive` is used, so that a constant which it does not know of is found out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import aten, calls, explained, outputs, schema_arguments
from fxpullback.graph.value import leaves, map_tree
from fxpullback.parts.carrying import carrying, is_affine

SHIFTED = {aten.native_layer_norm.default: 3, aten.group_norm.default: 3}
"""Norms that keep their exact derivative: they are not linear and add a constant all the same, at this place."""


def parts_by_autograd(model: fx.GraphModule, inputs: Inputs, cotangent: Tensor) -> Tensor:
    """What the input, the constants and the gates add to `<logits, cotangent>`, sample by sample.

    Args:
        model: graph in injected form.
        inputs: the batch.
        cotangent: of the logits, `[batch, classes]`.

    Returns:
        `[batch, 3]`.
    """
    rows = [_of_one(model, inputs[i : i + 1], cotangent[i : i + 1]) for i in range(len(cotangent))]
    return torch.stack(rows)


class _Values(fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)

    def values(self, inputs: Inputs) -> dict[fx.Node, Any]:
        self.run(*inputs)
        return dict(self.env)


def _of_one(model: fx.GraphModule, inputs: Inputs, cotangent: Tensor) -> Tensor:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        values = _Values(model).values(inputs)
    source, (logits,) = explained(model.graph), outputs(model.graph)
    values |= dict(zip((n for n in model.graph.nodes if n.op == "placeholder"), inputs, strict=True))
    carried = carrying(model.graph, is_float=lambda node: any(_moves(value) for value in leaves(values[node])))
    found = cotangent.new_zeros(3)
    cts: dict[fx.Node, Any] = {logits: cotangent}
    for node in reversed(list(calls(model.graph))):
        if node not in cts or node not in carried:
            continue
        ct = cts.pop(node)
        defect, shift = _defect(node, ct, values, carried, cts)
        affine = is_affine(node, carried)
        found[1] += defect if affine else shift
        found[2] += 0.0 if affine else defect - shift
    found[0] = _inner(values[source], cts[source])
    return found


def _defect(
    node: fx.Node, ct: Any, values: dict[fx.Node, Any], carried: set[fx.Node], cts: dict[fx.Node, Any]
) -> tuple[Tensor, Tensor]:
    """(what an operator does not pass on, what of it a norm's shift is); what it passes on is added to `cts`."""
    sources = [n for n in node.all_input_nodes if n in carried]
    moving = {n: map_tree(values[n], _leaf) for n in sources}
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: moving.get(n, values[n]))
        result = node.target(*args, **kwargs)  # type: ignore[operator]
        pairs = [(r, c) for r, c in zip(leaves(result), _like(result, ct), strict=True) if c is not None]
        inputs = [leaf for n in sources for leaf in leaves(moving[n]) if _moves(leaf)]
        total = torch.stack([_inner(r, c) for r, c in pairs]).sum()
        live = [(r, c) for r, c in pairs if r.requires_grad]
        gradients = iter(torch.autograd.grad([r for r, _ in live], inputs, [c for _, c in live], allow_unused=True))
    passed = total.new_zeros(())
    for n in sources:
        made = map_tree(values[n], lambda t: next(gradients) if _moves(t) else None)
        if all(c is None for c in leaves(made)):
            continue
        held = zip(leaves(values[n]), leaves(made), strict=True)
        passed = passed + torch.stack([_inner(v, c) for v, c in held if c is not None]).sum()
        cts[n] = _sum(cts[n], made) if n in cts else made
    return (total - passed).detach(), _shift(node, pairs[0][1], values)


def _shift(node: fx.Node, ct: Tensor, values: dict[fx.Node, Any]) -> Tensor:
    """`<bias, c>` of a norm that keeps its exact derivative."""
    held = schema_arguments(node)[SHIFTED[node.target]] if node.target in SHIFTED else None
    if not isinstance(held, fx.Node):
        return ct.new_zeros(())
    bias: Tensor = values[held]
    if node.target is aten.group_norm.default:
        bias = bias.reshape([-1] + [1] * (ct.ndim - 2))
    return _inner(bias.expand_as(ct), ct)


def _like(result: Any, ct: Any) -> list[Any]:
    found = list(leaves(ct))
    return found if isinstance(result, tuple | list) else found[:1]


def _leaf(value: Any) -> Any:
    return value.detach().clone().requires_grad_(True) if _moves(value) else value


def _moves(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """`<a, b>`; where b is zero nothing is added, whatever a is."""
    return torch.where(b == 0, torch.zeros_like(b), a.detach() * b).sum()


def _sum(a: Any, b: Any) -> Any:
    """Two cotangents added, each of them None where there is none."""
    if isinstance(a, tuple | list):
        return type(a)(_sum(x, y) for x, y in zip(a, b, strict=True))
    return b if a is None else a if b is None else a + b
