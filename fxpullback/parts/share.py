"""The parts of a logit, written into the pullback graph.

At an operator y = A x + b with cotangent c the identity `<y, c> = <x, A^T c> + <b, c>` holds. Summed over all operators
on the way it telescopes: `<logits, u> = <input, pullback> + sum of <b, c> + the rest`, and the rest is what the gates
add whose value is not linear in what they pass back: of an injection `<primal - soft, c>`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import fx

from fxpullback.contract.errors import DifferentiateError
from fxpullback.contract.parts import PARTS
from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import ORIGIN, RULE, STOP_GRADIENT, TRANSPOSES, attribute, explained, where
from fxpullback.graph.shapes import is_free, whole_ratio
from fxpullback.graph.value import Value
from fxpullback.parts.additive import ADDITIVE, Term
from fxpullback.parts.carrying import carrying
from fxpullback.vjp import VJPTable


class Shares:
    """Collects what the constants of a network add, as the reverse walk comes by.

    Args:
        builder: where the nodes are appended.
        source: the graph that is differentiated.
        env: its nodes as values of the new graph.
        vjps: the VJP rules.
    """

    def __init__(self, builder: Builder, source: fx.GraphModule, env: dict[fx.Node, Any], vjps: VJPTable) -> None:
        self.builder = builder
        self.batch = env[explained(source.graph)].shape[0]
        self.carried = {id(env[node]) for node in carrying(source.graph, vjps)}
        self.found: list[Any] = []

    def visit(self, node: fx.Node, ct: Any, arguments: Sequence[Any]) -> None:
        """Add what an operator's constants add of themselves.

        Args:
            node: the operator.
            ct: the cotangent of its result.
            arguments: its arguments in schema order.
        """
        terms = ADDITIVE.get(node.target)
        if terms is None:
            return
        kept = {k: node.meta[k] for k in ("nn_module_stack", "stack_trace") if k in node.meta}
        with self.builder.provenance(
            f"{PARTS}_{node.name}", **kept, **{ORIGIN: PARTS, RULE: PARTS, TRANSPOSES: node.name}
        ):
            self.found += [self._share(term, node) for term in terms(ct, *arguments) if self._counts(term.argument)]

    def parts(self, logits: Value, cotangent: Value, x: Value, pullback: Value) -> Value:
        """`[batch, 3]`: what the input, the constants and the gates add; they sum to `<logits, cotangent>`."""
        with self.builder.provenance(PARTS, **{ORIGIN: PARTS}):
            pairs: tuple[tuple[Any, Any], ...] = ((logits, cotangent), (x, pullback))
            whole, of_input = (self._per_sample(a * b) for a, b in pairs)
            constants = reduce(operator.add, self.found) if self.found else of_input * 0.0
            found: Any = torch.stack([of_input, constants, whole - of_input - constants], 1)
            return found  # type: ignore[no-any-return]

    def _counts(self, argument: Any) -> bool:
        """Whether an argument is there and constant to the pullback; an infinite number has no cotangent."""
        if isinstance(argument, int | float):
            return bool(argument) and math.isfinite(argument)
        return argument is not None and id(argument) not in self.carried

    def _share(self, term: Term, node: fx.Node) -> Any:
        """`<b, ct>` of every sample."""
        ct = term.cotangent() if callable(term.cotangent) and not isinstance(term.cotangent, Value) else term.cotangent
        shaped = term.argument if term.shaped is None else term.shaped()
        axis = self._batch_axis(ct, node)
        if not isinstance(shaped, Value):
            return self._per_sample(ct, axis) * float(shaped)
        if shaped.ndim == 0:
            return self._per_sample(ct * shaped, axis)
        own = [1] * (ct.ndim - shaped.ndim) + list(shaped.shape)
        along = [i for i, size in enumerate(own) if i != axis and not is_free(size) and size == 1]
        ct = ct.sum(along, keepdim=True) if along else ct
        product = ct * shaped
        if self._may_be_infinite(shaped):
            product = torch.where(ct == 0, 0.0, product)
        return self._per_sample(product, axis)

    def _may_be_infinite(self, value: Value) -> bool:
        """Whether a constant may hold what no cotangent reaches, as a mask of attention does."""
        node = value.node
        if node.op == "get_attr":
            name = str(node.target)
            held = self.builder.constants.get(name)
            return not bool(torch.isfinite(attribute(self.builder.source, name) if held is None else held).all())
        return node.target is not STOP_GRADIENT

    def _batch_axis(self, ct: Any, node: fx.Node) -> int:
        """The axis that holds the samples."""
        found = [i for i, size in enumerate(ct.shape) if is_free(size) and whole_ratio(size, self.batch)]
        if len(found) != 1:
            raise DifferentiateError(
                f"no parts of the logit: the samples cannot be told apart in {list(ct.shape)} at {where(node)}. "
                "Compile without bias."
            )
        return found[0]

    def _per_sample(self, values: Any, axis: int = 0) -> Any:
        """The sum over all axes but the batch, `[batch]`; where the batch is a part of an axis, it is the outer one."""
        others = [i for i in range(values.ndim) if i != axis]
        summed = values.sum(others) if others else values
        inner = whole_ratio(summed.shape[0], self.batch)
        return summed if inner == 1 else summed.reshape([-1, inner]).sum([1])
