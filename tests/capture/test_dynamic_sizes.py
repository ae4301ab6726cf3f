"""Height and width that stay free: at sizes that no capture saw, odd and oblong ones among them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError, DifferentiateError, InputError
from fxpullback.contract.sizes import FreeAxis, axis_name, misfits, other_shape
from fxpullback.export import Session, to_onnx
from fxpullback.pipeline import Pullback
from tests import networks
from tests.helpers import assert_near, draw, variant
from tests.networks import Residual, SqueezeExcite

SIZES = ((33, 38), (45, 31), (64, 48))  # none is the example's
EXAMPLE = (3, 32, 40)
CLASSES = 4


class Permuted(nn.Module):
    """Layer norm and a gated mean over the channels, as in ConvNeXt."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.wide = nn.LayerNorm(channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.gelu(self.wide(self.norm(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)
        return result


class Hourglass(nn.Module):
    """Down twice and up again by a whole factor; joined with what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up, self.head = nn.ConvTranspose2d(4, 4, 2, 2), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x))
        low = F.relu(self.down(x))
        lowest = F.max_pool2d(low, 2)
        joined = torch.cat([x, self.up(low), F.interpolate(lowest, scale_factor=4)], 1)
        result: Tensor = self.head(joined.square().mean((2, 3)))
        return result


class Attention(nn.Module):
    """Attention over the positions, with no embedding of their places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 8, 8), nn.Parameter(torch.randn(1, 1, 8))
        self.norm, self.mix, self.head = nn.LayerNorm(8), networks.Attention(8, 1, True), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        result: Tensor = self.head((x + self.mix(self.norm(x)))[:, 0])
        return result


