"""Products: matrices, convolutions, sums by Einstein's convention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.operators.elementwise import OPERATORS as ELEMENTWISE
from fxpullback.importer.site import Node, tensor

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def matmul(node: Node, a: Any, b: Any) -> Any:
    """A matrix product; with a constant matrix on the right a linear layer."""
    a, b = tensor(a), tensor(b)
    if node.constant(1) is not None and b.ndim == 2 and a.ndim >= 2:
        return F.linear(a, b.t())
    return torch.matmul(a, b)


def gemm(node: Node, a: Any, b: Any, c: Any = None) -> Any:
    """alpha A B + beta C, A and B transposed where asked for."""
    a, b, c = tensor(a), tensor(b), tensor(c)
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    a = a.t() if node.get("transA", 0) else a
    weight = b if node.get("transB", 0) else b.t()
    if alpha != 1.0:
        weight = weight * alpha
    if c is not None and beta != 1.0:
        c = c * beta
    if c is not None and c.ndim == 1 and c.shape[0] == weight.shape[0]:
        return F.linear(a, weight, c)
    if (
        c is not None
        and c.ndim == 2
        and node.constant(2) is not None
        and c.shape[0] == 1
        and c.shape[1] == weight.shape[0]
    ):
        return F.linear(a, weight, c[0])
    result = F.linear(a, weight)
    return result if c is None else result + c


def fused_gemm(node: Node, *given: Any) -> Any:
    """A product with its gate."""
    return activated(node, gemm(node, *given))


def fused_matmul(node: Node, a: Any, b: Any) -> Any:
    """alpha A B, either transposed where asked for."""
    a, b = tensor(a), tensor(b)
    for name in ("transBatchA", "transBatchB"):
        if node.get(name, 0):
            raise CaptureError(f"its attribute {name} is not supported")
    a = a.transpose(-1, -2) if node.get("transA", 0) else a
    b = b.transpose(-1, -2) if node.get("transB", 0) else b
    result = torch.matmul(a, b)
    alpha = node.get("alpha", 1.0)
    return result if alpha == 1.0 else result * alpha


def activated(node: Node, x: Tensor) -> Any:
    """What ONNX Runtime's fused operators apply behind their own."""
    name = node.text("activation")
    if not name:
        return x
    if name not in ELEMENTWISE:
        raise CaptureError(f"its activation {name} is not supported")
    parameters = list(node.get("activation_params", ()) or ())
    named = {
        "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta"), "Clip": ("min", "max"),
    }.get(name, ())  # fmt: skip
    attributes = dict(zip(named, parameters, strict=False))
    if name == "LeakyRelu" and "activation_alpha" in node.attributes:
        attributes["alpha"] = node.get("activation_alpha")
    opset = 6 if name == "Clip" else 22  # bounds as attributes
    return ELEMENTWISE[name](Node(node.name, name, "", opset, attributes), x)


