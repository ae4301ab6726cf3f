"""The certificate of a file in half precision: what it computes, against float64 autograd, within bounds of its own.

Every operator's result is rounded to half precision when torch runs the cast graph, which is what a GPU does. ONNX
Runtime on the CPU does less: it has no bfloat16 arithmetic at all, and much of float16 it computes in float32. So the
graph is certified in torch, and the file in ONNX Runtime besides, where that can run it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
import torch
from torch import Tensor, fx

from fxpullback.certify.graph import verify
from fxpullback.contract.certificate import Certificate, Check, at_least, at_most
from fxpullback.contract.contribution import CONTRIBUTION
from fxpullback.contract.errors import SessionError
from fxpullback.contract.parts import PARTS, PUSHED
from fxpullback.export.certify.file import BATCHES, file_checks
from fxpullback.export.certify.oracle import Drawn, Oracle
from fxpullback.export.certify.ties import first_of_equals
from fxpullback.export.runtime.session import Session
from fxpullback.graph.ir import input_nodes, where
from fxpullback.half.autocast import TYPES, HalfPrecision
from fxpullback.unroll import Soft

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

BFLOAT16_OPERATORS = frozenset(
    [
        *("Abs", "Add", "Cos", "Div", "Erf", "Exp", "Max", "Min", "Mul", "Neg", "Pow", "Sin", "Sqrt", "Sub"),
        *("AveragePool", "Conv", "Gemm", "LayerNormalization", "MatMul", "ReduceSum", "Softmax"),
        *("Gelu", "HardSigmoid", "HardSwish", "Relu", "Sigmoid", "Tanh"),
        *("Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Shape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
    ]
)
"""ONNX operators with a bfloat16 kernel in the CUDA provider, by ONNX Runtime's documentation (BFloat16_Support.md)."""


def bound_of(precision: str) -> float:
    """Largest relative error in the L2 norm of a pullback: four times the root of the type's eps, 0.125 and 0.35.

    The root leaves half of the type's digits; rounding at every operator of a deep network takes the other half.
    """
    return float(4 * torch.finfo(TYPES[precision]).eps ** 0.5)


def certify_half(pb: Compiled, half: HalfPrecision, path: str | os.PathLike[str], *, seed: int = 0) -> Certificate:
    """Certify a compiled model together with the half-precision file written of it.

    Args:
        pb: what was compiled, in float32; certified as it is.
        half: its half-precision form, what the file holds.
        path: the file.
        seed: seed of the fresh inputs.

    Returns:
        The checks of the float32 graph, those of the cast graph in torch, and those of the file.
    """
    checks = [*verify(pb, seed=seed).checks, *file_checks(path), *_kernel_checks(path, half.precision)]
    oracle = replace(Oracle.of(pb), in_onnx=False)
    drawn = oracle.draw(max(BATCHES), pb.classes, seed + 10)
    checks += _graph_checks(drawn, half.graph, half.precision, "")
    if pb.free:
        elsewhere = oracle.at(pb.free, seed)
        other = elsewhere.draw(max(BATCHES), pb.classes, seed + 12)
        checks += _graph_checks(other, half.graph, half.precision, f", size {elsewhere.size}")
    try:
        session = Session(path, providers=["cpu"])
    except SessionError:
        if half.precision == "fp16":
            raise
        ran = "not run: ONNX Runtime's CPU provider has no bfloat16 arithmetic; certified in torch alone"
    else:
        if first_of_equals(pb.folded) is not pb.folded:
            drawn = Oracle.of(pb).draw(max(BATCHES), pb.classes, seed + 10)
        checks += _session_checks(drawn, session, half.precision)
        ran = ort.__version__
    environment = {"torch": torch.__version__, "seed": seed, "batches": list(BATCHES), "onnxruntime": ran}
    return Certificate(tuple(checks), environment)


def half_checks(session: Session, oracle: Oracle, seed: int) -> list[Check]:
    """A half-precision file in ONNX Runtime against float64 autograd, on fresh inputs; see `runtime_checks`."""
    precision = session.metadata.precision_name
    drawn = oracle.draw(max(BATCHES), session.class_count, seed)
    return [*_kernel_checks(session.path, precision), *_session_checks(drawn, session, precision)]


