"""Rules, patterns, VJP rules and rewrites that are passed in from outside the package."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import SEMANTIC
from fxpullback.contract.errors import LowerError, RuleError, UnknownOperatorError, UnsupportedGateError
from fxpullback.extensions import Extension, Extensions
from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.graph.operators import Trait, Traits
from fxpullback.graph.rebuild import Site
from fxpullback.lowering.rewrite import Rewrite, replacing
from fxpullback.rules.rule import gate
from fxpullback.vjp.rule import vjp
from tests.helpers import assert_near, draw

LIBRARY = torch.library.Library("fxpullback_tests", "DEF")
LIBRARY.define("halved(Tensor x) -> Tensor")
LIBRARY.impl("halved", lambda x: x / 2, "CompositeExplicitAutograd")
torch.library.register_fake("fxpullback_tests::halved", torch.empty_like, lib=LIBRARY)
HALVED = torch.ops.fxpullback_tests.halved.default
torch.library.register_autograd("fxpullback_tests::halved", lambda ctx, ct: ct / 2, lib=LIBRARY)


@vjp(HALVED, kind="linear")
def halved(ct: Tensor, out: Tensor, x: Tensor) -> tuple[Any]:
    """y = x / 2:  ct_x = ct / 2."""
    return (HALVED(ct),)


TRAITS = Traits(HALVED, frozenset({Trait.POINTWISE}), linear=(0,))


@gate(aten.atan.default, temperature=0.5)
def arc_tangent(x: Tensor, *, temperature: float) -> Tensor:
    """Primal: atan(x). Adjoint: ct / (1 + (x / T)^2)."""
    return x * stop_gradient(1 / (1 + (x / temperature) ** 2))


def as_quotient(site: Site) -> Any:
    return site.arguments()[0] * 0.5


HALVES = Rewrite("halves", "a half is a product", replacing({HALVED: as_quotient}), after=("injections",))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.atan(HALVED(self.first(x))))
        return result


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Net().double().eval()


def test_all_kinds_at_once() -> None:
    model, x, u = network(), draw(4, 6), draw(4, 3, seed=1)
    pb = fxpullback.compile(
        model, x, rules=SEMANTIC, extensions=[arc_tangent, halved, TRAITS, HALVES], target="cotangent"
    )
    assert pb.ledger.sum() == "1 of 1 gates softened"
    assert pb.rewrites["halves"] > 0
    assert all(node.target is not HALVED for node in pb.graph.graph.nodes)
    z = model.first(x) / 2  # type: ignore[operator]
    slope = 1 / (1 + (z / 0.5) ** 2)
    wanted = (u @ model.last.weight * slope / 2) @ model.first.weight  # type: ignore[union-attr, operator]
    assert_near(pb(x, u)[1].detach(), wanted.detach())
    assert pb.verify().passed


class Gated(nn.Module):
    """x g(x), the gate made by an operator of another library: nothing is known of it without its traits."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (x * HALVED(torch.sigmoid(1.7 * x))).sum(1, keepdim=True)
        return result


def test_traits_that_are_passed_in_reach_the_patterns() -> None:
    x = draw(4, 6)
    seen = Traits(HALVED, frozenset({Trait.POINTWISE, Trait.SCALING}), linear=(0,))
    pb = fxpullback.compile(Gated().eval(), x, extensions=[halved, seen])
    assert [row.rule for row in pb.ledger.rows if row.operator == "aten.mul.Tensor"][-1] == "self_gated"
    unseen = fxpullback.compile(Gated().eval(), x, extensions=[halved, TRAITS])
    (why,) = [dict(row.why_not) for row in unseen.ledger.rows if row.why_not and row.operator == "aten.mul.Tensor"][-1:]
    assert "halved" in why["self_gated"]


def test_what_is_passed_in_is_used_for_one_compilation_alone() -> None:
    fxpullback.compile(network(), draw(4, 6), extensions=[arc_tangent, halved, TRAITS])
    with pytest.raises(UnsupportedGateError, match=r"fxpullback_tests.halved at .* has no derivative"):
        fxpullback.compile(network(), draw(4, 6))


