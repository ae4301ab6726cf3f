"""Examples of several inputs: by place and by name, programs that take several, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

import fxpullback
from fxpullback import SEMANTIC
from fxpullback.capture import capture
from fxpullback.contract.errors import CaptureError, InputError
from tests.helpers import assert_near, draw, pulled_back
from tests.several_inputs import CASES, CLASSES, WIDTH, Ids, compiled


class ByName(nn.Module):
    """What is explained is neither the first parameter nor one that has a place."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.embedding = nn.Linear(WIDTH, CLASSES), nn.Embedding(7, WIDTH)

    def forward(self, ids: Tensor | None = None, mask: Tensor | None = None, *, embedded: Tensor | None = None) -> Any:
        features = self.embedding(ids) if embedded is None else embedded
        assert mask is not None
        return {"logits": self.head((torch.relu(features) * mask[:, :, None]).sum(1))}


def test_examples_by_name() -> None:
    model = ByName().double().eval()
    x, mask, u = draw(3, 5, WIDTH), draw(3, 5, seed=1), draw(3, CLASSES, seed=2)
    pb = fxpullback.compile(model, {"embedded": x[:2], "mask": mask[:2]}, rules=fxpullback.EXACT, target="cotangent")
    assert [e.name for e in pb.extras] == ["mask"]
    logits, pullback = pb(x, u, mask=mask)
    assert_near(logits, model(embedded=x, mask=mask)["logits"].detach())
    assert_near(pullback, pulled_back(lambda z: model(embedded=z, mask=mask)["logits"], x, u))
    assert pb.verify().passed


def test_examples_by_a_wrong_name_are_refused() -> None:
    with pytest.raises(
        CaptureError, match=r"cannot be called with examples called embedded, masks: .*unexpected keyword"
    ):
        fxpullback.compile(ByName().double().eval(), {"embedded": draw(2, 5, WIDTH), "masks": draw(2, 5)})
    x, types, weight = CASES["ids"].inputs(2, 1)
    with pytest.raises(CaptureError, match="takes x, types, weight, and the examples are called x, weight, types"):
        fxpullback.compile(exported("ids"), {"x": x, "weight": weight, "types": types})
    assert fxpullback.compile(exported("ids"), {"x": x, "types": types, "weight": weight}).extras[0].name == "types"
    with pytest.raises(InputError, match="no example inputs"):
        fxpullback.compile(ByName().double().eval(), {})


def test_a_leading_axis_of_the_batch_is_the_batch() -> None:
    class Scaled(nn.Module):
        def forward(self, x: Tensor, scale: Tensor) -> Tensor:
            return torch.relu(x) * scale

    model = Scaled().eval()
    batched = fxpullback.compile(model, (draw(2, 4), draw(2, 4)))
    fixed = fxpullback.compile(model, (draw(3, 4), draw(1, 4)))
    single = fxpullback.compile(model, (draw(1, 4), draw(1, 4)))
    assert [pb.extras[0].batched for pb in (batched, fixed, single)] == [True, False, True]
    assert fixed(draw(5, 4), torch.zeros(5, dtype=torch.int64), draw(1, 4))[0].shape == (5, 4)
    with pytest.raises(InputError, match=r"scale is \[5, 4\]; this graph was compiled for \[1, 4\]"):
        fixed(draw(5, 4), torch.zeros(5, dtype=torch.int64), draw(5, 4))


def exported(case: str) -> torch.export.ExportedProgram:
    batch = Dim("batch")
    examples = CASES[case].inputs(2, 1)
    free = tuple({0: batch} if e.shape[0] == 2 else None for e in examples)
    return torch.export.export(CASES[case].network(), examples, dynamic_shapes=free, strict=False)


