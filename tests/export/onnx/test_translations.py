"""Translations that a caller passes in, for operators of their own or in place of ours, and files made with them."""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from typer.testing import CliRunner

import fxpullback
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ExportError, VerifyError
from fxpullback.export import Session
from fxpullback.export.certify.recheck import recheck
from fxpullback.export.cli.app import app
from fxpullback.export.onnx import Builder, sizes, to_onnx
from fxpullback.export.onnx.translate import TABLE, translate
from fxpullback.graph.ir import aten, stop_gradient
from fxpullback.graph.operators import Trait, Traits
from fxpullback.rules.rule import gate
from tests.export.onnx.lifting import run
from tests.export.onnx.one_node import one_node, row
from tests.export.onnx.one_node import x as normal_x

_COUNT = itertools.count()


@dataclass
class Custom:
    """A library of two operators, in a namespace of its own."""

    library: torch.library.Library
    namespace: str

    @property
    def bump(self) -> OpOverload:
        """`bump(x, width) = x exp(-(x / width)^2)`."""
        found: OpOverload = getattr(torch.ops, self.namespace).bump.default
        return found

    @property
    def halves(self) -> OpOverload:
        """The two halves of the last axis."""
        found: OpOverload = getattr(torch.ops, self.namespace).halves.default
        return found


@pytest.fixture
def custom() -> Iterator[Custom]:
    namespace = f"fxpullback_test_{next(_COUNT)}"
    library = torch.library.Library(namespace, "DEF")
    library.define("bump(Tensor x, float width=1.0, *, bool negated=False) -> Tensor")
    library.define("halves(Tensor x) -> (Tensor, Tensor)")
    for key in ("CompositeExplicitAutograd", "Meta"):
        library.impl("bump", _bump, key)
        library.impl("halves", _halves, key)
    yield Custom(library, namespace)
    library._destroy()


def _bump(x: Tensor, width: float = 1.0, *, negated: bool = False) -> Tensor:
    made = x * torch.exp(-((x / width) ** 2))
    return -made if negated else made


def _halves(x: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2, -1)
    return first.clone(), second.clone()


def bump(b: Builder, x: ir.Value, width: float, negated: bool) -> ir.Value:
    """In ONNX."""
    scaled = b.op("Div", x, b.const(width, b.dtype))
    made = b.op("Mul", x, b.op("Exp", b.op("Neg", b.op("Mul", scaled, scaled))))
    return b.op("Neg", made) if negated else made


def halves(b: Builder, x: ir.Value) -> tuple[ir.Value, ...]:
    """In ONNX."""
    half = b.fixed(sizes(x)[-1], "halves") // 2
    return b.ops("Split", x, b.const([half, half]), dtypes=(None, None), axis=-1)


