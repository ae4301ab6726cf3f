"""The table of operator traits: complete, without dead rows, and true, on numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fxpullback import REFERENCE, SEMANTIC, errors
from fxpullback.contract.errors import FxPullbackError, RuleError, UnknownOperatorError
from fxpullback.graph.ir import GETITEM, aten, calls, operator_name
from fxpullback.graph.operators import OPERATORS, OperatorTable, Trait, Traits, opaque, said_by_torch
from fxpullback.graph.traits import row
from fxpullback.vjp import TABLE
from tests.graph import every_operator, trait_checks
from tests.graph.every_operator import Call
from tests.helpers import draw, graph_of

# The even kernel of one row has an odd total padding; torch says that it costs memory.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")

POSITIONS: dict[str, trait_checks.Check] = {
    "linear": trait_checks.linear,
    "factors": trait_checks.factors,
    "homogeneous": trait_checks.homogeneous,
}
HALF = (Trait.MOVES, Trait.HALF_SAFE, Trait.ONE_ROUNDING, Trait.CONTRACTION)

# Where no graph of the tests has a call with which the result has the shape of the argument.
SAME_SHAPE: dict[Any, tuple[Any, ...]] = {
    aten.reshape.default: ([3, 4],), aten.expand.default: ([3, 4], False), aten.squeeze.default: (),
    aten.squeeze.dim: (1,), aten.squeeze.dims: ([0, 1],), aten.repeat.default: ([1, 1],),
    aten.repeat_interleave.self_int: (1, 1, None), aten.slice.Tensor: (0, 0, 3, 1),
}  # fmt: skip


def calls_for(operator: Any, trait: Trait | str) -> list[Call]:
    """The calls on which a trait of an operator is checked."""
    more = SAME_SHAPE.get(operator) if trait is Trait.SAME_IF_SHAPED else None
    extra = [] if more is None else [Call(operator, (draw(3, 4), *more))]
    return every_operator.calls_of().get(operator, []) + extra


def claims(traits: Traits) -> list[tuple[Any, trait_checks.Check]]:
    """What a row says, and how to check it."""
    found: list[tuple[Any, trait_checks.Check]] = [(t, c) for t, c in trait_checks.CHECKS.items() if t in traits]
    return found + [(name, check) for name, check in POSITIONS.items() if getattr(traits, name)]


def is_true(traits: Traits, claim: Trait | str, check: trait_checks.Check) -> None:
    """Check a claim on every call there is; at least one must say something about it."""
    with torch.no_grad():
        said = [check(call, traits) for call in calls_for(traits.operator, claim)]
    assert any(said), f"no call of {operator_name(traits.operator)} says whether it is {claim}"


CLAIMS = [
    pytest.param(traits, claim, check, id=f"{operator_name(traits.operator)}-{getattr(claim, 'name', claim)}")
    for traits in OPERATORS.rows.values()
    if traits.operator is not aten.sym_size.int
    for claim, check in claims(traits)
]


@pytest.mark.parametrize(("traits", "claim", "check"), CLAIMS)
def test_what_the_table_says_is_true(traits: Traits, claim: Trait | str, check: trait_checks.Check) -> None:
    is_true(traits, claim, check)


WRONG: dict[Trait, Any] = {
    Trait.MOVES: aten.avg_pool2d.default, Trait.LAYOUT: aten.slice.Tensor, Trait.SAME_IF_SHAPED: aten.flip.default,
    Trait.PART: aten.repeat.default,
    Trait.CAST: aten.neg.default, Trait.POINTWISE: aten.softmax.int, Trait.CHOICE: aten.maximum.default,
    Trait.SCALING: aten.add.Tensor, Trait.SHIFTING: aten.mul.Tensor, Trait.COMPARISON: aten.maximum.default,
    Trait.ABOVE: aten.lt.Scalar, Trait.BELOW: aten.ge.Tensor, Trait.BOUNDED: aten.softplus.default,
    Trait.GATE: aten.silu.default, Trait.SELECTOR: aten.sin.default, Trait.REDUCTION: aten.softmax.int,
    Trait.STATISTIC: aten.mean.dim, Trait.ROOT: aten.square.default, Trait.ZEROS: aten.ones_like.default,
    Trait.CONSTANT: aten.relu.default, Trait.CONTRACTION: aten.softmax.int, Trait.ONE_ROUNDING: aten.col2im.default,
    Trait.HALF_SAFE: aten.square.default,
}  # fmt: skip
"""An operator for every trait that the trait is not true of."""


def test_every_check_can_fail() -> None:
    assert set(WRONG) == set(trait_checks.CHECKS)


@pytest.mark.parametrize("trait", WRONG, ids=lambda trait: trait.name)
def test_a_wrong_trait_is_caught(trait: Trait) -> None:
    with pytest.raises(AssertionError):
        is_true(Traits(WRONG[trait], frozenset({trait})), trait, trait_checks.CHECKS[trait])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("linear", Traits(aten.relu.default, linear=(0,))),
        ("linear", Traits(aten.add.Tensor, linear=(0,))),
        ("linear", Traits(aten.rsub.Scalar, linear=(0,))),
        ("linear", Traits(aten.where.self, frozenset({Trait.AFFINE}), linear=(0, 1))),
        ("linear", Traits(aten.softmax.int, frozenset({Trait.AFFINE}), linear=(0,))),
        ("factors", Traits(aten.div.Tensor, factors=(1,))),
        ("factors", Traits(aten.addmm.default, factors=(0,))),
        ("homogeneous", Traits(aten.sigmoid.default, homogeneous=(0,))),
        ("homogeneous", Traits(aten.maximum.default, homogeneous=(0,))),
        ("homogeneous", Traits(aten.var.correction, homogeneous=(0,))),
    ],
    ids=lambda value: value if isinstance(value, str) else operator_name(value.operator),
)
def test_wrong_positions_are_caught(name: str, wrong: Traits) -> None:
    with pytest.raises(AssertionError):
        is_true(wrong, name, POSITIONS[name])


def with_rules() -> set[Any]:
    """Operators that a rule is written for."""
    gates = {target for rules in (SEMANTIC, REFERENCE) for rule in rules.rules for target in rule.targets}
    return set(TABLE) | gates | set(SEMANTIC.exact)


def test_every_operator_has_traits() -> None:
    assert not {operator_name(o) for o in every_operator.operators() | with_rules() if not OPERATORS.knows(o)}


def test_an_operator_without_traits_would_be_found() -> None:
    fewer = OperatorTable({o: traits for o, traits in OPERATORS.rows.items() if o is not aten.cat.default})
    assert [operator_name(o) for o in every_operator.operators() if not fewer.knows(o)] == ["aten.cat"]


def test_no_row_is_dead() -> None:
    assert not {operator_name(o) for o in OPERATORS.rows if o not in every_operator.operators() | with_rules()}


def test_kinds_are_those_of_the_vjp_rules() -> None:
    for target, rule in TABLE.items():
        traits = OPERATORS.of(target)
        assert (traits.kind, traits.divisor) == (rule.kind, rule.divisor), operator_name(target)
        assert rule.factors in (None, traits.factors), operator_name(target)


def test_what_torch_calls_a_view_moves_numbers() -> None:
    views = [o for o in OPERATORS.rows if o is not GETITEM and o._schema.returns and o._schema.returns[0].alias_info]
    assert len(views) > 10
    assert all(Trait.MOVES in OPERATORS.of(view) for view in views)


def test_traits_agree_with_each_other() -> None:
    for traits in OPERATORS.rows.values():
        name = operator_name(traits.operator)
        assert Trait.MOVES in traits or Trait.LAYOUT not in traits, name
        assert Trait.BOUNDED in traits or not traits.any_of(Trait.GATE, Trait.SELECTOR), name
        assert Trait.COMPARISON in traits or not traits.any_of(Trait.ABOVE, Trait.BELOW), name
        assert not (Trait.WIDE in traits and traits.any_of(*HALF)), f"{name} is done in float32 and is not"
        assert Trait.NO_BFLOAT16 not in traits or traits.any_of(*HALF), f"{name} is done in float32 anyway"


def test_an_unknown_operator() -> None:
    with pytest.raises(
        UnknownOperatorError, match=r"nothing is known of aten\.bucketize\.Tensor: .*its traits: docs/adding-a-rule\.md"
    ):
        OPERATORS.of(aten.bucketize.Tensor)
    assert issubclass(UnknownOperatorError, FxPullbackError)
    assert errors.UnknownOperatorError is UnknownOperatorError


def test_nothing_is_assumed_of_an_unknown_operator_in_a_graph() -> None:
    graph = graph_of(lambda x: x.sin() * torch.isin(x, torch.ones(2).double()), 4).graph
    (node,) = OPERATORS.unknown(graph)
    assert node.target is aten.isin.Tensor_Tensor
    assert OPERATORS.at(node) == opaque(aten.isin.Tensor_Tensor)
    known = OPERATORS.with_traits(opaque(aten.isin.Tensor_Tensor))
    assert not known.unknown(graph)
    assert known.of(aten.isin.Tensor_Tensor).traits == {Trait.OPAQUE}


def test_nodes_that_call_nothing_and_sizes() -> None:
    graph = graph_of(lambda x: x * torch.arange(x.shape[0])[:, None], 4).graph
    placeholder, *_, output = graph.nodes
    assert not OPERATORS.at(placeholder).traits
    assert not OPERATORS.at(output).traits
    sizes = [node for node in calls(graph) if node.target is aten.sym_size.int]
    assert [OPERATORS.at(node).traits for node in sizes] == [{Trait.SIZE}]


def test_traits_of_torch_are_added() -> None:
    assert said_by_torch(aten.atan.default) == Traits(aten.atan.default, frozenset({Trait.POINTWISE}))
    assert said_by_torch(aten.bucketize.Tensor) is None
    assert said_by_torch(GETITEM) is None
    table = OperatorTable.made_of(row(Trait.BOUNDED, of=[aten.atan.default]))
    assert table.of(aten.atan.default).traits == {Trait.BOUNDED, Trait.POINTWISE}
    assert table.having(Trait.BOUNDED) == {aten.atan.default}


def test_a_table_is_a_value() -> None:
    more = OPERATORS.with_traits(*row(Trait.BOUNDED, of=[aten.atan.default]))
    assert Trait.BOUNDED in more.of(aten.atan.default)
    assert Trait.BOUNDED not in OPERATORS.of(aten.atan.default)
    with pytest.raises(RuleError, match=r"two rows of traits for aten\.atan\. Leave one of them out"):
        more.with_traits(opaque(aten.atan.default))


def test_what_lets_factors_through() -> None:
    through = {o for o, traits in OPERATORS.rows.items() if traits.lets_factors_through}
    assert {aten.reshape.default, aten.sum.dim_IntList, aten.relu.default, aten.amax.default} <= through
    several, shifted = (aten.split.Tensor, aten.max.dim), (aten.constant_pad_nd.default, aten.rsub.Scalar)
    joined, two = (aten.cat.default, aten.stack.default), (aten.add.Tensor, aten.maximum.default, aten.mul.Tensor)
    assert not through & {*several, *shifted, *joined, *two, aten.sigmoid.default}


def test_what_broadcasts() -> None:
    spread = (aten.mul.Tensor, aten.maximum.default, aten.where.self, aten.gt.Tensor)
    assert all(OPERATORS.of(o).broadcasts for o in spread)
    alone = (aten.rsub.Scalar, aten.relu.default, aten.prelu.default, aten.matmul.default, aten.expand.default)
    assert not any(OPERATORS.of(o).broadcasts for o in alone)
