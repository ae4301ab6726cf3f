"""Stage 4: an explicit reverse walk over the rewritten graph gives the pullback graph, in forward operators only.

In: a graph from (`input`, extras) to logits. Out: a graph from (`input`, extras, `cotangent`) to (logits, pullback). No
cotangent is carried to an extra. Every node the walk
emits is named after the node it transposes and records it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from torch import Tensor, fx

from fxpullback.contract.contribution import CONTRIBUTION, output_of
from fxpullback.contract.errors import DifferentiateError, FixedSizeError, TapError
from fxpullback.contract.names import COTANGENT
from fxpullback.contract.parts import PARTS, PUSHED
from fxpullback.graph.builder import Builder
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import (
    COTANGENT_OF,
    GETITEM,
    INJECT,
    ORIGIN,
    RULE,
    STOP_GRADIENT,
    TRANSPOSES,
    arg,
    depends_on,
    explained,
    is_float_tensor,
    node_argument,
    outputs,
    schema_arguments,
    where,
)
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.rebuild import Site, append
from fxpullback.graph.value import Value
from fxpullback.parts.share import Shares
from fxpullback.rules.blocking import blocking, said_of
from fxpullback.rules.patterns.flow import Flow
from fxpullback.taps.contribution import Tap
from fxpullback.taps.push import Push
from fxpullback.vjp import ABSENT, NOT_DIFFERENTIABLE, TABLE, ZERO, VJPTable
from fxpullback.vjp.derive import derive_vjp, tensors_of


def differentiate(
    rewritten: fx.GraphModule,
    compilation: Compilation | None = None,
    vjps: VJPTable = TABLE,
    taps: Sequence[Tap] = (),
    parts: bool = False,
    pushes: Sequence[Push] = (),
) -> Graph:
    """Build the pullback graph of a rewritten graph.

    Args:
        rewritten: graph from `input` and the extras to logits `[batch, classes]`, in injected form.
        compilation: what the stages of one compilation share.
        vjps: the VJP rules by operator.
        taps: where contributions are read off.
        parts: whether the parts of the logit are a further output.
        pushes: where biases are carried back as contributions; with `parts` alone.

    Returns:
        Graph from `input`, the extras and `cotangent` (the shape of the logits) to `logits`, `pullback` (that of the
        input), one map `[batch, *grid]` for each tap, and where they are asked for the parts `[batch, 3]`.

    Raises:
        TapError: no cotangent reaches a tap.
        DifferentiateError: an operator on the way has no VJP rule and none can be derived.
    """
    builder = Builder(rewritten, compilation)
    env: dict[fx.Node, Any] = {}
    append(builder, rewritten, env, Site.copy)
    source, (logits,) = explained(rewritten.graph), outputs(rewritten.graph)
    cotangent = builder.placeholder(COTANGENT, env[logits].node.meta["val"])
    shares = Shares(builder, rewritten, env, vjps, {push.node: push for push in pushes}) if parts else None
    walk = _Walk(builder, rewritten, env, vjps, taps, shares)
    pullback = walk.run(source, logits, cotangent)
    names = ["logits", "pullback", *(output_of(tap.name) for tap in taps)]
    results = [env[logits], pullback, *walk.maps(taps)]
    if shares is not None:
        names += [PUSHED, PARTS] if pushes else [PARTS]
        results += [*shares.pushed(), shares.parts(env[logits], cotangent, env[source], pullback)]
    signature = replace(signature_of(rewritten), given=COTANGENT, outputs=tuple(names))
    gm = builder.finish(tuple(results), signature)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return gm


class _Walk:
    """The reverse walk: cotangents by node, each node visited once all of its users were."""

    def __init__(
        self,
        builder: Builder,
        rewritten: fx.GraphModule,
        env: dict[fx.Node, Any],
        vjps: VJPTable,
        taps: Sequence[Tap] = (),
        shares: Shares | None = None,
    ) -> None:
        self.shares = shares
        self.builder, self.graph, self.env, self.vjps = builder, rewritten.graph, env, vjps
        self.tapped: dict[str, list[Tap]] = {}
        for tap in taps:
            self.tapped.setdefault(tap.node, []).append(tap)
        self.contributions: dict[Tap, Value] = {}
        self.cotangents: dict[fx.Node, list[Value]] = {}
        self.parts: dict[fx.Node, dict[int, list[Value]]] = {}
        sources = depends_on(self.graph, [explained(self.graph)])
        self.active = {node for node in sources if is_float_tensor(node)}

    def run(self, source: fx.Node, logits: fx.Node, cotangent: Value) -> Value:
        self.cotangents[logits] = [cotangent]
        for node in reversed(list(self.graph.nodes)):
            if node.op == "call_function" and (node in self.cotangents or node in self.parts):
                self._transpose(node)
        if source not in self.cotangents:
            raise DifferentiateError(f"no cotangent of the logits reaches the input: {self._why_none(logits)}")
        return self._total(self.cotangents[source], source)

    def _why_none(self, logits: fx.Node) -> str:
        """What stands in the way of every cotangent, and what to do."""
        arrived = [node for node in self.graph.nodes if node in self.cotangents]
        flow = Flow(self.graph)
        stops = blocking(self.graph, {node.name for node in arrived}, flow, self.vjps)
        if stops:
            return said_of(stops)
        detached = [node for node in arrived if node.target is STOP_GRADIENT and RULE not in node.meta]
        if detached:
            return f"{where(detached[0])} detaches it. Take the detach out of the forward, or explain another output."
        held = [node for node in arrived if node.target is INJECT]
        if not held:
            return "they do not depend on its values. Look at the forward, or choose another output: output=."
        gates = ", ".join(dict.fromkeys(str(node.meta[RULE]) for node in held))
        return f"rules hold every path constant: {gates}. Keep one of them exact, keep_exact=[...], or rules=EXACT."

    def maps(self, taps: Sequence[Tap]) -> list[Value]:
        """The maps of the taps, in their order."""
        missed = [tap for tap in taps if tap not in self.contributions]
        if missed:
            raise TapError(
                f"no tap at {missed[0].name}: no cotangent of the logits reaches {missed[0].operator}, which the rules "
                "hold constant or the logits do not depend on. Look it up in the ledger, and tap another module."
            )
        return [self.contributions[tap] for tap in taps]

    def _tap(self, node: fx.Node, ct: Value) -> None:
        """Read off what the places of a value carry, where its cotangent is known."""
        for tap in self.tapped.get(node.name, ()):
            kept = {**self._meta(node, "tap"), ORIGIN: CONTRIBUTION}
            with self.builder.provenance(f"{CONTRIBUTION}_{node.name}", **kept):
                self.contributions[tap] = tap.plan(self.env[node], ct)

    def _total(self, contributions: list[Value], node: fx.Node) -> Value:
        with self.builder.provenance(f"ct_{node.name}", **self._meta(node, "sum")):
            return reduce(operator.add, contributions)

    def _meta(self, node: fx.Node, rule: str) -> dict[str, Any]:
        kept = {k: node.meta[k] for k in (ORIGIN, "nn_module_stack", "stack_trace") if k in node.meta}
        return {**kept, TRANSPOSES: node.name, RULE: rule}

    def _transpose(self, node: fx.Node) -> None:
        if node.target is GETITEM:
            parent, index = node_argument(node, 0), arg(node, 1)
            if node.name in self.tapped:
                self.cotangents[node] = [self._total(self.cotangents[node], node)]
                self._tap(node, self.cotangents[node][0])
            self.parts.setdefault(parent, {}).setdefault(index, []).extend(self.cotangents[node])
            return
        rule = self.vjps.get(node.target)
        name = rule.name if rule else "derived"
        tensors = tensor_arguments(node)
        with self.builder.provenance(f"ct_{node.name}", **self._meta(node, name)):
            ct = self._arriving(node)
            if isinstance(ct, Value):
                ct.node.meta[COTANGENT_OF] = {**ct.node.meta.get(COTANGENT_OF, {}), node.name: 1.0}
                self._tap(node, ct)
            arguments = fx.map_arg(schema_arguments(node), lambda n: self.env[n])
            if self.shares is not None:
                self.shares.visit(node, ct, arguments)
            try:
                if rule is None:
                    made: Sequence[Any] = derive_vjp(self.builder, node, ct, arguments)
                else:
                    made = rule.function(ct, self.env[node], *arguments)
                for argument, part in zip(tensors, made, strict=True):
                    self._give(node, argument, part)
            except FixedSizeError as error:
                raise DifferentiateError(
                    f"free_size: {where(node)} {error}. Compile the model for one size."
                ) from error

    def _arriving(self, node: fx.Node) -> Any:
        if node not in self.parts:
            return reduce(operator.add, self.cotangents[node])
        given = self.parts[node]
        count = len(node.meta["val"])
        return tuple(reduce(operator.add, given[i]) if i in given else ABSENT for i in range(count))

    def _give(self, node: fx.Node, argument: Any, ct: Any) -> None:
        if isinstance(argument, list | tuple):
            parts = ct if isinstance(ct, list) else [ct] * len(argument)
            for inner, part in zip(argument, parts, strict=True):
                self._give(node, inner, part)
            return
        if not isinstance(argument, fx.Node) or argument not in self.active or ct is ZERO or ct is ABSENT:
            return
        if ct is NOT_DIFFERENTIABLE:
            raise DifferentiateError(
                f"{where(node)} takes no cotangent for its argument {argument.name}, which depends on the input. "
                "Write the model without this dependence, or add a VJP rule: docs/adding-a-rule.md."
            )
        value = ct() if callable(ct) and not isinstance(ct, Value) else ct
        like = argument.meta["val"]
        back = unbroadcast(value, like)
        self.cotangents.setdefault(argument, []).append(back if back.dtype == like.dtype else back.to(like.dtype))


def tensor_arguments(node: fx.Node) -> list[Any]:
    """A call's tensor arguments in schema order: nodes, None, or lists of them; plain numbers are left out."""
    return tensors_of(node.target, schema_arguments(node))


def unbroadcast(ct: Any, like: Tensor) -> Any:
    """Sum a cotangent down to the shape of the argument that was broadcast."""
    extra = ct.ndim - like.ndim
    shape = [1] * extra + list(like.shape)
    wide = [
        isinstance(n, int) and n == 1 and not (isinstance(m, int) and m == 1)
        for n, m in zip(shape, ct.shape, strict=True)
    ]
    dims = [i for i, w in enumerate(wide) if w]
    kept = [i for i in dims if i >= extra]
    if kept:
        ct = ct.sum(kept, keepdim=True)
    if extra:
        ct = ct.sum(list(range(extra))) if any(wide[:extra]) else ct.reshape(list(like.shape))
    return ct
