"""Windows of pictures whose size is free, taken and put back, in ONNX Runtime at sizes the exporter never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near

WINDOWS = {
    "a convolution's along one axis": ((3, 1), (1, 1), (1, 0), (1, 1)),
    "leaving places out": ((3, 2), (1, 1), (1, 0), (2, 1)),
    "dilated, uneven strides": ((2, 3), (2, 1), (0, 1), (3, 2)),
    "overlapping": ((3, 3), (1, 1), (1, 1), (2, 2)),
    "side by side": ((2, 2), (1, 1), (0, 0), (2, 2)),
}


class Windowed(nn.Module):
    """A mean over squared windows, or over what windows that are put back add up to."""

    def __init__(self, name: str, folded: bool) -> None:
        super().__init__()
        self.windows, self.folded = WINDOWS[name], folded
        (down, across), *_ = self.windows
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.head = nn.Linear(2 if folded else 2 * down * across, 3)

    def forward(self, x: Tensor) -> Tensor:
        found = F.unfold(x, *self.windows)
        if self.folded:
            found = F.fold(torch.sin(found), x.shape[-2:], *self.windows).flatten(2)
        logits: Tensor = self.head((found * found).mean(2))
        return logits


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_of_a_free_size(name: str, folded: bool, tmp_path: Path) -> None:
    net = Windowed(name, folded).eval()
    pb = fxpullback.compile(net, torch.randn(2, 2, 12, 10), rules=fxpullback.EXACT, free_size=True, target="cotangent")
    session = Session(to_onnx(pb, tmp_path / "windows.onnx"))
    for height, width in ((12, 10), (13, 17), (18, 11)):
        x, cotangent = torch.randn(3, 2, height, width, requires_grad=True), torch.randn(3, 3)
        logits = net(x)
        (gradient,) = torch.autograd.grad(logits, x, cotangent)
        result = session(x.detach().numpy(), cotangent.numpy())
        assert_near(torch.from_numpy(np.array(result.logits)), logits.detach(), 1e-5)
        assert_near(torch.from_numpy(np.array(result.pullback)), gradient, 1e-5)
