"""A lowered fx graph of ATen operators, translated straight into an ONNX model.

One small function for each operator, in tables by kind. The tables hold what a lowered graph can: capture gives every
operator one spelling, and lowering writes out fused attention and our own two primitives, so those and other spellings
have no translator. `translate` is the way in.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

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
    special,
    windows,
)
from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import BUG, IR_VERSION, OPSET, Translator, merge, translate_graph
from fxpullback.export.onnx.translate.own import Translations, checked, guarded

__all__ = ["IR_VERSION", "OPSET", "TABLE", "Builder", "Translations", "translate"]

log = logging.getLogger(__name__)

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
    special.TABLE,
    windows.TABLE,
)


def translate(
    gm: torch.fx.GraphModule,
    opset: int = OPSET,
    translations: Translations | None = None,
    reserved: Collection[str] = (),
) -> ir.Model:
    """Translate a lowered graph into an ONNX model (default domain).

    Args:
        gm: Placeholders, get_attr constants, ATen calls with `meta["val"]`, and one output holding a tuple;
            the graph's signature names its parts.
        opset: 20, or for a graph in bfloat16 22, the first whose convolutions and pools take that type.
        translations: Translators of the caller's own, by operator; one for an operator of `TABLE` is taken instead of
            the translator there. See `own`.
        reserved: Names that no node may take.

    Returns:
        The model, shape-inferred and checked.

    Raises:
        ExportError: An operator has no translation, a size is free that must be fixed, or `translations` holds what
            is no translation or returns something wrong.
    """
    own = checked(translations)
    if not own:
        return translate_graph(gm, TABLE, opset, reserved=reserved)
    called = {node.target for node in gm.graph.nodes}
    for operator in own.keys() - called:
        log.info("%s is not in this graph: the translation passed in for it is not used", operator)
    used = ", ".join(str(operator) for operator in own if operator in called)
    advice = f"The translation passed in for {used} must return the shape and type that torch has." if used else BUG
    table = TABLE | {operator: guarded(operator, function) for operator, function in own.items()}
    return translate_graph(gm, table, opset, advice, reserved)