def test_an_operator_of_another_library_is_kept_exact_by_its_name() -> None:
    pb = fxpullback.compile(network(), draw(4, 6), extensions=[halved, TRAITS], keep_exact=["atan"])
    assert [row.verdict for row in pb.ledger.rows] == ["linear", "linear", "exact", "linear"]
    with pytest.raises(RuleError, match=r"nothing called 'fxpullback_tests\.nothing'"):
        SEMANTIC.keep_exact("fxpullback_tests.nothing")


def test_a_rewrite_of_ones_own_is_left_out_by_its_name() -> None:
    pb = fxpullback.compile(network(), draw(4, 6), extensions=[arc_tangent, halved, TRAITS, HALVES], without=["halves"])
    assert "halves" not in pb.rewrites
    assert any(node.target is HALVED for node in pb.graph.graph.nodes)
    with pytest.raises(LowerError, match="no rewrite 'halves' to leave out"):
        fxpullback.compile(network(), draw(4, 6), extensions=[arc_tangent, halved, TRAITS], without=["halves"])


def test_calibrated_with_extensions() -> None:
    extensions: list[Extension] = [arc_tangent, halved, TRAITS]
    rules = fxpullback.calibrate(network(), draw(8, 6), extensions=extensions)
    pb = fxpullback.compile(network(), draw(4, 6), rules=rules, extensions=extensions)
    (temperature,) = [row.temperature for row in pb.ledger.rows if row.temperature is not None]
    model = network()
    z = model.first(draw(8, 6)).detach() / 2  # type: ignore[operator]
    assert abs(temperature - 0.9 * float(z.std(correction=0))) < 1e-12


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ([lambda x: x], "is no extension; there are: Rule, Pattern, VJPRule, .*docs/adding-a-rule.md"),
        (halved, "extensions is one VJPRule; pass a list"),
        ([halved, halved], "two VJP rules for fxpullback_tests.halved.default: halved and halved"),
        ([vjp(aten.relu.default, kind="linear")(halved.function)], "two VJP rules for aten.relu.default: relu and"),
        ([gate(aten.relu.default, temperature=1.0)(arc_tangent.soft)], "two rules for aten.relu.default"),
    ],
)
def test_what_cannot_be_added_is_refused(extensions: Any, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        fxpullback.compile(network(), draw(4, 6), extensions=extensions)


def test_values_are_sorted_by_what_they_are() -> None:
    found = Extensions.of([HALVES, TRAITS, halved, arc_tangent])
    assert (found.rules, found.vjps, found.traits) == ((arc_tangent,), (halved,), (TRAITS,))
    assert (found.rewrites, found.patterns) == ((HALVES,), ())


def test_an_operator_that_nothing_is_known_of_is_named() -> None:
    with pytest.raises(UnknownOperatorError, match=r"nothing is known of .*halved at .*Pass its traits"):
        fxpullback.compile(network(), draw(4, 6), extensions=[arc_tangent, halved])
    opaque = Traits(HALVED, frozenset({Trait.OPAQUE}))
    assert fxpullback.compile(network(), draw(4, 6), extensions=[arc_tangent, halved, opaque]).verify().passed


def test_an_operator_of_a_rule_is_named_with_its_rule() -> None:
    @gate(aten.atan.default)
    def with_halves(x: Tensor) -> Tensor:
        """Primal: atan(x). Adjoint: ct * x / 2."""
        return x * stop_gradient(HALVED(x))

    class Plain(Net):
        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.atan(self.first(x)))
            return result

    with pytest.raises(UnknownOperatorError, match=r"halved .*\(emitted by with_halves\)"):
        fxpullback.compile(Plain().double().eval(), draw(4, 6), extensions=[with_halves])


def test_traits_of_an_operator_that_has_some_are_refused() -> None:
    with pytest.raises(RuleError, match=r"two rows of traits for aten\.relu"):
        fxpullback.compile(network(), draw(4, 6), extensions=[Traits(aten.relu.default)])
