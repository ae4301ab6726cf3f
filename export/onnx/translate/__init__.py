"""A lowered fx graph of ATen operators, translated straight into an ONNX model.

One small function per operator, in tables by kind. `translate` is the way in.
"""

from __future__ import annotations

import onnx_ir as ir
import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate import (
    activation,
    comparison,
    convolution,
    creation,
    elementwise,
    functions,
    indexing,
    joining,
    linear,
    normalization,
    pooling,
    reduction,
    resize,
    shape,
    slicing,
    windows,
)
from fxpullback.export.onnx.translate.engine import IR_VERSION, OPSET, Translator, merge, translate_graph

__all__ = ["IR_VERSION", "OPSET", "TABLE", "translate"]

TABLE: dict[OpOverload, Translator] = merge(
    activation.TABLE,
    comparison.TABLE,
    convolution.TABLE,
    creation.TABLE,
    elementwise.TABLE,
    functions.TABLE,
    indexing.TABLE,
    joining.TABLE,
    linear.TABLE,
    normalization.TABLE,
    pooling.TABLE,
    reduction.TABLE,
    resize.TABLE,
    shape.TABLE,
    slicing.TABLE,
    windows.TABLE,
)


def translate(gm: torch.fx.GraphModule, opset: int = OPSET) -> ir.Model:
    """Translate a lowered graph into an ONNX model (default domain).

    Args:
        gm: Placeholders, get_attr constants, ATen calls with `meta["val"]`, and one output holding a tuple;
            the graph's signature names its parts.
        opset: 20, or for a graph in bfloat16 22, the first whose convolutions and pools take that type.

    Returns:
        The model, shape-inferred and checked.

    Raises:
        ExportError: An operator has no translation, or a size is free that must be fixed.
    """
    return translate_graph(gm, TABLE, opset)