def _kernel_checks(path: str | os.PathLike[str], precision: str) -> list[Check]:
    """That no operator computes in bfloat16 for which there is no kernel anywhere."""
    if precision != "bf16":
        return []
    model = onnx.load(path, load_external_data=False)
    values = (*model.graph.value_info, *model.graph.input, *model.graph.output)
    kinds = {v.name: v.type.tensor_type.elem_type for v in values}
    kinds |= {t.name: t.data_type for t in model.graph.initializer}
    narrow = [
        n for n in model.graph.node if any(kinds.get(i) == onnx.TensorProto.BFLOAT16 for i in (*n.input, *n.output))
    ]
    missing = sorted({n.op_type for n in narrow} - BFLOAT16_OPERATORS)
    name = "file: operators in bfloat16 that the CUDA provider has no kernel for"
    return [at_most(name, float(len(missing)), 0.0, ", ".join(missing))]


def _graph_checks(drawn: Drawn, graph: fx.GraphModule, precision: str, place: str) -> list[Check]:
    """The cast graph in torch, which rounds after every operator."""
    arguments = [*drawn.passed, *([] if drawn.given is None else [drawn.given])]
    with torch.no_grad():
        found = dict(zip(drawn.wanted, graph(*arguments), strict=True))
    detail = "" if all(bool(torch.isfinite(v).all()) for v in found.values()) else _overflow(graph, arguments)
    return _compare(drawn, f"{precision} in torch{place}", found, precision, detail)


def _session_checks(drawn: Drawn, session: Session, precision: str) -> list[Check]:
    """The file in ONNX Runtime."""
    checks: list[Check] = []
    for batch in BATCHES:
        result = drawn.through(session, batch)
        found = {name: torch.from_numpy(result[name]) for name in drawn.wanted}
        checks += _compare(drawn, f"{precision} in ONNX Runtime, batch {batch}", found, precision)
    return checks


def _compare(drawn: Drawn, label: str, found: dict[str, Tensor], precision: str, detail: str = "") -> list[Check]:
    """Finite outputs; logits and pullback by relative L2 error and cosine, of the worst sample."""
    wrong = sum(int((~torch.isfinite(value)).sum()) for value in found.values())
    checks = [at_most(f"{label}: values that are not finite", float(wrong), 0.0, detail)]
    bound = bound_of(precision)
    for name in (n for n in found if n == "logits" or n.startswith(("pullback", CONTRIBUTION, PARTS, PUSHED))):
        wanted, here = (v.double().flatten(1) for v in (drawn.wanted[name][: len(found[name])], found[name]))
        error = float(((here - wanted).norm(dim=1) / wanted.norm(dim=1).clamp(min=1e-300)).max())
        cosines = torch.nn.functional.cosine_similarity(here, wanted, dim=1, eps=1e-300)
        both_zero = ~(here.any(1) | wanted.any(1))  # as where a class does not depend on one of several inputs
        cosine = float(torch.where(both_zero, 1.0, cosines).min())
        if name == "logits":
            checks.append(at_most(f"{label}: logits, relative L2", error, bound / 4))
        elif isinstance(drawn.oracle.program, Soft):
            checks.append(at_most(f"{label}: {name}, relative L2", error, bound))
            checks.append(at_least(f"{label}: {name}, cosine", cosine, 1 - bound**2 / 2))
        else:  # the second pass starts at a point that is rounded itself: twice the error
            checks.append(at_least(f"{label}: {name}, cosine", cosine, 1 - (2 * bound) ** 2 / 2))
    return checks


class _NotFinite(fx.Interpreter):
    """Finds the first operator that makes of finite numbers what is not."""

    first: fx.Node | None = None
    largest = 0.0

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if self.first is None and isinstance(result, Tensor) and result.is_floating_point():
            if not bool(torch.isfinite(result).all()):
                self.first = n
            elif result.numel() and n.op == "call_function":
                self.largest = max(self.largest, float(result.abs().max()))
        return result


def _overflow(graph: fx.GraphModule, arguments: list[Tensor]) -> str:
    """Where the numbers stop being finite, and what to do."""
    runner = _NotFinite(graph)
    with torch.no_grad():
        runner.run(*arguments)
    node = runner.first
    if node is None:
        return ""
    source = input_nodes(node)[0] if node.target is torch.ops.aten._to_copy.default else node
    return f"the first is at {where(source)} (node {node.name}): it overflows. Use bf16, of float32's range, or fp32"


def advice(precision: str) -> str:
    """What to do about a half-precision file whose certificate did not pass."""
    other = "bf16 (if it overflows) or fp32" if precision == "fp16" else "fp16 or fp32"
    return (
        f"{precision} is not precise enough for this network: use {other}. Gates that are nearly hard at their "
        "temperature amplify rounding: calibrated temperatures, what compile has without rules, help."
    )
