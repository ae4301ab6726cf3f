"""Gates expected under logistic noise, against quadrature of its density; which rules take noise, and which do not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC, errors
from fxpullback.export import to_onnx
from fxpullback.rules import activations as rules
from fxpullback.rules.noise import LOGISTIC, NORMAL
from fxpullback.rules.rule import Rule
from tests.helpers import TOLERANCE, assert_near, draw, pulled_back, variant
from tests.networks import CLASSES, SIZE, compiled
from tests.rules.oracles import _NODES, _WEIGHTS, Pointwise, slope_by_autograd

Z = torch.tensor([0.0, 0.5, -0.5, 3.0, -3.0, 25.0, -25.0, *torch.linspace(-4.03, 4.07, 14)], dtype=torch.float64)
TEMPERATURES = (0.3, 0.6, 1.702, 8.0)


def expected_slope(slope: Pointwise, z: Tensor, temperature: float, kinks: Sequence[float] = ()) -> Tensor:
    """E[slope(z + T e)], 1.702 e standard logistic, by Gauss-Legendre on pieces no kink divides, out to 40 units."""
    scale = temperature / 1.702

    def at(v: float) -> Tensor:
        pieces = max(160, math.ceil(80 * scale * 4))
        inner = [(kink - v) / scale for kink in kinks if abs(kink - v) < 40 * scale]
        edges = torch.tensor(sorted([*torch.linspace(-40, 40, pieces + 1).tolist(), *inner]), dtype=torch.float64)
        low, high = edges[:-1, None], edges[1:, None]
        l = (low + high) / 2 + (high - low) / 2 * _NODES  # noqa: E741
        density = torch.exp(-l.abs()) / (1 + torch.exp(-l.abs())) ** 2
        return (slope(v + scale * l) * density * (high - low) / 2 * _WEIGHTS).sum()

    return torch.stack([at(float(v)) for v in z])


GATES: dict[str, tuple[Rule, Pointwise, tuple[Any, ...], tuple[float, ...]]] = {
    "relu": (rules.relu, F.relu, (), (0,)),
    "hardtanh": (rules.hardtanh, F.hardtanh, (), (-1, 1)),
    "clamp": (rules.clamp, lambda x: x.clamp_min(0.5), (0.5,), (0.5,)),
    "threshold": (rules.threshold, lambda x: F.threshold(x, 0.5, 2.0), (0.5, 2.0), (0.5,)),
    "leaky_relu": (rules.leaky_relu, lambda x: F.leaky_relu(x, 0.3), (0.3,), (0,)),
    "prelu": (rules.prelu, lambda x: F.leaky_relu(x, 0.25), (torch.tensor([0.25]).double(),), (0,)),
    "elu": (rules.elu, F.elu, (), (0,)),
    "elu, scaled": (rules.elu, lambda x: 1.3 * F.elu(x * 0.9, 0.7) / 1, (0.7, 1.3, 0.9), (0,)),
    "selu": (rules.selu, F.selu, (), (0,)),
    "celu": (rules.celu, lambda x: F.celu(x, 0.5), (0.5,), (0,)),
    "softplus": (rules.softplus, lambda x: F.softplus(x, 2.0, 1e3), (2.0, 1e3), ()),
    "sigmoid": (rules.sigmoid, torch.sigmoid, (), ()),
    "tanh": (rules.tanh, torch.tanh, (), ()),
    "log_sigmoid": (rules.log_sigmoid, F.logsigmoid, (), ()),
    "hardsigmoid": (rules.hardsigmoid, lambda x: (x + 3).clamp(0, 6) / 6, (), (-3, 3)),
    "softshrink": (rules.softshrink, F.softshrink, (), (-0.5, 0.5)),
    "hardshrink": (rules.hardshrink, lambda x: F.hardshrink(x, 1.0), (1.0,), (-1, 1)),
    "erf": (rules.erf, torch.erf, (), ()),
    "ndtr": (rules.ndtr, torch.special.ndtr, (), ()),
}


def softened(name: str, temperature: float) -> Callable[[Tensor], Tensor]:
    rule, _, arguments, _ = GATES[name]
    return lambda x: rule(x, *arguments, temperature=temperature, noise=LOGISTIC)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", GATES)
def test_expectation_is_the_integral_over_the_logistic_density(name: str, temperature: float) -> None:
    _, primal, _, kinks = GATES[name]
    found = pulled_back(softened(name, temperature), Z, torch.ones_like(Z))
    slope = slope_by_autograd(primal)
    if name == "elu, scaled":  # elu(x, alpha, scale, input_scale) scales its input below zero alone
        slope = lambda x: torch.where(x > 0, 1.3, 1.3 * 0.7 * 0.9 * torch.exp(0.9 * x.clamp(max=0)))  # noqa: E731
    assert_near(found, expected_slope(slope, Z, temperature, kinks), TOLERANCE)


@pytest.mark.parametrize("name", GATES)
def test_limit_is_that_of_normal_noise(name: str) -> None:
    rule, _, arguments, _ = GATES[name]
    x = torch.linspace(-4.03, 7.07, 40, dtype=torch.float64)
    normal = pulled_back(lambda z: rule(z, *arguments, temperature=1e-6, noise=NORMAL), x, torch.ones_like(x))
    assert_near(pulled_back(softened(name, 1e-6), x, torch.ones_like(x)), normal)


def test_step_is_near_that_of_normal_noise() -> None:
    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    apart = (LOGISTIC.above(x, 1.0) - NORMAL.above(x, 1.0)).abs()
    assert 0.009 < float(apart.max()) < 0.0096


def test_below_passes_whole_numbers() -> None:
    """At T = 1.702 n the integral has a double pole; next to it the value is the same."""
    for whole in (1.0, 2.0, 18.0, 30.0):
        at, near = (LOGISTIC.below(Z, 1.0, 1.702 * (whole + gap)) for gap in (0.0, 1e-9))
        assert_near(at, near, 1e-8)


def test_every_rule_that_takes_noise_is_tested() -> None:
    taking = {rule.public for rule in (*SEMANTIC.all_rules, *REFERENCE.all_rules) if rule.takes_noise}
    assert taking == {rule.public for rule, *_ in GATES.values()}


def test_own_gates_keep_their_meaning() -> None:
    """GELU's Phi and SiLU's sigma are the model's; the softmax of a max-pool is no normal noise either."""
    for name in ("gelu", "silu", "hardswish", "mish", "max_pool", "amax", "maximum", "attention", "gated_product"):
        assert not any(rule.takes_noise for rule in SEMANTIC.all_rules if rule.public == name)


