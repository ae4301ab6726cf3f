"""Every invariant against a graph broken on purpose."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import fx
from torch.nn import functional as F

from fxpullback import SEMANTIC
from fxpullback.contract.errors import InvariantError
from fxpullback.differentiate import differentiate
from fxpullback.graph import invariants
from fxpullback.graph.canonical import NOT_CANONICAL, takes_gradient
from fxpullback.graph.ir import (
    INJECT,
    RULE,
    STOP_GRADIENT,
    arg,
    aten,
    calls,
    node_argument,
    operator_name,
    outputs,
    placeholders,
)
from fxpullback.graph.module import Graph
from fxpullback.lower import lower
from fxpullback.rewrite import rewrite
from tests.helpers import draw, graph_of

WEIGHT = draw(4, 6)


def model(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.relu(x) @ WEIGHT)


GATES = 2


def captured() -> fx.GraphModule:
    return graph_of(model, 4)


SHARED = functools.cache(captured)  # never broken: the stages leave their input alone


def rewritten() -> fx.GraphModule:
    return rewrite(SHARED(), SEMANTIC)[0]


def differentiated() -> fx.GraphModule:
    return differentiate(rewritten())


def lowered() -> fx.GraphModule:
    return lower(differentiated())[0]


Check = Callable[[fx.GraphModule], None]
STAGES: dict[str, tuple[Callable[[], fx.GraphModule], Check]] = {
    "captured": (captured, invariants.check_captured),
    "rewritten": (rewritten, lambda gm: invariants.check_rewritten(gm, GATES)),
    "differentiated": (differentiated, lambda gm: invariants.check_differentiated(gm, GATES)),
    "lowered": (lowered, invariants.check_lowered),
}


@pytest.mark.parametrize("stage", STAGES)
def test_whole_graphs_pass(stage: str) -> None:
    make, check = STAGES[stage]
    check(make())


def first(gm: fx.GraphModule, target: object) -> fx.Node:
    return next(node for node in calls(gm.graph) if node.target is target)


# Ways to break a graph. None of them changes a value the forward computes, unless it says so.


def in_place(gm: fx.GraphModule) -> None:
    first(gm, aten.relu.default).target = aten.relu_.default


def another_spelling(gm: fx.GraphModule) -> None:
    first(gm, aten.relu.default).target = aten.view.default


def composite(gm: fx.GraphModule) -> None:
    """An operator that torch composes of others."""
    first(gm, aten.relu.default).target = aten.special_expm1.default


def clamped_twice(gm: fx.GraphModule) -> None:
    """A call that is not canonical because of its arguments: the one above, of one bound, is."""
    node = first(gm, aten.relu.default)
    node.target = aten.clamp.default
    node.args = (node.args[0], -1.0)
    invariants.check_graph(gm)
    node.args = (node.args[0], -1.0, 1.0)


def another_product(gm: fx.GraphModule) -> None:
    first(gm, aten.matmul.default).target = aten.mm.default


def python_function(gm: fx.GraphModule) -> None:
    first(gm, aten.relu.default).target = torch.relu


def no_value(gm: fx.GraphModule) -> None:
    del first(gm, aten.relu.default).meta["val"]


def method(gm: fx.GraphModule) -> None:
    node = first(gm, aten.relu.default)
    node.op, node.target = "call_method", "relu"


def after(gm: fx.GraphModule, node: fx.Node, target: Callable[..., object]) -> fx.Node:
    """Put a call of `target` on a node between it and its users."""
    with gm.graph.inserting_after(node):
        new = gm.graph.call_function(target, (node,))
    new.meta.update(node.meta)
    node.replace_all_uses_with(new, lambda user: user is not new)
    return new


def detached(gm: fx.GraphModule) -> None:
    after(gm, first(gm, aten.relu.default), aten.detach.default)


def aliased(gm: fx.GraphModule) -> None:
    after(gm, first(gm, aten.relu.default), aten.alias.default)


def injected_already(gm: fx.GraphModule) -> None:
    node = first(gm, aten.relu.default)
    new = after(gm, node, INJECT)
    new.args = (node, node)


def two_inputs(gm: fx.GraphModule) -> None:
    with gm.graph.inserting_after(placeholders(gm.graph)[0]):
        gm.graph.placeholder("another").meta.update(placeholders(gm.graph)[0].meta)


def fixed_batch(gm: fx.GraphModule) -> None:
    for node in outputs(gm.graph):
        node.meta["val"] = torch.empty(2, *node.meta["val"].shape[1:], device="meta")


def lost_injection(gm: fx.GraphModule) -> None:
    node = first(gm, INJECT)
    node.replace_all_uses_with(node_argument(node, 0))
    gm.graph.erase_node(node)


def soft_in_place_of_injection(gm: fx.GraphModule) -> None:
    """The forward changes, and the backward does not."""
    node = first(gm, INJECT)
    node.replace_all_uses_with(node_argument(node, 1))
    gm.graph.erase_node(node)


def injected_twice(gm: fx.GraphModule) -> None:
    after(gm, first(gm, INJECT), INJECT).args = (first(gm, INJECT), first(gm, INJECT))


def decomposed_stop(gm: fx.GraphModule) -> None:
    first(gm, STOP_GRADIENT).target = aten.detach.default


def pullback_of_another_shape(gm: fx.GraphModule) -> None:
    logits, _ = outputs(gm.graph)
    gm.graph.output_node().args = ((logits, logits),)


def pullback_of_another_type(gm: fx.GraphModule) -> None:
    pullback = outputs(gm.graph)[1]
    pullback.meta["val"] = pullback.meta["val"].float()


def pullback_of_nothing(gm: fx.GraphModule) -> None:
    """A constant in place of the explanation."""
    logits, _ = outputs(gm.graph)
    gm.graph.output_node().args = ((logits, placeholders(gm.graph)[0]),)


def nameless(gm: fx.GraphModule) -> None:
    assert isinstance(gm, Graph)
    gm.signature = replace(gm.signature, outputs=("logits",))


def autograd_operator(gm: fx.GraphModule) -> None:
    first(gm, aten.matmul.default).target = aten.threshold_backward.default


def left_over_inject(gm: fx.GraphModule) -> None:
    node = first(gm, aten.matmul.default)
    after(gm, node, INJECT).args = (node, node)


def left_over_stop(gm: fx.GraphModule) -> None:
    after(gm, first(gm, aten.matmul.default), STOP_GRADIENT)


BROKEN: list[tuple[str, Callable[[fx.GraphModule], None], str]] = [
    ("captured", in_place, "in place"),
    ("captured", another_spelling, r"aten\.view.*canonical spelling of its operator; aten\.reshape is"),
    ("captured", composite, r"aten\.special_expm1.*canonical spelling of its operator; what it is composed of is"),
    ("captured", clamped_twice, r"aten\.clamp.*canonical spelling of its operator; aten\.hardtanh is"),
    ("captured", python_function, "no ATen operator"),
    ("captured", no_value, "no fake value"),
    ("captured", method, "call_method"),
    ("captured", detached, r"aten\.detach.*canonical spelling of its operator; fxpullback\.stop_gradient is"),
    ("captured", aliased, r"aten\.alias.*canonical spelling of its operator; its argument is"),
    ("captured", injected_already, "may not stand in a captured graph"),
    ("captured", two_inputs, "has one input and 0 extras, this one has 2 inputs"),
    ("captured", fixed_batch, "batch of output"),
    ("rewritten", lost_injection, "1 injections, the ledger 2"),
    ("rewritten", soft_in_place_of_injection, "1 injections, the ledger 2"),
    ("rewritten", injected_twice, "3 injections, the ledger 2"),
    ("rewritten", decomposed_stop, r"aten\.detach.*canonical spelling"),
    ("rewritten", fixed_batch, "batch of output"),
    ("differentiated", lost_injection, "1 injections, the ledger 2"),
    ("differentiated", decomposed_stop, r"aten\.detach.*canonical spelling"),
    ("differentiated", pullback_of_another_shape, "different shapes"),
    ("differentiated", pullback_of_another_type, "different types.*float32"),
    ("differentiated", pullback_of_nothing, "does not depend on cotangent"),
    ("differentiated", nameless, "2 outputs and the names"),
    ("differentiated", autograd_operator, "derivative of autograd's own"),
    ("differentiated", another_product, r"aten\.mm.*aten\.matmul is"),
    ("lowered", left_over_inject, "left after lowering"),
    ("lowered", left_over_stop, "left after lowering"),
    ("lowered", autograd_operator, "derivative of autograd's own"),
    ("lowered", another_product, r"aten\.mm.*aten\.matmul is"),
    ("lowered", pullback_of_another_shape, "different shapes"),
    ("lowered", pullback_of_nothing, "does not depend on cotangent"),
    ("lowered", fixed_batch, "batch of output"),
    ("lowered", no_value, "no fake value"),
]


@pytest.mark.parametrize(
    ("stage", "damage", "message"), BROKEN, ids=[f"{stage}-{damage.__name__}" for stage, damage, _ in BROKEN]
)
def test_broken_graph_is_caught(stage: str, damage: Callable[[fx.GraphModule], None], message: str) -> None:
    make, check = STAGES[stage]
    gm = make()
    if damage is no_value and stage == "lowered":
        del first(gm, aten.matmul.default).meta["val"]
    else:
        damage(gm)
    with pytest.raises(InvariantError, match=message):
        check(gm)


@pytest.mark.parametrize("operator", NOT_CANONICAL, ids=str)
def test_an_operator_that_is_never_canonical_is_caught(operator: torch._ops.OpOverload) -> None:
    gm = captured()
    after(gm, first(gm, aten.relu.default), operator)
    with pytest.raises(InvariantError, match=rf"{re.escape(operator_name(operator))} at .* is not the canonical"):
        invariants.check_graph(gm)


def test_what_takes_a_gradient_is_what_torch_calls_backward() -> None:
    """Names are what the test goes by, so that the schemas, which the invariant goes by, are held to something."""
    functional = [op for op in every_overload() if not op._schema.is_mutable]
    named = {op for op in functional if "backward" in op.name()}
    found = {op for op in functional if takes_gradient(op)}
    assert len(named) > 100
    assert not named - found
    others = {op for op in found - named if not op.name().startswith("aten::_fused_ada")}
    assert {op.name() for op in others} <= {"aten::_fused_sgd", "aten::_fused_sgd.tensor_lr"}


def every_overload() -> Iterator[torch._ops.OpOverload]:
    for name in torch._C._dispatch_get_all_op_names():
        packet, _, overload = name.removeprefix("aten::").partition(".")
        if (
            name.startswith("aten::")
            and hasattr(aten, packet)
            and hasattr(getattr(aten, packet), overload or "default")
        ):
            yield getattr(getattr(aten, packet), overload or "default")


@pytest.mark.parametrize("make", [rewritten, differentiated])
def test_lost_stop_gradient_is_caught(make: Callable[[], fx.GraphModule]) -> None:
    """The soft expression is differentiated whole: the same forward, another pullback, and every injection there."""
    whole, broken = make(), make()
    invariants.check_held(whole, broken)
    node = first(broken, STOP_GRADIENT)
    rule = node.meta[RULE]
    node.replace_all_uses_with(arg(node, 0))
    broken.graph.erase_node(node)
    assert rule == "relu"
    with pytest.raises(InvariantError, match="relu lost its stop_gradient"):
        invariants.check_held(whole, broken)
