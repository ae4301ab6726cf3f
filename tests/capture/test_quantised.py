"""Models prepared for training with quantisation: captured whole, exact as torch has them; int8 refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC
from fxpullback.contract.errors import CaptureError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch.ao.quantization as tq
    from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
    from torch.ao.quantization.fx import _decomposed  # noqa: F401  its operators

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

PLAIN = tq.QConfig(
    activation=tq.FakeQuantize.with_args(observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=255),
    weight=tq.FakeQuantize.with_args(
        observer=tq.MovingAveragePerChannelMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    ),
)
LEARNT = tq.QConfig(
    activation=_LearnableFakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, scale=0.02, zero_point=120.3
    ),
    weight=_LearnableFakeQuantize.with_args(
        observer=tq.MovingAverageMinMaxObserver, quant_min=-128, quant_max=127, dtype=torch.qint8, scale=0.004
    ),
)
WATCHED = tq.QConfig(activation=tq.MinMaxObserver, weight=tq.default_weight_observer)


def layers(*others: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.ReLU(), nn.Conv2d(8, 8, 3), *others, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    return nn.Sequential(tq.QuantStub(), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), *head, tq.DeQuantStub())


def prepared(config: Any, *, fused: bool = False) -> nn.Sequential:
    """After two steps of training, its observers on."""
    model = layers()
    if fused:
        model = tq.fuse_modules_qat(model.train(), [["1", "2", "3"]])
    model.train().qconfig = config
    tq.prepare_qat(model, inplace=True)
    for seed in range(2):
        model(draw(4, 3, 12, 12, seed=seed).float())
    return model


def settled(config: Any, *, fused: bool = False) -> nn.Module:
    return prepared(config, fused=fused).apply(tq.disable_observer).eval()


def learnt() -> nn.Module:
    model = prepared(LEARNT)
    for module in model.modules():
        if isinstance(module, _LearnableFakeQuantize):
            module.enable_param_learning()
    return model.eval()


class Lsq(nn.Module):
    """Learnt step size, written out with detach."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Parameter(torch.tensor(0.05))

    def forward(self, x: Tensor) -> Tensor:
        step = (self.step - self.step * 0.01).detach() + self.step * 0.01
        level = (x / step).clamp(-8, 7)
        return ((level.round() - level).detach() + level) * step


PREPARED: dict[str, Callable[[], nn.Module]] = {
    "fused, per tensor": lambda: settled(tq.get_default_qat_qconfig("qnnpack")),
    "fused, weights per channel": lambda: settled(tq.get_default_qat_qconfig("fbgemm")),
    "with batch norm inside": lambda: settled(tq.get_default_qat_qconfig("fbgemm"), fused=True),
    "modules": lambda: settled(PLAIN),
    "learnable": learnt,
    "learnt step written out": lambda: layers(Lsq()).eval(),
    "switched off": lambda: settled(PLAIN).apply(tq.disable_fake_quant),
}


@pytest.mark.parametrize("name", PREPARED)
def test_exact_is_torchs_own_gradient(name: str, tmp_path: Path) -> None:
    """In float32: torch does not run these models in float64."""
    model = PREPARED[name]()
    pb = fxpullback.compile(model, torch.randn(2, 3, 12, 12), rules=EXACT, target="cotangent")
    x, ct = draw(5, 3, 12, 12, seed=4).float(), draw(5, 4, seed=5).float()
    logits, pullback = pb(x, ct)
    assert_near(logits, model(x).detach(), 1e-6)
    assert_near(pullback, pulled_back(model, x, ct), 1e-5)
    assert pb.verify().passed
    to_onnx(pb, tmp_path / "prepared.onnx")
    result = Session(tmp_path / "prepared.onnx")(x.numpy(), ct.numpy())
    assert_near(torch.from_numpy(result.logits), logits, 1e-5)
    assert_near(torch.from_numpy(result.pullback), pullback, 1e-5)


class Quantiser(nn.Module):
    """Fake quantisation by hand, which runs in float64: s (clip(round(x / s) + z) - z), passed where it clips not."""

    def __init__(self, scale: Tensor, zero: Tensor, low: int, high: int) -> None:
        super().__init__()
        self.scale, self.zero, self.low, self.high = scale, zero, low, high

    def forward(self, x: Tensor) -> Tensor:
        scale, zero = self.scale.to(x.dtype), self.zero.to(x.dtype)
        level = (torch.round(x / scale) + zero).detach()
        value = (level.clamp(self.low, self.high) - zero) * scale
        passed = x * ((level >= self.low) & (level <= self.high)).to(x.dtype)
        return value + passed - passed.detach()


