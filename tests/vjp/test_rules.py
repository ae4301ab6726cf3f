"""Every VJP rule against autograd of its operator, inside a graph and called on tensors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx

from fxpullback.contract.errors import DifferentiateError
from fxpullback.differentiate import differentiate, tensor_arguments, unbroadcast
from fxpullback.graph.ir import aten, calls, schema_arguments
from fxpullback.vjp import ABSENT, NOT_DIFFERENTIABLE, RULES, TABLE, ZERO
from tests.helpers import TOLERANCE, Flat, assert_near, draw, graph_of, pulled_back
from tests.vjp.groups import BATCH, Recorder, group
from tests.vjp.rows import GROUPS, REFUSED, ROWS, Row

CAPTURED = [(name, row) for name, rows in GROUPS.items() for row in rows if row.captured]
REPLACED = [row for row in ROWS if not row.captured]

# The even kernel of one row has an odd total padding; torch says that it costs memory.
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")


def test_every_target_has_a_row() -> None:
    assert {row.target for row in ROWS} | REFUSED == set(TABLE)


def test_every_rule_is_in_the_table() -> None:
    assert {id(rule) for rule in TABLE.values()} == {id(rule) for rule in RULES}


def test_names_of_rows_differ() -> None:
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("name", "row"), CAPTURED, ids=[row.name for _, row in CAPTURED])
def test_in_a_graph(name: str, row: Row) -> None:
    whole = group(name)
    assert row.target in {node.target for node in calls(whole.captured.graph)}, "the row does not test its operator"
    into, out = whole.places[row.name]
    x, ct = row.values(draw(BATCH, *row.sizes)), whole.ct[:, out]
    model = Flat(row.function)
    primal, expected = model(x).detach(), pulled_back(model, x, ct)
    for logits, pullback in whole.runs:
        assert_same(logits[:, out].detach(), primal, TOLERANCE)
        assert_same(pullback[:, into].reshape(x.shape).detach(), expected, row.tolerance)


def assert_same(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """`assert_near`, where everything expected may be zero."""
    if expected.any():
        assert_near(actual, expected, tolerance)
    else:
        assert torch.equal(actual.abs(), expected.abs())


@pytest.mark.parametrize("name", GROUPS)
def test_called_on_tensors(name: str) -> None:
    whole = group(name)
    recorder = Recorder(whole.captured)
    recorder.run(whole.x)
    rows = [row for row in GROUPS[name] if row.captured]
    checked = set()
    for node in calls(whole.captured.graph):
        tolerances = [row.tolerance for row in rows if row.target is node.target]
        if tolerances:
            check_call(node, recorder.values, max(tolerances))
            checked.add(node.target)
    assert checked == {row.target for row in rows}


@pytest.mark.parametrize("row", REPLACED, ids=lambda row: row.name)
def test_spellings_that_capture_replaces(row: Row) -> None:
    x = row.values(draw(BATCH, *row.sizes))
    traced = fx.symbolic_trace(row.function)
    seen = [node for node in calls(traced.graph) if node.target is row.target]
    assert seen, "the row does not test its operator"
    recorder = Recorder(traced)
    recorder.run(x)
    for node in seen:
        check_call(node, recorder.values, row.tolerance)


def check_call(node: fx.Node, values: dict[fx.Node, Any], tolerance: float) -> None:
    """A rule's cotangents of one call of its operator against autograd of that call."""
    leaves: dict[int, Tensor] = {}

    def primal(n: fx.Node) -> Any:
        value = values[n]
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return leaves.setdefault(id(n), value.detach().clone().requires_grad_(True))

    arguments = fx.map_arg(schema_arguments(node), primal)
    args, kwargs = fx.map_arg((node.args, node.kwargs), primal)
    rule = TABLE[node.target]
    with torch.no_grad():
        out = node.target(*args, **kwargs)  # type: ignore[operator]
        several = isinstance(out, tuple | list)
        first = out[0] if several else out
        ct = draw(*first.shape, seed=7, dtype=first.dtype) if first.is_floating_point() else torch.ones_like(first)
        made = rule.function((ct, *[ABSENT] * (len(out) - 1)) if several else ct, out, *arguments)
        pairs = list(_pairs(_tensors(node, arguments), made))
    held = [leaf for leaf, part in pairs if part is NOT_DIFFERENTIABLE and leaf.requires_grad]
    for leaf in held:
        leaf.requires_grad_(False)
    pairs = [(leaf, part) for leaf, part in pairs if leaf.requires_grad]
    assert pairs, "no argument takes a cotangent"
    again = node.target(*args, **kwargs)  # type: ignore[operator]
    result = again[0] if several else again
    if not result.requires_grad:
        assert all(part is ZERO for _, part in pairs)
        return
    for leaf in {id(leaf): leaf for leaf, _ in pairs}.values():
        (grad,) = torch.autograd.grad(result, leaf, ct, retain_graph=True, allow_unused=True)
        parts = [unbroadcast(part, leaf) for other, part in pairs if other is leaf and part is not ZERO]
        if grad is None or not parts:
            assert not parts
            assert grad is None or not grad.any()
        else:
            assert_same(sum(parts[1:], parts[0]), grad, tolerance)


