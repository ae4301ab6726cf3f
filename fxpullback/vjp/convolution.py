"""VJP rule of convolution: the adjoint of a convolution is a transposed convolution, and the other way round.

`ct` is the cotangent of the output; y, in the code `out`, is the primal output. A rule returns one cotangent for each
tensor argument, ct_x for x. `fxpullback.vjp.rule` explains this and the values ZERO, ABSENT and NOT_DIFFERENTIABLE.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fxpullback.graph.ir import aten
from fxpullback.graph.shapes import is_free, plain
from fxpullback.vjp.rule import NOT_DIFFERENTIABLE, vjp


@vjp(aten.convolution.default, kind="product", factors=(0, 1))
def convolution(
    ct: Tensor,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
) -> tuple[Any, Any, Any]:
    """y = conv(x, weight) + bias:  ct_x = conv_transposed(ct, weight), ct_bias = sum of ct over all axes but channels.

    If the convolution is itself transposed, ct_x = conv(ct, weight). Stride, padding, dilation and groups stay. Output
    padding makes ct_x as long as x where a strided convolution does not read the end of x. ct_weight =
    NOT_DIFFERENTIABLE: a weight that depends on the input is refused.
    """

    def of_input() -> Any:
        if transposed:
            none = [0] * len(stride)
            return aten.convolution.default(ct, weight, None, stride, padding, dilation, False, none, groups)
        left = _left_over(x, ct, weight, stride, padding, dilation)
        free = [i for i, n in enumerate(left) if is_free(n)]
        whole = [stride[i] - 1 if i in free else plain(n) for i, n in enumerate(left)]
        wide = aten.convolution.default(ct, weight, None, stride, padding, dilation, True, whole, groups)
        for i in free:  # take the largest output padding there is, then cut to the size of x
            wide = aten.slice.Tensor(wide, 2 + i, 0, x.shape[2 + i], 1)
        return wide

    return of_input, NOT_DIFFERENTIABLE, lambda: ct.sum([0, *range(2, ct.ndim)])


def _left_over(
    x: Tensor, ct: Tensor, weight: Tensor, stride: list[int], padding: list[int], dilation: list[int]
) -> list[Any]:
    """How many values at the end of each axis a strided convolution did not read; one number for each axis."""
    sizes = zip(x.shape[2:], ct.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    return [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sizes]


RULES = (convolution,)
