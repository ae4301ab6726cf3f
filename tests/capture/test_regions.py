"""Regions with gradients or autocast switched: their nodes keep module and line; half precision is refused by both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT, SEMANTIC
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from tests.helpers import assert_near, draw, pulled_back

Forward = Callable[["Net", Tensor], Any]


class Net(nn.Module):
    def __init__(self, function: Forward) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.head, self.function = nn.Sequential(nn.Linear(8, 8), nn.SiLU()), nn.Linear(8, 4), function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def _without_gradients(net: Net, x: Tensor) -> Any:
    with torch.no_grad():
        y = net.inner(x)
    return net.head(x + y)


def _nested(net: Net, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        y = net.inner[0](x)
        with torch.no_grad():
            y = net.inner[1](y)
    return net.head(x + y)


def _off(net: Net, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        return net.head(x + net.inner(x))


def _in_training_alone(net: Net, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=net.training):
        return net.head(x + net.inner(x))


def _of_another_device(net: Net, x: Tensor) -> Any:
    with torch.autocast("cuda", dtype=torch.float16):
        return net.head(x + net.inner(x))


def _with_constant(net: Net, x: Tensor) -> Any:
    with torch.no_grad():
        y = net.inner(x) * torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], dtype=x.dtype)
    return net.head(x + y)


JOINED: dict[str, Forward] = {
    "no gradients": _without_gradients,
    "nested": _nested,
    "autocast off": _off,
    "in training alone": _in_training_alone,
    "of another device": _of_another_device,
    "with a constant": _with_constant,
}


@pytest.mark.filterwarnings("ignore:.*CUDA is not available.*:UserWarning")
@pytest.mark.parametrize("name", JOINED)
def test_operators_of_a_region_have_their_module_and_their_line(name: str) -> None:
    net = Net(JOINED[name]).double().eval()
    pb = fxpullback.compile(net, draw(2, 8), rules=EXACT, target="cotangent")
    x, ct = draw(5, 8, seed=1), draw(5, 4, seed=2)
    logits, pullback = pb(x, ct)
    assert_near(logits, net(x).detach(), 1e-12)

    def through(given: Tensor) -> Tensor:
        """The same without any region."""
        y = net.inner(given)
        if name == "with a constant":
            y = y * torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], dtype=x.dtype)
        result: Tensor = net.head(given + y)
        return result

    assert_near(pullback, pulled_back(through, x, ct), 1e-12)
    modules = {row.module for row in pb.ledger.rows}
    assert {"inner.0", "inner.1", "head"} <= modules
    assert all(row.source.startswith("test_regions.py:") for row in pb.ledger.rows if row.module)


def test_rules_and_taps_find_the_modules_of_a_region() -> None:
    class Pictures(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Any:
            with torch.no_grad():
                h = torch.relu(self.conv(x))
            return self.head(h.mean((2, 3)))

    pb = fxpullback.compile(Pictures().eval(), torch.randn(2, 3, 8, 8), rules=SEMANTIC, taps=["conv"])
    assert pb.contributions is not None
    assert pb.verify().passed


def _autocast(net: Net, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.head(net.inner(x)).float()


@torch.autocast("cpu", dtype=torch.float16)  # type: ignore[untyped-decorator]
def _decorated(net: Net, x: Tensor) -> Any:
    return net.head(net.inner(x))


def _cast(net: Net, x: Tensor) -> Any:
    return net.head(x.bfloat16().float())


def _inside(net: Net, x: Tensor) -> Any:
    with torch.no_grad():
        return _autocast(net, x)


HALF: dict[str, tuple[Forward, str]] = {
    "region": (_autocast, r"at inner\.0 \(test_regions\.py:\d+\) computes in bfloat16"),
    "decorated": (_decorated, r"at inner\.0 \(test_regions\.py:\d+\) computes in float16"),
    "inside another region": (_inside, r"at inner\.0 \(test_regions\.py:\d+\) computes in bfloat16"),
    "cast": (_cast, r"test_regions\.py:\d+\) computes in bfloat16"),
}


@pytest.mark.parametrize("name", HALF)
def test_half_precision_is_refused_by_line(name: str) -> None:
    function, message = HALF[name]
    with pytest.raises(CaptureError, match=message) as raised:
        fxpullback.compile(Net(function).eval(), torch.randn(2, 8))
    assert "enabled=self.training" in str(raised.value)
    assert "precision='fp16'" in str(raised.value)


def test_the_advice_works(tmp_path: Path) -> None:
    pb = fxpullback.compile(Net(_in_training_alone).eval(), torch.randn(2, 8))
    assert pb.verify().passed
    to_onnx(pb, tmp_path / "full.onnx")
    to_onnx(pb, tmp_path / "half.onnx", precision="fp16")


def test_autocast_of_whoever_compiles_is_no_matter(tmp_path: Path) -> None:
    net, x = Net(_off).eval(), torch.randn(2, 8)
    plain = fxpullback.compile(net, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pb = fxpullback.compile(net, x)
        assert pb.verify().passed
        to_onnx(pb, tmp_path / "model.onnx")
    target = torch.tensor([0, 1])
    for found, wanted in zip(pb(x, target), plain(x, target), strict=True):
        assert torch.equal(found, wanted)


def test_a_program_of_regions_is_left_as_it_is() -> None:
    net = Net(_without_gradients).double().eval()
    program = torch.export.export(net, (draw(2, 8),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    before = str(program.graph)
    pb = fxpullback.compile(program, draw(2, 8), rules=EXACT)
    assert str(program.graph) == before
    assert "inner.1" in {row.module for row in pb.ledger.rows}
