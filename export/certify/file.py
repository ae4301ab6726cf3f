"""The certificate of a file: its runtime against eager autograd through the injected form, on fresh inputs.

A file carries the injected form of its model as text (operators and the names of its weights), so that the check can be
run again wherever the file is, without the model it came from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from torch import Tensor, fx

from fxpullback.certify.fresh import Looks
from fxpullback.certify.graph import verify
from fxpullback.certify.levels import is_quantised, moved
from fxpullback.certify.magnified import HELP, ROUNDING, relative
from fxpullback.contract.beside import Beside, nodes_sha256
from fxpullback.contract.certificate import Certificate, Check, at_least, at_most
from fxpullback.contract.errors import VerifyError
from fxpullback.contract.metadata import beside_of
from fxpullback.export.certify.oracle import Drawn, Oracle
from fxpullback.export.runtime.package import Package
from fxpullback.export.runtime.session import Result, Session
from fxpullback.graph.cut import lookup_tables
from fxpullback.graph.modes import plain_mode
from fxpullback.graph.text import to_text
from fxpullback.unroll import Ascent, Program

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

BANNED = {"ScatterND", "ScatterElements", "Col2Im", "NonZero", "If", "Loop", "Scan"}
BOUNDS = {"soft": 1e-4, "double": 1e-3}
COSINE = 0.999
BATCHES = (1, 3)
HALF = ("float16", "bfloat16")
LATER = ("pullback", "counterfactual", "counterfactual_logits")
"""What ascent makes of many steps, each rounded itself."""


def oracle_text(pb: Compiled, model: ir.Model) -> str | None:
    """What a file carries to be checked again: the folded injected form and the spread of its inputs.

    Args:
        pb: what was compiled.
        model: the ONNX model that will be written.

    Returns:
        JSON text; None where the file does not hold all weights of the injected form under their names.
    """
    held = {name: name for name, value in model.graph.initializers.items() if _same(pb.folded, name, value)}
    return carried_form(pb, held)


def carried_form(pb: Compiled, held: Mapping[str, str]) -> str | None:
    """`oracle_text`, where the file calls the constants otherwise than the injected form.

    Args:
        pb: what was compiled.
        held: what the file calls the constants that it holds.
    """
    graph = to_text(pb.folded, set(held))
    if graph is None:
        return None
    names = () if pb.entry is None else pb.entry.names
    tables = {name: lookup_tables(pb.graph, name) for name in names}
    other = {ours: theirs for ours, theirs in held.items() if ours != theirs}
    called = {"names": other} if other else {}
    return json.dumps({"graph": graph, **Looks.of(pb).to_dict(tables), "contributions": pb.taps.to_dict(), **called})


def _same(gm: fx.GraphModule, name: str, held: ir.Value) -> bool:
    """Whether an initializer is the constant that a graph has under its name."""
    constant = getattr(gm, name, None)
    if not isinstance(constant, Tensor) or held.const_value is None:
        return False
    array, wanted = held.const_value.numpy(), constant.detach().cpu()
    if array.dtype.name in HALF and wanted.dtype is torch.float32:
        return np.array_equal(array.astype(np.float32), wanted.to(getattr(torch, array.dtype.name)).float().numpy())
    return np.array_equal(array, wanted.numpy())


@plain_mode()
def certify(pb: Compiled, path: str | os.PathLike[str], *, seed: int = 0) -> Certificate:
    """Certify a compiled model together with the file written of it.

    Args:
        pb: what was compiled.
        path: the file.
        seed: seed of the fresh inputs.

    Returns:
        The graph's own certificate (`Pullback.verify`) with the checks of the file added.
    """
    session = Session(path)
    packaged = session.runtime == Package.runtime
    checks = runtime_checks(session, replace(Oracle.of(pb), in_onnx=not packaged), seed + 10)
    if packaged:
        return verify(pb, seed=seed).with_checks(tuple(checks), runtime=session.runtime)
    return verify(pb, seed=seed).with_checks((*file_checks(path), *checks), onnxruntime=ort.__version__)


def file_checks(path: str | os.PathLike[str]) -> list[Check]:
    """Standard operators alone, none of the banned ones, and the full check of onnx."""
    model = onnx.load(path, load_external_data=False)
    beside = beside_of({entry.key: entry.value for entry in model.metadata_props})
    nodes = model.graph.node[beside.nodes if beside is not None else 0 :]
    foreign = {n.domain for n in nodes} - {"", "ai.onnx"}
    banned = sorted({n.op_type for n in nodes} & BANNED)
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
        broken = ""
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        broken = str(error).splitlines()[0]
    return [
        at_most("file: operators outside the standard domain", float(len(foreign)), 0.0, ", ".join(sorted(foreign))),
        at_most("file: banned operators", float(len(banned)), 0.0, ", ".join(banned)),
        at_most("file: full check of onnx", float(bool(broken)), 0.0, broken),
        *([] if beside is None else [_own_nodes(beside, model.graph.node[: beside.nodes])]),
    ]


def _own_nodes(beside: Beside, nodes: Sequence[onnx.NodeProto]) -> Check:
    """That the nodes of the file beside which a pullback was put are what they were."""
    changed = nodes_sha256(nodes) != beside.nodes_sha256
    detail = "they are not those of the file any more beside which the pullback was put" if changed else ""
    return at_most("file: nodes of the original file", float(changed), 0.0, detail)


def runtime_checks(session: Session, oracle: Oracle, seed: int) -> list[Check]:
    """What runs the file against eager autograd in float64, on fresh inputs at batch sizes of which none was captured.

    Args:
        session: the loaded file.
        oracle: what it is checked against.
        seed: seed of the fresh inputs.
    """
    batch = session.input_shape[0]
    checks = _runs(session, oracle, seed, (batch,) if isinstance(batch, int) else BATCHES)
    if session.sizes:
        elsewhere = oracle.at(session.sizes, seed)
        checks += _runs(session, elsewhere, seed + 2, (2,), f", size {elsewhere.size}")
    return checks


def _runs(session: Session, oracle: Oracle, seed: int, batches: Sequence[int], place: str = "") -> list[Check]:
    """`runtime_checks` for inputs of one size."""
    drawn = oracle.draw(max(batches), session.class_count, seed)
    rounding = _Rounding(drawn)
    checks: list[Check] = []
    for batch in batches:
        found = drawn.through(session, batch)
        checks += _compare(found, drawn.wanted, rounding, oracle.program, session.runtime, f"batch {batch}{place}")
    return checks


class _Rounding:
    """By how much eager autograd in float32 is off, found out only when it matters.

    Of a quantised model also where values halfway between two levels get the other one.
    """

    def __init__(self, drawn: Drawn) -> None:
        self.drawn = drawn
        self.narrow: list[dict[str, Tensor]] = []

    def of(self, name: str) -> float:
        self.narrow = self.narrow or [self.drawn.in_float32(graph) for graph in self._graphs()]
        return max(relative(narrow[name].double(), self.drawn.wanted[name]) for narrow in self.narrow)

    def _graphs(self) -> list[fx.GraphModule]:
        plain = self.drawn.oracle.injected
        return [plain, *(moved(plain, seed) for seed in range(2))] if is_quantised(plain) else [plain]


def _compare(
    found: Result, wanted: Mapping[str, Tensor], rounding: _Rounding, program: Program, runtime: str, place: str
) -> list[Check]:
    """A file may be off by the bound, or by ten times what torch's own float32 is off, whichever is more."""
    checks = []
    for name, all_samples in wanted.items():
        here = torch.from_numpy(found[name]).double()
        value, label = all_samples[: len(here)], f"{runtime}: {name}, {place}"
        kind = name.partition(".")[0]
        if isinstance(program, Ascent) and kind in LATER:
            if kind == "pullback":
                checks.append(at_least(f"{label}, cosine", _cosine(here, value), COSINE))
            continue
        bound, detail, error = BOUNDS["soft"], "", relative(here, value)
        if name != "logits":
            bound = BOUNDS.get(type(program).__name__.lower(), bound)
        if error > bound:
            bound = max(bound, 10 * rounding.of(name))
            detail = "the bound is ten times the rounding of torch's own float32"
        checks.append(at_most(label, error, bound, detail))
    return checks


def _cosine(a: Tensor, b: Tensor) -> float:
    """Smallest cosine between samples; 1 where both are zero, as where a class depends on one of two inputs alone."""
    both_zero = ~(a.flatten(1).any(1) | b.flatten(1).any(1))
    cosines = torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)
    return float(torch.where(both_zero, 1.0, cosines).min())


def _advice(certificate: Certificate) -> str:
    magnified = any(check.name == ROUNDING and not check.passed for check in certificate.checks)
    return HELP if magnified else "Please report this with the model."


def demand(certificate: Certificate, path: str | os.PathLike[str], advice: str = "") -> None:
    """Refuse a certificate that did not pass.

    Args:
        certificate: the certificate.
        path: the file it is of.
        advice: what to do; by default to report it.

    Raises:
        VerifyError: names the checks that failed and what to do.
    """
    if certificate.passed:
        return
    failed = "\n  ".join(
        f"{c.name}: {c.measured:.2e}, allowed {c.bound:.3g}. {c.detail}" for c in certificate.checks if not c.passed
    )
    raise VerifyError(
        f"the certificate of {Path(path).name} did not pass, so the file was not written:\n  {failed}\n"
        f"{advice or _advice(certificate)} In Python, certify=False writes the file all the same."
    )
