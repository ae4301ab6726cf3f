"""Fake quantisation written out in basic operators, its levels shared by forward and adjoint."""

from __future__ import annotations

from typing import Any

from fxpullback.graph.fake_quantized import quantized, unclipped
from fxpullback.graph.rebuild import Site


def write_out_levels(site: Site) -> Any:
    """round, clip and the arithmetic around them."""
    return quantized(*site.arguments())


def write_out_mask(site: Site) -> Any:
    """Two comparisons of the levels."""
    return unclipped(*site.arguments())
