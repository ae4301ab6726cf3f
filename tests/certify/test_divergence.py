"""Where a graph goes wrong, as the certificate has it: nowhere in a right one, at its operator in a wrong one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import Pullback
from fxpullback.certify.divergence import first_forward_difference, first_pullback_difference
from fxpullback.graph.float64 import Memo, in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import COTANGENT_OF, HOLDS, aten, calls
from tests.helpers import changed, draw


class Picture(nn.Module):
    """Convolutions of both strides, batch norms that fold and one that does not, a gate, a pool, a sum."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate = gate
        self.stem, self.norm = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
        self.inner, self.later, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.gate(self.norm(self.stem(x))), 2)
        x = x + self.gate(self.inner(x))
        logits: Tensor = self.head(self.gate(self.later(x)).mean((2, 3)))
        return logits


class Tokens(nn.Module):
    """A block of a transformer with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.token = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.first, self.qkv, self.out = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8)
        self.second, self.up, self.down, self.head = (
            nn.LayerNorm(8),
            nn.Linear(8, 16),
            nn.Linear(16, 8),
            nn.Linear(8, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        q, k, v = self.qkv(self.first(x)).reshape(x.shape[0], -1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.down(F.gelu(self.up(self.second(x))))
        logits: Tensor = self.head(x[:, 0])
        return logits


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: Picture(F.relu),
    "relu6": lambda: Picture(F.relu6),
    "silu": lambda: Picture(F.silu),
    "tokens": Tokens,
}
BOUND = 1e-9


@lru_cache
def compiled(name: str) -> Pullback:
    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return fxpullback.compile(model.eval(), torch.randn(1, 3, 16, 16))


def differences(pb: Pullback, step: fx.GraphModule) -> tuple[str, str]:
    """What is said of the logits and of the pullback of `step`."""
    memo: Memo = {}
    captured, folded, wide = (in_float64(gm, memo) for gm in (pb.captured, pb.folded, step))
    inputs = Inputs(draw(2, 3, 16, 16, seed=3))
    u = draw(2, 5, seed=4)
    forward = first_forward_difference(captured, wide, inputs, 1e-6)  # folding rounds the weights
    return forward, first_pullback_difference(folded, wide, inputs, u, BOUND)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_right_graph_differs_nowhere(name: str) -> None:
    pb = compiled(name)
    forward, back = differences(pb, pb.step)
    assert forward.startswith("no operator")
    assert back.startswith("all cotangents the walk recorded agree")


@pytest.mark.parametrize("name", NETWORKS)
def test_most_operators_can_be_compared(name: str) -> None:
    """The lowered graph says of most captured operators which node holds their value, some of them with a factor."""
    pb = compiled(name)
    held = {name: factor for n in pb.step.graph.nodes for name, factor in n.meta.get(HOLDS, {}).items()}
    own = {n.name for n in calls(pb.captured.graph)}
    assert len(own & held.keys()) >= 0.5 * len(own)
    back = {name: factor for n in pb.step.graph.nodes for name, factor in n.meta.get(COTANGENT_OF, {}).items()}
    assert len(own & back.keys()) >= 5  # where zeros are put late, only a part of the cotangent is there
    assert any(factor != 1 for factor in (held | back).values()) or name == "silu"


def places(pb: Pullback, key: str) -> list[str]:
    own = {n.name for n in calls(pb.captured.graph)}
    return [n.name for n in calls(pb.step.graph) if own & n.meta.get(key, {}).keys()]


@pytest.mark.parametrize("key", [HOLDS, COTANGENT_OF])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_wrong_value_and_cotangent_is_named(name: str, key: str) -> None:
    pb = compiled(name)
    for place in places(pb, key):
        step = copy.deepcopy(pb.step)
        node = next(n for n in step.graph.nodes if n.name == place)
        changed(step, node, aten.mul.Tensor, 1.001)
        said = differences(pb, step)[0 if key == HOLDS else 1]
        assert said.startswith("first difference"), (place, said)
        named = said.split("the cotangent of")[-1]
        assert any(f"(node {operator})" in named for operator in node.meta[key]), (place, said)
