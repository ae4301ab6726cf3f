"""Models that take more than the input that is explained."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import Double, Soft
from fxpullback.certify.fresh import ExtraSpread
from fxpullback.contract.errors import InputError
from fxpullback.contract.names import graph_names
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.inputs import Extra
from fxpullback.graph.ir import TRANSPOSES, aten, calls, depends_on, extra_inputs, placeholders
from fxpullback.graph.text import from_text, to_text
from tests.helpers import assert_near, changed, draw
from tests.several_inputs import CASES, CLASSES, PROGRAMS, compiled, oracle


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", CASES)
def test_programs_against_the_oracle(case: str, program: str) -> None:
    x, *extras = CASES[case].inputs(3, 7)
    u = draw(3, CLASSES, seed=8)
    pb = compiled(case, program)
    wanted = oracle(CASES[case].network(), PROGRAMS[program], u, x, *extras)
    by_position, by_name = pb(x, u, *extras), pb(x, u, **dict(zip(CASES[case].names, extras, strict=True)))
    for name, found, same in zip(pb.output_names, by_position, by_name, strict=True):
        assert_near(found, wanted[name], 1e-9)  # two steps carry the rounding of the first
        assert torch.equal(found, same)


@pytest.mark.parametrize("case", CASES)
def test_the_pullback_depends_on_the_extras(case: str) -> None:
    x, *extras = CASES[case].inputs(2, 7)
    _, *others = CASES[case].inputs(2, 9)
    u = draw(2, CLASSES, seed=8)
    assert not torch.allclose(compiled(case)(x, u, *extras)[1], compiled(case)(x, u, *others)[1])


@pytest.mark.parametrize("case", CASES)
def test_the_certificate_passes(case: str) -> None:
    certificate = compiled(case).verify(seed=3)
    assert certificate.passed, str(certificate)


@pytest.mark.parametrize("target", ["index", "top1", "contrast"])
def test_targets(target: str) -> None:
    x, condition = CASES["condition"].inputs(3, 7)
    pb = compiled("condition", "soft", target)
    given = {"index": torch.tensor([1, 0, 3]), "top1": None, "contrast": torch.tensor([[1, 0], [2, 1], [3, 0]])}[target]
    logits = CASES["condition"].network()(x, condition)
    eye = torch.eye(CLASSES, dtype=torch.float64)
    if given is None:
        u = eye[logits.argmax(1)]
    else:
        u = eye[given] if given.ndim == 1 else eye[given[:, 0]] - eye[given[:, 1]]
    wanted = oracle(CASES["condition"].network(), Soft(), u, x, condition)["pullback"]
    assert_near(pb(x, given, condition=condition)[1], wanted)
    assert_near(pb(x, given, condition)[1], wanted)


def test_inputs_stand_in_order_under_their_names() -> None:
    pb = compiled("ids", "double", "index")
    for stage, behind in ((pb.captured, []), (pb.folded, []), (pb.step, ["cotangent"]), (pb.graph, ["target"])):
        assert [n.target for n in placeholders(stage.graph)] == ["input", "types", "weight", *behind]
        assert [n.target for n in extra_inputs(stage)] == ["types", "weight"]
    assert [(e.name, e.batched) for e in pb.extras] == [("types", True), ("weight", True)]
    assert [(e.name, e.batched) for e in compiled("bias").extras] == [("bias", False)]


def test_operators_of_extras_are_constant_in_the_ledger() -> None:
    pb = compiled("condition")
    verdicts = {row.node: (row.verdict, row.reason) for row in pb.ledger.rows}
    assert verdicts["relu"] == ("constant", "no path from the input")
    assert verdicts["sigmoid"] == ("constant", "no path from the input")
    assert next(row.verdict for row in pb.ledger.rows if row.operator == "aten.mul.Tensor") == "linear"
    reached = depends_on(pb.step.graph, [placeholders(pb.step.graph)[-1]])
    carried = {n.meta.get("fxpullback_transposes") for n in calls(pb.step.graph) if n in reached}
    assert "mul" in carried
    assert not carried & {"relu", "sigmoid", "linear"}


def test_a_wrong_primal_is_named() -> None:
    pb = compiled("ids")
    rewritten = copy.deepcopy(pb.rewritten)
    relu = next(n for n in calls(rewritten.graph) if n.target is aten.relu.default)
    changed(rewritten, relu, aten.mul.Tensor, 1.001)
    failed = [c for c in replace(pb, rewritten=rewritten).verify().checks if not c.passed]
    assert "first difference at aten." in failed[0].detail


def test_a_wrong_cotangent_is_named() -> None:
    pb = compiled("condition")
    step = copy.deepcopy(pb.step)
    node = next(n for n in calls(step.graph) if n.meta.get(TRANSPOSES) == "mul")
    changed(step, node, aten.mul.Tensor, 1.001)
    details = {c.name: c.detail for c in replace(pb, step=step).verify().checks if not c.passed}
    assert "first difference behind" in details["pullback: graph against autograd, float64"]


def test_the_graph_survives_as_text() -> None:
    pb = compiled("padding mask")
    x, padding = CASES["padding mask"].inputs(3, 7)
    text = to_text(pb.folded, set())
    assert text is not None
    assert torch.equal(from_text(text, {})(x, padding)[0], pb.folded(x, padding)[0])
    assert torch.equal(in_float64(pb.folded)(x, padding)[0], pb.folded(x, padding)[0])


class Named(nn.Module):
    """Parameters called as the contract calls its own, and as Python calls its builtins."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDE, CLASSES)

    def forward(self, picture: Tensor, target: Tensor, input: Tensor, x: Tensor, *rest: Tensor) -> Tensor:
        result: Tensor = self.head(torch.relu(picture * target + input * x) + sum(rest))
        return result


