"""The node tests that ship with onnx: imported, equal to their expected outputs, pullback equal to autograd.

In scope is what has a floating-point input and output. The first floating-point input stays an input, as the values of
a network are; the others, weights and numbers, become constants.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, numpy_helper
from torch import Tensor, nn

import fxpullback
from fxpullback import EXACT
from fxpullback.contract.errors import DifferentiateError
from fxpullback.importer.load import load
from fxpullback.importer.module import OnnxModule

RTOL, ATOL = 1e-3, 1e-5
BOUND = 1e-4
FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
OUT = ("ai.onnx.ml", "ai.onnx.preview.training", "ai.onnx.training")
TOLERANCES = {"float16": (1e-2, 2e-3)}
GRADIENT_FREE = {"Bernoulli", "Multinomial", "RandomNormalLike", "RandomUniformLike", "ImageDecoder"}
"""Operators that draw, or decode files."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class NodeTest:
    """One node test.

    Attributes:
        name: its name in onnx.
        kind: the operator it tests.
        model: the model.
        inputs: its inputs by name.
        outputs: what is expected, by name.
    """

    name: str
    kind: str
    model: ModelProto
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Outcome:
    """What became of a test.

    Attributes:
        name: its name.
        kind: the operator.
        passed: whether the outputs are those expected.
        reason: why not.
        pullback: how far the pullback is off autograd; None where it was not measured.
    """

    name: str
    kind: str
    passed: bool
    reason: str = ""
    pullback: float | None = None


def node_tests() -> Iterator[NodeTest]:
    """The node tests in scope."""
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        model, sets = case.model, case.data_sets
        if model is None or not sets or any(entry.domain in OUT for entry in model.opset_import):
            continue
        graph = model.graph
        try:
            given, wanted = (tuple(_arrays(values)) for values in sets[0])
        except (TypeError, ValueError, AttributeError):
            continue  # sequences, optionals, strings
        inputs = dict(zip([value.name for value in graph.input], given, strict=False))
        outputs = dict(zip([value.name for value in graph.output], wanted, strict=False))
        kind = graph.node[0].op_type if len(graph.node) == 1 else _tested(case.name, graph)
        if _in_scope(graph, kind) and not case.name.endswith("_expanded") and "training" not in case.name:
            yield NodeTest(case.name, kind, model, inputs, outputs)


def _tested(name: str, graph: Any) -> str:
    """The operator of a test of several nodes: the first that its name holds."""
    plain = name.replace("_", "").lower()
    return next((node.op_type for node in graph.node if node.op_type.lower() in plain), str(graph.node[0].op_type))


def _arrays(values: Sequence[Any]) -> Iterator[Array]:
    for value in values:
        array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
        if array.dtype == object:
            raise TypeError("no tensor")
        yield array


def _in_scope(graph: Any, kind: str) -> bool:
    training = any(a.name == "training_mode" and a.i for node in graph.node for a in node.attribute)
    if kind in GRADIENT_FREE or training or not graph.output:
        return False
    kinds = [value.type.tensor_type.elem_type for value in graph.input]
    return any(k in FLOATS for k in kinds) and graph.output[0].type.tensor_type.elem_type in FLOATS


def outcome(test: NodeTest, *, pullback: bool) -> Outcome:
    """Import one test and run it."""
    explained = next(v.name for v in test.model.graph.input if v.type.tensor_type.elem_type in FLOATS)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            path = Path(folder) / "node.onnx"
            onnx.save(constants_of(test, explained), path)
            module = load(path)
            x = torch.from_numpy(np.array(test.inputs[explained]))
            with torch.no_grad():
                made = module(x)
            reason = _differs(made if isinstance(made, dict) else {module.outputs[0]: made}, test.outputs)
            halves = any(v.dtype in (torch.float16, torch.bfloat16) for v in (x, *_tensors(made)))
            error = _pullback(module, x) if pullback and not reason and not halves else None
    except Exception as failed:
        return Outcome(test.name, test.kind, False, " ".join(str(failed).split())[:200] or type(failed).__name__)
    if error is not None and not error <= BOUND:
        return Outcome(test.name, test.kind, False, f"pullback off by {error:.0e}", error)
    return Outcome(test.name, test.kind, not reason, reason, error)


def _tensors(made: Tensor | dict[str, Tensor]) -> list[Tensor]:
    return [made] if isinstance(made, Tensor) else list(made.values())


def constants_of(test: NodeTest, explained: str) -> ModelProto:
    """The model of a test with every input but one as a constant."""
    model = ModelProto()
    model.CopyFrom(test.model)
    kept = [value for value in model.graph.input if value.name == explained]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    for name, array in test.inputs.items():
        if name != explained:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def _differs(made: dict[str, Tensor], wanted: dict[str, Array]) -> str:
    for name, expected in wanted.items():
        if name not in made:
            continue
        found = made[name].detach().numpy()
        if found.shape != expected.shape:
            return f"{name} is {list(found.shape)}, expected {list(expected.shape)}"
        rtol, atol = TOLERANCES.get(found.dtype.name, (RTOL, ATOL))
        same = np.allclose(found.astype(np.float64), expected.astype(np.float64), rtol, atol, equal_nan=True)
        if not same:
            return f"{name} is off by {np.nanmax(np.abs(found.astype(np.float64) - expected.astype(np.float64))):.1e}"
    return ""


class _Batched(nn.Module):
    """One sample, the sum of a batch, through a model: whatever its axes are, a batch has a gradient."""

    def __init__(self, inner: OnnxModule) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Any:
        made = self.inner(x.sum(0))
        first = next(iter(made.values())) if isinstance(made, dict) else made
        return first.reshape(1, -1).expand(x.shape[0], -1) * 1.0


def _pullback(module: OnnxModule, x: Tensor) -> float | None:
    """How far the exact pullback is off torch's own gradient, relative to its largest entry."""
    if x.numel() == 0 or x.ndim == 0:
        return None
    wide = _Batched(module).double().eval()
    batch = torch.stack([x.double(), torch.zeros_like(x).double()])
    leaf = batch.clone().requires_grad_()
    logits = wide(leaf)
    cotangent = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = _gradient(logits, leaf, cotangent)
    if not bool(torch.isfinite(gradient).all() and torch.isfinite(batch).all()):
        return None
    try:
        pb = fxpullback.compile(wide, batch, rules=EXACT, target="cotangent")
    except DifferentiateError:
        if not bool(gradient.any()):
            return 0.0  # refused by name, since the derivative is zero: and so it is
        raise
    found = pb(batch, cotangent)[1]
    scale = float(gradient.abs().max())
    return float((found - gradient).abs().max()) / scale if scale > 0 else float(found.abs().max())


def _gradient(logits: Tensor, leaf: Tensor, cotangent: Tensor) -> Tensor:
    """Torch's own gradient; zero where there is none."""
    if not logits.requires_grad:
        return torch.zeros_like(leaf)
    (found,) = torch.autograd.grad(logits, leaf, cotangent, allow_unused=True, retain_graph=True)
    return torch.zeros_like(leaf) if found is None else found
