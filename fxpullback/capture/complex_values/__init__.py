"""Complex values as pairs of real ones: a pass over a captured graph, before its operators are respelled.

Every graph holds real numbers alone. A complex value is no floating-point tensor to torch, so a stage that asks for
those would take a path through one for constant, and drop its part of the cotangent without a word. Here each becomes
its real and its imaginary part; Fourier transforms become products with constant matrices, equal up to rounding. What
depends on weights alone is computed once, and an operator without a row in `operators` is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, fx

from fxpullback.capture.complex_values import spectrogram, transforms
from fxpullback.capture.complex_values.constants import Constants
from fxpullback.capture.complex_values.operators import LOWERINGS
from fxpullback.capture.complex_values.pair import Pair
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.builder import Builder
from fxpullback.graph.canonical import DROPPED
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import GETITEM, arg, aten, input_nodes, is_size, node_argument, outputs, where
from fxpullback.graph.rebuild import Site, rebuild

TRANSFORMS: dict[Any, Callable[..., Any]] = {
    aten._fft_r2c.default: transforms.real_to_complex,
    aten._fft_c2c.default: transforms.complex_to_complex,
    aten._fft_c2r.default: transforms.complex_to_real,
}
WINDOWED: dict[Any, Callable[..., Any]] = {
    aten.stft.default: spectrogram.stft,
    aten.stft.center: spectrogram.centred_stft,
    aten.istft.default: spectrogram.istft,
}


def in_real_numbers(gm: fx.GraphModule, compilation: Compilation | None = None) -> fx.GraphModule:
    """The graph with its complex values as pairs of real ones; a graph that holds none as it is.

    Raises:
        CaptureError: names the first operator on complex values that is not known in real numbers.
    """
    if not any(touches_complex(node) for node in gm.graph.nodes):
        return gm
    for node in outputs(gm.graph):
        if is_complex(node):
            raise CaptureError(
                f"the model returns complex numbers ({where(node)}); logits are real. Wrap the model in a module that "
                "returns their modulus, z.abs(), or another real number of them."
            )
    constants = Constants(gm)

    def lower(site: Site) -> Any:
        if site.node.target in DROPPED:
            return None
        return _lowered(site, constants) if touches_complex(site.node) else NotImplemented

    return rebuild(gm, lower, compilation)


def _lowered(site: Site, constants: Constants) -> Any:
    """What stands for a node that holds or takes complex values."""
    node = site.node
    if node in constants:
        return _constant(site.builder, node.name, constants.value(node))
    if node.target is GETITEM:
        return site.env[node_argument(node, 0)][arg(node, 1)]
    if node.target in WINDOWED:
        return WINDOWED[node.target](site, constants)
    function = TRANSFORMS.get(node.target) or LOWERINGS.get(node.target)
    made = NotImplemented if function is None else function(site, *site.arguments())
    if made is NotImplemented:
        raise CaptureError(
            f"{where(node)} computes with complex numbers and is not known in real ones, so it cannot be "
            "differentiated. Write it with the two parts, z.real and z.imag."
        )
    return made


def _constant(builder: Builder, name: str, held: Any) -> Any:
    """A tensor computed of weights alone, or several; a complex one as two."""
    if isinstance(held, tuple | list):
        return tuple(_constant(builder, f"{name}_{i}", part) for i, part in enumerate(held))
    if not held.is_complex():
        return builder.constant(name, held.contiguous())
    real, imag = (part.detach().clone() for part in (held.real, held.resolve_conj().imag))
    if not bool(imag.any()):
        return Pair(builder.constant(f"{name}_real", real), None)
    return Pair(builder.constant(f"{name}_real", real), builder.constant(f"{name}_imag", imag))


def touches_complex(node: fx.Node) -> bool:
    """Whether a node other than an output holds or takes a complex value; a size of one is no value."""
    if node.op == "output" or is_size(node):
        return False
    return is_complex(node) or any(map(is_complex, input_nodes(node))) or node.target in WINDOWED


def is_complex(node: fx.Node) -> bool:
    """Whether a node holds a complex tensor, or a tuple with one in it."""
    held: Any = node.meta.get("val")
    parts = held if isinstance(held, tuple | list) else (held,)
    return any(isinstance(part, Tensor) and part.is_complex() for part in parts)