class Net(nn.Module):
    """An expected step, one written out (leaky ReLU, known as relu), GELU, a max-pool, ELU, softplus."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 6)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(F.relu(self.a(x)), 2)
        y = self.b(y)
        y = torch.where(y > 0, y, 0.1 * y).mean((2, 3))
        y = F.elu(self.c(F.gelu(y)))
        result: Tensor = self.head(F.softplus(y))
        return result


def network() -> nn.Module:
    torch.manual_seed(5)
    return Net().eval()


def test_from_the_rule_set_to_the_file(tmp_path: Path) -> None:
    x, u = draw(2, 3, 12, 12).float(), torch.tensor([0, 1])
    logistic = fxpullback.compile(network(), x, rules=SEMANTIC.with_noise("logistic"))
    normal = fxpullback.compile(network(), x, rules=SEMANTIC)
    certificate = logistic.verify()
    assert certificate.passed, str(certificate)
    cosine = torch.cosine_similarity(logistic(x, u)[1].flatten(1), normal(x, u)[1].flatten(1))
    assert 0.99 < float(cosine.min()) < 1 - 1e-7
    noises = {row.rule: row.noise for row in logistic.ledger.rows if row.rule}
    assert noises == {
        "relu": "logistic", "elu": "logistic", "softplus": "logistic",
        "gelu": None, "max_pool": None,
    }  # fmt: skip
    assert {row.noise for row in normal.ledger.rows if row.rule == "relu"} == {"normal"}
    assert logistic.rules.describe()["noise"] == "logistic"
    assert "noise" not in normal.rules.describe()
    assert "relu, logistic" in str(logistic.ledger)
    assert "normal" not in str(normal.ledger)
    to_onnx(logistic, tmp_path / "net.onnx")


def test_a_file_of_steps_has_sigmoid_and_no_erf(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(256, 3)
    )
    for noise, wanted, absent in (("logistic", "Sigmoid", "Erf"), ("normal", "Erf", "Sigmoid")):
        pb = fxpullback.compile(model.eval(), torch.zeros(1, 3, 12, 12), rules=SEMANTIC.with_noise(noise))
        file = to_onnx(pb, tmp_path / f"{noise}.onnx")
        found = {node.op_type for node in onnx.load(file).graph.node}
        assert wanted in found
        assert absent not in found


@pytest.mark.parametrize("name", ["convolutional", "mobile"])
def test_linear_in_the_cotangent(name: str) -> None:
    pb, x = variant(compiled(name), rules=SEMANTIC.with_noise("logistic")), draw(2, *SIZE)
    a, b = draw(2, CLASSES, seed=3), draw(2, CLASSES, seed=4)
    assert_near(pb(x, 2 * a - 3 * b)[1], 2 * pb(x, a)[1] - 3 * pb(x, b)[1])
    normal = compiled(name)(x, a)[1]
    cosine = torch.cosine_similarity(pb(x, a)[1].flatten(1), normal.flatten(1))
    assert 0.99 < float(cosine.min()) < 1


def test_words_for_noise() -> None:
    assert SEMANTIC.with_noise("logistic").with_noise("normal") == SEMANTIC
    assert REFERENCE.with_noise("logistic").describe()["noise"] == "logistic"
    with pytest.raises(errors.RuleError, match="no noise 'gumbel'; there are normal and logistic"):
        SEMANTIC.with_noise("gumbel")
    with pytest.raises(errors.RuleError, match="no rule of the set exact takes noise"):
        EXACT.with_noise("logistic")
