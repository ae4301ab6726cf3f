"""The adjoint of a convolution in the form that runs fastest: a transposed convolution has slow kernels.

Its weight is always an expression of the forward's own, so that a file holds it once; a runtime computes the expression
when it loads the file.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import aten, constant_like, is_call, node_argument, schema_arguments
from fxpullback.graph.module import Graph
from fxpullback.graph.rebuild import Site, rebuild
from fxpullback.graph.shapes import alike
from fxpullback.graph.value import Value

MOST_PLACES = 4
"""Strides up to which picking is cheaper than moving."""


def unit_stride(site: Site) -> Any:
    """A transposed convolution of stride 1 is a convolution with the flipped, transposed weight."""
    ct, weight, bias, stride, padding, dilation, transposed, output_padding, groups = site.arguments()
    if not transposed or any(s != 1 for s in stride) or any(output_padding) or bias is not None:
        return NotImplemented
    kernel = list(weight.shape[2:])
    sides = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    if any(side < 0 for side in sides):
        return NotImplemented
    return _convolved(ct, transposed_weight(weight, groups), sides, sides, dilation, groups)


def transposed_weight(weight: Value, groups: int) -> Any:
    """`[out, in / groups, *kernel]` -> `[in, out / groups, *kernel]`, the kernel flipped."""
    out, into, *kernel = weight.shape
    spatial = list(range(2, 2 + len(kernel)))
    if groups == 1:
        turned: Any = weight.transpose(0, 1)
    elif out == groups and into == 1:
        turned = weight
    else:
        turned = weight.reshape([groups, out // groups, into, *kernel]).transpose(1, 2)
        turned = turned.reshape([groups * into, out // groups, *kernel])
    return torch.flip(turned, spatial) if any(k > 1 for k in kernel) else turned


def strided(site: Site) -> Any:
    """A transposed convolution of a larger stride, over pictures of a known size.

    Of a kernel of one, or of one weight a channel: a convolution of stride 1, and the values spread apart. Of any
    other: the s x s places between two strides are channels of one convolution of stride 1 (sub-pixel convolution, Shi
    et al., arXiv 1609.05158), spread out together.
    """
    ct, weight, bias, stride, padding, dilation, transposed, _, groups = site.arguments()
    after = list(site.node.meta["val"].shape[2:])
    if not transposed or bias is not None or len(stride) != 2 or stride[0] != stride[1] or stride[0] == 1:
        return NotImplemented
    if any(d != 1 for d in dilation) or not all(isinstance(n, int) for n in [*after, *ct.shape[2:]]):
        return NotImplemented
    s, kernel = stride[0], list(weight.shape[2:])
    if kernel == [1, 1] and not any(padding):
        return spread(_convolved(ct, transposed_weight(weight, groups), [0, 0], [0, 0], dilation, groups), s, after)
    if weight.shape[0] == groups and weight.shape[1] == 1:
        if all(k <= s for k in kernel):
            return NotImplemented  # it spreads values already
        before = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
        behind = [n + p - m * s for n, p, m in zip(after, padding, ct.shape[2:], strict=True)]
        if min(*before, *behind) < 0:
            return NotImplemented
        wide = spread(ct, s, [m * s for m in ct.shape[2:]])
        return _convolved(wide, transposed_weight(weight, groups), before, behind, dilation, groups)
    return _sub_pixel(ct, weight, s, padding, groups, after)


def _sub_pixel(ct: Value, weight: Value, s: int, padding: list[int], groups: int, after: list[int]) -> Any:
    """Position s q + r of the result reads ct[q + u] with weight r + p - s u, for u from `first` to `last`."""
    kernel = list(weight.shape[2:])
    first = [-((k - 1 - p) // s) for k, p in zip(kernel, padding, strict=True)]
    last = [(s - 1 + p) // s for p in padding]
    taps = [b - a + 1 for a, b in zip(first, last, strict=True)]
    rows = [-(-n // s) for n in after]
    before = [-a for a in first]
    behind = [b + n - m for b, n, m in zip(last, rows, ct.shape[2:], strict=True)]
    if min(*before, *behind) < 0:
        return NotImplemented
    front = [s - k + p - s * a for k, p, a in zip(kernel, padding, first, strict=True)]
    back = [s * t - k - f for t, k, f in zip(taps, kernel, front, strict=True)]
    out, into = weight.shape[0] // groups, weight.shape[1]
    turned: Any = torch.flip(weight, [2, 3])  # type: ignore[arg-type]
    if any(front) or any(back):
        turned = torch.constant_pad_nd(turned, [front[1], back[1], front[0], back[0]], 0.0)
    parts = turned.reshape([groups, out, into, taps[0], s, taps[1], s])
    parts = torch.flip(parts, [4, 6]).permute([0, 2, 4, 6, 1, 3, 5])
    whole = parts.reshape([groups * into * s * s, out, *taps])
    made: Any = torch.pixel_shuffle(_convolved(ct, whole, before, behind, [1, 1], groups), s)
    for i, (n, row) in enumerate(zip(after, rows, strict=True)):
        if n != row * s:
            made = aten.slice.Tensor(made, 2 + i, 0, n, 1)
    return made


def _convolved(x: Any, weight: Any, before: list[int], behind: list[int], dilation: list[int], groups: int) -> Any:
    """A convolution of stride 1 whose padding may differ at the two ends."""
    n, sides = len(before), before
    if before != behind:
        uneven = [side for pair in zip(reversed(before), reversed(behind), strict=True) for side in pair]
        x, sides = torch.constant_pad_nd(x, uneven, 0.0), [0] * n
    return aten.convolution.default(x, weight, None, [1] * n, sides, dilation, False, [0] * n, groups)


def scale_channels_first(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, int]:
    """One factor a channel behind a gate goes in front of it, into the weight of the convolution that comes before.

    That is the adjoint of a batch norm between a sum or a concatenation and its gate: `s * (g * (W x))` is
    `g * ((s W) x)`.
    """
    scales = {}
    for node in gm.graph.nodes:
        convolution = _scaled_behind_gate(node)
        if convolution is not None:
            scales[convolution] = node

    def move(site: Site) -> Any:
        if site.node in scales.values():
            return site.env[node_argument(site.node, 0)]
        if site.node not in scales:
            return NotImplemented
        name = str(node_argument(scales[site.node], 1).target)
        x, weight, *rest = site.arguments()
        with site.builder.provenance(name):
            scale = site.builder.attribute(name).reshape([-1, *[1] * (site.node.meta["val"].ndim - 1)])
        return aten.convolution.default(x, weight * scale, *rest)

    moved = {*scales, *(node_argument(scaling, 0) for scaling in scales.values())}
    return rebuild(gm, move, compilation, moved), len(scales)


def _scaled_behind_gate(node: fx.Node) -> fx.Node | None:
    """The convolution whose output, times a gate, is all that a convolution of one factor a channel reads."""
    if not _scales_channels(node):
        return None
    product = node_argument(node, 0)
    if not is_call(product, aten.mul.Tensor) or len(product.users) != 1 or product.kwargs:
        return None
    for source in product.args[:2]:
        if is_call(source, aten.convolution.default) and len(source.users) == 1 and alike(source, product):
            _, weight, bias, *_, transposed, _, _ = schema_arguments(source)
            if bias is None and not transposed and _constant(weight):
                return source
    return None


def _scales_channels(node: fx.Node) -> bool:
    if not is_call(node, aten.convolution.default):
        return False
    x, weight, bias, stride, padding, _, transposed, _, groups = schema_arguments(node)
    shape = weight.meta["val"].shape
    alone = groups == shape[0] == x.meta["val"].shape[1] and all(n == 1 for n in shape[1:])
    plain = bias is None and not transposed and all(s == 1 for s in stride) and not any(padding)
    return bool(alone and plain and weight.op == "get_attr")


def _constant(node: Any) -> bool:
    return node.op == "get_attr" or (node.op == "call_function" and all(_constant(n) for n in node.all_input_nodes))


def shuffled(site: Site) -> Any:
    """Channels spread over s x s places, by a transposed convolution that picks; DepthToSpace has slow kernels."""
    x, s = site.arguments()
    if x.ndim != 4 or s > MOST_PLACES or not isinstance(x.shape[1], int):
        return NotImplemented
    single = torch.eye(s * s, dtype=torch.float64).reshape(s * s, 1, s, s).repeat(x.shape[1] // (s * s), 1, 1, 1)
    none = [0, 0]
    return aten.convolution.default(
        x, constant_like(single, x), None, [s, s], none, [1, 1], True, none, x.shape[1] // (s * s)
    )


def spread(x: Any, s: int, after: list[int]) -> Any:
    """Values at every s-th place of a picture of the size `after`, zeros between: a kernel of a single one."""
    kernel = [n - (m - 1) * s for n, m in zip(after, x.shape[2:], strict=True)]
    if not all(k >= 1 for k in kernel):
        return NotImplemented
    single = torch.zeros([x.shape[1], 1, *kernel], dtype=torch.float64)
    single[:, :, 0, 0] = 1
    one = constant_like(single, x)
    return aten.convolution.default(x, one, None, [s, s], [0, 0], [1, 1], True, [0, 0], x.shape[1])
