"""The compiler from end to end, on small networks, against eager autograd."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, Ascent, Double, Pullback, Soft
from fxpullback.contract.errors import CaptureError, InputError, ProgramError
from fxpullback.graph.ir import INJECT, STOP_GRADIENT, calls, placeholders
from fxpullback.lower import simplify
from fxpullback.target import Target
from fxpullback.unroll import Program, unroll
from tests.helpers import assert_near, draw, pulled_back, variant
from tests.networks import CLASSES, NETWORKS, SIZE, compiled, network


@functools.cache
def exact(name: str) -> Pullback:
    return variant(compiled(name), rules=EXACT)


@functools.cache
def aimed(target: str) -> Pullback:
    return variant(compiled("convolutional"), target=target)


def pictures(batch: int, seed: int = 1) -> Tensor:
    return draw(batch, *SIZE, seed=seed)


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_exact_is_autograd(name: str, batch: int) -> None:
    model, x, u = network(name), pictures(batch), draw(batch, CLASSES, seed=2)
    logits, pullback = exact(name)(x, u)
    assert_near(logits, model(x).detach())
    assert_near(pullback, pulled_back(model, x, u))


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", NETWORKS)
def test_semantic_is_autograd_through_the_injected_form(name: str, batch: int) -> None:
    pb, model, x, u = compiled(name), network(name), pictures(batch), draw(batch, CLASSES, seed=2)
    logits, pullback = pb(x, u)
    assert torch.equal(pb.captured(x)[0], model(x))
    assert torch.equal(pb.rewritten(x)[0], model(x))
    assert_near(logits, model(x).detach())
    expected = pulled_back(lambda z: pb.rewritten(z)[0], x, u)
    assert_near(pullback, expected)
    plain = pulled_back(model, x, u)
    assert float((expected - plain).abs().max()) > 0.01 * float(plain.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_linear_in_the_cotangent(name: str) -> None:
    pb, x = compiled(name), pictures(2)
    a, b = draw(2, CLASSES, seed=3), draw(2, CLASSES, seed=4)
    assert_near(pb(x, 2 * a - 3 * b)[1], 2 * pb(x, a)[1] - 3 * pb(x, b)[1])
    assert not pb(x, torch.zeros(2, CLASSES).double())[1].any()


@pytest.mark.parametrize("name", NETWORKS)
def test_samples_do_not_mix(name: str) -> None:
    pb, x, u = compiled(name), pictures(3), draw(3, CLASSES, seed=2)
    alone = [pb(x[i : i + 1], u[i : i + 1]) for i in range(3)]
    for both, parts in zip(pb(x, u), zip(*alone, strict=True), strict=True):
        assert_near(both, torch.cat(parts))


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_is_forward_arithmetic_alone(name: str) -> None:
    pb = compiled(name)
    for node in pb.graph.graph.nodes:
        assert node.op in ("placeholder", "get_attr", "call_function", "output")
    for node in calls(pb.graph.graph):
        assert node.target not in (INJECT, STOP_GRADIENT)
        assert "backward" not in str(node.target)
    x = pictures(2).requires_grad_(True)
    assert not any(out.requires_grad for out in pb(x, draw(2, CLASSES)))
    assert len(placeholders(pb.graph.graph)) == 2


# Programs, against loops over samples and steps.


def oracle(program: Program, p: Callable[[Tensor], Tensor], f: Callable[[Tensor], Tensor], x: Tensor) -> list[Tensor]:
    """A program on one sample `[1, ...]`; p is the soft pullback, f the model."""
    if isinstance(program, Soft):
        return [f(x), p(x)]
    if isinstance(program, Double):
        return [f(x), p(x + program.alpha * unit(p(x)))]
    here = x.clone()
    for k in range(program.steps):
        here = here + program.alpha * unit(p(here))
        if program.eps is not None and float((here - x).norm()) > program.eps:
            here = x + (here - x) * (program.eps / float((here - x).norm()))
        last = k == program.steps - 1
        if program.clip is not None and (program.clip_when == "every" or (program.clip_when == "last" and last)):
            here = torch.minimum(torch.maximum(here, torch.tensor(program.clip[0])), torch.tensor(program.clip[1]))
    return [f(x), here - x, here, f(here)]


def unit(v: Tensor) -> Tensor:
    return v / max(float(v.norm()), 1e-20)


PROGRAMS: dict[str, Program] = {
    "soft": Soft(),
    "double": Double(alpha=3.0),
    "ascent-every": Ascent(steps=3, alpha=4.0),
    "ascent-last": Ascent(steps=3, alpha=4.0, clip_when="last"),
    "ascent-never": Ascent(steps=3, alpha=4.0, clip_when="never"),
    "ascent-without-clip": Ascent(steps=2, alpha=4.0, clip=None),
    "ascent-other-clip": Ascent(steps=2, alpha=4.0, clip=(-0.5, 2.0)),
    "ascent-ball": Ascent(steps=3, alpha=4.0, eps=5.0, clip=None),
    "ascent-ball-and-clip": Ascent(steps=3, alpha=4.0, eps=5.0),
    "ascent-wide-ball": Ascent(steps=2, alpha=1.0, eps=50.0, clip=None),
    "ascent-one-step": Ascent(steps=1, alpha=2.0),
}


@pytest.mark.parametrize(
    ("name", "program"),
    [*(("transformer", program) for program in PROGRAMS), ("convolutional", "double"), ("mobile", "ascent-every")],
)
def test_programs_against_loops(name: str, program: str) -> None:
    options, pb = PROGRAMS[program], compiled(name)
    graph = simplify(unroll(pb.step, options, "cotangent"))
    x, u = pictures(3).clamp(-1, 1), draw(3, CLASSES, seed=2)
    with torch.no_grad():
        found = graph(x, u)

    def f(z: Tensor) -> Tensor:
        result: Tensor = pb.rewritten(z)[0].detach()
        return result

    for i in range(3):

        def p(z: Tensor, mine: Tensor = u[i : i + 1]) -> Tensor:
            return pulled_back(lambda y: pb.rewritten(y)[0], z, mine)

        expected = oracle(options, p, f, x[i : i + 1])
        for part, wanted in zip(found, expected, strict=True):
            assert_near(part[i : i + 1], wanted, 1e-9)  # steps of length 4 carry the rounding of the pullback on


def test_outputs_of_ascent_are_named() -> None:
    model, x = network("convolutional"), pictures(1)
    pb = fxpullback.compile(model, (x,), program=Ascent(steps=1), target="top1")
    assert pb.output_names == ("logits", "pullback", "counterfactual", "counterfactual_logits")
    logits, pullback, counterfactual, after = pb(x)
    assert_near(counterfactual, x + pullback)
    assert_near(after, model(counterfactual).detach())
    assert float(after[0, logits.argmax()] - logits.max()) > 0


class Scaled(nn.Module):
    """A linear map whose pullback of the first class is `row`, whatever the input."""

    def __init__(self, row: Tensor) -> None:
        super().__init__()
        self.row = nn.Buffer(row)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(x * self.row).sum(1), (x * 0.0).sum(1)], 1)


@pytest.mark.parametrize("length", [1.0, 1e-15, 1e-19, 1e-21, 1e-30, 1e-38, 1e25, 0.0])
def test_direction_of_tiny_and_huge_pullbacks(length: float) -> None:
    """v / max(|v|, 1e-20) in float32, where the squares under- and overflow."""
    v = torch.tensor([0.6, -0.8, 0.0, 0.0], dtype=torch.float64) * length
    pb = fxpullback.compile(Scaled(v.float()).eval(), torch.zeros(1, 4), program=Ascent(steps=1, alpha=1.0, clip=None))
    _, moved, *_ = pb(torch.zeros(2, 4), torch.tensor([0, 1]))
    expected = (v / max(float(v.norm()), 1e-20)).float()
    assert torch.isfinite(moved).all()
    assert torch.allclose(moved[0], expected, rtol=1e-5, atol=0.0)  # float32: 24 bits, a handful of roundings
    assert not moved[1].any()


# Targets.


KINDS: tuple[Target, ...] = ("index", "contrast", "top1")


def test_index_top1_and_contrast_are_cotangents() -> None:
    pb, x = compiled("convolutional"), pictures(3)
    eye = torch.eye(CLASSES).double()
    by = {kind: simplify(unroll(pb.step, Soft(), kind)) for kind in KINDS}
    index = torch.tensor([4, 0, 2])
    assert torch.equal(by["index"](x, index)[1], pb(x, eye[index])[1])
    pairs = torch.tensor([[4, 1], [0, 3], [2, 2]])
    assert torch.equal(by["contrast"](x, pairs)[1], pb(x, eye[pairs[:, 0]] - eye[pairs[:, 1]])[1])
    logits, pullback = by["top1"](x)
    assert torch.equal(pullback, pb(x, eye[logits.argmax(1)])[1])


def test_top1_keeps_the_class_it_began_with() -> None:
    """Later steps explain the class that was on top at the start."""
    pb, x = compiled("transformer"), pictures(4)
    program = Ascent(steps=3, alpha=4.0)
    top = simplify(unroll(pb.step, program, "top1"))(x)
    index = simplify(unroll(pb.step, program, "index"))(x, top[0].argmax(1))
    for a, b in zip(top, index, strict=True):
        assert torch.equal(a, b)


# Bad input.

GOOD = torch.zeros(2, *SIZE).double()
BAD: dict[str, tuple[Any, str]] = {
    "rank": (GOOD[0], "compiled for"),
    "size": (torch.zeros(2, 3, 16, 15).double(), r"\[batch, 3, 16, 16\]"),
    "empty": (GOOD[:0], "compiled for"),
    "type": (GOOD.float(), "float64"),
    "nan": (GOOD * float("nan"), "NaN"),
    "infinite": (GOOD + float("inf"), "infinite"),
    "list": ([1.0], "list"),
}
TARGETS: dict[str, tuple[str, Any, str]] = {
    "index-missing": ("index", None, "must be a tensor"),
    "index-too-large": ("index", torch.tensor([0, CLASSES]), "no class 5.*0 to 4"),
    "index-negative": ("index", torch.tensor([-1, 0]), "no class -1"),
    "index-of-another-batch": ("index", torch.tensor([1]), r"int64 \[2\]"),
    "index-of-floats": ("index", torch.tensor([1.0, 0.0]), "float32"),
    "index-number": ("index", 3, "must be a tensor, got int"),
    "contrast-of-one": ("contrast", torch.tensor([1, 0]), "pairs"),
    "contrast-class": ("contrast", torch.tensor([[0, 1], [2, 9]]), "no class 9"),
    "cotangent-shape": ("cotangent", torch.zeros(2, 4).double(), r"floats \[2, 5\]"),
    "cotangent-nan": ("cotangent", torch.full((2, 5), float("nan")).double(), "NaN"),
    "cotangent-of-integers": ("cotangent", torch.zeros(2, 5, dtype=torch.int64), "floats"),
    "top1-with-target": ("top1", torch.tensor([0, 0]), "takes no target"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case: str) -> None:
    x, message = BAD[case]
    with pytest.raises(InputError, match=message):
        compiled("convolutional")(x, torch.zeros(2, CLASSES).double())


@pytest.mark.parametrize("case", TARGETS)
def test_bad_target_is_refused(case: str) -> None:
    kind, target, message = TARGETS[case]
    with pytest.raises(InputError, match=message):
        aimed(kind)(GOOD, target)


def test_more_than_one_example_is_refused() -> None:
    with pytest.raises(CaptureError, match="cannot be called with 2 example inputs"):
        fxpullback.compile(network("convolutional"), (GOOD, GOOD))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Double(alpha=0.0), "alpha"),
        (lambda: Double(alpha=float("inf")), "alpha"),
        (lambda: Ascent(steps=0), "steps"),
        (lambda: Ascent(steps=2.5), "steps"),  # type: ignore[arg-type]
        (lambda: Ascent(steps=True), "steps"),
        (lambda: Ascent(clip=(1.0, -1.0)), "clip"),
        (lambda: Ascent(clip_when="often"), "clip_when"),  # type: ignore[arg-type]
        (lambda: Ascent(eps=-1.0), "eps"),
        (lambda: fxpullback.compile(nn.Linear(2, 2), torch.zeros(1, 2), target="top-1"), "top-1.*index, top1"),
    ],
)
def test_bad_options_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        make()


# What compile leaves alone.


def test_model_is_left_as_it_is() -> None:
    model = network("mobile").train()
    model.register_forward_hook(lambda module, inputs, output: None)
    before = copy.deepcopy(model.state_dict())
    identities = {name: id(p) for name, p in model.named_parameters()}
    modes = [module.training for module in model.modules()]
    hooks = [len(module._forward_hooks) for module in model.modules()]
    with pytest.warns(UserWarning, match="training mode"):
        pb = fxpullback.compile(model, GOOD[:1])
    pb(GOOD, torch.tensor([0, 1]))
    assert [module.training for module in model.modules()] == modes
    assert [len(module._forward_hooks) for module in model.modules()] == hooks
    assert {name: id(p) for name, p in model.named_parameters()} == identities
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_compiled_graph_does_not_follow_the_model() -> None:
    model = network("mobile")
    pb = fxpullback.compile(model, GOOD[:1], target="top1")
    x = pictures(2)
    before = pb(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    for a, b in zip(before, pb(x), strict=True):
        assert torch.equal(a, b)


def test_stages_are_announced_in_order() -> None:
    stages: list[str] = []
    fxpullback.compile(nn.Linear(2, 2).eval(), torch.zeros(1, 2), progress=stages.append)
    assert stages == ["capture", "calibrate", "rewrite", "fold", "differentiate", "lower", "unroll"]


def test_keep_exact_is_that_of_the_rule_set() -> None:
    model, x, u = network("transformer"), pictures(2), draw(2, CLASSES)
    pb = fxpullback.compile(model, x, keep_exact=["attention", "gelu", "layer_norm"], target="cotangent")
    assert_near(pb(x, u)[1], pulled_back(model, x, u))
