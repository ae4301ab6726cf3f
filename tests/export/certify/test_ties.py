"""Ties: which of equal values top-k, a sort or a maximum takes is no defect, and the certificate takes the file's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import VerifyError
from fxpullback.export import to_onnx
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.runtime.session import Session

Places = Callable[[Tensor], Tensor]

TIES: dict[str, Places] = {
    "top-k": lambda y: y.topk(3, 2)[1],
    "top-k of the smallest": lambda y: y.topk(3, 2, largest=False)[1],
    "top-k in no order": lambda y: y.topk(3, 2, sorted=False)[1],
    "top-k by places": lambda y: y.topk(3, 2)[1].sort(2)[0],
    "sort": lambda y: y.sort(2, descending=True)[1][..., 4:7],
    "maximum": lambda y: y.max(2, keepdim=True)[1],
    "order": lambda y: y.argsort(dim=2, stable=True)[..., 4:7],
}


class Chosen(nn.Module):
    """Values read at places that an order of equal values says: many zeros, and every value twice."""

    def __init__(self, places: Places) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.values, self.head = nn.Conv1d(4, 8, 3), nn.Conv1d(4, 8, 1), nn.LazyLinear(3)
        self.places = places

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        y, v = torch.cat([y, y], 2), self.values(x)
        at = self.places(y) % v.shape[2]
        return self.head((v.gather(2, at) + y.gather(2, at)).flatten(1))  # type: ignore[no-any-return]


def compiled(places: Places) -> fxpullback.Pullback:
    model = Chosen(places).eval()
    model(torch.randn(2, 4, 12))
    return fxpullback.compile(model, torch.randn(2, 4, 12), rules=EXACT)


@pytest.mark.parametrize("name", TIES)
def test_a_file_of_ties_passes_its_certificate(name: str, tmp_path: Path) -> None:
    to_onnx(compiled(TIES[name]), tmp_path / "model.onnx")
    assert recheck(tmp_path / "model.onnx").passed


def test_the_first_of_equal_values_is_taken(tmp_path: Path) -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.gather(1, torch.topk(torch.round(x.detach()), 4)[1]) * torch.arange(1.0, 5.0)

    to_onnx(fxpullback.compile(First().eval(), torch.randn(2, 40)), tmp_path / "model.onnx")
    x = torch.randn(5, 40)
    order = torch.sort(torch.round(x), dim=1, descending=True, stable=True)[1][:, :4]
    wanted = torch.zeros(5, 40).scatter(1, order[:, 1:2], 2.0)
    result = Session(tmp_path / "model.onnx")(x.numpy(), torch.ones(5, dtype=torch.int64).numpy())
    assert torch.equal(torch.from_numpy(result.logits), x.gather(1, order) * torch.arange(1.0, 5.0))
    assert torch.equal(torch.from_numpy(result.pullback), wanted)


def test_another_choice_than_the_first_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def torchs(gm: torch.fx.GraphModule) -> torch.fx.GraphModule:
        return gm

    monkeypatch.setattr("fxpullback.export.certify.oracle.first_of_equals", torchs)
    with pytest.raises(VerifyError, match="ONNX Runtime: logits"):
        to_onnx(compiled(TIES["top-k by places"]), tmp_path / "model.onnx")
