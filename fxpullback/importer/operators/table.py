"""Every operator that is imported, by its name; those of other domains with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fxpullback.importer.operators import (
    attention,
    elementwise,
    integers,
    linear,
    losses,
    norms,
    places,
    pools,
    quantised,
    recurrent,
    shapes,
    spectral,
    tables,
    written,
)

OPERATORS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **elementwise.OPERATORS,
        **linear.OPERATORS,
        **losses.OPERATORS,
        **shapes.OPERATORS,
        **places.OPERATORS,
        **pools.OPERATORS,
        **norms.OPERATORS,
        **attention.OPERATORS,
        **recurrent.OPERATORS,
        **quantised.OPERATORS,
        **integers.OPERATORS,
        **spectral.OPERATORS,
        **tables.OPERATORS,
        **written.OPERATORS,
    }
)


def key_of(domain: str, kind: str) -> str:
    """The name of an operator in the table."""
    return kind if domain in ("", "ai.onnx") else f"{domain}.{kind}"
