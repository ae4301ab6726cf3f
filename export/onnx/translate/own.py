"""Translations that a caller passes in for operators of their own, and what is checked of them.

    def scale(b: Builder, x: ir.Value, factor: float) -> ir.Value:
        return b.op("Mul", x, b.const(factor, b.dtype))

    to_onnx(pb, "model.onnx", translations={torch.ops.mylib.scale.default: scale})

A translation is called with a `Builder` and every argument of the operator's schema, by position, defaults filled in:
tensors are `onnx_ir.Value`, all else is as in the graph. It returns one value for each output, made of ONNX's standard
operators, in the shape and type that the operator has in torch; None for an output that nothing reads.

Translations are values: what one call is given holds for that call alone. What a function returns is checked at once,
so that a mistake is named where it was made and not by a runtime later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import from_torch_dtype
from torch._ops import OpOverload, OpOverloadPacket

from fxpullback.contract.errors import ExportError
from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.graph.ir import GETITEM

Translations: TypeAlias = Mapping[OpOverload, Translator]
"""Operator to translation; see above."""


def checked(translations: Translations | None) -> dict[OpOverload, Translator]:
    """The translations passed in, once it is clear that they are some.

    Raises:
        ExportError: They are no mapping, a key is no `OpOverload`, or what it holds cannot be called.
    """
    if translations is None:
        return {}
    if not isinstance(translations, Mapping):
        raise ExportError(
            f"translations is a {type(translations).__name__}. Pass a mapping, such as "
            "{torch.ops.mylib.op.default: function}."
        )
    for operator, function in translations.items():
        if not isinstance(operator, OpOverload):
            raise ExportError(f"the key {operator!r} of translations is {_key(operator)}")
        if not callable(function):
            raise ExportError(
                f"the translation passed in for {operator} is a {type(function).__name__}, which cannot be called. "
                "Pass a function that takes the builder and every argument of the operator, and returns its value."
            )
    return dict(translations)


def _key(given: object) -> str:
    """What a wrong key is, and what to pass instead."""
    if isinstance(given, OpOverloadPacket):
        names = ", ".join(f"torch.ops.{given}.{name}" for name in given.overloads())
        return f"an operator with all its overloads. Pass one of them: {names}."
    overload = getattr(given, "_opoverload", "mylib.op.default")  # of what torch.library.custom_op returns
    return f"a {type(given).__name__} and no overload of an operator. Pass one, such as torch.ops.{overload}."


def guarded(operator: OpOverload, function: Translator) -> Translator:
    """A translation passed in, with its mistakes turned into errors that say where and what to do."""

    def translate(b: Builder, *arguments: Any) -> Any:
        try:
            result = function(b, *arguments)
        except ExportError:
            raise
        except Exception as error:
            raise b.error(
                f"the translation passed in raised {type(error).__name__}: {error}",
                f"It is called with the builder and every argument of {operator._schema}, in that order. Correct it.",
            ) from error
        _check(b, result)
        return result

    return translate


def _check(b: Builder, result: object) -> None:
    """Refuse anything but one value of the right type for each output of the operator."""
    several = isinstance(b.out, (tuple, list))
    wanted = list(b.out) if several else [b.out]
    if not several and isinstance(result, (tuple, list)):
        raise b.error(f"the translation passed in returned a {type(result).__name__}", "Return the one value itself.")
    found = list(result) if isinstance(result, (tuple, list)) else [result]
    if len(found) != len(wanted):
        raise b.error(
            f"the translation passed in returned {len(found)} of {len(wanted)} outputs",
            "Return a tuple of one value for each output; None for one that nothing reads.",
        )
    for place, (value, val) in enumerate(zip(found, wanted, strict=True)):
        which = f"output {place} of the translation passed in" if several else "what the translation passed in returned"
        if value is None and several and not _is_read(b.node, place):
            continue
        if not isinstance(value, ir.Value):
            raise b.error(
                f"{which} is a {type(value).__name__}", "Return values that the builder made, as `b.op` does."
            )
        if isinstance(val, torch.Tensor) and value.dtype != from_torch_dtype(val.dtype):
            raise b.error(
                f"{which} is of type {value.dtype}, and the operator's output of {from_torch_dtype(val.dtype)}",
                "Say so as the node is made, `b.op(..., dtype=...)`, or cast the result, `b.cast(value, b.dtype)`.",
            )


def _is_read(node: torch.fx.Node, place: int) -> bool:
    """Whether anything in the graph reads one output of a node with several."""
    return any(user.target is not GETITEM or (user.args[1] == place and user.users) for user in node.users)
