"""Determinants, inverses, solutions and Cholesky factors: values and `EXACT` pullbacks as torch's own, and in files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.capture.matrices import LARGEST
from fxpullback.export import to_onnx
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.ir import aten, calls
from tests.helpers import assert_near, draw, graph_of, pulled_back

Part = Callable[[Tensor], Tensor]


def general(y: Tensor) -> Tensor:
    """Matrices of any sign of their determinant, one with zeros where elimination begins."""
    return torch.where(torch.ones_like(y).cumsum(-1).cumsum(-2) > 1, y, 0.0)


def positive(y: Tensor) -> Tensor:
    """Symmetric matrices with positive eigenvalues."""
    return y @ y.transpose(-2, -1) + torch.eye(y.shape[-1], dtype=y.dtype)


PARTS: dict[str, Part] = {
    "det": lambda y: torch.linalg.det(general(y)),
    "slogdet": lambda y: torch.stack(torch.linalg.slogdet(general(y)), 1),
    "logdet": lambda y: torch.logdet(positive(y)),
    "inv": lambda y: torch.linalg.inv(general(y)),
    "inverse": lambda y: torch.inverse(positive(y)),
    "solve": lambda y: torch.linalg.solve(general(y), y[:, :, :1] * 2),
    "solve-vector": lambda y: torch.linalg.solve(general(y), y[:, 0]),
    "solve-constant": lambda y: torch.linalg.solve(general(y), torch.ones_like(y[:, :, :1])),
    "solve-right": lambda y: torch.linalg.solve(positive(y), y, left=False),
    "cholesky": lambda y: torch.linalg.cholesky(positive(y)),
    "cholesky-upper": lambda y: torch.linalg.cholesky(positive(y), upper=True),
}


class Matrices(nn.Module):
    """What becomes of matrices that a linear map makes."""

    def __init__(self, part: Part, size: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.part, self.size = nn.Linear(6, size * size), part, size
        with torch.no_grad():
            self.last = nn.Linear(part(torch.rand(2, size, size)).numel() // 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x).reshape(-1, self.size, self.size)
        return self.last(self.part(y).reshape(x.shape[0], -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("name", PARTS)
def test_the_exact_pullback_is_that_of_torch(name: str, size: int) -> None:
    wide = Matrices(PARTS[name], size).double().eval()
    step = in_float64(fxpullback.compile(wide, draw(2, 6), rules=EXACT).step)
    fresh, ct = draw(5, 6, seed=4), draw(5, 3, seed=5)
    logits, pullback = step(fresh, ct)[:2]
    assert_near(logits, wide(fresh).detach(), 1e-9)
    assert_near(pullback, pulled_back(wide, fresh, ct), 1e-9)


@pytest.mark.parametrize("name", ["det", "slogdet", "inv", "cholesky"])
def test_a_file_of_them(name: str, tmp_path: Path) -> None:
    to_onnx(fxpullback.compile(Matrices(PARTS[name], 4).eval(), torch.randn(2, 6)), tmp_path / "model.onnx")


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_derivative_of_a_small_determinant_is_right_where_it_is_zero(size: int) -> None:
    x = draw(3, size, size)
    x[1, -1] = x[1, 0] if size > 1 else 0.0
    x[2] = 0.0
    minors = torch.linalg.inv(x[0]) * torch.linalg.det(x[0])
    wide = in_float64(fxpullback.compile(Determinant().eval(), x[:2], rules=EXACT).step)
    logits, pullback = wide(x, torch.ones(3, 1, dtype=torch.float64))[:2]
    assert_near(logits[:1, 0], torch.linalg.det(x[:1]))
    assert_near(pullback[0], minors.transpose(0, 1))
    assert bool((pullback[2] == (size == 1)).all())  # minors of zeros; of one row, the minor is 1
    if size == 2:
        assert_near(pullback[1], torch.stack([x[1, 1].flip(0), x[1, 0].flip(0)]) * torch.tensor([[1, -1], [-1, 1.0]]))


class Determinant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x).unsqueeze(1)  # type: ignore[no-any-return]


def test_what_depends_on_weights_alone_and_what_is_large_stays() -> None:
    weight, large = draw(4, 4), LARGEST + 1
    of_weights = graph_of(lambda x: x @ torch.linalg.inv(weight.to(x.dtype)), 4)
    of_large = graph_of(lambda x: torch.linalg.det(x.unsqueeze(1) * x.unsqueeze(2)).unsqueeze(1), large)
    assert [n for n in calls(of_weights.graph) if n.target is aten.linalg_inv.default]
    assert [n for n in calls(of_large.graph) if n.target is aten._linalg_det.default]