class OfTorch(Quantiser):
    """The same by torch's operators."""

    def forward(self, x: Tensor) -> Tensor:
        if self.scale.ndim:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale.flatten(), self.zero.flatten(), 1, self.low, self.high
            )
        return torch.fake_quantize_per_tensor_affine(x, float(self.scale), int(self.zero), self.low, self.high)


OF_CHANNELS = torch.tensor([0.01, 0.02, 0.005, 0.1, 0.03, 0.015, 0.02, 0.008])[:, None, None]
SETTINGS: dict[str, tuple[Any, ...]] = {
    "one scale": (torch.tensor(0.013), torch.tensor(7, dtype=torch.int32), 0, 63),
    "one-sided": (torch.tensor(0.01), torch.tensor(0, dtype=torch.int32), 0, 63),
    "channels": (OF_CHANNELS, torch.arange(8, dtype=torch.int32)[:, None, None], -32, 31),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_exact_against_the_definition_in_float64(name: str) -> None:
    by_hand = layers(Quantiser(*SETTINGS[name])).double().eval()
    model = layers(OfTorch(*SETTINGS[name])).double().eval()
    pb = fxpullback.compile(model, draw(2, 3, 12, 12), rules=EXACT, target="cotangent")
    x, ct = draw(5, 3, 12, 12, seed=4), draw(5, 4, seed=5)
    assert_near(pb(x, ct)[1], pulled_back(by_hand, x, ct), 1e-9)
    assert float((pulled_back(by_hand, x, ct) - pulled_back(layers().double().eval(), x, ct)).abs().max()) > 0


def test_the_ledger_says_what_is_done() -> None:
    model, x = settled(PLAIN), torch.randn(2, 3, 12, 12)
    for rules, verdict in ((SEMANTIC, "frozen"), (EXACT, "exact"), (REFERENCE, "exact")):
        pb = fxpullback.compile(model, x, rules=rules)
        rows = [row for row in pb.ledger.rows if row.operator == "fxpullback.fake_quantize"]
        assert len(rows) == 5
        assert {row.verdict for row in rows} == {verdict}
        said = {row.rule or row.reason for row in rows}
        assert said == ({"fake_quantize"} if verdict == "frozen" else {"straight through as torch has it: nothing "
                        "passes where values are clipped"})  # fmt: skip
    kept = fxpullback.compile(model, x, rules=SEMANTIC, keep_exact=["fake_quantize"])
    assert not [row for row in kept.ledger.rows if row.rule == "fake_quantize"]


def test_semantic_is_straight_through() -> None:
    """With ReLU kept exact, the pullback is that of the unquantised adjoint at the quantised values."""
    model = settled(PLAIN)
    pb = fxpullback.compile(model, torch.randn(2, 3, 12, 12), rules=SEMANTIC.keep_exact("relu"), target="cotangent")
    x, ct = draw(5, 3, 12, 12, seed=4).float() * 9, draw(5, 4, seed=5).float()  # most of it clipped at the input

    def passed(module: nn.Module, given: tuple[Tensor, ...], result: Tensor) -> Tensor:
        (value,) = given
        return value + (result - value).detach()

    for module in model.modules():
        if isinstance(module, tq.FakeQuantize) and module.qscheme is torch.per_tensor_affine:
            module.register_forward_hook(passed)
    assert_near(pb(x, ct)[1], pulled_back(model, x, ct), 1e-5)


@pytest.mark.parametrize("config", [PLAIN, tq.get_default_qat_qconfig("fbgemm")], ids=["modules", "fused"])
def test_observers_that_are_on_are_refused_and_the_advice_works(config: Any) -> None:
    model = prepared(config).eval()
    with pytest.raises(CaptureError, match=r"observer is on.*model.apply\(torch.ao.quantization.disable_observer\)"):
        fxpullback.compile(model, torch.randn(2, 3, 12, 12))
    model.apply(tq.disable_observer)
    assert fxpullback.compile(model, torch.randn(2, 3, 12, 12)).verify().passed


def test_learnable_observers_that_are_on_are_refused_and_the_advice_works() -> None:
    model = prepared(LEARNT).eval()
    parts = [module for module in model.modules() if isinstance(module, _LearnableFakeQuantize)]
    for part in parts:
        part.enable_static_estimate()
    with pytest.raises(CaptureError, match=r"module.toggle_observer_update\(False\) for each of them"):
        fxpullback.compile(model, torch.randn(2, 3, 12, 12))
    for part in parts:
        part.toggle_observer_update(False)
    assert fxpullback.compile(model, torch.randn(2, 3, 12, 12)).verify().passed


@pytest.mark.parametrize("config", [WATCHED, tq.get_default_qconfig("fbgemm")], ids=["range", "histogram"])
def test_observers_that_only_watch_are_no_matter(config: Any) -> None:
    model = layers().eval()
    model.qconfig = config
    model = tq.prepare(model)
    model(torch.randn(2, 3, 12, 12))
    assert fxpullback.compile(model, torch.randn(2, 3, 12, 12)).verify().passed


class Converted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        of = torch.ops.quantized_decomposed
        level = of.quantize_per_tensor(x, 0.1, 0, -128, 127, torch.int8)
        return self.head(of.dequantize_per_tensor(level, 0.1, 0, -128, 127, torch.int8))


class OfOneTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.quantize_per_tensor(x, 0.1, 0, torch.qint8).dequantize())


