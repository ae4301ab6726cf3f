"""The command `fxpullback demo`: the whole journey on the network that ships with the package.

The pictures are drawn, so where the object sits is known; what an explanation puts there can be counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import fxpullback
from fxpullback import EXACT, Ascent, Double, RuleSet, Soft
from fxpullback.contract.errors import ExportError, VerifyError
from fxpullback.export.cli.terminal import Stages, save_picture
from fxpullback.export.onnx.write import to_onnx
from fxpullback.export.pictures.panels import panel
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.pictures.smooth import enlarged
from fxpullback.export.runtime.session import Result, Session
from fxpullback.export.zoo.demo_model import CLASSES, SIZE, demo_model, draw

PICTURES = 60  # explained and counted
SEED = 2024
# Step lengths are Euclidean, in pixel space; the defaults are for 224 x 224, a picture of 64 x 64 has 64/224 of that
# length. Ascent takes shorter steps still: on pictures other than these, from 1 to 1.5 the class it climbs to wins most
# often, and longer steps leave the region where so small a network is to be trusted.
DOUBLE_ALPHA = round(10 * SIZE / 224, 2)
ASCENT_ALPHA = 1.0
TAPS = ("gate", "patches")
"""The last values of both grids that the convolutions end on, in front of the attention: behind its two blocks, where
the automatic choice would tap, every place has been told of the object."""

Array = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Journey:
    """One way through the compiler, from the PyTorch model to what ONNX Runtime returns.

    Attributes:
        name: What the tables call it.
        gates: Sum of the ledger.
        passed: Whether the certificate did.
        path: The ONNX file.
        target: int64 [pictures], the class each picture was explained for.
        result: What ONNX Runtime returned for all pictures.
    """

    name: str
    gates: str
    passed: bool
    path: Path
    target: Labels
    result: Result


def programs() -> dict[str, tuple[RuleSet | None, Soft | Double | Ascent]]:
    """What the demo compiles: the plain gradient to compare with, and the three programs at calibrated temperatures."""
    return {
        "gradient": (EXACT, Soft()),
        "soft": (None, Soft()),
        "double": (None, Double(alpha=DOUBLE_ALPHA)),
        "ascent": (None, Ascent(steps=5, alpha=ASCENT_ALPHA)),
    }


def run_demo(output: Path, console: Console) -> None:
    """Compile, verify, export, explain and count; write ONNX files and pictures to a folder.

    Args:
        output: The folder; made when absent.
        console: Where tables and progress go.

    Raises:
        ExportError: The folder cannot be written.
        VerifyError: A certificate did not pass; everything is written and printed all the same.
    """
    _make_folder(output)
    with Stages() as stages, _one_thread():
        stages("draw pictures")
        x, y, masks = draw(SEED, PICTURES)
        journeys: list[Journey] = []
        for name in programs():
            target = runner_up(journeys[0].result.logits, y.numpy()) if name == "ascent" else y.numpy()
            journeys.append(_travel(name, output, x, target, stages))
        stages("draw panels")
        written = _write_panels(output, x.numpy(), y.numpy(), journeys)
    console.print(
        f"A small network of convolutions and attention, and {PICTURES} pictures it was not trained on: one object "
        f"({', '.join(CLASSES)}) on a background that says nothing about the class. "
        f"{(journeys[0].result.logits.argmax(1) == y.numpy()).mean():.0%} of them are classified right.\n"
    )
    console.print(_files_table(journeys))
    for table in _shares_tables(journeys, y.numpy(), masks.numpy()):
        console.print(table)
    console.print(_ascent_line(journeys[-1]))
    console.print(
        f"{output}: {len(journeys)} ONNX files; {len(written)} drawings, such as {written[0].name}", markup=False
    )
    if failed := [journey.name for journey in journeys if not journey.passed]:
        raise VerifyError(
            f"the certificate of {', '.join(failed)} did not pass; what they show is not to be trusted. Look with: "
            f"fxpullback inspect {output / f'demo-{failed[0]}.onnx'}"
        )


def object_share(pullback: Array, masks: npt.NDArray[np.bool_]) -> Array:
    """How much of |pullback| falls on the object.

    Args:
        pullback: float32 [batch, 3, H, W].
        masks: bool [batch, H, W], true on the object.

    Returns:
        float32 [batch], from 0 to 1. A pullback that is zero everywhere has none of it on the object: 0.
    """
    return _share(np.abs(pullback).sum(1), masks)


def contribution_share(contribution: Array, masks: npt.NDArray[np.bool_]) -> Array:
    """How much of what carries the class falls on the object.

    Args:
        contribution: float32 [batch, h, w], on any grid.
        masks: bool [batch, H, W], true on the object.

    Returns:
        float32 [batch], from 0 to 1: of the positive part of the contribution, enlarged to the picture. 0 where nothing
        carries the class.
    """
    return _share(np.stack([np.maximum(enlarged(one, *masks.shape[1:]), 0) for one in contribution]), masks)


def _share(size: npt.NDArray[Any], masks: npt.NDArray[np.bool_]) -> Array:
    total = size.sum((1, 2))
    share: Array = ((size * masks).sum((1, 2)) / np.where(total > 0, total, 1)).astype(np.float32)
    return share


def runner_up(logits: Array, y: Labels) -> Labels:
    """The most likely of the classes that are wrong.

    Args:
        logits: float32 [batch, classes].
        y: int64 [batch], the right class.

    Returns:
        int64 [batch].
    """
    wrong = logits.copy()
    wrong[np.arange(len(y)), y] = -np.inf
    best: Labels = wrong.argmax(1)
    return best


def _travel(name: str, output: Path, x: Tensor, target: Labels, stages: Stages) -> Journey:
    """Compile, verify, export and run one program."""
    rules, program = programs()[name]
    stages(f"{name}: compile")
    pb = fxpullback.compile(demo_model(), (x[:2],), rules=rules, program=program, taps=TAPS)
    stages(f"{name}: verify")
    certificate = pb.verify()
    stages(f"{name}: export")
    path = output / f"demo-{name}.onnx"
    to_onnx(pb, path, classes=list(CLASSES), preprocessing=Preprocessing.plain((3, SIZE, SIZE)).to_json())
    stages(f"{name}: explain")
    result = Session(path)(x.numpy(), target)
    return Journey(name, pb.ledger.sum(), certificate.passed, path, target, result)


def _files_table(journeys: list[Journey]) -> Table:
    """What was compiled, and whether it was found to be right."""
    table = Table(title="Compiled", title_justify="left")
    for heading in ("program", "gates", "certificate", "file", "size"):
        table.add_column(heading, justify="right" if heading == "size" else "left")
    for journey in journeys:
        size = f"{journey.path.stat().st_size / 1e3:.0f} kB"
        table.add_row(journey.name, journey.gates, "passed" if journey.passed else "FAILED", journey.path.name, size)
    return table


def _shares_tables(journeys: list[Journey], y: Labels, masks: npt.NDArray[np.bool_]) -> list[Table]:
    """How much of each explanation falls on the object, by class and over all: of contributions, and of pullbacks."""
    carried = [contribution_share(_contribution(journey), masks) for journey in journeys]
    pulled = [object_share(journey.result.pullback, masks) for journey in journeys]
    found = []
    for title, shares in (("the contribution, where it is for the class,", carried), ("|pullback|", pulled)):
        table = Table(title=f"Share of {title} on the object", title_justify="left")
        for heading in ("object", "pictures", "its area", *(journey.name for journey in journeys)):
            table.add_column(heading, justify="left" if heading == "object" else "right")
        columns = [masks.mean((1, 2)), *shares]
        for index, name in enumerate(CLASSES):
            chosen = y == index
            table.add_row(name, str(chosen.sum()), *(f"{column[chosen].mean():.1%}" for column in columns))
        table.add_section()
        table.add_row("all", str(len(y)), *(f"{column.mean():.1%}" for column in columns), style="bold")
        found.append(table)
    return found


def _contribution(journey: Journey) -> Array:
    """The contributions of all pictures."""
    assert journey.result.contribution is not None, "every file of the demo is compiled with taps"
    return journey.result.contribution


def _ascent_line(ascent: Journey) -> str:
    """How the logit that ascent climbs changes from the picture to its counterfactual."""
    assert ascent.result.counterfactual_logits is not None
    rows = np.arange(len(ascent.target))
    before, after = (v[rows, ascent.target] for v in (ascent.result.logits, ascent.result.counterfactual_logits))
    wins = (ascent.result.counterfactual_logits.argmax(1) == ascent.target).mean()
    return (
        "Gradient, soft and double explain the right class. Ascent is asked for the runner-up instead: what would have "
        f"to change. Its logit rises in {(after > before).mean():.0%} of the pictures, from {before.mean():.2f} to "
        f"{after.mean():.2f} on average, and {wins:.0%} of the counterfactuals are taken for it.\n"
    )


def _write_panels(output: Path, x: Array, y: Labels, journeys: list[Journey]) -> list[Path]:
    """One drawing for the first picture of each class and each program."""
    written = []
    for label, name in enumerate(CLASSES):
        sample = int(np.flatnonzero(y == label)[0])
        for journey in journeys:
            result = journey.result
            after = None if result.counterfactual is None else result.counterfactual[sample]
            carries = _contribution(journey)[sample]
            asked = journey.target[sample]
            title = f"{journey.name}: {CLASSES[asked]}, logit {result.logits[sample, asked]:.2f}"
            if result.counterfactual_logits is not None:
                title += f", in the counterfactual {result.counterfactual_logits[sample, asked]:.2f}"
            path = output / f"{name}-{journey.name}.png"
            shown = panel(
                x[sample],
                result.pullback[sample],
                title,
                contribution=carries,
                counterfactual=after,
                name=CLASSES[asked],
            )
            save_picture(shown, path)
            written.append(path)
    return written


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: so small a network is sooner run than handed out, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _make_folder(output: Path) -> None:
    """Make the folder, and find out now whether it can be written."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise ExportError(
            f"{output}: this folder cannot be written ({error.strerror or error}). Name another with --output."
        ) from error
