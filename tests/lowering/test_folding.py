"""Constants and batch norms folded before differentiation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fxpullback import SEMANTIC
from fxpullback.capture import capture
from fxpullback.differentiate import differentiate
from fxpullback.graph.ir import INJECT, aten, calls
from fxpullback.lower import lower
from fxpullback.lowering.folding import BATCH_NORM, fold, fold_constants
from fxpullback.rewrite import rewrite
from tests.helpers import Flat, assert_near, draw, graph_of, pulled_back
from tests.networks import batch_norm


def norm1d(channels: int) -> nn.BatchNorm1d:
    norm = nn.BatchNorm1d(channels)
    norm.load_state_dict(batch_norm(channels).state_dict())
    return norm


class Flattened(nn.Module):
    """linear -> flatten -> batch norm -> back, as in LeViT."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6, bias=False), norm1d(6)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        result: Tensor = self.norm(y.flatten(0, 1)).reshape_as(y)
        return result


class Shared(nn.Module):
    """The convolution's output is read beside the batch norm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), batch_norm(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        result: Tensor = self.norm(y) + y
        return result


class Reused(nn.Module):
    """One convolution, called twice, each time with a batch norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.first, self.second = nn.Conv2d(3, 3, 3), batch_norm(3), batch_norm(3)
        nn.init.normal_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.conv(self.first(self.conv(x))))
        return result


# name, module, sizes, whether each batch norm goes into the product in front of it
NORMS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...], list[bool]]] = [
    ("convolution", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(4)), (3, 5, 5), [True]),
    ("without-bias", lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), batch_norm(4)), (3, 5, 5), [True]),
    ("depthwise", lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), batch_norm(8)), (4, 5, 5), [True]),
    ("plain-norm", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, affine=False)), (3, 5, 5), [True]),
    ("linear", lambda: nn.Sequential(nn.Linear(4, 6), norm1d(6)), (4,), [True]),
    ("linear-flatten", Flattened, (5, 4), [True]),
    ("twice", Reused, (3, 6, 6), [True, True]),
    ("alone", lambda: nn.Sequential(batch_norm(3), nn.ReLU(), nn.Conv2d(3, 4, 3)), (3, 5, 5), [False]),
    ("behind-relu", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), batch_norm(4)), (3, 5, 5), [False]),
    ("transposed", lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), batch_norm(4)), (3, 5, 5), [False]),
    ("tokens", lambda: nn.Sequential(nn.Linear(4, 6), norm1d(5)), (5, 4), [False]),
    ("two-readers", Shared, (3, 5, 5), [False]),
]


