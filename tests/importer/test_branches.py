"""Branches on sizes, and inputs that are held: a rate that chooses a branch, a state at its start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor
from torch.nn import functional as F

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import CaptureError
from fxpullback.export import to_onnx
from fxpullback.importer.load import load
from tests.helpers import assert_near
from tests.importer.graphs import drawn, model, node, saved

X = torch.from_numpy(drawn(3, 6, seed=5)).double()
TARGET = torch.tensor([0, 2, 1])
W = drawn(6, 6)


def assert_pullback(
    path: Path, original: Callable[[Tensor], Tensor], x: Tensor = X, held: Mapping[str, Any] | None = None
) -> None:
    """The exact pullback of a file in float64 is autograd's through the same network in torch."""
    pb = fxpullback.compile(load(path, held=held).double(), x, rules=EXACT)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(original(leaf)[range(3), TARGET].sum(), leaf)
    assert_near(pb(x, TARGET)[1], gradient, 1e-9)


def _input(made: onnx.ModelProto, name: str, kind: int, sizes: list[int | str]) -> None:
    made.graph.input.append(helper.make_tensor_value_info(name, kind, sizes))


def _branch(outputs: list[str], nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    values = [onnx.ValueInfoProto(name=name) for name in outputs]
    return helper.make_graph(nodes, "branch", [], values)


def _rank_is(rank: int) -> list[onnx.NodeProto]:
    return [
        node("Shape", ["x"], ["shape"]),
        node("Size", ["shape"], ["rank"]),
        node("Constant", [], ["wanted"], value_int=rank),
        node("Equal", ["rank", "wanted"], ["is"]),
    ]


def _nested(rank: int) -> onnx.ModelProto:
    """A branch on the rank of x, in it one on its width; the last of its nodes reads what the outer one made."""
    inner_yes = _branch(["inner"], [node("Mul", ["lifted", "lifted"], ["inner"])])
    inner_no = _branch(["inner"], [node("NonZero", ["lifted"], ["places"]), node("Cast", ["places"], ["inner"], to=1)])
    yes = _branch(
        ["y"],
        [
            node("Sigmoid", ["h"], ["lifted"]),
            node("Constant", [], ["one"], value_ints=[1]),
            node("Gather", ["shape", "one"], ["width"]),
            node("Constant", [], ["six"], value_ints=[6]),
            node("Equal", ["width", "six"], ["is six"]),
            node("If", ["is six"], ["squared"], then_branch=inner_yes, else_branch=inner_no),
            node("Add", ["squared", "lifted"], ["y"]),
        ],
    )
    no = _branch(["y"], [node("Tanh", ["h"], ["y"])])
    nodes = [node("MatMul", ["x", "w"], ["h"]), *_rank_is(rank)]
    return model([*nodes, node("If", ["is"], ["logits"], then_branch=yes, else_branch=no)], ["b", 6], weights={"w": W})


def _squared(x: Tensor) -> Tensor:
    lifted = torch.sigmoid(x @ torch.from_numpy(W).double())
    return lifted * lifted + lifted


def test_a_branch_on_a_rank_takes_one_way_and_so_does_one_inside_it(tmp_path: Path) -> None:
    assert_pullback(saved(_nested(2), tmp_path / "yes.onnx"), _squared)
    assert_pullback(saved(_nested(3), tmp_path / "no.onnx"), lambda x: torch.tanh(x @ torch.from_numpy(W).double()))


def test_nodes_inside_a_branch_are_found_in_the_ledger(tmp_path: Path) -> None:
    pb = fxpullback.compile(saved(_nested(2), tmp_path / "m.onnx"), X.float())
    assert "lifted" in {row.module for row in pb.ledger.rows}


def test_an_operator_that_is_not_imported_is_refused_where_its_branch_is_taken(tmp_path: Path) -> None:
    made = _nested(2)
    branch = next(a.g for a in made.graph.node[-1].attribute if a.name == "then_branch")
    branch.node[3].attribute[0].ints[0] = 7
    with pytest.raises(CaptureError, match=r"operators that are not imported: NonZero \(1, first at"):
        fxpullback.compile(saved(made, tmp_path / "m.onnx"), X.float())


def test_a_branch_on_values_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"If 'logits' branches on a value that is computed.*--hold NAME=VALUE"):
        fxpullback.compile(saved(_switched(), tmp_path / "m.onnx"), (X.float(), torch.tensor(16000)))


def _switched() -> onnx.ModelProto:
    """A rate chooses between two gates."""
    yes, no = (_branch(["y"], [node(kind, ["h"], ["y"])]) for kind in ("Sigmoid", "Tanh"))
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Constant", [], ["wanted"], value_int=16000),
        node("Equal", ["rate", "wanted"], ["is"]),
        node("If", ["is"], ["logits"], then_branch=yes, else_branch=no),
    ]
    made = model(nodes, ["b", 6], weights={"w": W})
    _input(made, "rate", TensorProto.INT64, [])
    return made


