"""Factors carried into weights, zeros put late, scales of channels first: less is computed, nothing changes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import SEMANTIC, Pullback, calibrate
from fxpullback.export import Session, to_onnx
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.ir import aten, calls, depends_on, input_nodes, is_call, placeholders
from tests.helpers import assert_near, variant


def multiplied(pb: Pullback) -> list[fx.Node]:
    """What is multiplied or divided by a number while the graph runs, constants and what they make aside."""
    graph = pb.step.graph
    variable = depends_on(graph, placeholders(graph))
    targets = (aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.special_ndtr.default)
    return [n for n in calls(graph) if n in variable and n.target in targets and len(input_nodes(n)) == 1]


def by_autograd(pb: Pullback, x: Tensor, cotangent: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and pullback of the injected form, its norms folded, in float64."""
    wide = in_float64(pb.folded)
    leaf = x.double().requires_grad_()
    logits = wide(leaf)[0]
    return logits.detach(), torch.autograd.grad(logits, leaf, cotangent.double())[0]


def check(with_it: Pullback, rewrite: str) -> tuple[Pullback, Pullback]:
    """With and without one rewrite, where both must be autograd's, to rounding in float64."""
    x, cotangent = torch.randn(2, *with_it.example.shape[1:]), torch.randn(2, with_it.classes)
    without = variant(with_it, without=[rewrite])
    logits, pullback = by_autograd(with_it, x, cotangent)
    for pb in (with_it, without):
        wide = in_float64(pb.graph)
        found = wide(x.double(), cotangent.double())
        assert_near(found[0], logits, 1e-12)
        assert_near(found[1], pullback, 1e-12)
    return with_it, without


def for_cotangents(model: nn.Module, *size: int) -> Pullback:
    return fxpullback.compile(model.eval(), torch.randn(1, *size), rules=SEMANTIC, target="cotangent")


class Block(nn.Module):
    """Two convolutions with a gate behind each, the first's input added to what the second makes."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x + self.norm(self.second(self.gate(self.first(x)))))


def network(gate: Callable[[Tensor], Tensor]) -> nn.Module:
    """A small residual network with its norms' statistics off their defaults."""
    torch.manual_seed(0)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)]
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), Block(gate), nn.MaxPool2d(2), Block(gate), *head)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "relu6": F.relu6, "silu": F.silu, "gelu": F.gelu, "hardswish": F.hardswish, "mish": F.mish,
    "leaky_relu": F.leaky_relu, "elu": F.elu, "tanh": torch.tanh, "hardtanh": F.hardtanh,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"), "softplus": F.softplus, "negated": lambda z: F.relu(-z),
}  # fmt: skip


SLOPES = torch.tensor([0.1, 0.2, 0.3, 0.4])
THROUGH: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": lambda z: z.flip(3), "shuffled": lambda z: F.channel_shuffle(z, 2), "triangle": lambda z: z.tril(),
    "looked up": lambda z: z[:, :, torch.arange(7, -1, -1)], "running sum": lambda z: z.cumsum(3),
    "smaller": lambda z: F.interpolate(z, size=(5, 5), mode="bilinear"), "size": lambda z: -z.abs(),
    "slopes": lambda z: F.prelu(z, SLOPES), "mirrored": lambda z: F.pad(z, [1, 1, 1, 1], mode="reflect")[:, :, 1:, 1:],
    "spread": lambda z: z - 0.5 * z.std(1, keepdim=True), "windows": lambda z: z.unfold(3, 2, 3).flatten(3),
    "split": lambda z: torch.cat(z.split(2, 1)[::-1], 1), "largest": lambda z: z.max(3).values[..., None] - z,
}  # fmt: skip
ALL_THE_WAY = {"flip", "shuffled", "triangle", "looked up", "running sum", "smaller"}


@pytest.mark.parametrize("name", THROUGH)
def test_factors_are_carried_through_what_lets_them(name: str) -> None:
    """A weight, an operator and a gate: where the operator is linear the weight takes in all but the mean's number."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Conv2d(3, 4, 1), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(F.relu(THROUGH[name](self.first(x))).mean((2, 3)))
            return result

    torch.manual_seed(0)
    with_it, without = check(for_cotangents(Model(), 3, 8, 8), "carried-factors")
    assert with_it.rewrites["carried-factors"] > 0
    if name in ALL_THE_WAY:
        assert (len(multiplied(with_it)), len(multiplied(without))) == (1, 3)


CALIBRATED = ("relu", "relu6", "silu", "gelu")


@functools.cache
def compiled(gate: str) -> Pullback:
    return for_cotangents(network(GATES[gate]), 3, 8, 8)


@pytest.mark.parametrize(
    ("gate", "calibrated"), [*((name, False) for name in GATES), *((name, True) for name in CALIBRATED)]
)
def test_factors_change_nothing(gate: str, calibrated: bool) -> None:
    pb = compiled(gate)
    if calibrated:
        pb = variant(pb, rules=calibrate(network(GATES[gate]), torch.randn(4, 3, 8, 8)))
    check(pb, "carried-factors")


def test_a_relu_network_multiplies_by_no_number() -> None:
    """Temperatures and halves of Phi are in the weights; what is left is the max-pool's temperature and its mean."""
    with_it, without = check(compiled("relu"), "carried-factors")
    assert with_it.rewrites["carried-factors"] > 0
    gates = sum(is_call(n, aten.erf.default) for n in calls(with_it.step.graph))
    assert gates == 4
    assert len(multiplied(without)) >= 2 * gates
    left = multiplied(with_it)
    assert len(left) <= 5
    assert not any(user.target is aten.erf.default for n in left for user in n.users)


