"""What temperatures are calibrated on: pictures, noise like pictures, or each sample's own gate inputs.

`python -m benchmarks.calibration [NAME ...]` prints two tables as Markdown, and puts them between the markers of
benchmarks/RESULTS.md. Networks and pictures come from `zoo.py`, as in `benchmarks.precision`. Pullbacks are taken by
autograd through the injected form, which is what a compiled graph is certified against.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from benchmarks.precision import insert, zoo
from fxpullback import SEMANTIC, RuleSet
from fxpullback.calibration import calibrated, without_pictures
from fxpullback.capture import capture
from fxpullback.certify.eager import soft_pullback
from fxpullback.graph.inputs import Inputs
from fxpullback.rewrite import rewrite

MARKERS = "<!-- calibration -->", "<!-- /calibration -->"
PICTURES = 8
CALIBRATING = 16
GRID = 8  # patches along each side
PAIRS = (
    ("noise", "pictures"),
    ("noise", "own"),
    ("pictures", "own"),
    ("paper", "pictures"),
    ("logistic", "noise"),
)
KINDS = ("gradient", "paper", "pictures", "noise", "own", "logistic")
LINE = "\n"
ABOUT = f"""## What temperatures are calibrated on

Real weights, soft pullbacks of the true class, {PICTURES} pictures; `python -m benchmarks.calibration`.
pictures: temperatures from {CALIBRATING} other pictures. noise: from 16 samples of 1/f noise, what `compile` does by
itself. own: each picture's from its own gate inputs, as if at run time. paper: `SEMANTIC`'s own. logistic: as noise,
with gates expected under logistic noise. T: that of noise over that of pictures, at the first gate, the median, the
last, and the range. The rest are cosines of two pullbacks p, worst / mean of the pictures.
"""
AGREEMENT = f"""Correlation over {GRID * GRID} patches with how much the logit falls as a patch takes the picture's mean
colour: of p * change, the fall that p predicts, and of |p|; mean of the pictures.
"""


@dataclass(frozen=True)
class Case:
    """A captured network with the pictures it is measured on and those it is calibrated on."""

    captured: fx.GraphModule
    x: Tensor
    y: Tensor
    others: Tensor

    def on(self, pictures: Tensor) -> RuleSet:
        """`SEMANTIC` calibrated on pictures."""
        told = {"kind": "pictures", "samples": len(pictures)}
        return calibrated(self.captured, SEMANTIC.with_spread(), ([(pictures,)], told))

    def pullback(self, rules: RuleSet, rows: slice = slice(None)) -> Tensor:
        """Soft pullbacks of the true classes."""
        return _pulled(rewrite(self.captured, rules)[0], self.x[rows], self.y[rows])


def _pulled(model: fx.GraphModule, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        classes = int(model(x[:1])[0].shape[1])
    return soft_pullback(model, Inputs(x), torch.eye(classes)[y])[1]


def case(name: str) -> Case:
    """A network of the zoo."""
    entry, (pictures, labels, _) = zoo().load(name), zoo().images(name)
    x, y = pictures[:PICTURES], labels[:PICTURES]
    return Case(capture(entry.model, x[:1]), x, y, pictures[PICTURES : PICTURES + CALIBRATING])


def measure(case: Case) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The ratio of temperatures, noise over pictures, by gate; and pullbacks by what they were calibrated on."""
    on_pictures = case.on(case.others)
    on_noise = calibrated(case.captured, SEMANTIC.with_spread(), without_pictures(case.captured, (case.x[:1],)))
    ratios = {gate: on_noise.calibrated[gate] / t for gate, t in on_pictures.calibrated.items()}
    alone = [slice(i, i + 1) for i in range(len(case.x))]
    pullbacks = {
        "gradient": _pulled(case.captured, case.x, case.y),
        "paper": case.pullback(SEMANTIC),
        "pictures": case.pullback(on_pictures),
        "noise": case.pullback(on_noise),
        "own": torch.cat([case.pullback(case.on(case.x[i]), i) for i in alone]),
        "logistic": case.pullback(on_noise.with_noise("logistic")),
    }
    return ratios, pullbacks


def drops(model: Callable[[Tensor], Any], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """How much the logit of each class falls as one patch takes the picture's mean colour.

    Returns:
        The drops `[n, patches]`, and the difference of each picture and its mean colour.
    """
    side = x.shape[-1] // GRID
    changes = x - x.mean((2, 3), keepdim=True)
    found = torch.zeros(len(x), GRID * GRID)
    with torch.no_grad():
        for i, (picture, label) in enumerate(zip(x, y, strict=True)):
            blanked = picture.repeat(GRID * GRID, 1, 1, 1)
            for patch in range(GRID * GRID):
                down, across = (place * side for place in divmod(patch, GRID))
                blanked[patch, :, down : down + side, across : across + side] -= changes[
                    i, :, down : down + side, across : across + side
                ]
            logits = torch.cat([model(part)[0] for part in blanked.split(16)])[:, label]
            found[i] = model(picture[None])[0][0, label] - logits
    return found, changes


def agreement(values: Tensor, fallen: Tensor) -> float:
    """Correlation over the patches of a map's sums `[n, channels, height, width]` with the true drops; mean of all."""
    side = values.shape[-1] // GRID
    size = side * GRID
    inside = values.sum(1)[:, :size, :size]
    sums = inside.unflatten(2, (GRID, side)).unflatten(1, (GRID, side)).sum((2, 4)).flatten(1)
    return statistics.fmean(float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(sums, fallen, strict=True))


def lines(name: str, case: Case) -> tuple[str, str]:
    """One line of each table."""
    ratios, pullbacks = measure(case)
    values = list(ratios.values())
    cells = [name, str(len(values)), *(f"{v:.2f}" for v in (values[0], statistics.median(values), values[-1]))]
    cells.append(f"{min(values):.2f} to {max(values):.2f}")
    for a, b in PAIRS:
        cosine = torch.cosine_similarity(pullbacks[a].flatten(1).double(), pullbacks[b].flatten(1).double())
        cells.append(f"{float(cosine.min()):.3f} / {float(cosine.mean()):.3f}")
    fallen, changes = drops(case.captured, case.x, case.y)
    maps = ((pullbacks[kind] * changes, pullbacks[kind].abs()) for kind in KINDS)
    agreements = [" / ".join(f"{agreement(found, fallen):.2f}" for found in both) for both in maps]
    return f"| {' | '.join(cells)} |", f"| {' | '.join([name, *agreements])} |"


def section(names: Sequence[str] = ()) -> str:
    """Both tables, as Markdown."""
    first, second = [], []
    for name in names or zoo().NAMES:
        top, bottom = lines(name, case(name))
        first.append(top)
        second.append(bottom)
        print(f"{top}\n{bottom}", file=sys.stderr, flush=True)
    heads = " | ".join(f"{a}, {b}" for a, b in PAIRS)
    agreed = f"| network | {' | '.join(KINDS)} |\n|{'---|' * (1 + len(KINDS))}\n"
    near = f"| network | gates | T first | median | last | range | {heads} |\n|{'---|' * (6 + len(PAIRS))}\n"
    return f"{ABOUT}\n{near}{LINE.join(first)}\n\n{AGREEMENT}\n{agreed}{LINE.join(second)}\n"


if __name__ == "__main__":
    made = section(sys.argv[1:])
    print(made)
    if not sys.argv[1:] and insert(made, markers=MARKERS):
        print("written to RESULTS.md", file=sys.stderr)