class Net(nn.Module):
    """A convolution behind which an operator of one's own is the gate."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.operator = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), operator

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.operator(self.conv(x)).mean((2, 3)))  # type: ignore[no-any-return]


def compiled(custom: Custom) -> fxpullback.Pullback:
    @gate(custom.bump, temperature=1.0)
    def rule(x: Tensor, width: float = 1.0, negated: bool = False, *, temperature: float) -> Tensor:
        """Bump.

        Primal:  x exp(-(x / width)^2)
        Adjoint: ct * exp(-(x / (width T))^2)
        Limit:   T = 1 gives its own factor
        """
        return x * stop_gradient(torch.exp(-((x / (width * temperature)) ** 2)))

    traits = Traits(custom.bump, frozenset({Trait.POINTWISE}))
    model = Net(lambda x: custom.bump(x, 0.7)).eval()
    return fxpullback.compile(model, (torch.randn(2, 3, 8, 8),), extensions=[rule, traits])


def graph_of(operator: OpOverload, *args: Any, read: int | None = None, **kwargs: Any) -> torch.fx.GraphModule:
    """A graph of one operator on `x [batch, 6]` and the plain arguments behind it; `read` picks an output."""
    return one_node(row(operator, normal_x(6), *args, outputs=None if read is None else (read,), **kwargs))


# What they do.


def test_an_operator_without_a_translation_says_how_to_pass_one(custom: Custom) -> None:
    with pytest.raises(ExportError, match=rf"no ONNX translation for {custom.bump}.*translations=.*{custom.bump}"):
        translate(graph_of(custom.bump))


@pytest.mark.parametrize("negated", [False, True])
def test_every_argument_is_passed_by_position(custom: Custom, negated: bool) -> None:
    model = translate(graph_of(custom.bump, 0.4, negated=negated), translations={custom.bump: bump})
    x = torch.randn(5, 6)
    np.testing.assert_allclose(run(model, x)[0], custom.bump(x, 0.4, negated=negated).numpy(), rtol=1e-5, atol=1e-6)
    assert {node.domain for node in model.graph} == {""}


def test_an_operator_of_several_outputs(custom: Custom) -> None:
    x = torch.randn(3, 6)
    for result, wanted in zip(
        run(translate(graph_of(custom.halves), translations={custom.halves: halves}), x), custom.halves(x), strict=True
    ):
        np.testing.assert_array_equal(result, wanted.numpy())


def test_a_translation_of_ones_own_is_taken_instead_of_ours() -> None:
    def clipped(b: Builder, x: ir.Value) -> ir.Value:
        return b.op("Max", x, b.const(0, b.dtype))

    relu = aten.relu.default
    ours, theirs = translate(graph_of(relu)), translate(graph_of(relu), translations={relu: clipped})
    assert [node.op_type for node in ours.graph] == ["Relu"]
    assert [node.op_type for node in theirs.graph] == ["Max"]
    assert TABLE[relu] is not clipped
    assert [node.op_type for node in translate(graph_of(relu)).graph] == ["Relu"]


def test_a_translation_that_no_node_asks_for_is_logged(custom: Custom, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fxpullback.export.onnx.translate"):
        translate(graph_of(aten.relu.default), translations={custom.bump: bump})
    assert f"{custom.bump} is not in this graph" in caplog.text


# What is refused.


def test_keys_are_overloads(custom: Custom) -> None:
    packet = getattr(torch.ops, custom.namespace).bump
    with pytest.raises(ExportError, match=rf"all its overloads. Pass one of them: torch\.ops\.{custom.bump}"):
        translate(graph_of(custom.bump), translations={packet: bump})
    name = f"{custom.namespace}::bump"
    with pytest.raises(ExportError, match=rf"the key '{name}' of translations is a str and no overload"):
        translate(graph_of(custom.bump), translations={name: bump})  # type: ignore[dict-item]
    with pytest.raises(ExportError, match=r"translations is a list\. Pass a mapping"):
        translate(graph_of(custom.bump), translations=[bump])  # type: ignore[arg-type]


def test_a_custom_op_definition_as_a_key_is_told_its_overload() -> None:
    namespace = f"fxpullback_test_{next(_COUNT)}"
    definition = torch.library.custom_op(
        f"{namespace}::twice", lambda x: 2 * x, mutates_args=(), schema="(Tensor x) -> Tensor"
    )
    with pytest.raises(ExportError, match=rf"a CustomOpDef and no overload .* torch\.ops\.{namespace}\.twice\.default"):
        translate(graph_of(aten.relu.default), translations={definition: bump})  # type: ignore[dict-item]


def test_values_can_be_called(custom: Custom) -> None:
    with pytest.raises(ExportError, match=rf"passed in for {custom.bump} is a str, which cannot be called"):
        translate(graph_of(custom.bump), translations={custom.bump: "Relu"})  # type: ignore[dict-item]


def _raises(b: Builder, x: ir.Value, *_: object) -> ir.Value:
    raise ZeroDivisionError("by zero")


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "raises": (_raises, r"raised ZeroDivisionError: by zero, at node .* argument of \S*::bump\(Tensor x, float"),
    "too few arguments": (lambda b, x: x, r"raised TypeError: .*positional arguments"),
    "another type": (
        lambda b, x, *_: b.op("Greater", x, b.const(0, b.dtype)),
        r"is of type BOOL, and the operator's output of FLOAT, at node .*`b\.cast",
    ),
    "a tuple of one": (lambda b, x, *_: (x,), "returned a tuple, at node .* the one value itself"),
    "nothing": (lambda b, x, *_: None, "is a NoneType, at node .* values that the builder made"),
    "a number": (lambda b, x, *_: 3.0, "is a float, at node .* values that the builder made"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_it_returns_is_checked(custom: Custom, case: str) -> None:
    function, message = WRONG[case]
    with pytest.raises(ExportError, match=message) as caught:
        translate(graph_of(custom.bump), translations={custom.bump: function})
    assert str(custom.bump) in str(caught.value)


def test_its_own_export_error_is_handed_on(custom: Custom) -> None:
    def refuses(b: Builder, *_: object) -> ir.Value:
        raise b.error("no such width", "Use another.")

    with pytest.raises(ExportError, match=rf"{custom.bump}: no such width, at node .*\. Use another\.$"):
        translate(graph_of(custom.bump), translations={custom.bump: refuses})


def test_the_number_of_outputs_is_checked(custom: Custom) -> None:
    for function, given in ((lambda b, x: x, 1), (lambda b, x: (x, x, x), 3)):
        with pytest.raises(ExportError, match=rf"{custom.halves}: .* returned {given} of 2 outputs"):
            translate(graph_of(custom.halves), translations={custom.halves: function})


def test_an_output_may_be_none_where_nothing_reads_it(custom: Custom) -> None:
    def first(b: Builder, x: ir.Value) -> tuple[ir.Value, None]:
        return halves(b, x)[0], None

    model = translate(graph_of(custom.halves, read=0), translations={custom.halves: first})
    assert len(model.graph.outputs) == 1
    with pytest.raises(ExportError, match="output 1 of the translation passed in is a NoneType"):
        translate(graph_of(custom.halves, read=1), translations={custom.halves: first})


def test_a_wrong_shape_is_said_to_come_of_it(custom: Custom) -> None:
    def summed(b: Builder, x: ir.Value, *_: object) -> ir.Value:
        return b.reduce("ReduceSum", x, [1], False)

    with pytest.raises(ExportError, match=rf"not valid ONNX.*passed in for {custom.bump} must return the shape"):
        translate(graph_of(custom.bump), translations={custom.bump: summed})


def test_nothing_is_compiled_or_written_for_a_wrong_key(custom: Custom, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is a str and no overload"):
        to_onnx(compiled(custom), tmp_path / "net.onnx", translations={"bump": bump})  # type: ignore[dict-item]
    assert not list(tmp_path.iterdir())


# The file.


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_is_certified_and_checked_again(custom: Custom, tmp_path: Path, precision: str) -> None:
    pb = compiled(custom)
    path = to_onnx(pb, tmp_path / "net.onnx", precision=precision, translations={custom.bump: bump})
    session = Session(path)
    assert session.certificate is not None
    assert session.certificate["passed"]
    x, target = torch.randn(3, 3, 8, 8), torch.arange(3)
    bound = 1e-5 if precision == "fp32" else 1e-2
    for name, wanted in zip(pb.output_names, pb(x, target), strict=True):
        found = getattr(session(x.numpy(), target.numpy()), name)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=bound, atol=bound)
    again = recheck(path, seed=3)
    assert again.passed, str(again)


def test_a_wrong_translation_does_not_pass_the_certificate(custom: Custom, tmp_path: Path) -> None:
    with pytest.raises(VerifyError, match="ONNX Runtime: logits, batch 1"):
        to_onnx(compiled(custom), tmp_path / "net.onnx", translations={custom.bump: lambda b, x, *_: b.op("Tanh", x)})
    assert not list(tmp_path.iterdir())


def test_a_file_is_refused_where_the_operator_is_not_part_of_the_process(custom: Custom, tmp_path: Path) -> None:
    path = to_onnx(compiled(custom), tmp_path / "net.onnx", certify=False, translations={custom.bump: bump})
    name = str(custom.bump)
    assert recheck(path).passed
    custom.library._destroy()
    with pytest.raises(VerifyError, match=rf"uses {name}, which this process does not have\. Import what registers it"):
        recheck(path)
    result = CliRunner().invoke(app, ["verify", str(path)])
    assert result.exit_code == 1
    assert name in result.output
    assert "Traceback" not in result.output


def test_a_file_carries_the_injected_form_with_the_operator(custom: Custom, tmp_path: Path) -> None:
    path = to_onnx(compiled(custom), tmp_path / "net.onnx", certify=False, translations={custom.bump: bump})
    carried = next(entry.value for entry in onnx.load(path).metadata_props if entry.key == md.ORACLE)
    assert str(custom.bump) in {target for _, _, target, *_ in json.loads(json.loads(carried)["graph"])["nodes"]}