class Windows(nn.Module):
    """Attention within windows of 4x4, then moved by half of one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 2, 2), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        batch, channels, height, width = x.shape
        tokens = x.view(batch, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, 4)
        tokens = tokens + F.scaled_dot_product_attention(tokens, tokens, tokens)
        x = tokens.view(batch, height // 4, width // 4, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
        x = torch.roll(x.reshape(batch, channels, height, width), (-2, -2), (2, 3))
        result: Tensor = self.head(F.max_pool2d(x, 3, 2).square().mean((2, 3)))
        return result


class Same(nn.Module):
    """Padding that depends on the size, as networks ported from TensorFlow have it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, 2), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        down, across = (max((-(n // -2) - 1) * 2 + 3 - n, 0) for n in x.shape[-2:])
        x = F.pad(x, [across // 2, across - across // 2, down // 2, down - down // 2])
        x = F.relu(self.conv(x))
        result: Tensor = self.head(x.mean((2, 3)) * torch.sigmoid(x.flatten(2).std(-1)))
        return result


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES)


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 3, 1, bias=False), networks.batch_norm(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Residual(nn.Conv2d(6, 6, 3, padding=1, groups=2), nn.ReLU()), nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        nn.Conv2d(6, 4, 3, padding=1), nn.SiLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES),
    )  # fmt: skip


def mobile() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1, padding_mode="reflect"), networks.batch_norm(6), nn.Hardswish(),
        nn.MaxPool2d(2, 2, ceil_mode=True), SqueezeExcite(6), nn.AvgPool2d(2, ceil_mode=True),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.GroupNorm(2, 6), nn.ReLU6(), Permuted(6), *head(6),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutional": convolutional,
    "mobile": mobile,
    "hourglass": Hourglass,
    "attention": Attention,
    "windows": Windows,
    "same": Same,
}


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return NETWORKS[name]().eval()


@functools.cache
def compiled(name: str) -> Pullback:
    return fxpullback.compile(network(name).double(), (draw(1, *EXAMPLE),), free_size=True)


def sizes_of(pb: Pullback) -> list[tuple[int, int]]:
    """Three sizes that the network allows: those above, rounded down to its multiples; and its smallest one."""
    down, across = pb.free
    rounded = [(h // down.multiple * down.multiple, w // across.multiple * across.multiple) for h, w in SIZES]
    return [*rounded, (down.least, across.least + 2 * across.multiple)]


def by_autograd(model: Callable[[Tensor], Tensor], x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    logits = model(leaf)
    (pullback,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaf)
    return logits.detach(), pullback


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_against_autograd_at_sizes_never_seen(name: str) -> None:
    pb, model = compiled(name), network(name).double()
    assert [axis.name for axis in pb.free] == ["height", "width"]
    for size in sizes_of(pb):
        x, target = draw(3, 3, *size, seed=1), torch.arange(3)
        logits, pullback = pb(x, target)
        wanted, oracle = by_autograd(lambda z: pb.rewritten(z)[0], x, target)
        assert_near(wanted, model(x).detach())
        assert_near(logits, model(x).detach(), 1e-6)  # batch-norm folding
        assert_near(pullback, oracle, 1e-6 if name == "convolutional" else 1e-10)
        assert_near(pullback, by_autograd(lambda z: pb.folded(z)[0], x, target)[1], 1e-10)


@pytest.mark.parametrize("name", ["convolutional", "hourglass"])
def test_without_rules_it_is_the_gradient(name: str) -> None:
    model = network(name).double()
    pb = fxpullback.compile(model, (draw(1, *EXAMPLE),), rules=EXACT, free_size=True)
    for size in sizes_of(pb):
        x, target = draw(2, 3, *size, seed=1), torch.arange(2)
        assert_near(pb(x, target)[1], by_autograd(model, x, target)[1], 1e-6)


@pytest.mark.parametrize("name", ["convolutional", "mobile", "windows", "same"])
def test_file_at_sizes_never_seen(name: str, tmp_path: Path) -> None:
    pb = fxpullback.compile(network(name), (draw(1, *EXAMPLE).float(),), free_size=True)
    session = Session(to_onnx(pb, tmp_path / "model.onnx"), providers=["cpu"])  # with its certificate
    assert session.input_shape == ("batch", 3, "height", "width")
    assert session.sizes == pb.free
    for size in sizes_of(pb):
        x, target = draw(2, 3, *size, seed=1).float(), torch.arange(2)
        result = session(x.numpy(), target.numpy())
        wanted, oracle = by_autograd(lambda z: pb.rewritten(z)[0], x, target)
        assert_near(torch.from_numpy(result.logits), wanted, 1e-4)
        assert_near(torch.from_numpy(result.pullback), oracle, 1e-4)


def test_sizes_that_are_not_allowed_are_explained(tmp_path: Path) -> None:
    pb = fxpullback.compile(network("hourglass"), (draw(1, *EXAMPLE).float(),), free_size=True)
    assert [axis.multiple for axis in pb.free] == [4, 4]
    session = Session(to_onnx(pb, tmp_path / "model.onnx", certify=False), providers=["cpu"])
    for call in (lambda x: pb(torch.from_numpy(x), torch.tensor([0])), lambda x: session(x, [0])):
        with pytest.raises(InputError, match="height is 34, and the model takes multiples of 4 from"):
            call(np.zeros((1, 3, 34, 40), np.float32))
        with pytest.raises(InputError, match=r"width is 4, and the model takes multiples of 4 from 8"):
            call(np.zeros((1, 3, 32, 4), np.float32))
        with pytest.raises(InputError, match=r"\[batch, 3, height, width\]"):
            call(np.zeros((1, 4, 32, 40), np.float32))


def test_the_certificate_draws_other_sizes() -> None:
    certificate = compiled("attention").verify()
    assert certificate.passed
    sizes = {check.name.split(":")[0] for check in certificate.checks if check.name.startswith("size ")}
    assert len(sizes) == 2
    assert "size 3x32x40" not in sizes


class Pooled(nn.Module):
    """`nn.MultiheadAttention` over tokens, and their mean."""

    def __init__(self, attention: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.attention, self.head = attention, head

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head((x + self.attention(x, x, x, need_weights=False)[0]).mean(1))
        return result


class Placed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.place = nn.Conv2d(3, 4, 4, 4), nn.Parameter(torch.randn(1, 72, 4))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = (self.patches(x).flatten(2).transpose(1, 2) + self.place).mean(1)
        return result


class Square(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x + x.transpose(2, 3)).mean((2, 3))


@pytest.mark.parametrize(
    ("model", "size", "words"),
    [
        (Placed(), (32, 36), r"\(height//4\).*72\) must hold, first at aten.add.Tensor.*Compile it for one size"),
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 7 * 8, 4)),
            (9, 10),
            "first at aten.linear at 2",
        ),
        (Square(), (16, 16), "height and width must be equal"),
    ],
    ids=["place", "flatten", "square"],
)
def test_a_model_that_fixes_its_size_is_refused(model: nn.Module, size: tuple[int, int], words: str) -> None:
    with pytest.raises(CaptureError, match=f"free_size: the model fixes the size of its input: .*{words}"):
        fxpullback.compile(model.eval(), (draw(1, 3, *size).float(),), free_size=True)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.AdaptiveAvgPool2d(3), r"adaptive_avg_pool2d at 1 .* to 3 cells has windows that depend on the size"),
        (nn.AdaptiveMaxPool2d((2, 1)), r"adaptive_max_pool2d at 1 .* to \[2, 1\] cells"),
        (nn.Upsample(size=(20, 20), mode="bilinear"), r"upsample_bilinear2d.* has weights that depend on the size"),
    ],
    ids=["average", "largest", "bilinear"],
)
def test_an_operator_that_needs_a_fixed_size_is_refused(layer: nn.Module, words: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), layer, *head(4)).eval()
    with pytest.raises(DifferentiateError, match=words):
        fxpullback.compile(model, (draw(1, 3, 12, 13).float(),), free_size=True)


