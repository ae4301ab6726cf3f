"""What a certificate costs, known beforehand: it is said where it is long, and fewer samples are drawn there."""

from __future__ import annotations

import math
import warnings

import torch
from torch import Tensor, fx

from fxpullback.graph.ir import aten, calls, is_call, node_argument
from fxpullback.graph.operators import OPERATORS, Trait

FEW, MANY = 2, 3  # samples of a batch; a batch of one is checked besides, and capture saw two
HEAVY = 20.0  # billion multiplications and additions of one sample, above which few are drawn
LONG = 60.0  # seconds, above which the cost is said
SECONDS_EACH = 2.0  # of processor time in float64 for each billion: some forty times forward, at 20 billion a second


class LongCertificateWarning(UserWarning):
    """A certificate takes long, since the model does in float64."""


def billions(gm: fx.GraphModule) -> float:
    """Multiplications and additions of a forward pass of one sample, in billions: convolutions, matrix products."""
    return sum(_work(node) for node in calls(gm.graph) if Trait.CONTRACTION in OPERATORS.at(node)) / 1e9


def _work(node: fx.Node) -> float:
    """Of a product: two for each entry of the result and each term of the sum that it is."""
    a, b = (node_argument(node, i).meta["val"] for i in _factors(node))
    result: Tensor = node.meta["val"]
    if is_call(node, aten.convolution.default):
        spread = a if node.args[6] else result
        return 2.0 * _count(spread) * _count(b) / int(b.shape[0])
    return 2.0 * _count(result) * int(_plain(a.shape[-1]))


def _factors(node: fx.Node) -> tuple[int, int]:
    return (1, 2) if is_call(node, aten.addmm.default, aten.baddbmm.default) else (0, 1)


def _count(tensor: Tensor) -> float:
    """Entries of one sample; a free size counts as one."""
    return float(math.prod(_plain(size) for size in tensor.shape))


def _plain(size: int | torch.SymInt) -> int:
    return size if isinstance(size, int) else 1


def samples(captured: fx.GraphModule) -> int:
    """How many samples the certificate of a model draws; warns of one that takes long.

    Args:
        captured: the captured graph.
    """
    work = billions(captured)
    seconds = work * SECONDS_EACH
    if seconds > LONG:
        warnings.warn(
            f"the certificate takes about {seconds:.0f} s of processor time: a sample is {work:.0f} billion operations "
            "and runs in float64, forward and backward, some ten times. While trying things out, "
            "to_onnx(..., certify=False) writes the file without",
            LongCertificateWarning,
            stacklevel=5,
        )
    return FEW if work > HEAVY else MANY
