"""Compile, export and certify one model in this process; `benchmarks.kinds` runs it as a process of its own.

`python -m benchmarks.kinds.measure SPEC FOLDER` writes the stage it is at to `FOLDER/stage` and its row to
`FOLDER/row`. Before the certificate the exact pullback is compared with torch's own gradient of the model itself, in
float64, at a batch and, where the length is free, a length that the compiler has not seen.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import fxpullback
from benchmarks.kinds.case import POSITIONS, Case, Inputs, Widened
from benchmarks.kinds.cases import case
from benchmarks.measure import UNEVEN, Clock, about_file, about_graph, accounted, ended, judged, plain
from benchmarks.rows import Row
from fxpullback import Pullback
from fxpullback.contract.errors import FxPullbackError
from fxpullback.contract.sizes import FreeAxis
from fxpullback.export import to_onnx
from fxpullback.export.certify.file import certify
from fxpullback.graph.ir import outputs

BOUND = 1e-9
ROUNDED = 1e-4
"""What casts to float32 in a model's own code may do to its error; what is further off is wrong."""
EAGER, ROUNDS = "eager", "rounds"
"""Of `Row.errors`: the exact pullback against torch's own gradient of the model; and that with its casts to float32."""


def measure(row: Row, folder: Path) -> Row:
    """Fill in the row of a model; an error ends it and is part of it."""
    return ended(row, folder, lambda clock: run(row, folder, clock))


def run(row: Row, folder: Path, clock: Clock) -> Row:
    """Fill in the row of a model; an error is raised."""
    one = case(row.spec)
    clock.at("build", "build")
    model = one.build()
    clock.at("exact", "exact")
    error, size, rounded = compared(one)
    row = replace(row, size=size, parameters=sum(weight.numel() for weight in model.parameters()))
    clock.at("capture", "compile")
    pb, fixed = compiled(one, model, torch.float32, progress=clock.at)
    clock.stop()
    sizes = "; ".join(_sizes(axis) for axis in pb.graph.signature.free)
    row = replace(row, **about_graph(pb), sizes=sizes, fixed=plain(fixed)[:300])
    clock.at("ledger")
    if not accounted(pb):
        return replace(row, status="failed", stage="ledger", reason=UNEVEN)
    clock.at("export", "export")
    path = to_onnx(pb, folder / "model.onnx", certify=False)
    clock.stop()
    row = replace(row, **about_file(path))
    clock.at("certify", "certify")
    row = judged(row, certify(pb, path))
    clock.stop()
    rounds = {} if rounded is None else {ROUNDS: float(f"{rounded:.2e}")}
    row = replace(row, errors={**row.errors, EAGER: float(f"{error:.2e}"), **rounds})
    if error <= BOUND:
        return row
    return replace(row, status="failed", stage="exact", reason=f"{error:.1e} off torch's own gradient")


def examples(one: Case, dtype: torch.dtype = torch.float32) -> Inputs | tuple[torch.Tensor, ...]:
    """Example inputs for `compile`, which makes those of `positions` itself: by name, where ids are explained."""
    given = {name: _as(value, dtype) for name, value in one.inputs(2, False).items() if name != POSITIONS}
    return tuple(given.values()) if one.explained is None else given


def compiled(one: Case, model: torch.nn.Module, dtype: torch.dtype, **options: Any) -> tuple[Pullback, str]:
    """The model compiled with its size free where the case asks for that; at one size where that is refused.

    Returns:
        What was compiled, and what the refusal said.

    Raises:
        FxPullbackError: at one size neither.
    """
    given, asked = examples(one, dtype), {**one.options, **options}
    if not asked.pop("free_size", False):
        return fxpullback.compile(model, given, **asked), ""
    try:
        return fxpullback.compile(model, given, free_size=one.options["free_size"], **asked), ""
    except FxPullbackError as error:
        return fxpullback.compile(model, given, **asked), str(error)


def compared(one: Case) -> tuple[float, tuple[int, int], float | None]:
    """How far the exact pullback is off torch's own gradient, relative to its largest entry; and what it was tried at.

    Returns:
        The larger of the errors of logits and pullback; batch and last axis of the input; and, of a model whose code
        casts to float32, the error as it is, the first one being that of the model in float64 throughout.
    """
    model = one.build().double()
    error, size = _compared(one, model)
    if BOUND < error < ROUNDED and one.explained:  # its own casts to float32 round, in torch and in the graph
        with Widened():
            return *_compared(one, model), error
    return error, size, None


def _compared(one: Case, model: torch.nn.Module) -> tuple[float, tuple[int, int]]:
    pb, _ = compiled(one, model, torch.float64, rules=fxpullback.EXACT, target="cotangent")
    given = one.inputs(3, bool(pb.graph.signature.free))
    given = {name: _as(value, torch.float64) for name, value in given.items()}
    cotangent = torch.randn(3, pb.classes, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cotangent = cotangent.to(outputs(pb.captured.graph)[0].meta["val"].dtype)  # some return float32 whatever they hold
    logits, gradient = one.eager(model, given, cotangent)
    first, *others = given
    found = pb(given[first], cotangent, **{name: given[name] for name in others})
    worst = max(_off(found[0], logits), _off(found[1], gradient))
    return worst, (3, given[first].shape[-1])


def _sizes(axis: FreeAxis) -> str:
    """The sizes of a free axis in few words."""
    step = "" if axis.multiple == 1 else f", multiples of {axis.multiple}"
    return (f"from {axis.least}" if axis.most is None else f"{axis.least} to {axis.most}") + step


def _as(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return value.to(dtype) if value.is_floating_point() else value


def _off(found: torch.Tensor, expected: torch.Tensor) -> float:
    error = float((found - expected).abs().max() / expected.abs().max())
    return error if error == error else float("inf")  # NaN, or nothing to compare with


def main() -> None:
    """The command."""
    spec, name = sys.argv[1:]
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder, one = Path(name), case(spec)
    (folder / "row").write_text(measure(Row(spec, one.family, 0, (0, 0), "ok"), folder).to_json())


if __name__ == "__main__":
    main()
