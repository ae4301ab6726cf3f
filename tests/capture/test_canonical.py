"""One spelling per operator: every call that is not canonical becomes one that is, with the same bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map

from fxpullback.capture.canonical import canonicalise
from fxpullback.capture.context import IN_CONTEXT
from fxpullback.capture.recurrent import RECURRENT
from fxpullback.graph.canonical import DROPPED, NOT_CANONICAL, NOT_CANONICAL_IF, canonical_name, is_composite
from fxpullback.graph.compounds import COMPOUNDS
from fxpullback.graph.ir import GETITEM, STOP_GRADIENT, aten, calls
from fxpullback.graph.spellings import ALWAYS, SOME_CALLS
from fxpullback.vjp import TABLE
from tests.helpers import assert_near, draw, graph_of


@dataclass(frozen=True)
class Call:
    """A call of an operator.

    Attributes:
        target: the operator.
        args: its arguments; tensors become inputs of a graph.
        left: operators that are there when it is spelled canonically; its own one if it is canonical itself.
        kwargs: what is passed by name.
        note: tells calls of one operator apart.
        canonical: whether the call is canonical itself.
    """

    target: Any
    args: tuple[Any, ...]
    left: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...] = ()
    note: str = ""
    canonical: bool = False

    def __str__(self) -> str:
        return str(self.target) + (f"-{self.note}" if self.note else "")


def call(target: Any, *args: Any, left: Any = (), note: str = "", **kwargs: Any) -> Call:
    return Call(target, args, left if isinstance(left, tuple) else (left,), tuple(kwargs.items()), note)


def stays(target: Any, *args: Any, left: tuple[Any, ...] = (), note: str = "stays", **kwargs: Any) -> Call:
    return Call(target, args, (target, *left), tuple(kwargs.items()), note, True)


X, SQUARE, ROW, PICTURE = draw(3, 4), draw(4, 4, seed=1), draw(4, seed=2), draw(2, 3, 6, 6)
NOTHING = draw(0)
BATCHED, LINE, VOLUME = draw(2, 3, 4), draw(2, 3, 8), draw(2, 3, 4, 4, 4)
CONVOLUTION, RESHAPE, MATMUL, FULL = (
    aten.convolution.default,
    aten.reshape.default,
    aten.matmul.default,
    aten.full.default,
)
NUMBERS = torch.arange(12).reshape(3, 4) - 5


def kernel(*sizes: int) -> Tensor:
    return draw(*sizes, seed=3)


def _pools() -> list[Call]:
    rows = []
    for n, x in ((1, LINE), (2, PICTURE), (3, VOLUME)):
        for kind in ("max", "avg", "adaptive_max", "adaptive_avg"):
            op = getattr(aten, f"{kind}_pool{n}d").default
            several = kind == "adaptive_max"
            once = (GETITEM, GETITEM, aten.unsqueeze.default) + (aten.squeeze.dim,) * 2
            left = (op, *once) if several else (op, aten.squeeze.dim, aten.unsqueeze.default)
            rows.append(call(op, x[:, 0], [2] * n, left=left, note="without channels"))
            rows.append(stays(op, x, [2] * n, left=(GETITEM, GETITEM) if several else ()))
    return rows


ALWAYS_CALLS = [
    call(aten.conv1d.default, LINE, kernel(4, 3, 3), None, [2], [1], [1], 1, left=CONVOLUTION),
    call(aten.conv2d.default, PICTURE, kernel(4, 3, 3, 3), kernel(4), left=CONVOLUTION),
    call(aten.conv3d.default, VOLUME, kernel(4, 3, 2, 2, 2), left=CONVOLUTION),
    call(aten.conv1d.padding, LINE, kernel(4, 3, 3), None, [1], "same", left=CONVOLUTION),
    call(aten.conv2d.padding, PICTURE, kernel(4, 3, 3, 3), None, [1], "valid", left=CONVOLUTION),
    call(
        aten.conv2d.padding, PICTURE, kernel(4, 3, 2, 3), None, [1], "same", [3], note="odd",
        left=(CONVOLUTION, aten.constant_pad_nd.default),
    ),
    call(aten.conv3d.padding, VOLUME, kernel(4, 3, 3, 3, 3), None, [1], "same", left=CONVOLUTION),
    call(aten.conv_transpose1d.default, LINE, kernel(3, 2, 3), None, [2], [1], [1], left=CONVOLUTION),
    call(aten.conv_transpose2d.input, PICTURE, kernel(3, 2, 3, 3), kernel(2), [2], left=CONVOLUTION),
    call(aten.conv_transpose3d.input, VOLUME, kernel(3, 2, 2, 2, 2), left=CONVOLUTION),
    call(aten.layer_norm.default, X, [4], ROW, ROW, left=(aten.native_layer_norm.default, GETITEM)),
    call(aten.glu.default, X, 1, left=(aten.split.Tensor, GETITEM, GETITEM, aten.sigmoid.default, aten.mul.Tensor)),
    call(
        aten.instance_norm.default, PICTURE, kernel(3), kernel(3), None, None, True, 0.1, 1e-5, True,
        left=aten.group_norm.default,
    ),
    call(
        aten.instance_norm.default, PICTURE, None, None, kernel(3), kernel(3).abs(), False, 0.1, 1e-5, True,
        left=(aten._native_batch_norm_legit_no_training.default, GETITEM), note="stored",
    ),
    call(aten.relu6.default, X * 9, left=aten.hardtanh.default),
    call(aten.new_zeros.default, X, [2, 3], left=FULL),
    call(aten.new_ones.default, X, [2, 3], dtype=torch.int64, left=FULL),
    call(aten.new_full.default, X, [2, 3], 0.5, dtype=torch.float32, left=FULL),
    call(aten.fill.Scalar, X, 2.5, left=FULL),
    call(aten.type_as.default, X, X.float(), left=aten._to_copy.default),
    call(aten.type_as.default, X, SQUARE, note="the same"),
    call(aten.to.dtype, X, torch.float32, left=aten._to_copy.default),
    call(aten.to.dtype, X, torch.float64, note="the same"),
    call(aten.copy.default, X, ROW, left=aten.expand.default),
    call(aten.copy.default, X, X.float(), left=aten._to_copy.default, note="cast"),
    call(aten.clone.default, X),
    call(aten.contiguous.default, X),
    call(aten.alias.default, X),
    call(aten.lift_fresh_copy.default, X),
    call(aten.detach.default, X, left=STOP_GRADIENT),
    call(aten.max.other, X, ROW, left=aten.maximum.default),
    call(aten.min.other, X, ROW, left=aten.minimum.default),
    call(aten.var.dim, X, [1], False, True, left=aten.var.correction),
    call(aten.std.dim, X, [1], left=aten.std.correction),
    call(aten.var_mean.dim, X, [1], left=(aten.var_mean.correction, GETITEM, GETITEM)),
    call(aten.clamp_min.default, X, 0.1, left=aten.clamp.default),
    call(aten.clamp_min.default, X, 0.0, left=aten.relu.default, note="zero"),
    call(aten.clamp_min.default, NUMBERS, 0, left=aten.clamp.default, note="integers"),
    call(aten.clamp_max.default, X, 0.1, left=aten.clamp.default),
    call(aten.clamp_min.Tensor, X, ROW, left=aten.clamp.Tensor),
    call(aten.clamp_max.Tensor, X, ROW, left=aten.clamp.Tensor),
    call(aten.add.Scalar, X, 2.5, 3, left=aten.add.Tensor),
    call(aten.sub.Scalar, X, 2.5, left=aten.sub.Tensor),
    call(aten.mul.Scalar, X, 2.5, left=aten.mul.Tensor),
    call(aten.div.Scalar, X, 2.5, left=aten.div.Tensor),
    call(aten.t.default, X, left=aten.transpose.int),
    call(aten.select_scatter.default, X, X[:, 0], 1, -1, left=(aten.unsqueeze.default, aten.slice_scatter.default)),
    call(aten.t.default, ROW, note="vector"),
    call(aten.view.default, X, [2, 6], left=RESHAPE),
    call(aten._unsafe_view.default, X, [2, 6], left=RESHAPE),
    call(aten.mm.default, X, SQUARE, left=MATMUL),
    call(aten.bmm.default, BATCHED, draw(2, 4, 5), left=MATMUL),
    call(aten.mv.default, X, ROW, left=MATMUL),
    call(aten.dot.default, ROW, ROW + 1, left=MATMUL),
    call(aten.unsafe_split.Tensor, X, 2, 1, left=(aten.split.Tensor, GETITEM, GETITEM)),
    call(
        aten.unsafe_split_with_sizes.default, X, [1, 3], 1, left=(aten.split_with_sizes.default, GETITEM, GETITEM)
    ),
    call(aten._softmax.default, X, 1, False, left=aten.softmax.int),
    call(aten._log_softmax.default, X, 1, False, left=aten.log_softmax.int),
    call(aten.special_softmax.default, X, 1, torch.float32, left=aten.softmax.int),
    call(aten.special_log_softmax.default, X, 1, left=aten.log_softmax.int),
    call(aten.special_erf.default, X, left=aten.erf.default),
    call(aten.special_expit.default, X, left=aten.sigmoid.default),
]  # fmt: skip

SOME = [
    *_pools(),
    call(aten.clamp.default, X, -0.5, 0.5, left=aten.hardtanh.default),
    call(aten.clamp.default, X, 0, left=aten.relu.default, note="zero"),
    stays(aten.clamp.default, X, 0.1),
    stays(aten.clamp.default, X, None, 0, note="above"),
    stays(aten.clamp.default, NUMBERS, -1, 1, note="integers"),
    call(aten.threshold.default, X, 0, 0, left=aten.relu.default),
    stays(aten.threshold.default, X, 0, 1),
    call(aten.slice_scatter.default, X, X + 1, 1),
    stays(aten.slice_scatter.default, X, X[:, 1:3] + 1, 1, 1, 3),
    *(call(op.default, X, 0.5, False) for op in (aten.dropout, aten.feature_dropout, aten.alpha_dropout)),
    *(call(op.default, X, 0.0, True, note="nothing") for op in (aten.dropout, aten.alpha_dropout)),
    call(aten.feature_alpha_dropout.default, X, 0.5, False),
    call(aten.native_dropout.default, X, 0.5, False, left=FULL),
    call(
        aten.batch_norm.default, PICTURE, kernel(3), kernel(3), kernel(3), kernel(3).abs(), False, 0.1, 1e-5, True,
        left=(aten._native_batch_norm_legit_no_training.default, GETITEM),
    ),
    call(aten.rrelu.default, X, 0.1, 0.3, False, left=aten.leaky_relu.default),
    call(aten.pad.default, X, [1, 2], left=aten.constant_pad_nd.default),
    call(aten.pad.default, X, [1, 2], "constant", -2.0, left=aten.constant_pad_nd.default, note="number"),
    stays(aten.pad.default, BATCHED, [1, 2], "reflect"),
    call(aten._to_copy.default, X, dtype=torch.float64),
    call(aten._to_copy.default, X, device=torch.device("cpu"), note="device"),
    stays(aten._to_copy.default, X, dtype=torch.float32),
    call(aten.permute.default, BATCHED, [0, -1, 1], left=aten.permute.default),
    stays(aten.permute.default, BATCHED, [0, 2, 1]),
    call(aten.sgn.default, X, left=aten.sign.default),
    stays(aten.sgn.default, X + 1j),
    call(aten.topk.default, X, 2, 1, False, False, left=(aten.topk.default, GETITEM, GETITEM)),
    call(
        aten.scatter_add.default, X, 1, NUMBERS % 4, X,
        left=(
            aten.transpose.int, aten.transpose.int, aten.unsqueeze.default, aten.eq.Tensor, aten._to_copy.default,
            aten.unsqueeze.default, aten.matmul.default, aten.squeeze.dim, aten.transpose.int, aten.add.Tensor,
        ),
    ),
    stays(aten.scatter_add.default, X, 1, NUMBERS[:1] % 4, X),
    stays(aten.topk.default, X, 2, 1, False, True, left=(GETITEM, GETITEM)),
    call(
        aten.linalg_vector_norm.default, X, 0, [1], left=(aten.ne.Scalar, aten._to_copy.default, aten.sum.dim_IntList),
    ),
    stays(aten.linalg_vector_norm.default, X, 3, [1]),
    call(aten.cat.default, [NOTHING, X], 1, left=()),
    call(aten.cat.default, [X, NOTHING, X], 1, left=aten.cat.default),
    stays(aten.cat.default, [X, X], 1),
    call(aten.div.Tensor_mode, X, ROW, left=aten.div.Tensor, rounding_mode=None),
    stays(aten.div.Tensor_mode, X, ROW, rounding_mode="floor"),
    call(aten.div.Scalar_mode, X, 0.3, left=aten.div.Tensor, rounding_mode=None),
    stays(aten.div.Scalar_mode, X, 0.3, rounding_mode="trunc"),
    call(
        aten.cumprod.default, X[:, :2], 1,
        left=(
            aten.transpose.int, aten.slice.Tensor, aten.constant_pad_nd.default, aten.mul.Tensor, aten.transpose.int,
        ),
    ),
]  # fmt: skip

RANDOM = [
    *(stays(op.default, X, 0.5, True) for op in (aten.dropout, aten.feature_dropout, aten.alpha_dropout)),
    stays(aten.feature_alpha_dropout.default, X, 0.5, True),
    stays(aten.native_dropout.default, X, 0.5, True),
    stays(aten.rrelu.default, X, 0.1, 0.3, True),
    stays(aten.batch_norm.default, PICTURE, None, None, None, None, True, 0.1, 1e-5, True),
]  # fmt: skip
"""Calls of training mode: what they compute is not the same twice, or not of one sample alone."""


def graph_with(row: Call) -> fx.GraphModule:
    """A graph of one call, its tensors as inputs."""
    mode, graph = FakeTensorMode(), fx.Graph()

    def entered(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        node = graph.placeholder(f"x{len(graph.nodes)}")
        node.meta["val"] = mode.from_tensor(value)
        return node

    args = tree_map(entered, row.args)
    node = graph.call_function(row.target, args, dict(row.kwargs))
    with mode:
        made = row.target(*fx.map_arg(args, lambda n: n.meta["val"]), **dict(row.kwargs))
    node.meta["val"] = made
    results = [node]
    if isinstance(made, tuple | list):
        results = [graph.call_function(GETITEM, (node, i)) for i in range(len(made))]
        for result, val in zip(results, made, strict=True):
            result.meta["val"] = val
    graph.output(tuple(results))
    return fx.GraphModule({}, graph)


def operators(gm: fx.GraphModule) -> list[Any]:
    return sorted((node.target for node in calls(gm.graph)), key=str)


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("row", ALWAYS_CALLS + SOME, ids=str)
def test_a_call_and_its_canonical_spelling(row: Call) -> None:
    before = graph_with(row)
    after = canonicalise(before)
    assert operators(after) == sorted(row.left, key=str)
    assert all(canonical_name(node) is None for node in calls(after.graph) if node.target is not GETITEM)
    first = next(calls(before.graph))
    assert (canonical_name(first) is None) == row.canonical
    tensors = [value for value in tree_leaves(row.args) if isinstance(value, Tensor)]
    for made, wanted in zip(after(*tensors), before(*tensors), strict=True):
        assert made.dtype == wanted.dtype
        if row.target is aten.instance_norm.default:  # torch's two kernels add up in different orders
            assert_near(made, wanted)
        else:
            assert torch.equal(made, wanted)


@pytest.mark.parametrize("row", RANDOM, ids=str)
def test_a_call_of_training_mode_stays(row: Call) -> None:
    after = canonicalise(graph_with(row))
    assert row.target in operators(after)
    assert canonical_name(next(node for node in calls(after.graph) if node.target is row.target)) is None


def test_every_operator_that_is_not_canonical_has_a_spelling() -> None:
    assert set(ALWAYS) | set(DROPPED) == set(NOT_CANONICAL)
    assert set(SOME_CALLS) | set(RECURRENT) == set(NOT_CANONICAL_IF)
    assert not set(NOT_CANONICAL) & set(NOT_CANONICAL_IF)
    assert not set(DROPPED) & set(ALWAYS)


def test_every_spelling_has_a_row() -> None:
    assert {row.target for row in ALWAYS_CALLS} | set(COMPOUNDS) == set(ALWAYS)  # those in test_compounds.py
    some: dict[bool, set[Any]] = {True: {aten.cumprod.default}, False: set()}  # a running product stays where free
    for row in SOME + RANDOM:
        some[canonical_name(next(calls(graph_with(row).graph))) is None].add(row.target)
    assert some[True] == some[False] == set(SOME_CALLS)


def test_what_stands_for_an_operator_is_canonical() -> None:
    for target in NOT_CANONICAL.values():
        assert isinstance(target, str) or (target not in NOT_CANONICAL and not is_composite(target))


def test_no_vjp_rule_for_an_operator_that_never_stands() -> None:
    assert not [op for op in TABLE if op in NOT_CANONICAL or is_composite(op)]


# Spellings that depend on the nodes around a call: what stays, and what does not.

BOUND, BOUNDS = torch.tensor(0.5, dtype=torch.float64), draw(4)
CONTEXT: dict[str, tuple[Callable[[Tensor], Any], Any, bool]] = {
    "clamp-by-a-constant": (lambda x: torch.clamp(x, max=BOUND), aten.clamp.Tensor, False),
    "clamp-by-a-number": (lambda x: aten.clamp.Tensor(x, torch.scalar_tensor(0.5)), aten.clamp.Tensor, False),
    "clamp-by-sums-of-constants": (lambda x: torch.clamp(x, -BOUND, BOUND * 2), aten.clamp.Tensor, True),
    "cosine-similarity": (lambda x: F.cosine_similarity(x[:, None], SQUARE[None], -1), aten.clamp.Tensor, False),
    "clamp-by-many": (lambda x: torch.clamp(x, BOUNDS), aten.clamp.Tensor, True),
    "clamp-by-what-is-computed": (lambda x: torch.clamp(x, x.mean(1, keepdim=True)), aten.clamp.Tensor, True),
    "places-read": (lambda x: _pooled(x)[0] + _pooled(x)[1], aten.max_pool2d_with_indices.default, True),
    "places-not-read": (lambda x: _pooled(x)[0], aten.max_pool2d_with_indices.default, False),
    "one-place-a-sample": (
        lambda x: x[torch.arange(x.shape[0]), x.argmax(1)].unsqueeze(1), aten.index.Tensor, False,
    ),
    "one-place-a-sample-from-zero": (
        lambda x: x[torch.arange(0, x.shape[0]), x.argmax(1)].unsqueeze(1), aten.index.Tensor, False,
    ),
    "the-same-places": (lambda x: x[:, [0, 2]], aten.index.Tensor, True),
}  # fmt: skip


def _pooled(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.max_pool2d(x.reshape(-1, 1, 2, 2), 2, return_indices=True)


@pytest.mark.parametrize("name", CONTEXT)
def test_spelling_by_what_is_around(name: str) -> None:
    function, target, remains = CONTEXT[name]
    assert target in IN_CONTEXT
    captured = graph_of(function, 4)
    assert (target in operators(captured)) == remains
    x = draw(3, 4)
    assert torch.equal(captured(x)[0], function(x).reshape(3, -1))