def test_extreme_temperatures_are_not_put_into_weights() -> None:
    for temperature in (1e-30, 1e30):
        pb = variant(compiled("relu"), rules=SEMANTIC.with_temperature(relu=temperature))
        logits, pullback = pb(torch.randn(2, 3, 8, 8), torch.randn(2, 5))
        assert bool(torch.isfinite(logits).all())
        assert bool(torch.isfinite(pullback).all())
        assert bool(pullback.any())


class Often(nn.Module):
    """A value that is multiplied by a number many times over, and by what was made of it."""

    def __init__(self, number: float, squares: bool) -> None:
        super().__init__()
        self.number, self.squares = number, squares

    def forward(self, x: Tensor) -> Tensor:
        first = x
        for _ in range(40):
            x = self.number * x * ((1 - x) if self.squares else torch.sigmoid(x + first))
            x = x if self.squares else x / (self.number * 0.5)
        return x


@pytest.mark.parametrize(("number", "squares"), [(3.7, True), (50.0, False), (0.01, False)])
def test_factors_do_not_grow_without_end(number: float, squares: bool) -> None:
    """Products of forty factors overflow in the adjoint, where values without their factors are multiplied."""
    torch.manual_seed(0)
    x = (torch.rand(2, 6) * 0.8 + 0.1).double().requires_grad_()
    model = Often(number, squares).eval()
    pb = fxpullback.compile(model, x.detach(), rules=fxpullback.EXACT)
    u = torch.randn(2, 6).double()
    (wanted,) = torch.autograd.grad(model(x), x, u)
    found = pb.step(x.detach(), u)[1]
    assert torch.isfinite(found).all()
    assert_near(found, wanted, 1e-3 if squares else 1e-9)  # the logistic map magnifies rounding itself


def test_the_file_holds_each_weight_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()] * 3
    wide = [nn.Conv2d(3, 32, 7, 2, 3), nn.ReLU(), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 500)]
    model = nn.Sequential(*wide).eval()
    path = to_onnx(fxpullback.compile(model, torch.randn(1, 3, 32, 32)), tmp_path / "model.onnx")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert path.stat().st_size < 1.05 * weights + 30_000
    assert Session(path).certificate is not None


def test_one_phi_for_a_gelu_and_its_gate() -> None:
    with_it, _ = check(compiled("gelu"), "carried-factors")
    counted = [n.target for n in calls(with_it.step.graph)]
    assert counted.count(aten.erf.default) == 4
    assert aten.gelu.default not in counted


def test_a_gate_whose_input_is_joined_from_others() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(7, 4, 1), nn.Linear(11, 3)

        def forward(self, x: Tensor) -> Tensor:
            both = torch.cat([x, self.first(x)], 1)
            last = torch.cat([both, self.second(F.relu(both))], 1)
            result: Tensor = self.head((F.relu(last) * torch.sigmoid(last.mean((2, 3), keepdim=True))).mean((2, 3)))
            return result

    check(for_cotangents(Dense(), 3, 6, 6), "carried-factors")


def test_scales_of_channels_go_in_front_of_the_gate() -> None:
    class PreActivation(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4)])
            self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)])

        def forward(self, x: Tensor) -> Tensor:
            for norm, layer in zip(self.norms, self.layers, strict=True):
                x = x + layer(F.relu(norm(x)))
            return x.mean((2, 3))

    model = PreActivation().eval()
    for norm in model.norms:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        nn.init.normal_(norm.weight)
        nn.init.uniform_(norm.running_var, 0.5, 2.0)
    with_it, without = check(for_cotangents(model, 4, 6, 6), "scales-first")
    assert with_it.rewrites["scales-first"] == 2
    found = [sum(is_call(n, aten.convolution.default) for n in calls(pb.step.graph)) for pb in (with_it, without)]
    assert found == [6, 8]


class Attention(nn.Module):
    """A class token that attends, queries, keys and values of one product."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.norm = nn.Linear(8, 24), nn.Linear(8, 8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[1]
        for _ in range(2):
            q, k, v = self.qkv(self.norm(x)).reshape(-1, n, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v)
            x = x + self.out(y.transpose(1, 2).reshape(-1, n, 8))
            x = x + self.down(F.gelu(self.up(self.norm(x))))
        token: Tensor = self.norm(x)[:, 0]
        return token


def test_zeros_come_late() -> None:
    torch.manual_seed(0)
    with_it, without = check(for_cotangents(Attention(), 5, 8), "late-zeros")
    assert with_it.rewrites["late-zeros"] == 6

    def work(pb: Pullback) -> int:
        """Products of one sample's pullback: rows of the left, columns of the right, and what is summed."""
        total = 0
        for n in calls(pb.step.graph):
            if n.target is aten.matmul.default and n.name.startswith("ct_"):
                a, b = (m.meta["val"].shape for m in input_nodes(n)[:2])
                total += int(a[-2]) * int(a[-1]) * int(b[-1])
        return total

    assert work(with_it) < 0.6 * work(without)
    padded = [n for n in calls(with_it.step.graph) if n.target is aten.constant_pad_nd.default]
    assert all(n.meta["val"].shape[-1] == 8 for n in padded)


def test_zeros_of_parts_that_overlap_or_differ() -> None:
    class Parts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.Linear(6, 9), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            mixed = self.head(y[..., 2:5] + y[..., 6:9]) + self.head(y[..., :3] * 2) - self.head(y[..., 1:4] / 4)
            chosen: Tensor = mixed[:, 1:3].flatten(1) + mixed[:, :2].flatten(1) * torch.arange(8)
            return chosen

    check(for_cotangents(Parts(), 4, 6), "late-zeros")
