"""From the differentiated graph to the one that runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.nn import functional as F

from fxpullback import SEMANTIC, Soft
from fxpullback.differentiate import differentiate
from fxpullback.graph.ir import INJECT, STOP_GRADIENT, aten, calls, inject, operator_name, stop_gradient
from fxpullback.lower import drop_no_ops, eliminate_common_subexpressions, erase_injections, lower, simplify
from fxpullback.lowering.cleanup import merge_factors
from fxpullback.lowering.folding import fold
from fxpullback.rewrite import rewrite
from fxpullback.unroll import unroll
from tests.helpers import assert_near, draw, graph_of, pulled_back

Model = Callable[[Tensor], Tensor]


def step_of(model: Model, *sizes: int) -> fx.GraphModule:
    return lower(differentiate(fold(rewrite(graph_of(model, *sizes), SEMANTIC)[0])[0]))[0]


def count(gm: fx.GraphModule, *targets: Any) -> int:
    return sum(node.target in targets for node in calls(gm.graph))


def test_injection_becomes_its_primal_without_arithmetic() -> None:
    """Minus zero and infinity pass, which the expression itself would change."""
    with_injection = graph_of(F.relu, 4)
    rewritten, _ = rewrite(with_injection, SEMANTIC)
    assert count(rewritten, INJECT) == 1
    erased = erase_injections(rewritten)
    assert count(erased, INJECT, STOP_GRADIENT) == 0
    assert [node.target for node in calls(erased.graph)] == [aten.relu.default]
    plain = torch.tensor([[0.0, -0.0, float("inf"), -1.0]], dtype=torch.float64)
    assert torch.equal(erased(plain)[0], F.relu(plain))
    assert torch.isnan(rewritten(plain)[0]).any()


def test_injection_written_by_the_model() -> None:
    def model(x: Tensor) -> Tensor:
        return inject(torch.sign(x), x * stop_gradient(torch.sigmoid(x)))

    rewritten, _ = rewrite(graph_of(lambda x: x * 2, 4), SEMANTIC)
    assert count(rewritten, INJECT) == 0
    x, ct = draw(2, 4), draw(2, 4, seed=1)
    assert_near(pulled_back(model, x, ct), ct * torch.sigmoid(x))


# kernel, input sizes, options
CONVOLUTIONS: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("plain", (4, 3, 3, 3), (3, 6, 7), {}),
    ("padded", (4, 3, 3, 3), (3, 6, 7), {"padding": 1}),
    ("pointwise", (4, 3, 1, 1), (3, 6, 7), {}),
    ("groups", (6, 2, 3, 3), (4, 6, 7), {"groups": 2, "padding": 1}),
    ("depthwise", (4, 1, 3, 3), (4, 6, 7), {"groups": 4, "padding": 1}),
    ("depthwise-multiplied", (8, 1, 3, 3), (4, 6, 7), {"groups": 4}),
    ("dilation", (4, 3, 3, 2), (3, 8, 7), {"dilation": (2, 3), "padding": (2, 1)}),
    ("uneven", (4, 3, 1, 5), (3, 6, 7), {"padding": (0, 2)}),
    ("stride", (4, 3, 3, 3), (3, 8, 7), {"stride": 2, "padding": 1}),
    ("padding-beyond-kernel", (4, 3, 2, 2), (3, 5, 5), {"padding": 3}),
    ("1d", (4, 3, 3), (3, 7), {"padding": 1}),
    ("3d", (4, 3, 2, 2, 2), (3, 4, 5, 4), {}),
]


@pytest.mark.parametrize(("name", "kernel", "sizes", "options"), CONVOLUTIONS, ids=[c[0] for c in CONVOLUTIONS])
def test_adjoint_of_a_convolution(
    name: str, kernel: tuple[int, ...], sizes: tuple[int, ...], options: dict[str, Any]
) -> None:
    weight, bias = draw(*kernel, seed=1), draw(kernel[0], seed=2)
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(kernel) - 2]

    def model(x: Tensor) -> Tensor:
        result: Tensor = function(x, weight, bias, **options)
        return result

    step = step_of(model, *sizes)
    transposed = sum(node.target is aten.convolution.default and node.args[6] is True for node in calls(step.graph))
    assert transposed == (name in ("stride", "padding-beyond-kernel"))
    x = draw(3, *sizes)
    ct = draw(3, model(x)[0].numel(), seed=3)
    assert_near(step(x, ct)[1], pulled_back(model, x, ct))


def test_attention_is_written_out_and_its_weights_are_shared() -> None:
    def model(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x * 2, x + 1)

    step = step_of(model, 2, 4, 3)
    assert count(step, aten.scaled_dot_product_attention.default) == 0
    assert count(step, aten.softmax.int) == 1
    x = draw(3, 2, 4, 3)
    assert_near(step(x, draw(3, 24))[0], model(x).flatten(1))


def test_equal_expressions_are_computed_once() -> None:
    graph = graph_of(lambda x: torch.sin(x) * torch.sin(x) + torch.cos(x * 2) - torch.cos(x * 2.0), 4)
    merged = eliminate_common_subexpressions(graph)
    assert (count(graph, aten.sin.default), count(merged, aten.sin.default)) == (2, 1)
    x = draw(2, 4)
    assert torch.equal(merged(x)[0], graph(x)[0])


def test_expressions_that_differ_in_a_constant_stay_apart() -> None:
    graph = graph_of(lambda x: x.sum(1, keepdim=True) + x.sum(1, keepdim=False)[:, None] + x * 1 + x * True, 4)
    x = draw(2, 4)
    assert torch.equal(eliminate_common_subexpressions(graph)(x)[0], graph(x)[0])
    assert count(eliminate_common_subexpressions(graph), aten.sum.dim_IntList) == 2


def test_no_ops_are_dropped() -> None:
    def model(x: Tensor) -> Tensor:
        y = x.reshape(-1, 2, 6).reshape(-1, 3, 4).transpose(1, 2).transpose(2, 1)
        y = y[:, 0:3].expand(-1, 3, 4)
        return y.reshape(-1, 12) * 2

    graph = graph_of(model, 3, 4)
    slim = simplify(drop_no_ops(graph))
    assert [node.target for node in calls(slim.graph)] == [aten.reshape.default, aten.mul.Tensor]
    x = draw(2, 3, 4)
    assert torch.equal(slim(x)[0], graph(x)[0])


def test_no_ops_are_dropped_whatever_their_operators() -> None:
    def model(x: Tensor) -> Tensor:
        y = torch.maximum(x, x[:, :1].expand(-1, 4)) * torch.where(x > 0, x, 0.5)
        return aten.mul.Scalar(aten.div.Scalar(aten.mul.Scalar(y.repeat(1, 1), 1), 4.0), 3.0)  # type: ignore[no-any-return]

    graph = graph_of(model, 4)
    slim, merged = merge_factors(drop_no_ops(graph))
    assert merged == 1
    scalings = [node.args[1] for node in calls(slim.graph) if node.target in (aten.mul.Tensor, aten.mul.Scalar)]
    assert scalings[1:] == [0.75]
    assert not count(slim, aten.expand.default, aten.repeat.default, aten.div.Scalar)
    x = draw(3, 4)
    assert_near(slim(x)[0], graph(x)[0])


def test_a_factor_of_one_that_makes_numbers_of_a_mask_stays() -> None:
    weight = draw(4, 4, dtype=torch.float32)
    graph = graph_of(lambda x: x * (((x > 0) * 1.0) @ weight) + ((x > 1) * 1).cumsum(1), 4, dtype=torch.float32)
    x = draw(3, 4, dtype=torch.float32)
    assert torch.equal(drop_no_ops(graph)(x)[0], graph(x)[0])
    assert count(drop_no_ops(graph), aten.mul.Tensor) == 3


def test_transposes_of_other_axes_stay() -> None:
    graph = graph_of(lambda x: x.transpose(1, 2).transpose(1, 3).transpose(2, 3), 2, 3, 4)
    x = draw(2, 2, 3, 4)
    assert torch.equal(drop_no_ops(graph)(x)[0], graph(x)[0])


def test_input_is_left_alone() -> None:
    differentiated = differentiate(fold(rewrite(graph_of(F.gelu, 4), SEMANTIC)[0])[0])
    before = str(differentiated.graph)
    lower(differentiated)
    assert str(differentiated.graph) == before


# Golden graphs: what an auditor reads. `pytest --regenerate` writes them anew.

GOLDEN = Path(__file__).parent / "golden"
WEIGHT = draw(3, 4)


def two_layers(x: Tensor) -> Tensor:
    return F.relu(x @ WEIGHT)


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x, x, x)


def normalised(x: Tensor) -> Tensor:
    return F.gelu(F.layer_norm(x, [3]))


def printed(gm: fx.GraphModule) -> str:
    """One line a node: name, operator, arguments, the node it transposes."""
    lines = []
    for node in gm.graph.nodes:
        of = node.meta.get("fxpullback_transposes")
        what = operator_name(node.target) if node.op == "call_function" else node.op
        arguments = ", ".join(map(str, (*node.args, *(f"{k}={v}" for k, v in node.kwargs.items()))))
        lines.append(f"{node.name} = {what}({arguments})" + (f"  # transposes {of}" if of else ""))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("model", "sizes"),
    [(two_layers, (3,)), (normalised, (3,)), (attention, (4, 3))],
    ids=["two_layers", "normalised", "attention"],
)
def test_golden_graph(model: Model, sizes: tuple[int, ...], regenerate: bool) -> None:
    graph = simplify(unroll(step_of(model, *sizes), Soft(), "index"))
    text = printed(graph)
    assert len(text.splitlines()) < 30
    file = GOLDEN / f"{model.__name__}.txt"
    if regenerate:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, "changed on purpose? pytest --regenerate"
