"""How far half precision drifts from float32, on networks with real weights and pictures.

`python -m benchmarks.precision [NAME ...]` prints the section as Markdown, and puts it between the markers of
benchmarks/RESULTS.md where that file has them. Networks and pictures come from `zoo.py` in the folder that
FXPULLBACK_SHARED names, or in `../shared`.

The cast graph runs in torch on the CPU, which rounds after every operator as a GPU does; ONNX Runtime on the CPU
computes most of float16 in float32 and would show less.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import fxpullback
from fxpullback import SEMANTIC, Ascent, Pullback, Soft
from fxpullback.export import to_onnx
from fxpullback.half.autocast import in_half_precision
from fxpullback.lower import simplify
from fxpullback.unroll import Program, unroll

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
MARKERS = "<!-- precision -->", "<!-- /precision -->"
PICTURES = 8
CALIBRATED = ("squeezenet1_0",)
"""Networks measured with calibrated temperatures too: their gates are nearly hard at the temperatures of the paper."""
VARIANTS: tuple[tuple[str, str, float | None], ...] = (
    ("fp16", "fp16", None),
    ("fp16, seed not scaled", "fp16", 1.0),
    ("bf16", "bf16", None),
)


@dataclass(frozen=True)
class Drift:
    """One line of the table.

    Attributes:
        network: its name, and what is special about it.
        program: soft or ascent.
        variant: the precision.
        scale: what cotangents are scaled by.
        cosine: of the pullback with float32's: the smallest and the mean of the pictures.
        error: relative L2 error of the pullback: the largest and the mean of the pictures.
        largest: largest difference of two entries, relative to the picture's largest entry; of the worst picture.
        flushed: share of entries that are zero and are not in float32.
        agree: pictures with the same top class.
        megabytes: size of the file, and of the float32 one.
    """

    network: str
    program: str
    variant: str
    scale: float
    cosine: tuple[float, float]
    error: tuple[float, float]
    largest: float
    flushed: float
    agree: int
    megabytes: tuple[float, float]

    def __str__(self) -> str:
        cells = [
            *(self.network, self.program, self.variant, f"{self.scale:g}"),
            *(f"{worst:.4f} / {mean:.4f}" for worst, mean in (self.cosine, self.error)),
            *(f"{self.largest:.3f}", f"{self.flushed:.2%}", f"{self.agree} of {PICTURES}"),
            f"{self.megabytes[0]:.1f} of {self.megabytes[1]:.1f}",
        ]
        return f"| {' | '.join(cells)} |"


def zoo() -> Any:
    """The module with networks and pictures.

    Raises:
        FileNotFoundError: it is not there.
    """
    folder = Path(os.environ.get("FXPULLBACK_SHARED") or ROOT.parent / "shared").resolve()
    if not (folder / "zoo.py").is_file():
        raise FileNotFoundError(f"there is no zoo.py in {folder}: set FXPULLBACK_SHARED to the folder of real weights.")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module("zoo")


def drifts(names: Sequence[str]) -> Iterator[Drift]:
    """Every line of the table, network by network."""
    source = zoo()
    for name in names:
        entry, (pictures, labels, _) = source.load(name), source.images(name)
        x, y = pictures[:PICTURES], labels[:PICTURES]
        for rules, label in _rule_sets(name, entry.model, pictures[PICTURES : 2 * PICTURES]):
            pb = fxpullback.compile(entry.model, (x[:1],), rules=rules)
            for program in (Soft(), Ascent(steps=3, alpha=20 * entry.size / 224)):
                yield from measure(with_program(pb, program), label, x, y)


def _rule_sets(name: str, model: torch.nn.Module, others: Tensor) -> Iterator[tuple[Any, str]]:
    yield SEMANTIC, name
    if name in CALIBRATED:
        yield fxpullback.calibrate(model, others), f"{name}, calibrated"


def with_program(pb: Pullback, program: Program) -> Pullback:
    """The same compiled step under another program."""
    return replace(pb, program=program, graph=simplify(unroll(pb.step, program, pb.target)))


def measure(pb: Pullback, name: str, x: Tensor, y: Tensor) -> Iterator[Drift]:
    """One compiled pullback in every variant, against its float32 graph."""
    exact = pb(x, y)
    full = _megabytes(pb, "fp32")
    for variant, precision, scale in VARIANTS:
        half = in_half_precision(pb, precision, scale)
        with torch.no_grad():
            found = half.graph(x, y)
        mine, theirs = found[1].double().flatten(1), exact[1].double().flatten(1)
        cosine = torch.cosine_similarity(mine, theirs, dim=1)
        error = (mine - theirs).norm(dim=1) / theirs.norm(dim=1)
        yield Drift(
            network=name,
            program=type(pb.program).__name__.lower(),
            variant=variant,
            scale=half.cotangent_scale,
            cosine=(float(cosine.min()), float(cosine.mean())),
            error=(float(error.max()), float(error.mean())),
            largest=float(((mine - theirs).abs().amax(1) / theirs.abs().amax(1)).max()),
            flushed=float(((mine == 0) & (theirs != 0)).double().mean()),
            agree=int((found[0].argmax(1) == exact[0].argmax(1)).sum()),
            megabytes=(_megabytes(pb, precision), full),
        )


def _megabytes(pb: Pullback, precision: str) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = to_onnx(pb, Path(folder) / "model.onnx", precision=precision, cotangent_scale=1.0, certify=False)
        return path.stat().st_size / 1e6


def section(names: Sequence[str] = ()) -> str:
    """The drift of half precision, as Markdown.

    Args:
        names: networks of the zoo; all of them by default.

    Returns:
        A heading, what was measured, and the table.
    """
    lines = []
    for drift in drifts(names or zoo().NAMES):
        lines.append(str(drift))
        print(drift, file=sys.stderr)
    rows = "\n".join(lines)
    conditions = (
        f"Real weights, {PICTURES} pictures, true class, `SEMANTIC`; ascent of 3 steps. The cast graph in torch "
        f"{torch.__version__} on the CPU,\n"
        "which rounds after every operator; no GPU. Cosine and relative L2 error of the pullback (ascent: of the "
        "displacement): worst / mean of\n"
        "the pictures. Largest: the largest difference over the largest entry. Flushed: entries that are zero and "
        "should not be. MB: the\nfile, and the float32 one."
    )
    head = "| network | program | precision | scale | cosine | L2 error | largest | flushed | top-1 | MB |"
    return f"## Half precision against float32\n\n{conditions}\n\n{head}\n|{'---|' * 10}\n{rows}\n"


def insert(text: str, path: Path = RESULTS, markers: tuple[str, str] = MARKERS) -> bool:
    """Put a section between its markers in a file; False where the file has none."""
    first, last = markers
    held = path.read_text() if path.is_file() else ""
    if first not in held or last not in held:
        return False
    before, after = held.split(first)[0], held.split(last)[1]
    path.write_text(f"{before}{first}\n{text}{last}{after}")
    return True


if __name__ == "__main__":
    made = section(sys.argv[1:])
    print(made)
    if not sys.argv[1:] and insert(made):
        print(f"written to {RESULTS.name}", file=sys.stderr)
