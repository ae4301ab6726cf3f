"""Half precision: the cast pass against float64 autograd, the scale of the seed, and graphs broken on purpose."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import fxpullback
from fxpullback import Ascent, Double, Pullback, Soft
from fxpullback.certify.eager import run_eagerly
from fxpullback.contract.errors import InvariantError, ProgramError
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.inputs import Inputs
from fxpullback.graph.ir import GETITEM, aten, calls, input_nodes, outputs
from fxpullback.graph.operators import OPERATORS, Trait
from fxpullback.half.autocast import TYPES, HalfPrecision, check_autocast, in_half_precision
from fxpullback.half.islands import CAST, held
from fxpullback.half.scale import LARGEST, largest_cotangent, measured_scale, scale_cotangent
from tests import networks
from tests.helpers import draw, variant
from tests.rules.test_masks import Masked

PROGRAMS: dict[str, Any] = {"soft": Soft(), "double": Double(alpha=1.0), "ascent": Ascent(steps=2, alpha=1.0, eps=1.5)}


class Faint(nn.Module):
    """Little passes every layer: a pullback of size 1e-8, which float16 flushes to zero where nothing scales it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Conv2d(3 if i == 0 else 8, 8, 3, padding=1) for i in range(4)])
        for layer in self.layers:
            assert isinstance(layer, nn.Conv2d)
            assert layer.bias is not None
            layer.weight.data *= 0.1
            layer.bias.data *= 0.1
        self.head = nn.Linear(8, 5, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(layer(x))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def compiled(model: nn.Module, *sizes: int, **options: Any) -> Pullback:
    return fxpullback.compile(model.float().eval(), (draw(2, *sizes, dtype=torch.float32),), **options)


@cache
def built(name: str, program: str = "soft", target: str = "index", free_size: bool = False) -> Pullback:
    """A network for pictures of 16 by 16, compiled once."""
    if free_size:
        return compiled(networks.network(name), 3, 16, 16, program=PROGRAMS[program], target=target, free_size=True)
    return variant(networks.compiled(name, torch.float32), program=PROGRAMS[program], target=target)


def wanted(pb: Pullback, inputs: Inputs, given: Tensor | None) -> dict[str, Tensor]:
    """By autograd in float64, through the form before anything was folded or lowered."""
    return run_eagerly(in_float64(pb.rewritten), pb.program, pb.target, inputs.double(), given)


def off(found: Tensor, exact: Tensor) -> float:
    """Relative L2 error of the worst sample; infinite where something is not finite."""
    error = (found.double() - exact).detach().flatten(1).norm(dim=1) / exact.detach().flatten(1).norm(dim=1)
    return float(error.max()) if bool(torch.isfinite(error).all()) else float("inf")


def operators(gm: fx.GraphModule, *targets: Any) -> list[fx.Node]:
    return [node for node in calls(gm.graph) if node.target in targets]


def types(gm: fx.GraphModule, *targets: Any) -> set[torch.dtype]:
    """The types that operators take and return."""
    found = operators(gm, *targets)
    vals = [n.meta["val"] for node in found for n in (node, *input_nodes(node))]
    flat = [v for val in vals for v in (val if isinstance(val, tuple) else (val,)) if isinstance(v, Tensor)]
    assert found
    return {v.dtype for v in flat if v.is_floating_point()}


@pytest.mark.parametrize("precision", TYPES)
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ["convolutional", "mobile", "transformer"])
def test_against_autograd(name: str, program: str, precision: str) -> None:
    pb = built(name, program)
    before = pb.graph.code
    half = in_half_precision(pb, precision)
    x, given = draw(3, 3, 16, 16, seed=5, dtype=torch.float32), torch.tensor([0, 1, 2])
    exact = wanted(pb, Inputs(x), given)
    found = dict(zip(pb.output_names, half.graph(x, given), strict=True))
    eps = torch.finfo(TYPES[precision]).eps
    assert all(value.dtype is torch.float32 for value in found.values())
    assert off(found["logits"], exact["logits"]) < 8 * eps
    assert off(found["pullback"], exact["pullback"]) < (16 if program == "soft" else 40) * eps
    assert off(found["pullback"], exact["pullback"]) > eps / 100  # it is half precision that ran
    assert pb.graph.code == before


def test_products_run_in_half_precision_and_islands_do_not() -> None:
    for precision, dtype in TYPES.items():
        graph = in_half_precision(built("transformer"), precision).graph
        assert types(graph, aten.linear.default, aten.matmul.default) == {dtype}
        assert types(graph, aten.softmax.int, aten.special_ndtr.default, aten.gelu.default) == {torch.float32}
        assert types(graph, aten.native_layer_norm.default) == {torch.float32}


