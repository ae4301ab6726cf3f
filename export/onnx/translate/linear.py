"""Matrix products."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.elementwise import scaled
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Scalar, Value, rank

aten = torch.ops.aten


def linear(b: Builder, x: Value, weight: Value, bias: Value | None) -> Value:
    """Gemm of a matrix, else MatMul and Add; the weight's Transpose folds when a session loads."""
    if rank(x) == 2 and rank(weight) == 2:
        return b.op("Gemm", x, weight, bias, transB=1)
    product = b.op("MatMul", x, b.transpose(weight, (1, 0)) if rank(weight) == 2 else weight)
    return product if bias is None else b.op("Add", product, bias)


def matmul(b: Builder, x: Value, y: Value) -> Value:
    """MatMul: a product by numpy's rules, which are also torch's."""
    return b.op("MatMul", x, y)


def addmm(b: Builder, bias: Value, x: Value, y: Value, beta: Scalar, alpha: Scalar) -> Value:
    """Gemm: `beta * bias + alpha * x @ y`."""
    return b.op("Gemm", x, y, bias, alpha=float(alpha), beta=float(beta))


def baddbmm(b: Builder, bias: Value, x: Value, y: Value, beta: Scalar, alpha: Scalar) -> Value:
    """MatMul, Mul and Add: `beta * bias + alpha * x @ y`, batched."""
    product = scaled(b, b.op("MatMul", x, y), alpha)
    return product if beta == 0 else b.op("Add", scaled(b, bias, beta), product)


TABLE: dict[OpOverload, Translator] = {
    aten.linear.default: linear,
    aten.matmul.default: matmul,
    aten.vdot.default: matmul,
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
}