INT8: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "converted": (lambda: tq.convert(prepared(tq.get_default_qat_qconfig("fbgemm")).eval()), (3, 12, 12)),
    "weights": (lambda: tq.quantize_dynamic(nn.Sequential(nn.Linear(4, 3)), {nn.Linear}), (4,)),
    "by way of export": (Converted, (4,)),
    "one tensor": (OfOneTensor, (4,)),
}


@pytest.mark.parametrize("name", INT8)
def test_int8_is_refused_for_what_it_is(name: str) -> None:
    make, sizes = INT8[name]
    with pytest.raises(CaptureError, match=r"converted to int8, whose operators have no derivative.*fake quantisation"):
        fxpullback.compile(make().eval(), torch.randn(2, *sizes))


class Counted(nn.Module):
    """Counts its calls, and keeps a mean that it may or may not use."""

    calls: Tensor
    mean: Tensor

    def __init__(self, used: bool) -> None:
        super().__init__()
        self.head, self.used = nn.Linear(4, 3), used
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        self.mean.mul_(0.9).add_(x.mean(0) * 0.1)
        return self.head(x - self.mean if self.used else x)


def test_buffers_that_change_matter_where_the_logits_depend_on_them() -> None:
    assert fxpullback.compile(Counted(used=False).eval(), torch.randn(2, 4)).verify().passed
    with pytest.raises(CaptureError, match=r"changes its buffer mean while it runs, and its logits depend on it"):
        fxpullback.compile(Counted(used=True).eval(), torch.randn(2, 4))


def test_a_program_exported_in_training_mode_is_told_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)).train()
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (torch.randn(4, 4),), dynamic_shapes=({0: batch},))
    with pytest.raises(CaptureError, match=r"running_mean.*exported in training mode: call model.eval\(\)"):
        fxpullback.compile(program, torch.randn(4, 4))


class Routed(nn.Module):
    """Attention whose scores and weights are rounded to levels, as a quantised transformer has it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.last = nn.Linear(6, 18), nn.Linear(6, 4)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        scores = torch.fake_quantize_per_tensor_affine(q @ k.transpose(1, 2) * 0.4, 0.05, 0, -128, 127)
        return torch.fake_quantize_per_tensor_affine(torch.softmax(scores, -1), 1 / 255, 0, 0, 255)

    def forward(self, x: Tensor, *, held: bool = False) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        weights = self.weights(q, k)
        return self.last((weights.detach() if held else weights) @ v).mean(1)  # type: ignore[no-any-return]


def test_attention_that_is_rounded_to_levels_is_attention() -> None:
    model, x, ct = Routed().eval(), torch.randn(3, 5, 6), draw(3, 4).float()
    pb = fxpullback.compile(model, x, rules=SEMANTIC, target="cotangent")
    assert {(row.operator, row.rule) for row in pb.ledger.rows if row.rule} == {("aten.matmul", "attention")}
    assert all(row.verdict != "exact" for row in pb.ledger.rows if row.gate)
    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(model(leaf, held=True), leaf, ct)
    assert_near(pb(x, ct)[1], wanted, 1e-5)