def _pairs(arguments: list[Any], made: tuple[Any, ...]) -> list[tuple[Tensor, Any]]:
    """(tensor, cotangent) of every tensor argument, lists taken apart, what is deferred computed."""
    pairs: list[tuple[Any, Any]] = []
    for argument, part in zip(arguments, made, strict=True):
        pairs += zip(argument, part, strict=True) if isinstance(argument, list | tuple) else [(argument, part)]
    return [(a, part() if callable(part) else part) for a, part in pairs if isinstance(a, Tensor)]


def _tensors(node: fx.Node, arguments: tuple[Any, ...]) -> list[Any]:
    """The tensor arguments in schema order, as `differentiate` pairs them with cotangents."""
    types = [str(a.type) for a in node.target._schema.arguments]  # type: ignore[union-attr]
    return [v for t, v in zip(types, arguments, strict=True) if "Tensor" in t and not isinstance(v, int | float)]


@pytest.mark.parametrize("function", [lambda x: x * x.sum(), lambda x: x * x.mean()], ids=["sum", "mean"])
def test_sum_over_the_batch_is_refused(function: Any) -> None:
    captured = graph_of(function, 4)
    with pytest.raises(DifferentiateError, match=r"takes no cotangent.*depends on the input"):
        differentiate(captured)


def test_indices_on_axes_apart_are_refused() -> None:
    places = torch.tensor([1, 0])
    captured = graph_of(lambda x: x[:, places, :, places].transpose(0, 1), 3, 5, 4)
    with pytest.raises(DifferentiateError, match=r"aten\.index\.Tensor.*takes no cotangent.*depends on the input"):
        differentiate(captured)


@pytest.mark.parametrize("rows", [3, 2])
def test_gather_pads_only_where_the_index_is_shorter(rows: int) -> None:
    graph = differentiate(graph_of(lambda x: x.gather(2, (x > 0).long()[:, :rows]), 3, 5)).graph
    pads = [node.args[1] for node in calls(graph) if node.target is aten.constant_pad_nd.default]
    assert pads == ([] if rows == 3 else [[0, 0, 0, 1]])


def test_cotangents_are_named_after_what_they_transpose() -> None:
    weight = draw(4, 5)
    graph = differentiate(graph_of(lambda x: torch.sin(x) @ weight, 4))
    names = {node.name for node in calls(graph.graph)}
    emitted = [node for node in calls(graph.graph) if node.name.startswith("ct_")]
    assert {node.meta["fxpullback_transposes"] for node in emitted} >= {"sin", "matmul"}
    assert all(node.meta["fxpullback_transposes"] in names for node in emitted)


def test_tensor_arguments_follow_the_schema() -> None:
    captured = graph_of(lambda x: torch.where(x > 0, x, 2.0), 4)
    chosen = next(node for node in calls(captured.graph) if node.target is aten.where.ScalarOther)
    assert tensor_arguments(chosen) == list(chosen.args[:2])