@pytest.mark.parametrize("case", ["ids", "bias"])
def test_exported_programs(case: str, tmp_path: Path) -> None:
    program, examples = exported(case), CASES[case].inputs(2, 1)
    torch.export.save(program, tmp_path / "model.pt2")
    x, *extras = CASES[case].inputs(3, 7)
    u = draw(3, CLASSES, seed=8)
    wanted = compiled(case)(x, u, *extras)[1]
    for model in (program, tmp_path / "model.pt2"):
        pb = fxpullback.compile(model, examples, rules=SEMANTIC, target="cotangent")
        assert [e.batched for e in pb.extras] == [e.batched for e in compiled(case).extras]
        assert_near(pb(x, u, *extras)[1], wanted)


def test_an_exported_program_wants_an_example_of_each_input() -> None:
    with pytest.raises(CaptureError, match=r"takes 3 inputs \(x, types, weight\), and 1 examples were given"):
        fxpullback.compile(exported("ids"), CASES["ids"].inputs(2, 1)[0])
    x, types, weight = CASES["ids"].inputs(2, 1)
    with pytest.raises(CaptureError, match=r"of torch.int64 as types, and the example is \[2, 5\] of torch.int32"):
        fxpullback.compile(exported("ids"), (x, types.int(), weight))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"mask": torch.ones(2)}, "example input 2 is a dict, .*takes the tensors one by one"),
        (None, "example input 2 is a NoneType, .*Leave it out where it is the last one"),
        (0.5, "example input 2 is a float, .*A setting is no input"),
        ([torch.ones(2)], "example input 2 is a list"),
        (torch.ones(2, dtype=torch.complex64), "example input 2 is .* extras are real numbers"),
    ],
)
def test_extras_that_are_no_tensors_are_refused(extra: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(CASES["condition"].network(), (draw(2, 6), extra))


def test_a_free_axis_that_is_not_the_batch_is_refused() -> None:
    examples, other = CASES["condition"].inputs(2, 1), Dim("other")
    program = torch.export.export(
        Loose().double().eval(), examples, dynamic_shapes=({0: Dim("batch")}, {0: other}), strict=False
    )
    with pytest.raises(
        CaptureError, match="axis 0 of the input condition is free, and no axis of the explained input has its size"
    ):
        fxpullback.compile(program, examples)


class Loose(nn.Module):
    """A batch of conditions that is any size, whatever that of the input."""

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return torch.relu(x) * condition.mean()


def test_a_program_with_a_setting_is_refused() -> None:
    class Setting(nn.Module):
        def forward(self, x: Tensor, twice: bool) -> Tensor:
            return torch.relu(x) * (2 if twice else 1)

    program = torch.export.export(
        Setting(), (torch.zeros(2, 4), True), dynamic_shapes=({0: Dim("batch")}, None), strict=False
    )
    with pytest.raises(CaptureError, match="the model's input twice is a bool, and a graph takes tensors alone"):
        fxpullback.compile(program, torch.zeros(2, 4))


def test_the_wrong_number_of_examples_is_refused() -> None:
    x, types, weight = CASES["ids"].inputs(2, 1)
    with pytest.raises(CaptureError, match="cannot be called with 2 example inputs: missing a required argument"):
        fxpullback.compile(Ids().double().eval(), (x, types))
    with pytest.raises(CaptureError, match="cannot be called with 4 example inputs: too many positional"):
        fxpullback.compile(Ids().double().eval(), (x, types, weight, weight))
    with pytest.raises(InputError, match="no example inputs"):
        fxpullback.compile(Ids().double().eval(), ())


def test_inputs_taken_for_batched_are_named_where_capture_fails() -> None:
    class Square(nn.Module):
        def forward(self, x: Tensor, bias: Tensor) -> Tensor:
            return torch.relu(x @ bias)

    with pytest.raises(CaptureError, match="Inputs 2 were taken for batched"):
        capture(Square().eval(), torch.zeros(4, 4), [torch.zeros(4, 4)])
    assert capture(Square().eval(), torch.zeros(3, 4), [torch.zeros(4, 4)]) is not None
