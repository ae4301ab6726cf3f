"""What a module computes and what its file computes: the same pullback, and the same gates in the same order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.compiled import Compiled
from tests.helpers import assert_near

pytestmark = pytest.mark.filterwarnings("ignore")
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def exported(net: nn.Module, x: Tensor, path: Path, exporter: str, *, free: bool = True) -> Path:
    """The file that one of torch's exporters writes, its batch free or that of x."""
    if exporter == "script":
        axes = {"x": {0: "batch"}} if free else None
        torch.onnx.export(net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
        return path
    pytest.importorskip("onnxscript", reason="torch's newer exporter writes with it")
    shapes = ({0: torch.export.Dim("batch")},) if free else None
    opset = int(exporter) if exporter.isdigit() else None
    torch.onnx.export(net, (x,), str(path), dynamo=True, dynamic_shapes=shapes, verbose=False, opset_version=opset)
    return path


def gates(pb: Compiled) -> list[tuple[str | None, str]]:
    """Rule and operator of each gate, in order."""
    return [(row.rule, row.operator) for row in pb.ledger.rows if row.gate]


def assert_same_story(net: nn.Module, x: Tensor, path: Path) -> Compiled:
    """Compile a module and its file: gates and pullback agree."""
    own, found = fxpullback.compile(net, x), fxpullback.compile(path, x)
    assert gates(found) == gates(own)
    fresh, target = torch.randn(3, *x.shape[1:], generator=torch.Generator().manual_seed(3)), torch.tensor([0, 2, 1])
    assert_near(found(fresh, target)[1], own(fresh, target)[1], 1e-5)
    return found


class Attention(nn.Module):
    """One layer of attention over five tokens, two heads of four."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.last, self.attend = nn.Linear(8, 24), nn.Linear(8, 4), attend

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        made = self.attend(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        return self.last(made).mean(1)  # type: ignore[no-any-return]


torch.manual_seed(1)
BIAS, SEEN = torch.randn(1, 2, 5, 5), (torch.rand(5, 5) > 0.4) | torch.eye(5, dtype=torch.bool)
BLIND = SEEN & (torch.arange(5) != 2)[:, None]
ATTENTION: dict[str, Attend] = {
    "plain": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "another scale": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
    "a bias": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BIAS),
    "a mask": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, SEEN),
    "a query that sees no key": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, BLIND),
    "causal": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    "keys and values of another length": lambda q, k, v: F.scaled_dot_product_attention(q, k[:, :, :3], v[:, :, :3]),
    "scores scaled by hand": lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) * 0.5, -1) @ v,
    "queries scaled by hand": lambda q, k, v: torch.softmax((q * 0.5) @ k.transpose(-1, -2), -1) @ v,
}


@pytest.mark.parametrize("exporter", ["script", "dynamo", "23"])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_told_as_the_module_spells_it(name: str, exporter: str, tmp_path: Path) -> None:
    if name == "a query that sees no key" and exporter == "dynamo":
        pytest.skip("this exporter masks by a large number, and its file lets such a query see every key alike")
    net, x = Attention(ATTENTION[name]).eval(), torch.randn(2, 5, 8)
    pb = assert_same_story(net, x, exported(net, x, tmp_path / "net.onnx", exporter))
    fused = [row.module for row in pb.ledger.rows if row.operator == "aten.scaled_dot_product_attention"]
    assert len(fused) == (0 if "by hand" in name else 1)
    if exporter == "script" and fused:
        assert fused == ["/Softmax"]


def test_attention_whose_weights_are_read_elsewhere_stays(tmp_path: Path) -> None:
    """Both scaled by the root, as exporters do it, and the weights are added to what they make."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = torch.softmax((q * 0.7) @ (k.transpose(-1, -2) * 0.7), -1)
        return weights @ v + weights[..., :4]

    net, x = Attention(attend).eval(), torch.randn(2, 5, 8)
    assert_same_story(net, x, exported(net, x, tmp_path / "net.onnx", "script"))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "MultiheadAttention": lambda: _SelfAttention(),
    "talking heads": lambda: _TalkingHeads(),
    "pooled, channels last": lambda: _PooledLast(),
    "TransformerEncoderLayer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu"),
}


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x, x, x, need_weights=False)[0]  # type: ignore[no-any-return]


