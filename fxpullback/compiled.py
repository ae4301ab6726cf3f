"""What `compile` returns: the graphs of every stage, and the one that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.contribution import Contributions, Place
from fxpullback.contract.ends import Ends
from fxpullback.contract.errors import InputError
from fxpullback.contract.original import Original
from fxpullback.contract.parts import Parts
from fxpullback.contract.sizes import FreeAxis, misfits
from fxpullback.extensions import Extensions
from fxpullback.graph.entry import Entry
from fxpullback.graph.inputs import Extra, arguments
from fxpullback.graph.ir import outputs
from fxpullback.graph.module import Graph
from fxpullback.ledger import Ledger
from fxpullback.rules import RuleSet
from fxpullback.taps.contribution import Taps
from fxpullback.target import Target, check_given
from fxpullback.unroll import Double, Program


@dataclass(frozen=True, eq=False)
class Compiled:
    """A compiled model: its logits and its pullback in one forward-only graph.

    Attributes:
        graph: the graph that runs, `(input, *extras[, target]) -> (logits, pullback, ...)`; no autograd, no hooks.
        rewritten: the captured model in injected form; runs, and autograd through it gives the soft pullback.
        captured: the model as captured, before any rewriting.
        folded: `rewritten` with its batch norms folded, what was differentiated.
        step: the lowered graph of one pullback, `(input, *extras, cotangent) -> (logits, pullback)`.
        ledger: what happened to every operator.
        rules: the rule set.
        program: `Soft`, `Double` or `Ascent`.
        target: what the input `target` holds: index, top1, cotangent or contrast.
        example: one example of the explained input, `[1, ...]`.
        extras: the inputs of `captured` that are passed through and not explained, in order.
        entry: what stands in front of the explained input in `graph`, where that takes ids; the ids are the first of
            `extras` then. None where the explained input is what is passed.
        ends: what of the model is explained: its input or embeddings, which output, at which positions.
        rewrites: at how many places of one pullback each rewrite of the lowering was made, by its name.
        extensions: what was passed in beside the package's own rules.
        taps: where contributions are read off; empty where none were asked for.
        original: the file that the model came in, where that was an `.onnx` file.
    """

    graph: Graph
    rewritten: Graph
    captured: Graph
    folded: Graph
    step: Graph
    ledger: Ledger
    rules: RuleSet
    program: Program
    target: Target
    example: Tensor
    extras: tuple[Extra, ...] = ()
    rewrites: Mapping[str, int] = field(default_factory=dict)
    extensions: Extensions = field(default_factory=Extensions)
    taps: Taps = field(default_factory=Taps)
    entry: Entry | None = None
    ends: Ends = field(default_factory=Ends)
    original: Original | None = None

    @property
    def passed(self) -> tuple[Extra, ...]:
        """What a call takes beside what is explained, in order."""
        return self.extras if self.entry is None else self.extras[1:]

    @property
    def output_names(self) -> tuple[str, ...]:
        """What a call returns: `logits, pullback[, counterfactual, counterfactual_logits][, contribution, ...]`."""
        return self.graph.signature.outputs

    @property
    def contributions(self) -> Contributions | None:
        """What the contribution maps are, or None where there are none."""
        if not self.taps:
            return None
        places = tuple(Place(tap.name, tap.operator, tap.plan.grid, tap.of) for tap in self.taps)
        exact = not any(row.injected for row in self.ledger.rows)
        at = "second pass" if isinstance(self.program, Double) else "input"
        return Contributions(places, self.taps.grid, self.taps.each, self.taps.chosen, exact, at)

    @property
    def parts(self) -> Parts | None:
        """What the parts are of, or None where they were not asked for."""
        if not self.taps.parts:
            return None
        pushed = self.taps.pushes[0].grid if self.taps.pushes else ()
        return Parts("second pass" if isinstance(self.program, Double) else "input", pushed)

    @property
    def free(self) -> tuple[FreeAxis, ...]:
        """The axes beside the batch whose size is free, with the sizes they allow."""
        return self.graph.signature.free

    @property
    def classes(self) -> int:
        """Number of classes."""
        (logits,) = outputs(self.captured.graph)
        return int(logits.meta["val"].shape[1])

    def __call__(
        self, x: Tensor, /, target: Tensor | None = None, *extras: Tensor, **named: Tensor
    ) -> tuple[Tensor, ...]:
        """Logits and pullback of a batch.

        Args:
            x: `[batch, ...]`, of the size and type the graph was compiled for; ids where it was compiled at a lookup.
            target: class indices `[batch]`; pairs `[batch, 2]`; a cotangent `[batch, classes]`; None for top-1.
            *extras: what else the model takes, in order; of the kinds it was compiled for, NaN aside of any value.
            **named: the same by name, as in `pb(x, target, mask=mask)`.

        Returns:
            One tensor for each of `output_names`.

        Raises:
            InputError: an input of the wrong rank, size, type or values, an extra that is missing or unknown, or a
                class that does not exist.
        """
        self.check_input(x)
        (logits,) = outputs(self.captured.graph)
        check_given(self.target, target, x.shape[0], self.classes, logits.meta["val"].dtype)
        passed = arguments(self.passed, extras, named, x, self.free)
        for part, value in zip(self.entry.parts[1:] if self.entry is not None else (), passed, strict=False):
            part.check(value)
        if self.ends.positions is not None:
            self.ends.check(passed[-1], {axis.name: x.shape[axis.axis] for axis in self.free})
        with torch.no_grad():
            results: tuple[Tensor, ...] = self.graph(x, *passed, *([] if target is None else [target]))
        return results

    def check_input(self, x: Any) -> None:
        """Refuse an input the graph was not compiled for."""
        if not isinstance(x, Tensor):
            raise InputError(f"the input is a {type(x).__name__}; pass a tensor [batch, ...].")
        wanted = self.example if self.entry is None else self.extras[0].example
        free = {axis.axis: axis.name for axis in self.free}
        fixed = [i for i in range(1, wanted.ndim) if i not in free]
        if x.ndim != wanted.ndim or any(x.shape[i] != wanted.shape[i] for i in fixed) or x.shape[0] == 0:
            size = ", ".join(["batch", *(free.get(i, str(wanted.shape[i])) for i in range(1, wanted.ndim))])
            raise InputError(f"the input is {list(x.shape)}; this graph was compiled for [{size}].")
        if wrong := misfits(x.shape, self.free):
            raise InputError(f"the input is {list(x.shape)}: {'; '.join(wrong)}.")
        if x.dtype != wanted.dtype:
            raise InputError(f"the input is of {x.dtype}; this graph was compiled for {wanted.dtype}.")
        if self.entry is not None:
            self.entry.parts[0].check(x)
        elif not bool(torch.isfinite(x).all()):
            raise InputError("the input holds NaN or infinite values.")
