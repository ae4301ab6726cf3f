"""The stored pullbacks of the method authors' own code, under `REFERENCE`, in float64."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import fxpullback
from fxpullback import REFERENCE, Ascent, Double, Pullback
from fxpullback.lower import simplify
from fxpullback.unroll import Program, run_program, unroll

NAMES = ("cifar_resnet20", "tiny_vgg", "pvt_v2_b0", "test_efficientnet", "mha_vit", "tiny_convnext", "vit_tiny")
LARGE = ("pvt_v2_b0", "vit_tiny")  # one of their pictures is enough to wait for
# The arrays are stored in float32; a step of ascent is long enough to carry its rounding on.
SOFT, DOUBLE, ASCENT = 1e-6, 1e-6, 1e-5


@functools.cache
def loaded(fixtures: Any, name: str) -> tuple[Any, Pullback]:
    """A fixture and its compiled network; the programs share everything up to their unrolling."""
    fx = fixtures.load(name)
    rules = REFERENCE.keep_exact("attention") if "keeps its exact" in fx.rules else REFERENCE
    if name in LARGE:
        first = {key: getattr(fx, key)[:1] for key in ("x", "target", "logits", "soft", "double", "ascent")}
        fx = dataclasses.replace(fx, **first)
    return fx, fxpullback.compile(fx.model.double(), fx.x[:1].double(), rules=rules)


def relative(found: Tensor, stored: Tensor) -> float:
    return float((found - stored).abs().max() / stored.abs().max())


def test_names_are_those_of_the_folder(fixtures_module: Any) -> None:
    assert sorted(fixtures_module.NAMES) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_soft(fixtures_module: Any, name: str) -> None:
    fx, pb = loaded(fixtures_module, name)
    logits, pullback = pb(fx.x.double(), fx.target)
    assert relative(logits, fx.logits) < SOFT
    assert relative(pullback, fx.soft) < SOFT


def run(pb: Pullback, program: Program, fx: Any) -> tuple[Tensor, ...]:
    with torch.no_grad():
        results: tuple[Tensor, ...] = simplify(unroll(pb.step, program, "index"))(fx.x.double(), fx.target)
    return results


def stepwise(pb: Pullback, program: Program, fx: Any) -> tuple[Tensor, ...]:
    """The same from the graph of one step, without a graph of all of them: large networks take a while to unroll."""
    seed = torch.eye(pb.classes).double()[fx.target]

    def step(x: Tensor, u: Any) -> tuple[Tensor, Tensor, Tensor]:
        logits, pullback = pb.step(x, seed)
        return logits, pullback, seed

    with torch.no_grad():
        return tuple(run_program(program, step, fx.x.double(), lambda logits: seed).values())


@pytest.mark.parametrize("name", NAMES)
def test_double(fixtures_module: Any, name: str) -> None:
    fx, pb = loaded(fixtures_module, name)
    assert relative(run(pb, Double(alpha=fx.alpha_double), fx)[1], fx.double) < DOUBLE


@pytest.mark.parametrize("name", NAMES)
def test_ascent(fixtures_module: Any, name: str) -> None:
    fx, pb = loaded(fixtures_module, name)
    program = Ascent(steps=fx.steps, alpha=fx.alpha, clip=None)
    _, moved, counterfactual, _ = (stepwise if name == "pvt_v2_b0" else run)(pb, program, fx)
    assert relative(counterfactual, fx.ascent) < ASCENT
    assert relative(moved, fx.ascent - fx.x) < ASCENT


@pytest.mark.parametrize("name", NAMES)
def test_rules_are_the_ones_the_authors_have(fixtures_module: Any, name: str) -> None:
    fx, pb = loaded(fixtures_module, name)
    found = {row.rule for row in pb.ledger.rows if row.rule}
    words = {"relu": "ReLU", "silu": "SiLU", "gelu": "GELU", "max_pool": "max-pool", "layer_norm": "layer norm"}
    expected = {rule for rule, word in words.items() if word in fx.rules}
    assert found - {"attention"} == expected
    assert ("attention" in found) == ("constant attention weights" in fx.rules)