class _TalkingHeads(nn.Module):
    """Heads mixed in front of the softmax and behind it; the biases are alike, so that a file holds one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.before, self.behind = nn.Linear(8, 24), nn.Linear(2, 2), nn.Linear(2, 2)
        for layer in (self.before, self.behind):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = self.before((0.5 * q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        weights = self.behind(scores.softmax(-1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return (weights @ v).transpose(1, 2).reshape(batch, tokens, width)  # type: ignore[no-any-return]


class _PooledLast(nn.Module):
    """Channels last, pooled as if they came first: the newer exporter writes the result as a lookup."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        wide = torch.relu(x).unflatten(1, (1, 5)).permute(0, 3, 1, 2)
        return x + self.pool(wide).flatten(1)[:, None]  # type: ignore[no-any-return]


class _Tokens(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.last = inner, nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.inner(x).mean(1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_tokens(name: str, exporter: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = _Tokens(LAYERS[name]()).eval(), torch.randn(2, 5, 8)
    assert_same_story(net, x, exported(net, x, tmp_path / "net.onnx", exporter))


class Gates(nn.Module):
    """Functions of maps one behind the other, a convolution in front of each."""

    shares: Tensor

    def __init__(self, *functions: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.functions = functions
        self.layers = nn.ModuleList(f for f in functions if isinstance(f, nn.Module))
        self.convs = nn.ModuleList(nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(len(functions)))
        self.last = nn.Linear(8, 4)
        self.register_buffer("shares", torch.rand(1, 1, 8, 8))

    def forward(self, x: Tensor) -> Tensor:
        for conv, function in zip(self.convs, self.functions, strict=True):
            y = conv(x)
            x = function(y) + 0.1 * y
        return self.last((x * self.shares).mean((2, 3)))  # type: ignore[no-any-return]


def _drawn(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, 0.3, 1.2)
    return layer


NETS: dict[str, Callable[[], nn.Module]] = {
    "gates": lambda: Gates(
        nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softplus(2.0), nn.LogSigmoid(), nn.Softshrink(), nn.Hardshrink(),
        nn.PReLU(8, init=0.2), nn.PReLU(), nn.Hardswish(), nn.Hardsigmoid(), nn.ReLU6(), lambda x: x.clamp(min=0),
    ),
    "more gates": lambda: Gates(
        nn.ELU(0.7), nn.SELU(), nn.CELU(1.3), nn.GELU(), nn.GELU("tanh"), nn.Tanhshrink(), nn.Softsign(),
        nn.Hardtanh(-0.5, 0.7), lambda x: x * torch.sigmoid(1.702 * x), lambda x: x.clamp(-1.0, 0.5), nn.LeakyReLU(0.3),
        lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)), lambda x: F.glu(torch.cat([x, 2 * x], 1), 1),
    ),
    "norms": lambda: Gates(
        _drawn(nn.GroupNorm(2, 8)), _drawn(nn.GroupNorm(1, 8)), nn.GroupNorm(8, 8), nn.InstanceNorm2d(8),
        _drawn(nn.InstanceNorm2d(8, affine=True)), nn.LocalResponseNorm(3), lambda x: F.normalize(x, dim=1),
        lambda x: x * torch.rsqrt(x.var(1, keepdim=True) + 1e-6),
        lambda x: (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-6),
        lambda x: x * (1 / torch.sqrt(x * x + 1.0)), lambda x: F.layer_norm(x, [8], eps=1e-4),
    ),
    "pools": lambda: Gates(
        nn.MaxPool2d(3, 1, 1), nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Upsample(size=(8, 8))),
        nn.Sequential(nn.MaxPool2d(2, 2), nn.Upsample(scale_factor=2.0)), nn.AvgPool2d(3, 1, 1),
        lambda x: x.amax((2, 3), keepdim=True) + x, lambda x: torch.logsumexp(x, 1, keepdim=True) + x,
        lambda x: torch.maximum(x, -0.5 * x), lambda x: torch.softmax(x, 1), nn.LPPool2d(2, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", NETS)
def test_gates_that_exporters_write_out(name: str, exporter: str, tmp_path: Path) -> None:
    net, x = NETS[name]().eval(), torch.randn(2, 3, 8, 8)
    assert_same_story(net, x, exported(net, x, tmp_path / "net.onnx", exporter))


def test_the_newer_exporter_says_what_a_forward_wrote_itself(tmp_path: Path) -> None:
    """The nodes are those of SiLU, Mish, GELU, RMSNorm, and of the larger of two; what stands beside them says more."""
    net = Gates(
        lambda x: x * torch.sigmoid(x), lambda x: x * torch.tanh(F.softplus(x)), nn.Threshold(0.1, 0.0),
        lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), lambda x: x.max(1, keepdim=True)[0] + x,
        lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6), _drawn(nn.RMSNorm(8)),
    ).eval()  # fmt: skip
    x = torch.randn(2, 3, 8, 8)
    assert_same_story(net, x, exported(net, x, tmp_path / "net.onnx", "dynamo"))


def test_the_older_exporter_says_nothing_and_the_named_gate_is_told(tmp_path: Path) -> None:
    net, x = (
        Gates(lambda x: x * torch.sigmoid(x), lambda x: x * torch.tanh(F.softplus(x))).eval(),
        torch.randn(2, 3, 8, 8),
    )
    path = exported(net, x, tmp_path / "net.onnx", "script")
    own, found = fxpullback.compile(net, x), fxpullback.compile(path, x)
    assert gates(found) == [("silu", "aten.silu"), ("mish", "aten.mish")]
    target = torch.tensor([0, 1])
    assert_near(found(x, target)[1], own(x, target)[1], 1e-5)


FIXED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "norms of groups": (lambda: Gates(_drawn(nn.GroupNorm(1, 8)), _drawn(nn.GroupNorm(4, 8))), (3, 8, 8)),
    "attention": (lambda: Attention(ATTENTION["plain"]), (5, 8)),
    "pooled, channels last": (lambda: _Tokens(_PooledLast()), (5, 8)),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("name", FIXED)
def test_a_file_of_a_fixed_batch_tells_the_same(name: str, exporter: str, batch: int, tmp_path: Path) -> None:
    make, sizes = FIXED[name]
    net, x = make().eval(), torch.randn(2, *sizes)
    assert_same_story(net, x, exported(net, x[:batch], tmp_path / "net.onnx", exporter, free=False))


def test_operators_of_old_versions_are_written_out_further(tmp_path: Path) -> None:
    """Layer norm before version 17, GELU before 20, hardswish before 14."""
    layers = nn.Sequential(
        _drawn(nn.LayerNorm(8)), nn.GELU("tanh"), nn.LayerNorm(8, elementwise_affine=False), nn.GELU()
    )
    net = _Tokens(nn.Sequential(layers, nn.Linear(8, 8), nn.Hardswish(), _drawn(nn.LayerNorm((5, 8))))).eval()
    x, path = torch.randn(2, 5, 8), tmp_path / "net.onnx"
    torch.onnx.export(
        net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}}, opset_version=13
    )
    assert_same_story(net, x, path)


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
def test_what_onnx_runtime_fused_tells_the_same(exporter: str, tmp_path: Path) -> None:
    """A scale in a product with turned keys, x sigmoid(1 x), hardswish taken apart, a norm and its bias."""
    attention = Attention(ATTENTION["a mask"])
    net = _Tokens(nn.Sequential(nn.Linear(8, 8), nn.SiLU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Hardswish())).eval()
    for one, name in ((attention.eval(), "attention"), (net, "gates")):
        x = torch.randn(2, 5, 8)
        path = exported(one, x, tmp_path / f"{name}.onnx", exporter)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(tmp_path / f"{name}-fused.onnx")
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        assert_same_story(one, x, tmp_path / f"{name}-fused.onnx")
