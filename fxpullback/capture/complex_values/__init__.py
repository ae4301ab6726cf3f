"""Complex values: a graph holds real numbers alone, and an operator on complex ones is refused by name.

A complex value is no floating-point tensor to torch, so a pass that asks for those would take its path for constant
and drop its part of the cotangent without a word.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.contract.errors import CaptureError
from fxpullback.graph.ir import input_nodes, where


def refuse_complex(gm: fx.GraphModule) -> None:
    """Refuse a graph that holds a complex value.

    Raises:
        CaptureError: names the first operator that makes or takes one.
    """
    for node in gm.graph.nodes:
        if node.op == "call_function" and any(map(is_complex, (node, *input_nodes(node)))):
            raise CaptureError(
                f"{where(node)} computes with complex numbers, which are not differentiated. Write it with real "
                "numbers: a real part and an imaginary part, a Fourier transform as a product with two matrices of "
                "cosines and sines."
            )


def is_complex(node: fx.Node) -> bool:
    """Whether a node holds a complex tensor, or a tuple with one in it."""
    held: Any = node.meta.get("val")
    parts = held if isinstance(held, tuple | list) else (held,)
    return any(isinstance(part, Tensor) and part.is_complex() for part in parts) or _is_complex_type(node)


def _is_complex_type(node: fx.Node) -> bool:
    """Whether a call names a complex type or number among its arguments."""
    found = [*node.args, *node.kwargs.values()]
    return any(isinstance(v, complex) or (isinstance(v, torch.dtype) and v.is_complex) for v in found)