def test_nothing_is_cast_back_and_forth() -> None:
    """Phi of a scaled gate input is one island: one cast in, one out, none between."""
    graph = in_half_precision(built("convolutional"), "fp16").graph
    for phi in operators(graph, aten.special_ndtr.default):
        (scaled,) = input_nodes(phi)
        assert scaled.target in (aten.div.Tensor, CAST)
        assert {user.target for user in phi.users} == {CAST}
    made = [(node.args, node.kwargs["dtype"]) for node in operators(graph, CAST)]
    assert len({str(pair) for pair in made}) == len(made)


def test_a_weight_is_held_once() -> None:
    pb = built("transformer")
    half = in_half_precision(pb, "fp16").graph
    full, kept = (sum(b.nbytes for b in gm.state_dict().values()) for gm in (pb.graph, half))
    assert kept < 0.55 * full


@pytest.mark.parametrize("target", ["top1", "contrast", "cotangent"])
def test_targets(target: str) -> None:
    pb = built("mobile", target=target)
    x = draw(3, 3, 16, 16, seed=5, dtype=torch.float32)
    u = draw(3, pb.classes, seed=6, dtype=torch.float32)
    given = {"top1": None, "contrast": torch.tensor([[0, 1], [1, 2], [2, 0]]), "cotangent": u}[target]
    exact = wanted(pb, Inputs(x), given.double() if target == "cotangent" and given is not None else given)
    found = in_half_precision(pb, "fp16").graph(x, *([] if given is None else [given]))
    assert off(found[1], exact["pullback"]) < 16 * torch.finfo(torch.float16).eps


def test_a_cotangent_of_any_size() -> None:
    """What a caller gives may be 1e6 or 1e-6; the graph brings it to one first, and a cotangent of zero gives zero."""
    pb = built("mobile", target="cotangent")
    graph = in_half_precision(pb, "fp16").graph
    x, u = draw(2, 3, 16, 16, seed=5, dtype=torch.float32), draw(2, pb.classes, seed=6, dtype=torch.float32)
    plain = graph(x, u)[1]
    for size in (2.0**20, 2.0**-20):
        assert torch.equal(graph(x, u * size)[1], plain * size)
    assert not bool(graph(x, u * 0)[1].any())


def test_faint_pullbacks_need_the_scale() -> None:
    """Without it every cotangent of the early layers is flushed to zero in float16, and bfloat16 needs none."""
    pb = compiled(Faint(), 3, 8, 8)
    x, given = draw(3, 3, 8, 8, seed=5, dtype=torch.float32), torch.tensor([0, 1, 2])
    exact = wanted(pb, Inputs(x), given)
    assert float(exact["pullback"].abs().max()) < 1e-7
    scaled, unscaled, wide = (
        in_half_precision(pb, "fp16"),
        in_half_precision(pb, "fp16", 1.0),
        in_half_precision(pb, "bf16"),
    )
    assert scaled.cotangent_scale > 2**12
    assert off(scaled.graph(x, given)[1], exact["pullback"]) < 0.01
    assert off(unscaled.graph(x, given)[1], exact["pullback"]) > 0.5
    assert off(wide.graph(x, given)[1], exact["pullback"]) < 0.05
    assert wide.cotangent_scale == 1


def test_the_scale_leaves_headroom() -> None:
    pb = compiled(Faint(), 3, 8, 8)
    scale = measured_scale(pb)
    assert scale == 2 ** round(torch.log2(torch.tensor(scale)).item())
    u = torch.nn.functional.one_hot(torch.tensor([0, 1]), pb.classes).float() * scale
    largest = largest_cotangent(pb.step, Inputs(draw(2, 3, 8, 8, seed=9, dtype=torch.float32)), u)
    assert 100 < largest < 65504 / 16 or scale == LARGEST
    inputs = draw(2, 3, 8, 8, seed=9, dtype=torch.float32), torch.tensor([0, 1])
    assert not bool(torch.isfinite(in_half_precision(pb, "fp16", scale * 2**10).graph(*inputs)[1]).all())


def test_a_scale_that_is_not_undone_is_seen() -> None:
    """The oracle sees it: a pullback that is 512 times too large has every sign right."""
    pb = built("mobile")
    step = scale_cotangent(pb.step, 512.0)
    last = outputs(step.graph)[1]
    assert last.target is aten.mul.Tensor
    step.graph.output_node().args = ((outputs(step.graph)[0], input_nodes(last)[0]),)
    step.recompile()
    x, u = draw(2, 3, 16, 16, seed=5, dtype=torch.float32), torch.eye(pb.classes)[:2]
    assert off(step(x, u)[1], pb.step(x, u)[1].double()) > 500
    assert off(scale_cotangent(pb.step, 512.0)(x, u)[1], pb.step(x, u)[1].double()) < 1e-6


