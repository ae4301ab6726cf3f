"""Parts of a logit: by hand, against autograd of every constant, in programs and files, and where they are wrong."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, SEMANTIC, Ascent, Double, Pullback, Soft
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import TapError
from fxpullback.contract.parts import COLUMNS, Parts
from fxpullback.differentiate import differentiate
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import RULE, aten, calls
from fxpullback.parts.additive import ADDITIVE
from fxpullback.parts.eager import parts_by_autograd
from tests.helpers import assert_near, changed, draw
from tests.parts.nets import Attending, Normed, Numbers, Token, normed, plain
from tests.taps.nets import Vision, falling
from tests.vjp.groups import group
from tests.vjp.rows import GROUPS

PROGRAMS: dict[str, Any] = {"soft": Soft(), "double": Double(2.0), "ascent": Ascent(2, 1.0)}
RULES = {"semantic": SEMANTIC, "exact": EXACT}
COMPLETE = "parts: input and biases are all there is, float64"
X, U = draw(3, 3, 8, 8, seed=5), draw(3, 5, seed=6)


def made(model: nn.Module, x: Tensor, rules: str = "exact", **options: Any) -> Pullback:
    options = {"target": "cotangent", "bias": "share", **options}
    return fxpullback.compile(model.double().eval(), x[:2], rules=RULES[rules], **options)


def parts_at(pb: Pullback, x: Tensor, u: Tensor) -> Tensor:
    """The parts, which sum to what is explained of the logits at x."""
    found = dict(zip(pb.output_names, pb(x, u), strict=True))
    if isinstance(pb.program, Soft):
        assert_near(found["parts"].sum(1), (found["logits"] * u).sum(1))
    return found["parts"]


def test_of_two_layers_by_hand() -> None:
    """At (1, 1) the first layer gives (3.5, -10, 4.5): the middle gate is shut. Logit 0: 2 * 3.5 - 4.5 + 0.25."""
    x = torch.ones(2, 2, dtype=torch.float64)
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = parts_at(made(Numbers(), x), x, u)
    assert_near(found, torch.tensor([[2.5, 0.25, 0.0], [3.5, 0.5, 0.0]], dtype=torch.float64))


def test_a_soft_gate_adds_what_it_lets_through_differently() -> None:
    x = torch.full((2, 2), -0.25, dtype=torch.float64)
    u = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    found = parts_at(made(Numbers(), x, "semantic"), x, u)
    at = Numbers().double().first(x)
    gate = torch.special.ndtr(at / 0.6)
    added = ((torch.relu(at) - at * gate) * (u @ Numbers().double().second.weight)).sum(1)
    assert bool((added.abs() > 1e-3).all())
    assert_near(found[:, 2], added.detach())


def test_of_a_layer_norm_whose_statistics_are_held() -> None:
    model, x, u = Normed().double(), draw(3, 6, seed=7) + 2, draw(3, 4, seed=8)
    found = parts_at(made(model, x, "semantic"), x, u)
    c = u @ model.head.weight.detach()
    mean, rstd = x.mean(1, keepdim=True), torch.rsqrt(x.var(1, correction=0, keepdim=True) + model.norm.eps)
    scale = model.norm.weight.detach() * rstd
    shift = (model.norm.bias.detach() - mean * scale) * c
    biases = shift.sum(1) + u @ model.head.bias.detach()
    assert_near(found, torch.stack([(x * scale * c).sum(1), biases, torch.zeros(3, dtype=x.dtype)], 1))


def test_an_exact_layer_norm_is_a_gate_and_its_shift_a_bias() -> None:
    model, x, u = Normed().double(), draw(3, 6, seed=7), draw(3, 4, seed=8)
    found = parts_at(made(model, x), x, u)
    biases = (u @ model.head.weight.detach()) @ model.norm.bias.detach() + u @ model.head.bias.detach()
    assert_near(found[:, 1], biases)
    assert bool((found[:, 0].abs() < 1e-4 * found[:, 2].abs()).all()), "a norm does not see how large its input is"


def test_of_a_class_token_and_places() -> None:
    model, x, u = Token().double(), draw(3, 3, 4, seed=9), draw(3, 3, seed=10)
    found = parts_at(made(model, x), x, u)
    c = (u @ model.head.weight.detach())[:, None] * model.mix.detach()[:, None]
    of_token, of_place = (model.token.detach() * c[:, :1]).sum((1, 2)), (model.place.detach() * c).sum((1, 2))
    none = torch.zeros(3, dtype=x.dtype)
    assert_near(found, torch.stack([(x * c[:, 1:]).sum((1, 2)), of_token + of_place, none], 1))


def test_of_attention_that_is_held() -> None:
    model, x, u = Attending().double(), draw(3, 5, 4, seed=11), draw(3, 4, seed=12)
    found = parts_at(made(model, x, "semantic"), x, u)
    c = u @ model.head.weight.detach()
    biases = c @ model.v.bias.detach() + u @ model.head.bias.detach()
    assert_near(found[:, 1], biases)  # rows of attention sum to one; queries and keys pass nothing on
    assert bool((found[:, 2].abs() < 1e-12).all())


def test_biases_against_autograd_of_every_one() -> None:
    model = plain().double()
    biases = {name: b for name, b in model.named_parameters() if name.endswith("bias")}
    wanted = []
    for x, u in zip(X.split(1), U.split(1), strict=True):
        gradients = torch.autograd.grad((model(x) * u).sum(), list(biases.values()))
        wanted.append(
            torch.stack([(b * g).sum() for b, g in zip(biases.values(), gradients, strict=True)]).sum().detach()
        )
    assert_near(parts_at(made(model, X), X, U)[:, 1], torch.stack(wanted))


@pytest.mark.parametrize("rules", RULES)
def test_soft_biases_against_autograd_of_the_constants_that_are_added(rules: str) -> None:
    pb = made(normed(), X, rules)
    wide = in_float64(pb.folded)
    constants = [c for c in wide.buffers() if c.ndim == 1 and c.is_floating_point()]
    assert len(constants) == 4, "of two convolutions, the norm that is not folded, and the linear map"
    for constant in constants:
        constant.requires_grad_(True)
    wanted = []
    for x, u in zip(X.split(1), U.split(1), strict=True):
        gradients = torch.autograd.grad((wide(x)[0] * u).sum(), constants)
        wanted.append(torch.stack([(b * g).sum() for b, g in zip(constants, gradients, strict=True)]).sum().detach())
    assert_near(parts_at(pb, X, U)[:, 1], torch.stack(wanted))


@pytest.mark.parametrize("model", [plain, normed])
def test_where_all_is_linear_in_pieces_gates_add_nothing(model: Any) -> None:
    pb = made(model(), X)
    found = parts_at(pb, X, U)
    assert bool((found[:, 2].abs() < 1e-12 * found.abs().sum(1)).all())
    certificate = pb.verify()
    assert certificate.passed, str(certificate)
    assert COMPLETE in {check.name for check in certificate.checks}
    assert COMPLETE not in {check.name for check in made(model(), X, "semantic").verify().checks}


@cache
def compiled(rules: str, program: str) -> Pullback:
    x = draw(3, 3, 16, 16, seed=5)
    return made(falling(), x, rules, program=PROGRAMS[program], taps="auto", each_tap=True)


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_certificate_covers_the_parts(rules: str, program: str) -> None:
    certificate = compiled(rules, program).verify(seed=4)
    assert certificate.passed, str(certificate)
    assert len([c for c in certificate.checks if "parts" in c.name]) == 4


def test_ascent_gives_the_parts_of_the_input_and_double_those_of_its_second_pass() -> None:
    x = draw(3, 3, 16, 16, seed=5)
    soft, ascent, double = (parts_at(compiled("semantic", program), x, U) for program in PROGRAMS_IN_ORDER)
    assert_near(ascent, soft)
    first = compiled("semantic", "soft")(x, U)[1]
    moved = x + 2.0 * first / first.flatten(1).norm(dim=1)[:, None, None, None]
    assert_near(double, parts_at(compiled("semantic", "soft"), moved, U))
    assert compiled("semantic", "double").parts == Parts("second pass")
    assert compiled("semantic", "ascent").parts == Parts()


PROGRAMS_IN_ORDER = ("soft", "ascent", "double")


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", GROUPS)
def test_constants_of_every_operator_against_what_it_does_not_pass_on(name: str) -> None:
    """Some rows mix the samples of a batch, so that a sample alone has another pullback; what constants add stays."""
    whole = group(name)
    parts = differentiate(whole.captured, parts=True)(whole.x, whole.ct)[-1].detach()
    assert_near(parts.sum(1), (whole.runs[0][0] * whole.ct).sum(1).detach())
    if name == "resize":  # torch's own adjoint of nearest neighbours at 41 times the size is not that of its forward
        assert not parts[:, 1].any()
        return
    wanted = parts_by_autograd(whole.captured, Inputs(whole.x), whole.ct)
    rounding = (
        1e-7 if name == "arithmetic" else 1e-12
    )  # a row casts to float32, which is no linear map to the last digit
    error = (parts[:, 1] - wanted[:, 1]).abs() / wanted.abs().sum(1)
    assert float(error.max()) <= rounding


def test_a_constant_that_is_not_known_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ADDITIVE, aten.convolution.default)
    failed = {c.name for c in made(plain(), X).verify().checks if not c.passed}
    assert failed == {
        "parts: graph against autograd operator by operator, float64",
        "soft: parts against autograd, float64",
        COMPLETE,
    }


def test_a_broken_graph_is_found_out() -> None:
    pb = compiled("semantic", "soft")
    step = copy.deepcopy(pb.step)
    node = next(n for n in calls(step.graph) if n.meta.get(RULE) == "parts" and n.target is aten.mul.Tensor)
    changed(step, node, aten.mul.Tensor, 1.001)
    failed = {c.name for c in replace(pb, step=step).verify().checks if not c.passed}
    assert failed == {"parts: graph against autograd operator by operator, float64"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_in_a_file(program: str, tmp_path: Path) -> None:
    x, classes = draw(3, 3, 16, 16, seed=5, dtype=torch.float32), torch.tensor([0, 3, 1])
    pb = fxpullback.compile(
        falling(), x[:2], rules=SEMANTIC, program=PROGRAMS[program], taps="auto", each_tap=True, bias="share"
    )
    path = tmp_path / "parts.onnx"
    to_onnx(pb, path)
    session = Session(path)
    found, wanted = session(x.numpy(), classes.numpy()), pb(x, classes)[-1]
    assert session.parts == pb.parts
    assert session.outputs[-1] == "parts"
    assert found.parts is not None
    assert found.bias_share is not None
    assert found["parts"].shape == (3, len(COLUMNS))
    np.testing.assert_allclose(found.parts, wanted.numpy(), atol=1e-5 * float(wanted.abs().max()))
    np.testing.assert_array_equal(found.bias_share, found.parts[:, 1])
    assert recheck(path).passed


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_in_half_precision(precision: str, tmp_path: Path) -> None:
    x = draw(3, 3, 16, 16, seed=5, dtype=torch.float32)
    pb = fxpullback.compile(falling(), x[:2], rules=SEMANTIC, bias="share")
    to_onnx(pb, tmp_path / "half.onnx", precision=precision)
    held = {prop.key: prop.value for prop in onnx.load(tmp_path / "half.onnx").metadata_props}
    names = [check["name"] for check in (md.parse(held).certificate or {})["checks"]]
    assert any(name.startswith(precision) and "parts" in name for name in names)


def test_with_an_extra_a_contrast_and_free_sizes() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv2d(3, 4, 3, 1, 1), nn.Linear(4, 3)

        def forward(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = (self.body(x) + mask[:, :, None, None]).mean((2, 3))
            result: Tensor = self.head(torch.relu(scores))
            return result

    x, mask = draw(3, 3, 8, 8, seed=5), draw(3, 4, seed=6)
    pb = fxpullback.compile(
        Masked().double().eval(), (x[:2], mask[:2]), rules=EXACT, target="contrast", bias="share", free_size=True
    )
    logits, _, parts = pb(x, torch.tensor([[0, 1], [2, 1], [1, 0]]), mask)
    assert_near(
        parts.sum(1),
        torch.stack([logits[0, 0] - logits[0, 1], logits[1, 2] - logits[1, 1], logits[2, 1] - logits[2, 0]]),
    )
    certificate = pb.verify()
    assert certificate.passed, str(certificate)
    assert any(check.name.endswith(": parts, float64") for check in certificate.checks)


def test_of_a_transformer_with_windows_and_masks() -> None:
    model, x = Vision(front=1, back=2, fused=True).double().eval(), draw(3, 3, 12, 16)
    for rules in RULES:
        pb = made(model, x, rules)
        certificate = pb.verify()
        assert certificate.passed, str(certificate)


def test_without_it_there_are_no_parts() -> None:
    pb = made(plain(), X, bias=None)
    assert pb.parts is None
    assert pb.output_names == ("logits", "pullback")


def test_another_word_is_refused() -> None:
    with pytest.raises(TapError, match="bias is 'all'"):
        made(plain(), X, bias="all")
    with pytest.raises(ValueError, match="its parts are a, b"):
        Parts.from_dict({"columns": ["a", "b"], "at": "input"})
