"""What a forward reads off constants: masks that choose entries, numbers, places. Right at every batch, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw, pulled_back

Middle = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    roi: Tensor
    scale: Tensor
    keep: Tensor
    count: Tensor
    repeats: Tensor

    def __init__(self, middle: Middle, width: int) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.conv, self.middle = nn.Conv2d(3, 8, 3), middle
        self.register_buffer("roi", torch.rand(6, 6, generator=drawn) > 0.5)
        self.register_buffer("keep", torch.rand(8, generator=drawn) > 0.4)
        self.register_buffer("scale", torch.tensor(1.7))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("repeats", torch.tensor([1, 0, 2, 1, 0, 1, 1, 2]))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.middle(self, F.relu(self.conv(x))).flatten(1))  # type: ignore[no-any-return]


def net(middle: Middle) -> Net:
    torch.manual_seed(0)
    with torch.no_grad():
        probe = Net(middle, 1)
        width = middle(probe, F.relu(probe.conv(torch.zeros(1, 3, 8, 8)))).flatten(1).shape[1]
    torch.manual_seed(0)
    return Net(middle, width).double().eval()


def _zeroed(model: Net, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, :, ~model.roi] = 0.0
    return y


def _doubled(model: Net, y: Tensor) -> Tensor:
    y = y.clone()
    y[:, model.keep] *= 2.0
    return y


READ: dict[str, Middle] = {
    "mask of places": lambda m, y: y[:, :, m.roi].mean(2),
    "mask computed of one": lambda m, y: y[:, :, ~m.roi & (m.scale > 0)].amax(2),
    "mask of channels": lambda m, y: y[:, m.keep],
    "mask, assigned": _zeroed,
    "mask, assigned anew": _doubled,
    "mask, behind an index of samples": lambda m, y: y[torch.arange(y.shape[0])][:, :, m.roi],
    "masked_select of a constant": lambda m, y: y * torch.masked_select(m.repeats, m.repeats > 1).sum(),
    "places of a mask": lambda m, y: y[:, m.keep.nonzero().squeeze(1)],
    "places by where": lambda m, y: y[:, :, torch.where(m.roi)[0], torch.where(m.roi)[1]],
    "unique": lambda m, y: y[:, torch.unique(m.repeats)],
    "repeats": lambda m, y: torch.repeat_interleave(y, m.repeats, dim=1),
    "item": lambda m, y: y * m.scale.item(),
    "float": lambda m, y: y * float(m.scale),
    "int": lambda m, y: y[:, : int(m.count)],
    "branch": lambda m, y: y * 2 if m.scale > 1 else y,
    "list": lambda m, y: y[:, m.repeats.tolist()],
    "list of booleans": lambda m, y: F.relu(y[:, [True, False, True, True, False, False, True, False]]).flatten(2),
    "array of booleans": lambda m, y: y[:, np.arange(8) > 3],
}

OF_THE_INPUT: dict[str, Middle] = {
    "mask of values": lambda m, y: y[:, :, y[0, 0] > y[0, 0].mean()].mean(2),
    "samples": lambda m, y: y[y[:, 0, 0, 0] > -9],
    "as many as samples": lambda m, y: y[torch.ones(y.shape[0]).bool()],
    "item": lambda m, y: y * y.mean().item(),
    "of a constant and the input": lambda m, y: y[:, :, m.roi & (y[0, 0] > -1)].mean(2),
}


@pytest.mark.parametrize("name", READ)
def test_exact_is_the_gradient_of_the_model_at_other_batches(name: str) -> None:
    model = net(READ[name])
    pb = fxpullback.compile(model, draw(2, 3, 8, 8), rules=EXACT, target="cotangent")
    x, ct = draw(5, 3, 8, 8, seed=1), draw(5, 4, seed=2)
    logits, pullback = pb(x, ct)
    assert_near(logits, model(x).detach(), 1e-12)
    assert_near(pullback, pulled_back(model, x, ct), 1e-12)


@pytest.mark.parametrize("name", OF_THE_INPUT)
def test_what_depends_on_the_input_is_refused(name: str) -> None:
    with pytest.raises(CaptureError, match=r"test_known\.py"):
        fxpullback.compile(net(OF_THE_INPUT[name]), draw(2, 3, 8, 8))


def test_a_number_of_the_size_is_right_at_every_size() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            steps = torch.ones(x.shape[2]).cumsum(0)
            return self.head((x * float(steps[-1])).mean(2))  # type: ignore[no-any-return]

    torch.manual_seed(0)
    model = Scaled().double().eval()
    with pytest.raises(CaptureError):
        fxpullback.compile(model, draw(2, 3, 8), free_size=[2])
    pb = fxpullback.compile(model, draw(2, 3, 8), target="top1")
    assert_near(pb(draw(3, 3, 8))[0], model(draw(3, 3, 8)).detach())


def test_a_file_with_a_mask(tmp_path: Path) -> None:
    model = net(READ["mask of places"]).float()
    pb = fxpullback.compile(model, draw(2, 3, 8, 8).float())
    to_onnx(pb, tmp_path / "masked.onnx")
    x = draw(3, 3, 8, 8, seed=3).float()
    result = Session(tmp_path / "masked.onnx")(x.numpy(), torch.tensor([0, 1, 2]).numpy())
    assert_near(torch.from_numpy(result.logits), model(x).detach(), 1e-5)


def test_the_model_is_left_as_it_is() -> None:
    model = net(READ["mask, assigned"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fxpullback.compile(model, draw(2, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
