"""Operators on integers, as quantised files without QDQ pairs hold them: the operator on numbers, then the quantiser.

What a kernel of integers computes, and rounds once at its end, is the operator on the numbers that its inputs stand
for, rounded to the levels of its output. So its row in the ledger is followed by that of a quantiser.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.numbers import Array
from fxpullback.importer.operators import linear, pools
from fxpullback.importer.operators.norms import softmax
from fxpullback.importer.operators.quantised import CARRIED, Quantised, carried, quantised, real
from fxpullback.importer.operators.quantised import OPERATORS as PAIRS
from fxpullback.importer.site import Node


def _bias(node: Node, place: int, x_scale: int, w_scale: int) -> Tensor | None:
    """A bias of whole numbers, whose scale is the product of the other two."""
    held = node.constant(place)
    steps = node.constant(x_scale), node.constant(w_scale)
    if held is None or steps[0] is None or steps[1] is None:
        return None
    return torch.from_numpy((held * (steps[0] * steps[1].reshape(-1))).astype("float32"))


def convolution(node: Node, x: Any, *rest: Any) -> Quantised:
    """x, its scale and zero point; the weight's; those of the output; a bias."""
    made = linear.convolution(node, real(node, x, 0), real(node, rest[2], 3, 0), _bias(node, 8, 1, 4))
    return quantised(node, made, 6, 7)


def matmul(node: Node, a: Any, *rest: Any) -> Quantised:
    """a, its scale and zero point; b's; those of the output."""
    left, right = real(node, a, 0, -2), real(node, rest[2], 3, -1)
    plain = node.constant(3) is not None and right.ndim == 2 and left.ndim >= 2
    return quantised(node, F.linear(left, right.t()) if plain else torch.matmul(left, right), 6, 7)


def gemm(node: Node, a: Any, *rest: Any) -> Any:
    """alpha A B + C; quantised where the output has a scale."""
    transposed = node.get("transB", 0)
    left, right = real(node, a, 0), real(node, rest[2], 3, 0 if transposed else -1)
    left = left.t() if node.get("transA", 0) else left
    weight = (right if transposed else right.t()) * node.get("alpha", 1.0)
    made = F.linear(left, weight, _bias(node, 6, 1, 4))
    return quantised(node, made, 7, 8) if len(rest) > 6 and rest[6] is not None else made


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """An operator of two quantised arguments."""

    def run(node: Node, a: Any, *rest: Any) -> Quantised:
        return quantised(node, function(real(node, a, 0), real(node, rest[2], 3)), 6, 7)

    return run


def of_one(function: Callable[[Node, Tensor], Any]) -> Callable[..., Any]:
    """An operator of one quantised argument."""

    def run(node: Node, x: Any, *rest: Any) -> Quantised:
        if node.get("channels_last", 0):
            raise CaptureError("channels last are not supported")
        return quantised(node, function(node, real(node, x, 0)), 3, 4)

    return run


def concatenated(node: Node, *given: Any) -> Quantised:
    """The output's scale and zero point; then each part with its own."""
    parts = [real(node, given[i], i) for i in range(2, len(given), 3)]
    return quantised(node, torch.cat(parts, node.get("axis", 0)), 0, 1)


def joined(node: Node, *given: Quantised) -> Quantised:
    """Parts of one scale, one behind the other.

    Raises:
        CaptureError: their scales differ, which a file has only by mistake.
    """
    first = given[0]
    if any((p.scale != first.scale).any() or (p.zero != first.zero).any() or p.axis >= 0 for p in given):
        raise CaptureError("it joins integers of different scales")
    return Quantised(torch.cat([p.value for p in given], node.get("axis")), first.scale, first.zero)


def is_weight(constant: Array | None) -> bool:
    """Whether an input of such an operator is a weight or a bias, no zero point and no scale."""
    return constant is not None and constant.dtype.kind in "iu" and (constant.ndim > 1 or constant.dtype.itemsize > 2)


def of_integers(node: Node, operator: Callable[..., Any], values: tuple[Any, ...]) -> Any:
    """What an operator makes of values some of which are quantised.

    Raises:
        CaptureError: it computes with their levels.
    """
    key = f"{node.domain}.{node.kind}" if node.domain else node.kind
    if key in OPERATORS or key in PAIRS:
        return operator(node, *values)
    first, others = values[0], values[1:]
    if key == "Concat" and all(isinstance(value, Quantised) for value in values):
        return joined(node, *values)
    if key in CARRIED and isinstance(first, Quantised) and not any(isinstance(v, Quantised) for v in others):
        return carried(first, operator(node, first.value, *others))
    raise CaptureError(
        "it computes with integers that a quantiser made, and is not imported for them. Quantise with QDQ pairs, "
        "onnxruntime.quantization.quantize_static(quant_format=QuantFormat.QDQ)"
    )


def product(node: Node, a: Any, b: Any, *zeros: Any) -> Tensor:
    """The sums of products of levels, which a scale is multiplied with behind it.

    Raises:
        CaptureError: an input is of integers that are computed.
    """
    return torch.matmul(_levels(node, a, 0, 2), _levels(node, b, 1, 3))


def windows(node: Node, x: Any, weight: Any, *zeros: Any) -> Tensor:
    """The sums of products of levels in each window.

    Raises:
        CaptureError: an input is of integers that are computed.
    """
    return linear.convolution(node, _levels(node, x, 0, 2), _levels(node, weight, 1, 3))  # type: ignore[no-any-return]


def _levels(node: Node, x: Any, place: int, zero_at: int) -> Tensor:
    """The levels of an input without its zero point."""
    held, offset = node.constant(place), node.constant(zero_at)
    zero = 0.0 if offset is None else offset.astype("float32")
    if isinstance(x, Quantised):
        if x.axis >= 0 or (zero != x.zero).any():  # type: ignore[union-attr]
            raise CaptureError("its zero point is another than that of the quantiser in front of it")
        return x.levels()
    if held is None:
        raise CaptureError(f"its input {place + 1} is of integers that no QuantizeLinear made")
    if held.ndim > 2 and offset is not None and offset.ndim == 1:
        zero = offset.astype("float32").reshape([-1, *[1] * (held.ndim - 1)])
    return torch.from_numpy((held.astype("float32") - zero).astype("float32"))


OPERATORS: dict[str, Callable[..., Any]] = {
    "QLinearConv": convolution,
    "QLinearMatMul": matmul,
    "MatMulInteger": product,
    "ConvInteger": windows,
    "com.microsoft.QGemm": gemm,
    "com.microsoft.QLinearAdd": of_two(torch.add),
    "com.microsoft.QLinearMul": of_two(torch.mul),
    "com.microsoft.QLinearConcat": concatenated,
    "com.microsoft.QLinearSigmoid": of_one(lambda node, x: torch.sigmoid(x)),
    "com.microsoft.QLinearLeakyRelu": of_one(lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01))),
    "com.microsoft.QLinearSoftmax": of_one(softmax),
    "com.microsoft.QLinearAveragePool": of_one(lambda node, x: pools.OPERATORS["AveragePool"](node, x)),
    "com.microsoft.QLinearGlobalAveragePool": of_one(lambda node, x: pools.OPERATORS["GlobalAveragePool"](node, x)),
}
