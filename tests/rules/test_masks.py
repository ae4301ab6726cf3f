"""Attention under masks of which some leave nothing of a row: torch's fused attention gives zeros there, never NaN."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT, SEMANTIC, Pullback
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.graph.ir import aten, calls
from fxpullback.rules.attention import attention_weights
from tests.helpers import assert_near, draw, pulled_back, variant

TOKENS, WIDTH = 4, 6
FULL = torch.tensor([[True, True, False, True], [False] * 4, [True, False, False, False]])
MASKS = {"boolean": FULL, "additive": torch.zeros(3, TOKENS).masked_fill(~FULL, -torch.inf)}


class Masked(nn.Module):
    """Fused attention under a mask of the keys; queries that see nothing keep what they are."""

    mask: Tensor | None

    def __init__(self, mask: Tensor | None = None) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 3)
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = (t[:, None] for t in self.qkv(x).chunk(3, -1))
        given = self.mask if mask is None else mask[:, None, None]
        mixed = F.scaled_dot_product_attention(q, k, v, given)[:, 0]
        result: Tensor = self.head(F.relu(mixed + x).mean(1))
        return result


def network(mask: Tensor | None = None, dtype: torch.dtype = torch.float64) -> Masked:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return Masked(mask).to(dtype).eval()


def cast(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return mask.to(dtype) if mask.is_floating_point() else mask


def soft_oracle(model: Masked, mask: Tensor) -> Any:
    """The model with attention weights held constant, row by row, and an expected ReLU."""

    def run(x: Tensor) -> Tensor:
        q, k, v = model.qkv(x).chunk(3, -1)
        samples = []
        for b in range(len(x)):
            seen = mask[b] if mask.dtype == torch.bool else torch.isfinite(mask[b])
            if bool(seen.any()):
                weights = torch.softmax(q[b] @ k[b, seen].T / WIDTH**0.5, -1)
                mixed = weights.detach() @ v[b, seen]
            else:
                mixed = torch.zeros_like(v[b])
            hidden = mixed + x[b]
            expected = 0.5 * (1 + torch.erf(hidden / 0.6 / 2**0.5))
            soft = hidden * expected.detach()
            samples.append((F.relu(hidden).detach() + soft - soft.detach()).mean(0))
        result: Tensor = model.head(torch.stack(samples))
        return result

    return run


@cache
def compiled(kind: str) -> Pullback:
    examples = draw(3, TOKENS, WIDTH), cast(MASKS[kind], torch.float64)
    return fxpullback.compile(network(), examples, rules=SEMANTIC, target="cotangent")


@pytest.mark.parametrize("kind", MASKS)
def test_weights_of_an_empty_row_are_zero(kind: str) -> None:
    q, k = draw(3, 5, 2), draw(3, TOKENS, 2, seed=1)
    mask = cast(MASKS[kind], torch.float64)[:, None]
    weights = attention_weights(q, k, mask, False, None)
    assert_near(weights.sum(-1), torch.tensor([[1.0], [0.0], [1.0]], dtype=torch.float64).expand(3, 5))
    assert_near(weights @ k, F.scaled_dot_product_attention(q, k, k, mask))


@pytest.mark.parametrize("kind", MASKS)
def test_soft_pullback_under_an_empty_row(kind: str) -> None:
    model, mask = network(), cast(MASKS[kind], torch.float64)
    x, u = draw(3, TOKENS, WIDTH), draw(3, 3, seed=1)
    pb = compiled(kind)
    logits, pullback = pb(x, u, mask=mask)
    assert_near(logits, model(x, mask).detach())
    assert torch.equal(pb.rewritten(x, mask)[0], model(x, mask))
    assert_near(pullback, pulled_back(soft_oracle(model, mask), x, u))
    certificate = pb.verify(seed=2)
    assert certificate.passed, str(certificate)


@pytest.mark.parametrize("kind", MASKS)
def test_exact_pullback_under_an_empty_row(kind: str) -> None:
    model, mask = network(), cast(MASKS[kind], torch.float64)
    x, u = draw(3, TOKENS, WIDTH), draw(3, 3, seed=1)
    pb = variant(compiled(kind), rules=EXACT)
    assert_near(pb(x, u, mask)[1], pulled_back(lambda z: model(z, mask), x, u))


@pytest.mark.parametrize("kind", MASKS)
def test_files_under_an_empty_row(kind: str, tmp_path: Path) -> None:
    model, mask = network(dtype=torch.float32), MASKS[kind]
    x = draw(3, TOKENS, WIDTH, dtype=torch.float32)
    pb = fxpullback.compile(model, (x, mask))
    session = Session(to_onnx(pb, tmp_path / "masked.onnx"), providers=["cpu"])
    index = torch.tensor([0, 2, 1])
    logits, pullback = pb(x, index, mask)
    result = session(x.numpy(), index.numpy(), mask=mask.numpy())
    assert_near(torch.from_numpy(result.logits), logits, 1e-5)
    assert_near(torch.from_numpy(result.pullback), pullback, 1e-5)
    assert recheck(tmp_path / "masked.onnx", 3).passed


def test_a_padding_mask_of_multi_head_attention() -> None:
    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
            self.head = nn.Linear(WIDTH, 3)

        def forward(self, x: Tensor, padded: Tensor) -> Tensor:
            mixed = self.attention(x, x, x, key_padding_mask=padded, need_weights=False)[0]
            result: Tensor = self.head((x + mixed).mean(1))
            return result

    model, x = Encoder().double().eval(), draw(3, TOKENS, WIDTH)
    pb = fxpullback.compile(model, (x, ~FULL))
    assert_near(pb(x, torch.zeros(3, dtype=torch.int64), ~FULL)[0], model(x, ~FULL).detach())
    assert pb.verify().passed


def operators(pb: Pullback) -> Counter[Any]:
    return Counter(node.target for node in calls(pb.graph.graph))


@cache
def without_a_mask() -> Pullback:
    return fxpullback.compile(network(), draw(2, TOKENS, WIDTH))


CONSTANTS = {
    "finite bias": draw(TOKENS, TOKENS),
    "causal boolean": torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril(),
    "causal additive": torch.zeros(TOKENS, TOKENS)
    .masked_fill(torch.ones(TOKENS, TOKENS).triu(1) > 0, -torch.inf)
    .double(),
}


@pytest.mark.parametrize("name", [*CONSTANTS, "none"])
def test_a_mask_that_empties_no_row_costs_nothing(name: str) -> None:
    x = draw(2, TOKENS, WIDTH)
    found = operators(fxpullback.compile(network(CONSTANTS.get(name)), x))
    plain = operators(without_a_mask())
    plain[aten.add.Tensor] += name in ("finite bias", "causal additive")
    plain[aten.where.ScalarOther] += name == "causal boolean"
    assert found == plain


def test_a_finite_bias_repeated_over_the_batch_costs_nothing() -> None:
    class Expanded(Masked):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            assert self.mask is not None
            mixed = F.scaled_dot_product_attention(q, k, v, self.mask.expand(x.shape[0], -1, -1) + self.mask)
            result: Tensor = self.head(F.relu(mixed + x).mean(1))
            return result

    model = Expanded(draw(TOKENS, TOKENS)).double().eval()
    found = operators(fxpullback.compile(model, draw(2, TOKENS, WIDTH)))
    assert not found[aten.where.ScalarSelf]
    assert not found[aten.amax.default]


def test_finite_constants_that_add_up_to_none_are_guarded() -> None:
    """The smallest number twice is -inf; the sum is not folded, for it has a batch."""

    class Twice(Masked):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            assert self.mask is not None
            wide = self.mask.expand(x.shape[0], -1, -1)
            mixed = F.scaled_dot_product_attention(q, k, v, wide + wide)
            result: Tensor = self.head(F.relu(mixed + x).mean(1))
            return result

    mask = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    mask[1] = torch.finfo(torch.float64).min
    model, x, u = Twice(mask).double().eval(), draw(2, TOKENS, WIDTH), draw(2, 3, seed=1)
    pb = fxpullback.compile(model, x, target="cotangent")
    assert_near(pb(x, u)[0], model(x).detach())
    assert bool(torch.isfinite(pb(x, u)[1]).all())


def test_a_constant_mask_that_empties_a_row() -> None:
    mask = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
    mask[1] = False
    model, x, u = network(mask), draw(2, TOKENS, WIDTH), draw(2, 3, seed=1)
    pb = fxpullback.compile(model, x, target="cotangent")
    assert_near(pb(x, u)[0], model(x).detach())
    assert pb.verify().passed
