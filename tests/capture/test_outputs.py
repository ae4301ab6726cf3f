"""What a model may return, and what is said of the rest; what torch.export may print."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import fxpullback
from fxpullback.contract.errors import CaptureError
from tests.helpers import assert_near, draw


class Returns(nn.Module):
    """Whatever `wrap` makes of the logits."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x: Tensor) -> Any:
        return self.wrap(torch.relu(self.linear(x)))


def model(wrap: Callable[[Tensor], Any]) -> Returns:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return Returns(wrap).double().eval()


@dataclasses.dataclass
class Record:
    logits: Tensor


SINGLE: dict[str, Callable[[Tensor], Any]] = {
    "dict of one": lambda y: {"logits": y},
    "tuple of one": lambda y: (y,),
    "list of one": lambda y: [y],
    "nested": lambda y: {"head": ({"logits": y},)},
    "beside None": lambda y: {"logits": y, "loss": None},
}


@pytest.mark.parametrize("name", SINGLE)
def test_one_tensor_in_a_container(name: str) -> None:
    x, index = draw(3, 4), torch.tensor([0, 1, 2])
    found = fxpullback.compile(model(SINGLE[name]), draw(1, 4))(x, index)
    for value, wanted in zip(found, fxpullback.compile(model(lambda y: y), draw(1, 4))(x, index), strict=True):
        assert_near(value, wanted)


def test_one_tensor_in_a_container_of_an_exported_program() -> None:
    program = torch.export.export(
        model(SINGLE["dict of one"]), (draw(2, 4),), dynamic_shapes=({0: Dim("batch")},), strict=False
    )
    assert fxpullback.compile(program, draw(1, 4)).classes == 3


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (
            lambda y: {"features": y[:, :, None], "logits": y, "loss": None},
            r"returns 2 values; .* It returns features \[batch, 3, 1\] float64, logits \[batch, 3\] float64; logits "
            r"may be the logits. Name the one that is meant: output='logits'.",
        ),
        (lambda y: (y, {"aux": y * 2}), r"0 and 1.aux may be the logits"),
        (lambda y: (y.sum(), y.argmax(1)), r"1 \[batch\] int64; none of them is \[batch, classes\]"),
        (lambda y: (y, "text"), r"1 = 'text'; 0 may be the logits"),
        (lambda y: {}, "returns 0 values"),
        (Record, "it returns a Record, which torch.export does not take apart. Wrap the model"),
    ],
)
def test_several_outputs_are_named(wrap: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(model(wrap), draw(1, 4))


def branch(y: Tensor) -> Tensor:
    print("the model's own words", file=sys.stderr)
    return y if bool(y.sum() > 0) else -y


def test_the_half_made_graph_of_torch_is_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CaptureError, match="depends on the values of the input"):
        fxpullback.compile(model(branch), draw(1, 4))
    out, err = capfd.readouterr()
    assert out == ""
    assert "def forward" not in err
    assert "torch.ops" not in err
    assert "the model's own words" in err
