"""Values of size expressions: one walk for all who compute one, as numbers or as nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sympy


def computed(
    expression: sympy.Basic, known: Mapping[Any, Any], combine: Callable[[sympy.Basic, list[Any]], Any]
) -> Any:
    """The value of a size expression.

    Args:
        expression: the expression, as `size.node.expr` of a symbolic size.
        known: values of expressions, of its symbols among them.
        combine: gives the value of an operation, or of a symbol that is not known, from the values of its arguments;
            it may add what it made to `known`, so that it is made once.

    Returns:
        What `combine` makes; numbers are plain integers, floats and booleans.
    """
    if expression in known:
        return known[expression]
    if expression.is_Boolean and not expression.args:
        return bool(expression)
    if expression.is_number and not expression.args:
        return int(expression) if expression.is_Integer else float(expression)
    return combine(expression, [computed(argument, known, combine) for argument in expression.args])