def test_axes_by_number() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.GELU(), networks.Attention(6, 1, True)).double().eval()
    head = networks.MultiHead()
    tokens = nn.Sequential(model, nn.Linear(6, 12), Pooled(head.attention, head.head)).double().eval()
    pb = fxpullback.compile(tokens, (draw(1, 7, 5),), free_size=(1,))
    assert [str(axis) for axis in pb.free] == ["axis_1: any size from 2"]
    for count in (2, 11):
        x, target = draw(3, count, 5, seed=1), torch.arange(3)
        assert_near(pb(x, target)[1], by_autograd(lambda z: pb.rewritten(z)[0], x, target)[1])
    for wrong in ((0,), (3,), (1, -2)):
        with pytest.raises(CaptureError, match="pass axes of the input"):
            fxpullback.compile(model, (draw(1, 7, 5),), free_size=wrong)
    with pytest.raises(CaptureError, match="no axis behind its channels"):
        fxpullback.compile(model, (draw(1, 5),), free_size=True)


def test_free_axes() -> None:
    axis = FreeAxis(2, "height", 32, 64, 256)
    assert [size for size in range(0, 400, 16) if axis.allows(size)] == [64, 96, 128, 160, 192, 224, 256]
    assert axis.others(96, 3) == [128, 64, 160]
    assert str(axis) == "height: multiples of 32 from 64 to 256"
    assert misfits((1, 3, 100, 5), [axis]) == ["height is 100, and the model takes multiples of 32 from 64 to 256"]
    assert other_shape((3, 96, 5), [axis], 0) == (3, 128, 5)
    assert [axis_name(i, 4) for i in range(4)] == ["batch", "axis_1", "height", "width"]
    assert axis_name(2, 3) == "time"


@pytest.mark.parametrize("name", ["convolutional", "mobile", "transformer"])
def test_without_the_request_no_size_is_computed(name: str, tmp_path: Path) -> None:
    pb = variant(networks.compiled(name, torch.float32), target="index")
    assert pb.free == ()
    model = onnx.load(to_onnx(pb, tmp_path / "model.onnx", certify=False))
    counts = [node for node in model.graph.node if node.op_type == "Shape"]
    assert len(counts) <= ("transformer" in name)  # the batch, for the class token
    assert "fxpullback.sizes" not in {entry.key for entry in model.metadata_props}