def pads_of(
    node: Node, spatial: Sequence[Any], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Padding at the beginning of every axis, then at its end."""
    kind = node.text("auto_pad", "NOTSET")
    count = len(kernel)
    if kind in ("NOTSET", ""):
        return list(node.get("pads") or [0] * (2 * count))
    if kind == "VALID":
        return [0] * (2 * count)
    begins, ends = [], []
    for size, k, s, d in zip(spatial, kernel, stride, dilation, strict=True):
        if not isinstance(size, int) and s != 1:
            raise CaptureError(f"auto_pad={kind} with a stride pads by a size, and that is free")
        total = d * (k - 1) if s == 1 else max(0, (-(-size // s) - 1) * s + d * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if kind == "SAME_UPPER" else large)
        ends.append(large if kind == "SAME_UPPER" else small)
    return [*begins, *ends]


def split_pads(x: Tensor, pads: Sequence[int], value: float = 0.0) -> tuple[Tensor, list[int]]:
    """The input and the same padding at both ends of every axis; what is uneven is padded before."""
    count = len(pads) // 2
    begins, ends = list(pads[:count]), list(pads[count:])
    if begins == ends and min(begins, default=0) >= 0:
        return x, begins
    sides = [side for pair in zip(reversed(begins), reversed(ends), strict=True) for side in pair]
    return F.pad(x, sides, value=value), [0] * count


def convolution(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    """A convolution over one, two or three axes."""
    x, weight, bias = tensor(x), tensor(weight), tensor(bias)
    count = x.ndim - 2
    if count not in CONVOLUTIONS:
        raise CaptureError(f"a convolution over {count} axes is none that torch has")
    kernel = list(weight.shape[2:])
    stride = list(node.get("strides") or [1] * count)
    dilation = list(node.get("dilations") or [1] * count)
    x, padding = split_pads(x, pads_of(node, x.shape[2:], kernel, stride, dilation))
    return CONVOLUTIONS[count](x, weight, bias, stride, padding, dilation, node.get("group", 1))


def fused_convolution(node: Node, x: Any, weight: Any, bias: Any = None, added: Any = None) -> Any:
    """A convolution with what is added to it and its gate."""
    result = convolution(node, x, weight, bias)
    return activated(node, result if added is None else result + tensor(added))


def transposed(node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    """The adjoint of a convolution."""
    x, weight, bias = tensor(x), tensor(weight), tensor(bias)
    count = x.ndim - 2
    if count not in TRANSPOSED:
        raise CaptureError(f"a transposed convolution over {count} axes is none that torch has")
    stride = list(node.get("strides") or [1] * count)
    dilation = list(node.get("dilations") or [1] * count)
    more = list(node.get("output_padding") or [0] * count)
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    begins, ends = _transposed_pads(node, list(x.shape[2:]), stride, reach, more)
    call, group = TRANSPOSED[count], node.get("group", 1)
    even = begins == ends and all(isinstance(n, int) and n >= 0 for n in begins)
    if even and all(m < max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        return call(x, weight, bias, stride, begins, more, group, dilation)
    made = call(x, weight, None, stride, 0, 0, group, dilation)
    cut = [(-begin, m - end) for begin, end, m in zip(begins, ends, more, strict=True)]
    made = F.pad(made, [side for pair in reversed(cut) for side in pair])
    return made if bias is None else made + bias.reshape([1, -1, *[1] * count])


def _transposed_pads(
    node: Node, sizes: list[Any], stride: list[int], reach: list[int], more: list[int]
) -> tuple[list[Any], list[Any]]:
    kind = node.text("auto_pad", "NOTSET")
    wanted = node.get("output_shape")
    count = len(sizes)
    if kind in ("NOTSET", "") and not wanted:
        pads = list(node.get("pads") or [0] * (2 * count))
        return pads[:count], pads[count:]
    if kind == "VALID" and not wanted:
        return [0] * count, [0] * count
    goal = list(wanted)[-count:] if wanted else [n * s for n, s in zip(sizes, stride, strict=True)]
    begins, ends = [], []
    for n, s, r, m, g in zip(sizes, stride, reach, more, goal, strict=True):
        total = s * (n - 1) + m + r - g
        if isinstance(total, int) and total < 0:
            begins.append(0)
            ends.append(total)
            continue
        small, large = total // 2, total - total // 2
        begins.append(small if kind != "SAME_LOWER" else large)
        ends.append(large if kind != "SAME_LOWER" else small)
    return begins, ends


def deformed(node: Node, x: Any, weight: Any, offset: Any, bias: Any = None, mask: Any = None) -> Any:
    """A convolution whose places are moved by offsets."""
    from torchvision.ops import deform_conv2d

    weight, kernel = tensor(weight), list(tensor(weight).shape[2:])
    if len(kernel) != 2:
        raise CaptureError(f"windows of {len(kernel)} axes are none that torch has")
    pads = list(node.get("pads") or [0] * 4)
    if pads[:2] != pads[2:]:
        raise CaptureError("padding that differs at both ends of an axis is not supported")
    stride, dilation = node.get("strides") or [1, 1], node.get("dilations") or [1, 1]
    given = tensor(bias), tuple(stride), tuple(pads[:2]), tuple(dilation), tensor(mask)
    return deform_conv2d(x, tensor(offset), weight, *given)


def causal(node: Node, x: Any, weight: Any, bias: Any = None, past: Any = None) -> Any:
    """A convolution along time that looks back only, each channel by itself; and what the next call takes."""
    weight, bias, past = tensor(weight), tensor(bias), tensor(past)
    back = weight.shape[-1] - 1
    wide = F.pad(x, [back, 0]) if past is None else torch.cat([past, x], 2)
    made = F.conv1d(wide, weight, bias, groups=x.shape[1])
    made = F.silu(made) if node.text("activation", "none") in ("silu", "swish") else made
    return (made, wide[:, :, wide.shape[2] - back :]) if len(node.outputs) > 1 else made


def determinant(node: Node, x: Any) -> Any:
    """The determinant of each matrix."""
    return torch.linalg.det(x)


def einsum(node: Node, *given: Any) -> Any:
    """A sum by Einstein's convention."""
    return torch.einsum(node.text("equation").replace(" ", ""), *map(tensor, given))


OPERATORS: dict[str, Callable[..., Any]] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "Conv": convolution,
    "ConvTranspose": transposed,
    "Einsum": einsum,
    "DeformConv": deformed,
    "CausalConvWithState": causal,
    "Det": determinant,
    "com.microsoft.FusedConv": fused_convolution,
    "com.microsoft.FusedGemm": fused_gemm,
    "com.microsoft.FusedMatMul": fused_matmul,
}
