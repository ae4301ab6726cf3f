"""The certificate must fail for every kind of wrong graph, and name where it goes wrong."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import Pullback
from fxpullback.certify.magnified import ROUNDING
from fxpullback.contract.certificate import Certificate, at_least, at_most
from fxpullback.contract.errors import VerifyError
from fxpullback.export import to_onnx
from fxpullback.graph.ir import ORIGIN, TRANSPOSES, aten, calls
from tests.helpers import changed, draw, variant


def network(classes: int = 5) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, classes)
    ).eval()


@cache
def compiled() -> Pullback:
    return fxpullback.compile(network(), torch.randn(1, 6))


def failed(certificate: Certificate) -> dict[str, str]:
    assert not certificate.passed
    return {c.name: c.detail for c in certificate.checks if not c.passed}


def test_a_right_graph_passes() -> None:
    certificate = compiled().verify(seed=3)
    assert certificate.passed, str(certificate)
    assert Certificate.from_dict(certificate.to_dict()) == certificate


def test_a_wrong_cotangent_is_named() -> None:
    pb = compiled()
    step = copy.deepcopy(pb.step)
    node = next(n for n in calls(step.graph) if n.meta.get(TRANSPOSES) == "linear_1")
    changed(step, node, aten.mul.Tensor, 1.001)
    details = failed(replace(pb, step=step).verify())
    assert "aten.linear" in details["pullback: graph against autograd, float64"] or (
        "layer_norm" in details["pullback: graph against autograd, float64"]
    )
    assert "pullback: dot test with forward mode" in details


class Chaotic(nn.Module):
    """The logistic map: what is rounded at first is twice as far off at every step."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(40):
            x = 3.99 * x * (1 - x)
        return x


@pytest.mark.parametrize("model", [Chaotic(), network()], ids=["chaotic", "sane"])
def test_a_model_that_magnifies_rounding_is_called_so(model: nn.Module) -> None:
    pb = fxpullback.compile(model.eval(), torch.rand(1, 6) * 0.8 + 0.1)
    step = copy.deepcopy(pb.step)
    last = list(calls(step.graph))[-1]
    changed(step, last, aten.mul.Tensor, 1.001)
    details = failed(replace(pb, step=step).verify())
    assert "pullback: graph against autograd, float64" in details
    assert (ROUNDING in details) == isinstance(model, Chaotic)


class Cancelling(nn.Module):
    """A huge part that the next layer takes away again: float64 agrees, float32 has half its logits in rounding."""

    def __init__(self, size: float) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
            along = torch.nn.functional.normalize(torch.randn(16), dim=0)
            with torch.no_grad():
                self.a.weight += size * torch.outer(along, torch.randn(16) / 4)
                self.b.weight -= torch.outer(self.b.weight @ along, along)

    def forward(self, x: Tensor) -> Any:
        return self.c(torch.relu(self.b(self.a(x))))


@pytest.mark.parametrize(("size", "passes"), [(1e3, True), (1e9, False)])
def test_bounds_follow_what_was_measured(size: float, passes: bool, tmp_path: Path) -> None:
    pb = fxpullback.compile(Cancelling(size).eval(), torch.randn(2, 16))
    certificate = pb.verify()
    assert certificate.passed == passes
    if not passes:
        assert set(failed(certificate)) == {ROUNDING}
        with pytest.raises(VerifyError, match="magnifies rounding") as raised:
            to_onnx(pb, tmp_path / "cancelling.onnx")
        assert "report" not in str(raised.value)
        assert fxpullback.compile(Cancelling(size).double().eval(), draw(2, 16)).verify().passed


def test_a_wrong_primal_is_named() -> None:
    pb = compiled()
    rewritten = copy.deepcopy(pb.rewritten)
    changed(rewritten, next(n for n in calls(rewritten.graph) if n.name == "silu"), aten.add.Tensor, 1e-3)
    details = failed(replace(pb, rewritten=rewritten).verify())
    assert "aten.silu at 1" in details["logits: injected form against the model, bit for bit"] or (
        "layer_norm" in details["logits: injected form against the model, bit for bit"]
    )


