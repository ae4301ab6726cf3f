"""The weights of a file drawn anew, from the top down, in a copy: the same network, which has learnt nothing.

Weights are the constants of two axes or more that a convolution or a matrix product of the forward takes. Each is drawn
from a normal distribution with its own mean and standard deviation. What the reverse walk keeps as a copy of its own,
turned and folded beforehand, is drawn the same way round, so that the file stays the pullback of its own forward; where
no such copy is recognised, the file is refused.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.settings import Settings

Tensor: TypeAlias = np.ndarray[Any, np.dtype[Any]]

TAKERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
SMALL = 32
"""Constants with fewer values than this are kernels of pools and the like."""
PATTERN = 2
"""Constants of so few different values are masks and arrangements, which nobody learnt."""
TOLERANCE = 1e-5


@contextmanager
def randomised_copy(path: Path, share: float, seed: int) -> Iterator[Path]:
    """A copy of a file with random weights, there as long as the context is.

    Args:
        path: The ONNX file.
        share: The share of its layers, from the logits down; 0 for the last one alone, 1 for all.
        seed: Where the weights come from.

    Raises:
        EvaluateError: It holds weights of the reverse walk that nothing in the forward is like.
    """
    model = ir.load(path)
    randomise(model, share, seed, path)
    with tempfile.TemporaryDirectory(prefix="fxpullback-") as folder:
        made = Path(folder) / path.name
        ir.save(model, made, external_data=f"{path.name}.data" if _is_large(model) else None)
        yield made


def randomise(model: ir.Model, share: float, seed: int, path: Path) -> list[str]:
    """Draw weights of `model` anew, in place. Returns their names, the last layer first."""
    weights = layers(model.graph)
    if not weights:
        raise EvaluateError(f"{path}: no weights of convolutions or matrix products were found in it.")
    drawn = weights[: max(1, round(share * len(weights)))]
    twins = _twins(model.graph, weights, path)
    for value in drawn:
        held = _numpy(value)
        rng = Settings(seed).rng("weights", value.name or "")
        fresh = rng.normal(held.mean(), held.std() or 1.0, held.shape)
        _put(value, fresh.astype(held.dtype))
        for twin, turn in twins.get(value.name or "", []):
            _put(twin, turn(fresh).astype(_numpy(twin).dtype))
    return [value.name or "" for value in drawn]


def layers(graph: ir.Graph) -> list[ir.Value]:
    """The weights of the forward, those nearest to the logits first."""
    logits = next(value for value in graph.outputs if value.name == "logits")
    forward, constant = _above(logits), _constants(graph)
    found: dict[str, ir.Value] = {}
    for node in reversed([node for node in graph if node in forward]):
        if node.op_type not in TAKERS:
            continue
        for value in node.inputs[:2]:
            for held in _origins(value, constant):
                if _is_weight(held):
                    found.setdefault(held.name or "", held)
    return list(found.values())


def _above(value: ir.Value) -> set[ir.Node]:
    """Every node that a value hangs on."""
    found: set[ir.Node] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [held.producer() for held in node.inputs if held is not None]
    return found


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Initialisers, and what is computed of them alone."""
    found = set(graph.initializers.values())
    for node in graph:
        if node.inputs and all(value is None or value in found for value in node.inputs):
            found |= set(node.outputs)
    return found


def _origins(value: ir.Value | None, constant: set[ir.Value]) -> Iterator[ir.Value]:
    """The initialisers that a constant operand is computed of."""
    if value is None or value not in constant:
        return
    node = value.producer()
    if node is None:
        yield value
        return
    for held in node.inputs:
        yield from _origins(held, constant)


def _is_weight(value: ir.Value) -> bool:
    held = value.const_value
    if held is None or not held.dtype.is_floating_point() or len(held.shape) < 2 or held.size < SMALL:
        return False
    return len(np.unique(_numpy(value))) > PATTERN


def _twins(graph: ir.Graph, weights: list[ir.Value], path: Path) -> dict[str, list[tuple[ir.Value, Any]]]:
    """For each weight, the constants of the reverse walk that are copies of it, and how they are turned."""
    logits = next(value for value in graph.outputs if value.name == "logits")
    forward = {value.name for node in _above(logits) for value in node.inputs if value is not None}
    found: dict[str, list[tuple[ir.Value, Any]]] = {}
    for value in graph.initializers.values():
        if value.name in forward or not _is_weight(value) or not value.uses():
            continue
        match = next(((held, turn) for held in weights for turn in _turns(_numpy(held), _numpy(value))), None)
        if match is None and _averages(_numpy(value)):
            continue
        if match is None:
            raise EvaluateError(
                f"{path}: the reverse walk keeps a constant {value.name} of shape {list(_numpy(value).shape)} that is "
                "no copy of a weight of the forward, so its weights cannot be randomised alike. Leave the metric "
                "randomisation out."
            )
        found.setdefault(match[0].name or "", []).append((value, match[1]))
    return found


def _averages(values: Tensor) -> bool:
    """Whether a constant takes averages, as enlarging a map does: no negatives, all sums along an axis alike."""
    sums = [values.sum(axis, dtype=np.float64) for axis in range(values.ndim)]
    return bool(values.min() >= 0 and any(np.ptp(held) <= TOLERANCE * held.max() for held in sums))


def _turns(weight: Tensor, twin: Tensor) -> Iterator[Any]:
    """How `weight` becomes `twin`: its axes in another order, some of them backwards, times a number."""
    if weight.size != twin.size or weight.ndim != twin.ndim:
        return
    if sorted(weight.shape) != sorted(twin.shape):
        return
    norm = float(np.linalg.norm(weight))
    factor = float(np.linalg.norm(twin)) / norm if norm else 1.0
    for axes in itertools.permutations(range(weight.ndim)):
        turned = weight.transpose(axes)
        if turned.shape != twin.shape:
            continue
        for flips in itertools.product((False, True), repeat=weight.ndim):
            back = tuple(axis for axis, flip in enumerate(flips) if flip)
            for sign in (factor, -factor):
                if np.allclose(np.flip(turned, back) * sign, twin, TOLERANCE, TOLERANCE * factor * abs(weight).max()):
                    yield lambda fresh, a=axes, b=back, s=sign: np.flip(fresh.transpose(a), b) * s
                    return


def _numpy(value: ir.Value) -> Tensor:
    assert value.const_value is not None
    held: Tensor = value.const_value.numpy()
    return held


def _put(value: ir.Value, array: Tensor) -> None:
    assert value.const_value is not None
    value.const_value = ir.Tensor(np.ascontiguousarray(array), dtype=value.const_value.dtype, name=value.name)


def _is_large(model: ir.Model) -> bool:
    """Whether the weights go beside the file, as one ONNX file holds no more than 2 GiB."""
    held = [value.const_value for value in model.graph.initializers.values()]
    return sum(tensor.nbytes for tensor in held if tensor is not None) > 2_000_000_000
