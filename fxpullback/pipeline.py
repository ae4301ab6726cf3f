"""`compile`: the flat, ordered list of stages from a PyTorch model to its pullback graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxpullback.capture import Model, capture
from fxpullback.contract.errors import InputError
from fxpullback.contract.sizes import FreeAxis, misfits
from fxpullback.differentiate import differentiate
from fxpullback.graph import invariants
from fxpullback.graph.inputs import Extra, arguments, extra_of
from fxpullback.graph.ir import (
    FREE,
    NAMES,
    ORIGIN,
    OUTPUT_NAMES,
    REWRITES_DONE,
    SHAPES,
    WATCH,
    calls,
    extra_inputs,
    is_size,
    outputs,
)
from fxpullback.ledger import Ledger
from fxpullback.lower import lower, simplify
from fxpullback.lowering.folding import fold
from fxpullback.rewrite import rewrite
from fxpullback.rules import SEMANTIC, RuleSet
from fxpullback.target import Target, check_given, check_target
from fxpullback.unroll import Program, Soft, unroll

if TYPE_CHECKING:
    from fxpullback.contract.certificate import Certificate

Progress = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Pullback:
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
        example: one example input, `[1, ...]`.
        extras: the inputs that are passed through and not explained, in order.
    """

    graph: fx.GraphModule
    rewritten: fx.GraphModule
    captured: fx.GraphModule
    folded: fx.GraphModule
    step: fx.GraphModule
    ledger: Ledger
    rules: RuleSet
    program: Program
    target: Target
    example: Tensor
    extras: tuple[Extra, ...] = ()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of what a call returns: `logits, pullback[, counterfactual, counterfactual_logits]`."""
        names: tuple[str, ...] = self.graph.meta[OUTPUT_NAMES]
        return names

    @property
    def rewrites(self) -> Mapping[str, int]:
        """At how many places of one pullback each rewrite of the lowering was made, by its name."""
        done: dict[str, int] = self.step.meta.get(REWRITES_DONE, {})
        return done

    @property
    def free(self) -> tuple[FreeAxis, ...]:
        """The axes beside the batch whose size is free, with the sizes they allow."""
        axes: tuple[FreeAxis, ...] = self.captured.meta.get(FREE, ())
        return axes

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
            x: `[batch, ...]`, of the size and type the graph was compiled for.
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
        check_given(self.target, target, x.shape[0], self.classes)
        passed = arguments(self.extras, extras, named, x.shape[0])
        with torch.no_grad():
            results: tuple[Tensor, ...] = self.graph(x, *passed, *([] if target is None else [target]))
        return results

    def check_input(self, x: Any) -> None:
        """Refuse an input the graph was not compiled for."""
        if not isinstance(x, Tensor):
            raise InputError(f"the input is a {type(x).__name__}; pass a tensor [batch, ...].")
        wanted = self.example
        free = {axis.axis: axis.name for axis in self.free}
        fixed = [i for i in range(1, wanted.ndim) if i not in free]
        if x.ndim != wanted.ndim or any(x.shape[i] != wanted.shape[i] for i in fixed) or x.shape[0] == 0:
            size = ", ".join(["batch", *(free.get(i, str(wanted.shape[i])) for i in range(1, wanted.ndim))])
            raise InputError(f"the input is {list(x.shape)}; this graph was compiled for [{size}].")
        if wrong := misfits(x.shape, self.free):
            raise InputError(f"the input is {list(x.shape)}: {'; '.join(wrong)}.")
        if x.dtype != wanted.dtype:
            raise InputError(f"the input is of {x.dtype}; this graph was compiled for {wanted.dtype}.")
        if not bool(torch.isfinite(x).all()):
            raise InputError("the input holds NaN or infinite values.")

    def verify(self, *, seed: int = 0) -> Certificate:
        """Check this graph against the model and against autograd, on fresh inputs of other batch sizes.

        Args:
            seed: seed of the fresh inputs.

        Returns:
            The certificate; `certificate.passed` says whether every check held.
        """
        from fxpullback.certify.graph import verify

        return verify(self, seed=seed)


def compile(
    model: Model,
    example_inputs: tuple[Tensor, ...] | Mapping[str, Tensor] | Tensor,
    *,
    rules: RuleSet = SEMANTIC,
    program: Program | None = None,
    target: str = "index",
    keep_exact: tuple[str, ...] | list[str] = (),
    free_size: bool | Sequence[int] = False,
    without: Sequence[str] = (),
    progress: Progress | None = None,
) -> Pullback:
    """Compile a model and its pullback into one forward-only graph.

    Args:
        model: an `nn.Module`, an `ExportedProgram`, or the path of a `.pt2` file. It is left as it is.
        example_inputs: one example input `[batch, ...]`, alone or in a tuple; the batch stays free. Of several, the
            first is the one explained; the others are passed through, tensors of any type and rank. One whose leading
            axis has the extent of the batch is batched, all else about it is fixed: where an extra's leading extent is
            no batch, pass examples of a batch of another size. A mapping passes them to the forward by name.
        rules: `SEMANTIC` (default), `REFERENCE`, `EXACT`, or a set made of them.
        program: `Soft()` (default), `Double(...)` or `Ascent(...)`.
        target: what the input `target` will hold: "index", "top1", "cotangent" or "contrast".
        keep_exact: rules or operators that keep their exact derivative, as `rules.keep_exact(...)`.
        free_size: True leaves the size behind the channels free (height and width of a picture); or the axes that are
            to be free. Without it the batch alone is.
        without: names of rewrites of the lowering to leave out, of those in `fxpullback.lower.REWRITES` that are
            optional: for a plainer graph, or to see what a rewrite is worth.
        progress: called with the name of each stage as it begins.

    Returns:
        The compiled `Pullback`.

    Raises:
        CaptureError, UnsupportedGateError, DifferentiateError, LowerError, ProgramError, RuleError: see each class.
    """
    say = progress or (lambda stage: None)
    checked, program = check_target(target), program or Soft()
    rules = rules.keep_exact(*keep_exact) if keep_exact else rules
    names, (example, *others) = given_examples(example_inputs)

    say("capture")
    captured = capture(model, example, others, names, free_size)
    invariants.check_captured(captured)
    say("rewrite")
    rewritten, ledger = rewrite(captured, rules)
    injections = sum(row.injected for row in ledger.rows)
    invariants.check_rewritten(rewritten, injections)
    say("fold")
    folded, merged = fold(rewritten)
    invariants.check_rewritten(folded, injections)
    invariants.check_held(rewritten, folded)
    say("differentiate")
    differentiated = differentiate(folded)
    invariants.check_differentiated(differentiated, injections)
    invariants.check_held(folded, differentiated)
    say("lower")
    step = lower(differentiated, without)
    invariants.check_lowered(step)
    say("unroll")
    graph = simplify(unroll(step, program, checked))
    invariants.check_lowered(graph)

    ledger = account(ledger, step, merged)
    if WATCH in captured.meta:
        captured.meta[FREE] = captured.meta[WATCH].free
    for stage in (captured, rewritten, folded, step, graph):
        stage.meta.pop(SHAPES, None)
        stage.meta.pop(NAMES, None)
        stage.meta.pop(WATCH, None)
    shown = example[:1].detach().clone()
    extras = tuple(extra_of(node, other) for node, other in zip(extra_inputs(captured), others, strict=True))
    return Pullback(graph, rewritten, captured, folded, step, ledger, rules, program, checked, shown, extras)


def given_examples(example_inputs: Any) -> tuple[list[str], list[Any]]:
    """The example inputs, the explained one first, and their names where they are passed by name."""
    names = [str(name) for name in example_inputs] if isinstance(example_inputs, Mapping) else []
    if names:
        inputs = list(example_inputs.values())
    else:
        inputs = list(example_inputs) if isinstance(example_inputs, tuple | list | Mapping) else [example_inputs]
    if not inputs:
        raise InputError("no example inputs; pass one for each tensor the model takes, the explained one first.")
    return names, inputs


def account(ledger: Ledger, step: fx.GraphModule, merged: dict[str, str]) -> Ledger:
    """Fill in how many nodes of one pullback came of every operator, and which batch norms were folded."""
    counts = Counter(str(node.meta.get(ORIGIN)) for node in calls(step.graph) if not is_size(node))
    rows = [
        replace(row, reason=f"folded into {merged[row.node]}") if row.node in merged else row for row in ledger.rows
    ]
    return Ledger(tuple(rows)).with_counts(counts)