WIDE = 6


def test_names_of_the_contract_are_left_to_it() -> None:
    pb = fxpullback.compile(Named().double().eval(), tuple(draw(2, WIDE, seed=i) for i in range(6)), target="index")
    assert [e.name for e in pb.extras] == ["extra_target", "extra_input", "x", "rest_0", "rest_1"]
    inputs = [draw(3, WIDE, seed=i) for i in range(6)]
    index = torch.tensor([0, 1, 2])
    named = dict(zip(["extra_target", "extra_input", "x", "rest_0", "rest_1"], inputs[1:], strict=True))
    assert torch.equal(pb(inputs[0], target=index, **named)[1], pb(inputs[0], index, *inputs[1:])[1])
    assert graph_names(["a.b", "a_b", "1", "pullback"]) == ["a_b", "a_b_1", "extra_1", "extra_pullback"]
    assert graph_names(["input_1", "id", "id_1", "rows_1"]) == ["extra_input_1", "id", "extra_id_1", "rows_1"]


class Builtins(nn.Module):
    """Parameters that fx calls as it calls the variables of others."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDE, CLASSES)

    def forward(self, id: Tensor, input_1: Tensor, id_1: Tensor, type: Tensor, type_1: Tensor) -> Any:
        return self.head(torch.relu(id * input_1) + 2 * id_1 + 3 * type * id - type_1)


def test_names_of_builtins_are_not_taken_for_each_other() -> None:
    net, names = Builtins().double().eval(), ["id", "input_1", "id_1", "type", "type_1"]
    pb = fxpullback.compile(net, {n: draw(2, WIDE, seed=i) for i, n in enumerate(names)}, rules=fxpullback.EXACT)
    inputs, index = [draw(3, WIDE, seed=9 + i) for i in range(5)], torch.tensor([0, 1, 2])
    leaf = inputs[0].clone().requires_grad_(True)
    logits = net(leaf, *inputs[1:])
    (wanted,) = torch.autograd.grad(logits.gather(1, index[:, None]).sum(), leaf)
    found = pb(inputs[0], index, *inputs[1:])
    assert torch.allclose(found[0], logits.detach(), rtol=0, atol=1e-12)
    assert torch.allclose(found[1], wanted, rtol=0, atol=1e-12)


GOOD = {"types": torch.zeros(3, 5, dtype=torch.int64), "weight": torch.ones(3, dtype=torch.float64)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"types": None}, "types is a NoneType; pass a tensor"),
        ({"types": torch.zeros(3, 5)}, "types is of torch.float32; this graph was compiled for torch.int64"),
        ({"types": torch.zeros(4, 5, dtype=torch.int64)}, r"types is \[4, 5\]; .* \[batch, 5\], \[3, 5\] here"),
        ({"weight": torch.tensor([1.0, torch.nan, 1.0], dtype=torch.float64)}, "weight holds NaN"),
        ({"types": torch.tensor(0)}, r"types is \[\]"),
        ({"other": torch.zeros(3)}, "no extra input called other. It takes types, weight beside input and target"),
    ],
)
def test_wrong_extras_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compiled("ids")(draw(3, 5, 6), draw(3, CLASSES), **{**GOOD, **change})


def test_missing_and_surplus_extras_are_refused() -> None:
    x, u = draw(3, 5, 6), draw(3, CLASSES)
    with pytest.raises(InputError, match=r"the extra input types is missing.*\(x, target, types=..., weight=...\)"):
        compiled("ids")(x, u)
    with pytest.raises(InputError, match=r"the extra input weight is missing.*\(x, target, weight=...\)"):
        compiled("ids")(x, u, GOOD["types"])
    with pytest.raises(InputError, match="types was given twice"):
        compiled("ids")(x, u, GOOD["types"], types=GOOD["types"], weight=GOOD["weight"])
    with pytest.raises(InputError, match="no extra input number 3"):
        compiled("ids")(x, u, *GOOD.values(), x)
    plain = fxpullback.compile(nn.Sequential(nn.Linear(6, 4), nn.ReLU()).eval(), torch.zeros(2, 6))
    with pytest.raises(InputError, match="no extra input called mask"):
        plain(torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64), mask=torch.zeros(2))


@pytest.mark.parametrize(
    ("example", "batched"),
    [
        (torch.randn(2, 3), True),
        (torch.randn(4, 4, dtype=torch.float64), False),
        (torch.tensor(0.5), False),
        (torch.randint(7, (5, 3)), True),
        (torch.randint(7, (2,), dtype=torch.int32), True),
        (torch.rand(3, 1, 6) > 0.4, True),
        (torch.zeros(4, 4).masked_fill(torch.ones(4, 4).triu(1) > 0, -torch.inf), False),
    ],
)
def test_fresh_extras_look_like_the_example(example: Tensor, batched: bool) -> None:
    spread = ExtraSpread.of(Extra("mask", example, batched))
    drawn, again = spread.draw(3, 1), ExtraSpread.from_dict(spread.to_dict()).draw(3, 1)
    assert torch.equal(drawn, again)
    assert drawn.dtype == example.dtype
    assert list(drawn.shape) == ([3, *example.shape[1:]] if batched else list(example.shape))
    if example.dtype == torch.bool or bool(torch.isinf(example.double()).any()):
        per_row = (example == example.flatten()[0]).flatten(-1).sum(-1).unique()
        assert set((drawn == example.flatten()[0]).sum(-1).unique().tolist()) <= set(per_row.tolist())
    elif not example.is_floating_point():
        assert {tuple(row) for row in drawn.reshape(3, -1).tolist()} <= {
            tuple(r) for r in example.reshape(len(example), -1).tolist()
        }
    else:
        assert float(drawn.min()) >= float(example.min()) or example.numel() == 1
        assert not torch.equal(drawn, spread.draw(3, 2))


def test_double_reads_the_extras_in_both_steps() -> None:
    pb = fxpullback.compile(CASES["condition"].network(), CASES["condition"].inputs(2, 1), program=Double(alpha=1.0))
    (condition,) = extra_inputs(pb.graph)
    assert len(condition.users) >= 1
    steps = {n.meta.get("fxpullback_step") for n in depends_on(pb.graph.graph, [condition])}
    assert 2 in steps