class Constants(nn.Module):
    """A number and a constant that float16 cannot hold, which a converter would clip."""

    large: Tensor
    small: Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(12, 3)
        self.register_buffer("large", torch.linspace(1e5, 2e5, 12))
        self.register_buffer("small", torch.linspace(1e-9, 2e-9, 12))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.tanh(x * 1e-9 * 1e9 + x * self.large * 1e-5 + x * self.small * 1e9))
        return result


def test_constants_that_do_not_fit_stay_float32() -> None:
    pb = compiled(Constants(), 12)
    half = in_half_precision(pb, "fp16")
    x, given = 0.2 * draw(3, 12, seed=5, dtype=torch.float32), torch.tensor([0, 1, 2])
    exact = wanted(pb, Inputs(x), given)
    for found, name in zip(half.graph(x, given), pb.output_names, strict=True):
        assert off(found, exact[name]) < 0.01
    held_types = {str(k): v.dtype for k, v in half.graph.state_dict().items() if v.numel() == 12}
    assert set(held_types.values()) == {torch.float32}
    assert half.islands["aten.mul.Tensor"] >= 6


def test_what_a_type_holds() -> None:
    fp16, bf16 = torch.float16, torch.bfloat16
    for values, in_fp16, in_bf16 in (
        ([0.0, -0.0, float("inf"), -float("inf")], True, True),
        ([65504.0, 1.0], True, True),
        ([7e4, 1.0], False, True),
        ([1e-9, 2e-9], False, True),
        ([1e-9, 1.0], True, True),  # what is lost is far below the rounding of the largest entry
        ([1e-42, 2e-42], False, False),
    ):
        assert held(torch.tensor(values, dtype=torch.float64), fp16) is in_fp16, values
        assert held(torch.tensor(values, dtype=torch.float64), bf16) is in_bf16, values
    assert held(torch.tensor([2**40]), fp16)


def test_bfloat16_keeps_to_operators_that_have_kernels() -> None:
    graph = in_half_precision(built("convolutional"), "bf16").graph
    without = OPERATORS.having(Trait.NO_BFLOAT16)
    assert operators(graph, *without)
    assert types(graph, *without) == {torch.float32}


def test_extras_and_free_sizes() -> None:
    x, mask = draw(3, 4, 6, dtype=torch.float32), torch.ones(3, 4)
    pb = fxpullback.compile(Masked().float().eval(), (x, mask))
    mask = torch.tensor([[0.0, 0, 0, -torch.inf], [0, -torch.inf, 0, 0], [-torch.inf] * 3 + [0]])
    given = torch.tensor([0, 1, 2])
    exact = wanted(pb, Inputs(x, (mask,), (True,)), given)
    found = in_half_precision(pb, "fp16").graph(x, mask, given)
    assert off(found[1], exact["pullback"]) < 0.01

    free = built("convolutional", free_size=True)
    x = draw(2, 3, 24, 32, seed=5, dtype=torch.float32)
    exact = wanted(free, Inputs(x), given[:2])
    assert off(in_half_precision(free, "fp16").graph(x, given[:2])[1], exact["pullback"]) < 0.02


def half_of_a_network() -> HalfPrecision:
    return in_half_precision(built("mobile"), "fp16")


def test_a_cast_of_a_cast_is_caught() -> None:
    gm = half_of_a_network().graph
    cast = next(n for n in operators(gm, CAST) if n.meta["val"].dtype is torch.float16)
    with gm.graph.inserting_after(cast):
        back = gm.graph.call_function(CAST, (cast,), {"dtype": torch.float32})
    back.meta["val"] = input_nodes(cast)[0].meta["val"]
    with pytest.raises(InvariantError, match="casts what"):
        check_autocast(gm, torch.float16)


def test_mixed_types_are_caught() -> None:
    gm = half_of_a_network().graph
    product = next(n for n in operators(gm, aten.convolution.default))
    narrow = input_nodes(product)[0]
    product.replace_input_with(narrow, next(n for n in gm.graph.nodes if n.op == "placeholder"))
    with pytest.raises(InvariantError, match=r"mixes torch\.float16, torch\.float32"):
        check_autocast(gm, torch.float16)


def test_an_output_in_half_precision_is_caught() -> None:
    gm = half_of_a_network().graph
    logits, pullback = outputs(gm.graph)
    narrow = next(n for n in calls(gm.graph) if n.target is not GETITEM and n.meta["val"].dtype is torch.float16)
    gm.graph.output_node().args = ((narrow, pullback),)
    with pytest.raises(InvariantError, match=r"the output .* is torch\.float16"):
        check_autocast(gm, torch.float16)
    assert logits.meta["val"].dtype is torch.float32


def test_precisions_that_there_are_not() -> None:
    pb = built("mobile")
    with pytest.raises(ProgramError, match="no precision called 'fp8'; there are fp32, fp16, bf16"):
        in_half_precision(pb, "fp8")
    with pytest.raises(ProgramError, match="nothing to cast"):
        in_half_precision(pb, "fp32")
