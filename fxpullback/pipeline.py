"""`compile`: the flat, ordered list of stages from a PyTorch model to its pullback graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, fx

from fxpullback.calibration import calibrated, without_pictures
from fxpullback.capture import Model, capture
from fxpullback.capture.program import as_program
from fxpullback.certify.adjoint import judged
from fxpullback.certify.graph import verify
from fxpullback.compiled import Compiled
from fxpullback.contract.certificate import Certificate
from fxpullback.contract.ends import Ends
from fxpullback.contract.errors import InputError, UnknownOperatorError
from fxpullback.differentiate import differentiate
from fxpullback.extensions import Extension, Extensions
from fxpullback.graph import invariants
from fxpullback.graph.collection import say_cost, seldom_collected
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.cut import in_front
from fxpullback.graph.inputs import extra_of, given_examples
from fxpullback.graph.ir import ORIGIN, RULE, calls, extra_inputs, is_size, where
from fxpullback.graph.modes import plain_mode
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OperatorTable
from fxpullback.graph.positions import example_positions, with_extents
from fxpullback.ledger import Ledger
from fxpullback.lower import lower, simplify
from fxpullback.lowering.folding import fold
from fxpullback.rewrite import rewrite
from fxpullback.rules import SEMANTIC, RuleSet
from fxpullback.rules.kept import check_kept
from fxpullback.taps import Wanted, choose_taps
from fxpullback.target import Target, check_target
from fxpullback.unroll import Program, Soft, unroll
from fxpullback.vjp import VJPTable

Progress = Callable[[str], None]


class Pullback(Compiled):
    """A compiled model, `Compiled`, that verifies itself."""

    def verify(self, *, seed: int = 0) -> Certificate:
        """Check this graph against the model and against autograd, on fresh inputs of other batch sizes.

        Args:
            seed: seed of the fresh inputs.

        Returns:
            The certificate; `certificate.passed` says whether every check held.
        """
        return verify(self, seed=seed)


def compile(
    model: Model,
    example_inputs: tuple[Tensor, ...] | Mapping[str, Tensor] | Tensor | None = None,
    *,
    rules: RuleSet | None = None,
    program: Program | None = None,
    target: str = "index",
    keep_exact: tuple[str, ...] | list[str] = (),
    free_size: bool | Sequence[int] = False,
    without: Sequence[str] = (),
    extensions: Sequence[Extension] = (),
    taps: str | Sequence[str] | None = None,
    each_tap: bool = False,
    bias: str | None = None,
    at: str | None = None,
    output: str | int | None = None,
    positions: str | None = None,
    explain: Sequence[str] = (),
    progress: Progress | None = None,
) -> Pullback:
    """Compile a model and its pullback into one forward-only graph.

    Args:
        model: an `nn.Module`, an `ExportedProgram`, or the path of a `.pt2` or `.onnx` file. It is left as it is.
        example_inputs: an example `[batch, ...]`, alone or in a tuple; the batch stays free. Of several, the first is
            explained; the others are passed, batched where their leading axis is. A mapping passes them by name.
        rules: `SEMANTIC`, `REFERENCE`, `EXACT`, or a set made of them; by default `SEMANTIC.with_spread()`.
        program: `Soft()` (default), `Double(...)` or `Ascent(...)`.
        target: what the input `target` holds: "index", "top1", "cotangent" or "contrast".
        keep_exact: rules or operators of this model that keep their exact derivative, as `rules.keep_exact(...)`.
        free_size: True leaves the size behind the channels free; or the axes to be free.
        without: names of optional rewrites in `fxpullback.lower.REWRITES` to leave out.
        extensions: gate rules, patterns, VJP rules, traits and rewrites of your own; docs/architecture.md.
        taps: modules at which a `contribution` is read off, or "auto"; `each_tap` gives each one's own besides.
        bias: "share" for the parts of each logit, output `parts`; "pushed" for a map as well: docs/completeness.md.
        at: "embeddings" for a model of ids, its first input: what they are looked up as is explained; docs/text.md.
        output: which of several outputs holds the logits, by name or place: "logits", 1; see docs/outputs.md.
        positions: for logits at many positions, what a further input `positions` holds: "index", "mask" or "weights".
        explain: names of several inputs that are explained together; see docs/pairs.md.
        progress: called with the name of each stage as it begins.

    Raises:
        CaptureError, UnsupportedGateError, DifferentiateError, LowerError, ProgramError, RuleError, TapError: each.
    """
    with seldom_collected(), plain_mode():
        pb = _compiled(
            model := as_program(model, output),
            given_examples(own_examples(model) if example_inputs is None else example_inputs, explain),
            SEMANTIC.with_spread() if rules is None else rules,
            tuple(keep_exact),
            program or Soft(),
            check_target(target),
            free_size,
            without,
            Extensions.of(extensions),
            Wanted.of(taps, each_tap, bias),
            Ends(at, output, positions, explain=tuple(explain)),
            progress or (lambda stage: None),
        )
        return held_to_its_file(model, judged(pb))


def own_examples(model: Any) -> tuple[Tensor, ...]:
    """The examples of a model that says itself what it takes, as one of an `.onnx` file does.

    Raises:
        InputError: it does not.
    """
    found = getattr(model, "examples", None)
    if found is None:
        raise InputError("no example inputs; pass one for each tensor the model takes, the explained one first.")
    made: tuple[Tensor, ...] = found()
    return made


def held_to_its_file(model: Any, pb: Pullback) -> Pullback:
    """What was compiled of an `.onnx` file, once ONNX Runtime computes the same logits of that; anything else as it is.

    Raises:
        CaptureError: it does not.
    """
    original = getattr(model, "original", None)
    if original is None:
        return pb
    original.judge(pb)
    ledger = replace(pb.ledger, notes=(*pb.ledger.notes, *model.notes))
    return replace(pb, original=original, ledger=ledger)


def _compiled(
    model: Model,
    examples: tuple[list[str], list[Tensor]],
    rules: RuleSet,
    keep_exact: tuple[str, ...],
    program: Program,
    target: Target,
    free_size: bool | Sequence[int],
    without: Sequence[str],
    extensions: Extensions,
    wanted: Wanted,
    ends: Ends,
    say: Progress,
) -> Pullback:
    """The stages, in order."""
    rules = extensions.rule_set(rules).keep_exact(*keep_exact)
    vjps = extensions.vjp_table()
    compilation = Compilation(operators=extensions.operators(), beside=getattr(model, "beside", False))
    say("capture")
    captured, (example, *others) = _captured(model, examples, free_size, compilation, ends)
    rules = _with_temperatures(rules, captured, (example, *others), vjps, compilation, say)
    say("rewrite")
    rewritten, ledger = rewrite(captured, rules, compilation, vjps)
    check_kept(captured, rules, ledger, keep_exact)
    injections = sum(row.injected for row in ledger.rows)
    invariants.check_rewritten(rewritten, injections)
    say("fold")
    folded, merged = fold(rewritten, compilation)
    invariants.check_folded(rewritten, folded, injections)
    taps = choose_taps(captured, folded, ledger, wanted, compilation)
    say("differentiate")
    differentiated = differentiate(folded, compilation, vjps, taps.taps, taps.parts, taps.pushes)
    invariants.check_differentiated(differentiated, injections)
    invariants.check_held(folded, differentiated)
    check_known(differentiated, compilation.operators, kept_exact(captured, ledger))
    say("lower")
    step, rewrites = lower(differentiated, without, compilation, extensions.rewrites)
    invariants.check_lowered(step)
    check_known(step, compilation.operators, kept_exact(captured, ledger))
    say("unroll")
    graph = simplify(unroll(step, program, target, compilation, taps), compilation)
    invariants.check_lowered(graph)
    return Pullback(
        graph=_settled(_with_entry(graph, compilation), compilation),
        rewritten=_settled(rewritten, compilation),
        captured=_settled(captured, compilation),
        folded=_settled(folded, compilation),
        step=_settled(step, compilation),
        ledger=account(ledger, step, merged),
        rules=rules,
        program=program,
        target=target,
        example=example[:1].detach().clone(),
        extras=tuple(extra_of(node, other) for node, other in zip(extra_inputs(captured), others, strict=True)),
        rewrites=rewrites,
        extensions=extensions,
        taps=taps,
        entry=compilation.entry,
        ends=with_extents(ends, captured),
    )


def _captured(
    model: Model,
    examples: tuple[list[str], list[Tensor]],
    free_size: bool | Sequence[int],
    compilation: Compilation,
    ends: Ends,
) -> tuple[Graph, list[Tensor]]:
    """The captured graph and an example of each of its inputs."""
    names, (example, *others) = examples
    captured = capture(model, example, others, names, free_size, compilation, ends)
    invariants.check_captured(captured)
    say_cost(captured, stacklevel=5)
    given = [example, *others]
    if compilation.entry is not None:
        given = [compilation.entry.value(given), *given]
    if ends.positions is not None:
        given.append(example_positions(captured, given[0], ends.positions))
    return captured, given


def _with_entry(gm: Graph, compilation: Compilation) -> Graph:
    return gm if compilation.entry is None else in_front(compilation.entry, gm)


def _with_temperatures(
    rules: RuleSet,
    captured: Graph,
    examples: tuple[Tensor, ...],
    vjps: VJPTable,
    compilation: Compilation,
    say: Progress,
) -> RuleSet:
    """The rule set with a temperature for every gate, where it asks for that and has none yet."""
    if rules.spread is None or rules.calibrated_on:
        return rules
    say("calibrate")
    return calibrated(captured, rules, without_pictures(captured, examples), vjps, compilation.operators)


def _settled(gm: Graph, compilation: Compilation) -> Graph:
    """The graph with the sizes that are allowed in the end: stages may have found that small ones are not."""
    watch = compilation.watch
    return gm if watch is None else gm.with_signature(replace(gm.signature, free=watch.free))


def account(ledger: Ledger, step: fx.GraphModule, merged: dict[str, str]) -> Ledger:
    """Fill in how many nodes of one pullback came of every operator, and which batch norms were folded."""
    counts = Counter(str(node.meta.get(ORIGIN)) for node in calls(step.graph) if not is_size(node))
    rows = [
        replace(row, reason=f"folded into {merged[row.node]}") if row.node in merged else row for row in ledger.rows
    ]
    return replace(ledger, rows=tuple(rows)).with_counts(counts)


def kept_exact(captured: fx.GraphModule, ledger: Ledger) -> set[Any]:
    """The operators of a model that keep their exact derivative wherever they stand."""
    verdicts = {row.node: row.verdict for row in ledger.rows}
    softened = {
        node.target for node in calls(captured.graph) if verdicts[node.name] not in ("exact", "constant", "blocking")
    }
    return {node.target for node in calls(captured.graph)} - softened


def check_known(gm: fx.GraphModule, operators: OperatorTable, exact: set[Any]) -> None:
    """Refuse an operator that nothing is known of: rewrites would pass it by without a word.

    One that the model holds and that keeps its exact derivative is allowed, as is one in a derivative that torch gave.

    Raises:
        UnknownOperatorError: names the operator and what put it there.
    """
    for node in operators.unknown(gm.graph):
        if node.target in exact or node.meta.get(RULE) == "derived":
            continue
        by = f" (emitted by {node.meta[RULE]})" if RULE in node.meta else ""
        raise UnknownOperatorError(
            f"nothing is known of {where(node)}{by}: whether it moves numbers, is linear, acts entry by entry, or is "
            "safe in half precision. Pass its traits: extensions=[Traits(...)], docs/adding-a-rule.md; "
            "Trait.OPAQUE says that nothing is to be assumed."
        )