@pytest.mark.parametrize(("rate", "gate"), [(16000, torch.sigmoid), (8000, torch.tanh)])
def test_an_input_that_is_held_chooses_a_branch(rate: int, gate: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    path = saved(_switched(), tmp_path / "m.onnx")
    assert_pullback(path, lambda x: gate(x @ torch.from_numpy(W).double()), held={"rate": rate})
    pb = fxpullback.compile(load(path, held={"rate": rate}), X.float())
    assert to_onnx(pb, tmp_path / "explained.onnx")


GRU = {"w": drawn(1, 12, 6), "r": drawn(1, 12, 4, seed=1), "b": drawn(1, 24, seed=2), "axes": np.array([1])}


def _recurrent(sizes: list[int | str], batch: int | str = "b") -> onnx.ModelProto:
    """Three steps of a recurrent layer that starts from an input; the state it ends in is squeezed without axes."""
    nodes = [
        node("Unsqueeze", ["x", "axes"], ["one"]),
        node("Concat", ["one", "one", "one"], ["three"], axis=1),
        node("Transpose", ["three"], ["steps"], perm=[1, 0, 2]),
        node("GRU", ["steps", "w", "r", "b", "", "h0"], ["all", "last"], hidden_size=4, linear_before_reset=1),
        node("Squeeze", ["last"], ["logits"]),
    ]
    made = model(nodes, [batch, 6], weights=GRU)
    _input(made, "h0", TensorProto.FLOAT, sizes)
    return made


def _gru(start: float) -> Callable[[Tensor], Tensor]:
    layer = torch.nn.GRU(6, 4).double()
    order = [*range(4, 8), *range(4), *range(8, 12)]
    w, r, b = (torch.from_numpy(GRU[name][0]).double() for name in "wrb")
    layer.load_state_dict(
        {"weight_ih_l0": w[order], "weight_hh_l0": r[order], "bias_ih_l0": b[:12][order], "bias_hh_l0": b[12:][order]}
    )
    return lambda x: layer(torch.stack([x] * 3), torch.full((1, len(x), 4), start, dtype=x.dtype))[1][0]


@pytest.mark.parametrize("sizes", [[1, "b", 4], [1, 1, 4], [1, "other", 4]])
def test_a_state_that_is_held_starts_every_sample(sizes: list[int | str], tmp_path: Path) -> None:
    path = saved(_recurrent(sizes), tmp_path / "m.onnx")
    assert_pullback(path, _gru(0.5), held={"h0": 0.5})
    pb = fxpullback.compile(load(path, held={"h0": 0.5}), X.float())
    assert to_onnx(pb, tmp_path / "explained.onnx")


def test_a_state_that_is_held_in_a_file_of_one_sample(tmp_path: Path) -> None:
    assert_pullback(
        saved(_recurrent([1, 1, 4], 1), tmp_path / "m.onnx"), _gru(-0.25), held={"h0": np.full((1, 1, 4), -0.25)}
    )


def test_a_state_that_is_passed_may_be_that_of_one_sample(tmp_path: Path) -> None:
    path = saved(_recurrent([1, 1, 4]), tmp_path / "m.onnx")
    pb = fxpullback.compile(path, (X.float(), torch.full((1, 1, 4), 0.5)), rules=EXACT)
    leaf = X.float().requires_grad_()
    (gradient,) = torch.autograd.grad(_gru(0.5)(leaf.double())[range(3), TARGET].sum(), leaf)
    assert_near(pb(X.float(), TARGET, torch.full((1, 1, 4), 0.5))[1], gradient, 1e-5)


def test_steps_along_the_batch_are_refused(tmp_path: Path) -> None:
    nodes = [
        node("Unsqueeze", ["x", "axes"], ["steps"]),
        node("GRU", ["steps", "w", "r", "b"], ["all", "last"], hidden_size=4, linear_before_reset=1),
        node("Squeeze", ["all"], ["logits"]),
    ]
    with pytest.raises(CaptureError, match=r'GRU "all": its steps go along the first axis .* which is the batch'):
        fxpullback.compile(saved(model(nodes, ["steps", 6], weights=GRU), tmp_path / "m.onnx"), X.float())


def test_examples_of_several_inputs_differ_and_are_the_same_again(tmp_path: Path) -> None:
    made = model([node("Sub", ["x", "y"], ["logits"])], ["b", 6])
    _input(made, "y", TensorProto.FLOAT, ["b", 6])
    module = load(saved(made, tmp_path / "m.onnx"))
    first, second = module.examples()
    assert not torch.equal(first, second)
    assert torch.equal(first, module.examples()[0])


def test_examples_are_batched_where_the_file_says_so(tmp_path: Path) -> None:
    first, state = load(saved(_recurrent([2, 1, 4]), tmp_path / "m.onnx")).examples()
    assert list(state.shape) == [2, 1, 4]
    assert list(first.shape) == [3, 6]
    first, state = load(saved(_recurrent(["b", 1, 4]), tmp_path / "m.onnx")).examples()
    assert len(first) == len(state) == 2


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"h1": 0}, "the file has no input called 'h1' to hold; it takes x, h0"),
        ({"x": 0, "h0": 0}, "is held, and it is the one that is explained"),
        ({"h0": np.zeros((1, 2, 5))}, r"the input 'h0' is \[1, 2, 4\], and what it is to hold is \[1, 2, 5\]"),
        ({"h0": 0.0}, "the input 'h0' leaves 2 sizes free. Hold an array"),
    ],
)
def test_what_cannot_be_held_is_said(held: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=said):
        load(saved(_recurrent(["n", "b", 4]), tmp_path / "m.onnx"), held=held)