def test_a_lost_soft_adjoint_fails() -> None:
    """The graph of the plain gradient has the same logits; autograd through the injected form tells them apart."""
    pb, plain = compiled(), variant(compiled(), rules=fxpullback.EXACT)
    details = failed(replace(pb, step=plain.step, graph=plain.graph).verify())
    assert "logits: lowered graph against the model" not in details
    assert "pullback: graph against autograd, float64" in details


def test_a_program_that_is_another_fails() -> None:
    pb, other = compiled(), variant(compiled(), program=fxpullback.Double(alpha=1.0))
    assert set(failed(replace(pb, graph=other.graph).verify())) == {"soft: pullback against autograd, float64"}


def test_a_pullback_that_mixes_samples_fails() -> None:
    pb = compiled()
    step = copy.deepcopy(pb.step)
    node = next(n for n in reversed(list(calls(step.graph))) if n.meta.get(ORIGIN) == "linear")
    changed(step, node, aten.flip.default, [0])
    assert "a sample alone gives what it gives in a batch" in failed(replace(pb, step=step).verify())


def test_a_model_of_constant_logits_is_checked_all_the_same() -> None:
    head = nn.Linear(8, 5)
    nn.init.zeros_(head.weight)
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), head).eval()
    certificate = fxpullback.compile(model, torch.randn(1, 6)).verify()
    assert certificate.passed
    assert "all-zero weights drawn at random" in str(certificate)
    assert not bool(head.weight.any())


def test_nan_never_passes() -> None:
    assert not at_most("x", float("nan"), 1.0).passed
    assert not at_least("x", float("nan"), 0.0).passed
    assert not Certificate(()).passed


@pytest.mark.parametrize("batch", [1, 4])
def test_fresh_inputs_have_the_spread_of_the_example(batch: int) -> None:
    from fxpullback.certify.fresh import Spread, fresh_inputs

    example = torch.randn(1, 3, 32, 32) * 2 + 1
    fresh: Tensor = fresh_inputs(Spread.of(example), batch, 0)
    assert list(fresh.shape) == [batch, 3, 32, 32]
    assert abs(float(fresh.mean()) - 1) < 0.2
    assert float(fresh.max()) <= float(example.max())
    assert not torch.equal(fresh, fresh_inputs(Spread.of(example), batch, 1))


def test_tokens_made_of_a_normalised_map_are_certified() -> None:
    """torch's own adjoint of batch norm at batch 1 is wrong where the cotangent arrives transposed."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(512, 5)
            nn.init.uniform_(self.norm.weight, 0.5, 2.0)
            nn.init.uniform_(self.norm.weight, 0.5, 2.0)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.norm(self.conv(x)).flatten(2).transpose(1, 2)
            logits: Tensor = self.head(torch.relu(tokens.flatten(1)))
            return logits

    torch.manual_seed(0)
    certificate = fxpullback.compile(Tokens().eval(), (torch.randn(1, 3, 10, 10),)).verify()
    assert certificate.passed, str(certificate)


def test_floats_made_in_the_forward_are_widened_too() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Linear(2, 4), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            grid = torch.zeros(1, 4, 2)
            grid[..., 0] = torch.arange(4)
            logits: Tensor = self.head(torch.relu(x[:, None] + self.embed(grid)).mean(1))
            return logits

    torch.manual_seed(0)
    certificate = fxpullback.compile(Positions().eval(), (torch.randn(1, 4),)).verify()
    assert certificate.passed, str(certificate)


class Mixing(nn.Module):
    """Every sample sees the mean of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        logits: Tensor = self.last(h + h.mean(0, keepdim=True))
        return logits


def test_a_model_that_mixes_its_samples_is_refused_and_told_why() -> None:
    torch.manual_seed(0)
    certificate = fxpullback.compile(Mixing().double().eval(), torch.zeros(2, 4).double()).verify()
    (failed,) = [c for c in certificate.checks if c.name == "a sample alone gives what it gives in a batch"]
    assert not failed.passed
    assert "the model itself mixes the samples of a batch" in failed.detail
    assert "the model itself mixes" in str(certificate)
