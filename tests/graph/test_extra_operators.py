"""What models do with an input that is passed through: `EXACT` against autograd, the file against the graph."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import DifferentiateError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

BATCH, TOKENS, WIDTH = 2, 5, 6
MASK = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], dtype=torch.bool)
IDS = torch.tensor([[3, 0, 2, 1, 1], [0, 4, 4, 2, 5]])
PLACE = torch.tensor([2, 4])
VECTOR, SERIES = draw(BATCH, WIDTH, seed=3), draw(BATCH, 3, WIDTH, seed=4)

Use = Callable[[Any, Tensor, Tensor], Tensor]
USES: dict[str, tuple[Use, Tensor]] = {
    "boolean factor": (lambda net, y, e: y * e[:, :, None], MASK),
    "mean over what is there": (lambda net, y, e: (y * e[:, :, None]).sum(1) / e.sum(1, keepdim=True), MASK),
    "masked fill": (lambda net, y, e: y.masked_fill(~e[:, :, None], -1.0).amax(1), MASK),
    "where": (lambda net, y, e: torch.where(e[:, :, None], y, y * 0.1), MASK),
    "integer mask on scores": (
        lambda net, y, e: torch.softmax(y @ y.mT + (1.0 - e[:, None].to(y.dtype)) * torch.finfo(y.dtype).min, -1) @ y,
        MASK.long(),
    ),
    "padding mask of a module": (
        lambda net, y, e: net.attention(y, y, y, key_padding_mask=~e, need_weights=False)[0],
        MASK,
    ),
    "queries from elsewhere": (lambda net, y, e: net.attention(e, y, y, need_weights=False)[0], SERIES),
    "keys from elsewhere": (lambda net, y, e: net.attention(y, e, e, need_weights=False)[0], SERIES),
    "gather": (lambda net, y, e: y.gather(1, e[:, None, None].expand(-1, 1, y.shape[2]))[:, 0], PLACE),
    "a place in each sample": (lambda net, y, e: y[torch.arange(y.shape[0]), e], PLACE),
    "a place from the end": (lambda net, y, e: y[torch.arange(y.shape[0]), -e], PLACE.int()),
    "the place of the largest id": (lambda net, y, e: y[torch.arange(y.shape[0]), e.argmax(-1)], IDS),
    "lengths": (lambda net, y, e: y * (torch.arange(y.shape[1]) < e[:, None])[:, :, None], PLACE),
    "one-hot": (lambda net, y, e: y * F.one_hot(e, WIDTH).to(y.dtype), IDS),
    "ids that are not padding": (lambda net, y, e: y * (e != 0)[:, :, None], IDS),
    "embedding of int32": (lambda net, y, e: y * net.embedding(e), IDS.int()),
    "bytes": (lambda net, y, e: y * (e / 255.0)[:, :, None], (IDS * 40).to(torch.uint8)),
    "gate": (lambda net, y, e: y * torch.softmax(e, -1)[:, None], VECTOR),
    "divisor": (lambda net, y, e: y / (1 + e.abs())[:, None], VECTOR),
    "maximum": (lambda net, y, e: torch.maximum(y, e[:, None]), VECTOR),
    "joined": (lambda net, y, e: torch.cat([y, e], 1), SERIES),
    "matrix product": (lambda net, y, e: torch.bmm(e, y), draw(BATCH, TOKENS, TOKENS)),
    "number": (lambda net, y, e: y * e, torch.tensor(0.7, dtype=torch.float64)),
    "weights": (lambda net, y, e: F.linear(y, e), draw(WIDTH, WIDTH)),
}


class Uses(nn.Module):
    """GELU features, something done with an extra, a head."""

    def __init__(self, use: Use) -> None:
        super().__init__()
        self.features, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)
        self.embedding, self.attention = nn.Embedding(6, WIDTH), nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.use = use

    def forward(self, x: Tensor, extra: Tensor) -> Tensor:
        y = self.use(self, F.gelu(self.features(x)), extra)
        result: Tensor = self.head(y.mean(1) if y.ndim == 3 else y)
        return result


def network(use: Use) -> Uses:
    with torch.random.fork_rng():
        torch.manual_seed(6)
        return Uses(use).double().eval()


@pytest.mark.parametrize("name", USES)
def test_exact_against_autograd(name: str) -> None:
    use, extra = USES[name]
    model, x, u = network(use), draw(BATCH, TOKENS, WIDTH), draw(BATCH, 3, seed=1)
    pb = fxpullback.compile(model, (x, extra), rules=EXACT, target="cotangent")
    logits, pullback = pb(x, u, extra)
    assert_near(logits, model(x, extra).detach())
    assert_near(pullback, pulled_back(lambda z: model(z, extra), x, u))


FILES = ("boolean factor", "integer mask on scores", "a place from the end", "one-hot", "bytes", "number", "joined")


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    use, extra = USES[name]
    extra = extra.float() if extra.is_floating_point() else extra
    x, index = draw(BATCH, TOKENS, WIDTH, dtype=torch.float32), torch.tensor([0, 2])
    pb = fxpullback.compile(network(use).float(), (x, extra))
    result = Session(to_onnx(pb, tmp_path / "net.onnx"), providers=["cpu"])(x.numpy(), index.numpy(), extra.numpy())
    logits, pullback = pb(x, index, extra)
    assert_near(torch.from_numpy(result.logits), logits, 1e-5)
    assert_near(torch.from_numpy(result.pullback), pullback, 1e-5)


def test_keys_from_elsewhere_leave_nothing_to_a_routing_held_constant() -> None:
    use, extra = USES["keys from elsewhere"]
    with pytest.raises(DifferentiateError, match=r"rules hold every path constant: attention\. Keep one of them exact"):
        fxpullback.compile(network(use), (draw(BATCH, TOKENS, WIDTH), extra))


def test_places_in_the_batch_are_refused() -> None:
    with pytest.raises(DifferentiateError, match="along the batch, whose size is free"):
        fxpullback.compile(network(lambda net, y, e: y[e]), (draw(BATCH, TOKENS, WIDTH), torch.tensor([1, 0])))