def model_of(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = make()
    return Flat(module, module).double().eval()


@pytest.mark.parametrize(("name", "make", "sizes", "merged"), NORMS, ids=[row[0] for row in NORMS])
def test_batch_norm(name: str, make: Callable[[], nn.Module], sizes: tuple[int, ...], merged: list[bool]) -> None:
    model = model_of(make)
    captured = capture(model, torch.zeros(1, *sizes).double())
    before = str(captured.graph)
    folded, log = fold(captured)
    assert str(captured.graph) == before
    norms = [node.name for node in calls(captured.graph) if node.target is BATCH_NORM]
    assert [norm in log for norm in norms] == merged
    assert not any(node.target is BATCH_NORM for node in calls(folded.graph))
    products = {aten.convolution.default, aten.linear.default}
    assert all(node.target in products for node in calls(captured.graph) if node.name in log.values())
    x = draw(3, *sizes)
    ct = draw(*model(x).shape, seed=1)
    assert_near(folded(x)[0].detach(), model(x).detach())
    assert_near(pulled_back(lambda z: folded(z)[0], x, ct), pulled_back(model, x, ct))
    assert_near(lower(differentiate(folded))[0](x, ct)[1].detach(), pulled_back(model, x, ct))


def test_weights_of_the_model_are_not_scaled() -> None:
    model = model_of(NORMS[0][1])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fold(capture(model, torch.zeros(1, 3, 5, 5).double()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_float32_batch_norm_is_folded_in_float64() -> None:
    model = model_of(NORMS[0][1]).float()
    folded, _ = fold(capture(model, torch.zeros(1, 3, 5, 5)))
    exact = {key: value.double() for key, value in model.state_dict().items()}
    weight = next(getattr(folded, str(n.target)) for n in folded.graph.nodes if n.op == "get_attr").detach()
    kernel, gamma, variance = (exact[f"parts.0.{key}"] for key in ("0.weight", "1.weight", "1.running_var"))
    expected = kernel * (gamma / torch.sqrt(variance + 1e-5)).reshape(-1, 1, 1, 1)
    # Its weights are float32 numbers already; the one rounding left is that of the folded weight.
    assert float(((weight - expected) / expected).abs().max()) < 2**-24 + 2**-50


def test_constants_are_computed_once() -> None:
    table = draw(3, 4)

    def model(x: Tensor) -> Tensor:
        position = torch.sin(torch.arange(4, dtype=torch.float64)) + table.mean(0)
        return x * position + torch.softmax(table, -1)[0]

    graph = graph_of(model, 4)
    folded = fold_constants(graph)
    assert {node.target for node in calls(folded.graph)} == {aten.mul.Tensor, aten.add.Tensor}
    x = draw(3, 4)
    assert torch.equal(folded(x)[0], model(x))


def sizes_of(gm: fx.GraphModule) -> int:
    return sum(t.numel() for t in [*gm.parameters(), *gm.buffers()])


def test_relayouts_of_a_large_weight_stay_nodes() -> None:
    """Otherwise the file would hold the weight once for every layout."""
    weight = draw(80, 80)

    def model(x: Tensor) -> Tensor:
        return F.relu(x @ weight) @ weight.t() + (x @ weight.reshape(40, 160).reshape(80, 80))

    graph = graph_of(model, 80)
    step, _ = lower(differentiate(fold(rewrite(graph, SEMANTIC)[0])[0]))
    assert sizes_of(fold_constants(graph)) == weight.numel()
    assert sizes_of(step) < weight.numel() + 100
    x, ct = draw(2, 80), draw(2, 80, seed=1)
    assert_near(fold_constants(graph)(x)[0], model(x))
    assert_near(step(x, ct)[0], model(x))


@pytest.mark.parametrize(
    ("layout", "stays"),
    [
        (lambda w: w.roll(1, 0), True),
        (lambda w: w[None, :, :, None].squeeze((0, 3)), True),
        (lambda w: F.pixel_unshuffle(w[None], 2).reshape(80, 80), True),
        (lambda w: w.repeat_interleave(2, 0)[:80], False),  # a part is smaller than the whole
        (lambda w: w.index_select(0, torch.arange(79, -1, -1)), False),
        (lambda w: w.tril(), False),
    ],
    ids=["rolled", "squeezed", "unshuffled", "a part", "looked up", "triangle"],
)
def test_every_layout_of_a_large_weight_stays_a_node(layout: Callable[[Tensor], Tensor], stays: bool) -> None:
    weight = draw(80, 80)
    graph = graph_of(lambda x: x @ weight + x @ layout(weight), 80)
    folded = fold_constants(graph)
    assert (sizes_of(folded) == weight.numel()) is stays
    x = draw(2, 80)
    assert torch.equal(folded(x)[0], graph(x)[0])


def test_relayouts_of_a_small_constant_are_folded() -> None:
    weight = draw(4, 4)
    folded = fold_constants(graph_of(lambda x: x @ weight.t(), 4))
    assert [node.target for node in calls(folded.graph)] == [aten.matmul.default]


def test_injections_stay() -> None:
    model = model_of(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), batch_norm(4), nn.ReLU(), nn.MaxPool2d(2)))
    rewritten, _ = rewrite(capture(model, torch.zeros(1, 3, 6, 6).double()), SEMANTIC)
    folded, _ = fold(rewritten)
    assert sum(node.target is INJECT for node in calls(folded.graph)) == 2
    x = draw(2, 3, 6, 6)
    ct = draw(*model(x).shape, seed=1)
    assert_near(pulled_back(lambda z: folded(z)[0], x, ct), pulled_back(lambda z: rewritten(z)[0], x, ct))
