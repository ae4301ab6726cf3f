"""The named rewrites of the lowering: what each makes is right, is counted, and may be left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.contract.errors import LowerError
from fxpullback.export import Session, to_onnx
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.ir import aten, is_call, node_argument
from fxpullback.lower import REWRITES, drop_no_ops
from fxpullback.lowering.rewrite import Rewrite, in_order
from tests.helpers import assert_near

STRIDED = [
    (3, 2, 1, 1, 16), (7, 2, 3, 1, 17), (1, 2, 0, 1, 16), (1, 2, 0, 1, 15), (4, 4, 0, 1, 16), (2, 2, 0, 1, 17),
    (3, 2, 1, 8, 16), (5, 2, 2, 8, 15), (3, 2, 0, 1, 16), (3, 3, 1, 2, 16), (5, 3, 1, 1, 17), (3, 2, 1, 2, 15),
    (2, 3, 0, 1, 16), (8, 4, 2, 1, 32), (16, 16, 0, 1, 32),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "padding", "groups", "size"), STRIDED)
def test_adjoint_of_a_strided_convolution(kernel: int, stride: int, padding: int, groups: int, size: int) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, kernel, stride, padding, groups=groups)
    model = nn.Sequential(layer, nn.Flatten()).eval()
    pb = fxpullback.compile(model, torch.randn(1, 8, size, size), target="cotangent")
    assert pb.rewrites["strided-convolution"] == 1
    wide = in_float64(pb.graph)
    x = torch.randn(2, 8, size, size, dtype=torch.float64, requires_grad=True)
    logits = model.double()(x)
    cotangent = torch.randn_like(logits)
    (expected,) = torch.autograd.grad(logits, x, cotangent)
    assert_near(wide(x.detach(), cotangent)[1], expected, 1e-12)
    transposed = [n for n in pb.graph.graph.nodes if is_call(n, aten.convolution.default) and n.args[6]]
    assert all(node_argument(n, 1).meta["val"].shape[1] == 1 for n in transposed)


def test_rewrites_are_named_counted_and_may_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1), nn.Flatten()).eval()
    x = torch.randn(1, 3, 8, 8)
    with caplog.at_level("INFO", logger="fxpullback"):
        whole = fxpullback.compile(model, x)
    assert whole.rewrites["strided-convolution"] == 1
    assert whole.rewrites["flipped-convolution"] == 1
    assert "lowering: strided-convolution, 1 place" in caplog.text
    optional = [rewrite.name for rewrite in REWRITES if rewrite.optional]
    plain = fxpullback.compile(model, x, without=optional)
    assert not set(optional) & set(plain.rewrites)
    assert plain.verify().passed
    target = torch.tensor([1])
    assert_near(plain(x, target)[1], whole(x, target)[1], 1e-5)


def test_a_rewrite_that_is_not_there_cannot_be_left_out() -> None:
    with pytest.raises(LowerError, match=r"no rewrite 'fast' to leave out; there are: .*strided-convolution"):
        fxpullback.compile(nn.Linear(3, 2).eval(), torch.randn(1, 3), without=["fast"])
    with pytest.raises(LowerError, match="no rewrite 'injections'"):
        fxpullback.compile(nn.Linear(3, 2).eval(), torch.randn(1, 3), without=["injections"])


def test_numbers_one_after_the_other_are_one_product() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 3.0 / 4.0).sort(1).values * 2  # which lets no factor through

    pb = fxpullback.compile(Scaled().eval(), torch.randn(1, 4))
    factors = [n.args[1] for n in pb.graph.graph.nodes if is_call(n, aten.mul.Tensor) or is_call(n, aten.div.Tensor)]
    assert factors.count(0.75) == 2
    assert pb.verify().passed


def test_soft_pools_of_values_far_apart() -> None:
    """Neighbouring windows whose largest values lie hundreds of temperatures apart: no exponential runs over or out."""
    heights = torch.tensor([0.0, 900.0, -900.0, 3.0])
    x = heights.repeat(5)[None, None, None, :17].expand(1, 1, 17, 17).contiguous() + torch.randn(1, 1, 17, 17)
    for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 3, 0), (3, 2, 0)):
        model = nn.Sequential(nn.MaxPool2d(kernel, stride, padding), nn.Flatten()).eval()
        pb = fxpullback.compile(model, x, rules=fxpullback.SEMANTIC, target="cotangent")
        ct = torch.randn(1, pb.classes)
        leaf = x.double().requires_grad_()
        padded = F.pad(leaf, (padding,) * 4, value=-1e9)
        windows = F.unfold(padded, kernel, stride=stride)
        shares = torch.softmax(windows.detach() / 0.3, 1)
        (expected,) = torch.autograd.grad((windows * shares).sum(1), leaf, ct.double().reshape(1, -1))
        assert_near(pb(x, ct)[1].double(), expected, 1e-5)


def test_wide_padding_before_an_average_pool_loads(tmp_path: Path) -> None:
    """ONNX Runtime merges the two, and refuses a padding as wide as the window."""

    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            narrow = F.avg_pool2d(F.pad(x, (-1, 1, -1, 1)), 1, 2)
            return (F.avg_pool2d(F.pad(x, (0, 3, 0, 3)), 2, 2).mean((2, 3)) + narrow.mean((2, 3))) * 2

    path = to_onnx(fxpullback.compile(Padded().eval(), torch.randn(1, 3, 9, 9)), tmp_path / "padded.onnx")
    assert Session(path).certificate is not None


def test_bounds_that_are_constants_are_numbers() -> None:
    class Clamped(nn.Module):
        def __init__(self, low: float, high: float) -> None:
            super().__init__()
            self.low, self.high = nn.Buffer(torch.tensor(low)), nn.Buffer(torch.tensor(high))

        def forward(self, x: Tensor) -> Tensor:
            return torch.clamp(x * 2, self.low, self.high) + torch.clamp(torch.arange(4), min=0)

    infinity = float("inf")
    wanted = {
        (-infinity, infinity): None,
        (-0.5, 0.5): "aten.hardtanh",
        (-infinity, 0.5): "aten.clamp",
        (-0.5, infinity): "aten.clamp",
        (0.0, infinity): "aten.relu",
    }
    for (low, high), operator in wanted.items():
        pb = fxpullback.compile(Clamped(low, high).eval(), torch.randn(1, 4))
        softened = [row.operator for row in pb.ledger.rows if row.rule is not None]
        assert softened == ([operator] if operator else [])
        assert pb.verify().passed


def made(name: str, after: tuple[str, ...] = (), before: tuple[str, ...] = ()) -> Rewrite:
    return Rewrite(name, "drops no-ops", lambda gm, compilation: (drop_no_ops(gm, compilation), 0), True, after, before)


def test_further_rewrites_are_put_as_late_as_they_allow() -> None:
    order = in_order((made("a"), made("b", after=("a",)), made("c")), (made("mine", before=("b",)),))
    assert [rewrite.name for rewrite in order] == ["a", "mine", "b", "c"]
    assert [rewrite.name for rewrite in in_order(REWRITES, (made("mine"),))][-1] == "mine"


@pytest.mark.parametrize(
    ("rewrites", "message"),
    [
        ((made("b", after=("a",)), made("a")), "'a' must come before 'b', as 'b' declares"),
        ((made("a"), made("b", before=("a",))), "'b' must come before 'a', as 'b' declares"),
        ((made("a", after=("nothing",)),), "'a' names 'nothing', which is none of"),
        ((made("a"), made("a")), "two rewrites are called 'a'"),
    ],
)
def test_an_order_that_a_rewrite_rules_out_is_refused(rewrites: tuple[Rewrite, ...], message: str) -> None:
    with pytest.raises(LowerError, match=message):
        in_order(rewrites)


def test_every_order_that_is_declared_is_of_the_rewrites_as_they_are() -> None:
    assert in_order(REWRITES) == REWRITES
    places = {rewrite.name: place for place, rewrite in enumerate(REWRITES)}
    swapped = list(REWRITES)
    strided, spread = places["strided-convolution"], places["spread-channels"]
    swapped[strided], swapped[spread] = swapped[spread], swapped[strided]
    with pytest.raises(LowerError, match="'strided-convolution' must come before 'spread-channels'"):
        in_order(swapped)