@pytest.mark.parametrize(
    ("output", "function"), [("a", lambda a: a), ("b", torch.tanh), (1, torch.tanh), ("1", torch.tanh)]
)
def test_any_of_several_outputs_is_explained(
    output: str | int, function: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    nodes = [node("MatMul", ["x", "w"], ["a"]), node("Tanh", ["a"], ["b"])]
    path = saved(model(nodes, ["n", 6], ["a", "b"], weights={"w": W}), tmp_path / "m.onnx")
    pb = fxpullback.compile(path, X.float(), rules=EXACT, output=output)
    leaf = X.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(leaf @ torch.from_numpy(W).double())[range(3), TARGET].sum(), leaf)
    assert_near(pb(X.float(), TARGET)[1].double(), gradient, 1e-5)


@pytest.mark.parametrize("opset", [11, 16])
@pytest.mark.parametrize("kind", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_norms_that_onnx_runtime_leaves_in_old_opsets(kind: str, opset: int, tmp_path: Path) -> None:
    gamma, beta = drawn(6, seed=1), drawn(6, seed=2)
    simple = kind.startswith("Simplified")
    nodes = [
        node(kind, ["x", "gamma", *([] if simple else ["beta"])], ["n"], axis=-1, epsilon=2.0**-16),
        node("MatMul", ["n", "w"], ["logits"]),
    ]
    weights = {"gamma": gamma, "w": W} | ({} if simple else {"beta": beta})
    path = saved(model(nodes, ["b", 6], weights=weights, opset=opset), tmp_path / "m.onnx")

    def original(x: Tensor) -> Tensor:
        centred = x if simple else x - x.mean(-1, keepdim=True)
        normal = centred / (centred.square().mean(-1, keepdim=True) + 2.0**-16).sqrt() * torch.from_numpy(gamma)
        return (normal if simple else normal + torch.from_numpy(beta)) @ torch.from_numpy(W).double()

    assert_pullback(path, original)
    assert to_onnx(fxpullback.compile(path, X.float()), tmp_path / "explained.onnx")


RESIZED: dict[str, tuple[dict[str, Any], Callable[[Tensor], Tensor]]] = {
    "nearest": (
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
        lambda x: F.interpolate(x, scale_factor=2),
    ),
    "linear": (
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ),
    "corners": (
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True),
    ),
    "cubic": (
        {"mode": "cubic", "coordinate_transformation_mode": "half_pixel"},
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    ),
}


@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("kind", [*RESIZED])
def test_a_free_batch_is_not_taken_for_an_axis_that_is_resized(kind: str, by: str, tmp_path: Path) -> None:
    attributes, original = RESIZED[kind]
    head = drawn(96, 3)
    nodes = [
        node("Reshape", ["x", "picture"], ["p"]),
        node("Shape", ["p"], ["of p"]),
        node("Slice", ["of p", "zero", "two"], ["outer"]),
        node("Concat", ["outer", "large"], ["sizes"], axis=0),
        node("Resize", ["p", "", *(["scales"] if by == "scales" else ["", "sizes"])], ["larger"], **attributes),
        node("Flatten", ["larger"], ["row"]),
        node("MatMul", ["row", "head"], ["logits"]),
    ]
    weights = {
        "picture": np.array([-1, 2, 3, 4]), "zero": np.array([0]), "two": np.array([2]), "large": np.array([6, 8]),
        "scales": np.array([1, 1, 2, 2], np.float32), "head": head,
    }  # fmt: skip
    path = saved(model(nodes, ["b", 24], weights=weights), tmp_path / "m.onnx")
    x = torch.from_numpy(drawn(3, 24)).double()
    assert_pullback(path, lambda x: original(x.reshape(-1, 2, 3, 4)).flatten(1) @ torch.from_numpy(head).double(), x)
