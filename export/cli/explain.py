"""`fxpullback explain`: a picture through a compiled file, in words and drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fxpullback.contract.errors import InputError
from fxpullback.contract.names import complain
from fxpullback.contract.parts import COLUMNS
from fxpullback.contract.tensor_input import TensorInput
from fxpullback.export.cli.terminal import Stages, check_output, pairs, save_picture, say, spoken_warnings
from fxpullback.export.pictures.class_names import class_index, label
from fxpullback.export.pictures.load import load_picture
from fxpullback.export.pictures.panels import CONTRIBUTION, FOCUS, KINDS, PULLBACK, STRENGTH, panel
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.runtime.session import Array, Result, Session

TOP = 5


@dataclass(frozen=True)
class Question:
    """What is explained: a class, or one against another."""

    index: int
    against: int | None
    classes: list[str] | None

    @property
    def text(self) -> str:
        """`zebra`, or `zebra against horse`."""
        name = label(self.index, self.classes)
        return name if self.against is None else f"{name} against {label(self.against, self.classes)}"

    @property
    def unit(self) -> str:
        """What the number beside the text is."""
        return "logit" if self.against is None else "difference of logits"

    def logit(self, logits: Array) -> float:
        """The logit explained: of the class, or the difference of two."""
        value = float(logits[0, self.index])
        return value if self.against is None else value - float(logits[0, self.against])


def run(
    file: Path,
    picture: Path,
    *,
    target: str | None,
    against: str | None,
    extras: list[str],
    output: Path | None,
    provider: str | None,
    console: Console,
    kinds: Sequence[str] = (),
) -> None:
    """Explain `picture`, print the classes, and write the drawing.

    Raises:
        FxPullbackError: The file, the picture, the class or the place to write to is at fault.
    """
    if output is not None:
        check_output(output)
        if output.suffix.lower() not in Image.registered_extensions():
            raise typer.BadParameter(
                f"{output.suffix or 'no suffix'}: a picture format such as .png is wanted.", param_hint="-o"
            )
    with Stages() as stages:
        stages("load")
        with spoken_warnings():
            session = Session(file, providers=None if provider is None else [provider])
        wanted = kinds_of(session, kinds)
        x = load_picture(picture, preprocessing_of(session))
        passed = extras_of(session, extras)
        stages("explain")
        question, result = ask(session, x, target, against, passed)
        stages("draw")
        path = output or default_output(picture, question)
        check_output(path)
        save_picture(draw(x, question, result, wanted), path)
    console.print(f"{question.text}: {question.unit} {question.logit(result.logits):.3f}", style="bold", markup=False)
    console.print(answer(question, result))
    if result.contribution is not None and session.contributions is not None:
        share = float(result.contribution[0].sum())
        console.print(f"contribution: {share:.3f} of the {question.unit}, {session.contributions}", markup=False)
    if result.parts is not None and session.parts is not None:
        console.print(parts_text(question, result.parts[0], session.parts.at), markup=False)
    console.print(f"{path}: the picture and its explanation", markup=False, soft_wrap=True)


def parts_text(question: Question, parts: Array, at: str) -> str:
    """`input 0.97 + biases 0.06 + gates -0.01 = logit 1.02`."""
    terms = " + ".join(f"{name} {value:.3f}" for name, value in zip(COLUMNS, parts, strict=True))
    place = "" if at == "input" else f", of the {at}"
    return f"{terms} = {question.unit} {float(parts.sum()):.3f}{place}"


def preprocessing_of(session: Session) -> Preprocessing:
    """How a picture becomes the input of this file.

    Raises:
        InputError: The file takes something else than pictures.
    """
    shape = session.input_shape[1:]
    refuse_several(session)
    if session.text is not None:
        raise InputError(
            f'{session.path}: it takes a text and no picture: fxpullback explain {session.path} --text "..."'
        )
    if session.preprocessing is not None and "sampling_rate" in session.preprocessing:
        raise InputError(
            f"{session.path}: it takes a sound, as its metadata say (preprocessing: {session.preprocessing['kind']} at "
            f"{session.preprocessing['sampling_rate']} Hz). Run it from Python: fxpullback.export.Session."
        )
    if session.preprocessing is not None:
        return Preprocessing.from_json(session.preprocessing)
    if len(shape) != 3 or shape[0] not in (1, 3) or not all(isinstance(side, int) for side in shape):
        raise InputError(
            f"{session.path}: it takes {list(session.input_shape)}, which is no picture. Run it from "
            "Python: fxpullback.export.Session."
        )
    say("note", "the file says nothing about preprocessing; the picture is cropped to its size, pixels in [-1, 1]")
    return Preprocessing.plain([int(side) for side in shape])


def refuse_several(session: Session) -> None:
    """Refuse a file of several explained inputs where one was passed.

    Raises:
        InputError: Names them, and says how each is passed.
    """
    if session.metadata.also:
        told = ", ".join(str(session.inputs[name]) for name in session.metadata.explains)
        raise InputError(
            f"{session.path}: it explains several inputs together, {told}. Pass each: a picture as PICTURE or --image "
            "NAME=FILE, a text with --text, any other as --extra NAME=FILE.npy."
        )


def extras_of(session: Session, given: list[str]) -> dict[str, npt.NDArray[Any]]:
    """What the file takes besides the picture, for a batch of one.

    Raises:
        InputError: One is missing, unknown, or of another kind.
        ModelSourceError: A file of them cannot be read.
    """
    named = pairs(given, "--extra")
    missing = [str(extra) for name, extra in session.extras.items() if name not in named]
    if missing:
        first = missing[0].split()[0]
        raise InputError(
            f"{session.path}: besides the picture it takes {'; '.join(missing)}. Pass --extra {first}=FILE.npy for a "
            "batch of one."
        )
    complain(list(session.extras), 0, named)
    return given_arrays(session, given)


def given_arrays(session: Session, given: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The inputs of a file that are passed as `NAME=FILE.npy`, for a batch of one.

    Raises:
        InputError: One is unknown, or of another kind.
        ModelSourceError: A file of them cannot be read.
    """
    named = pairs(list(given), "--extra")
    taken = {name: value for name, value in session.inputs.items() if name != "target"}
    if unknown := [name for name in named if name not in taken]:
        raise InputError(f"{session.path}: --extra {unknown[0]}: it takes {', '.join(taken)}.")
    if not named:
        return {}
    from fxpullback.export.zoo.arrays import read_extras  # torch comes with it

    return {name: _batch_of_one(taken[name], value) for name, value in read_extras(named).items()}


def _batch_of_one(extra: TensorInput, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A sample's own array with the batch axis in front, where that is what is missing."""
    lacks = extra.shape[:1] == ("batch",) and value.ndim == len(extra.shape) - 1
    held = value[None] if lacks else value
    free = {str(size): extent for size, extent in zip(extra.shape, held.shape, strict=False) if isinstance(size, str)}
    return extra.checked(held, free | {"batch": 1})


def ask(
    session: Session,
    x: Array,
    target: str | None,
    against: str | None,
    extras: Mapping[str, npt.NDArray[Any]] = MappingProxyType({}),
) -> tuple[Question, Result]:
    """Find the class that is asked for, the top-1 class by default, and run the file for it.

    Raises:
        ModelSourceError: There is no such class.
        InputError: The file does not take such a target.
    """
    classes, count = session.classes, session.class_count
    index = None if target is None else class_index(target, classes, count)
    other = None if against is None else class_index(against, classes, count)
    if other is not None and session.target not in ("contrast", "cotangent"):
        raise InputError(
            f"{session.path}: its target is {session.target}, which cannot set one class against another. "
            "Compile the model with --target contrast."
        )
    if session.target == "top1":
        result = session(x, **extras)
        top = int(result.logits[0].argmax())
        if index not in (None, top):
            raise InputError(
                f"{session.path}: it explains the top-1 class alone, which is {label(top, classes)} here. "
                "Compile the model with --target index to choose a class."
            )
        return Question(top, None, classes), result
    if index is None or (session.target == "contrast" and other is None):
        order = np.argsort(-session(x, cotangent(session, 0, None), **extras).logits[0])
        index = int(order[0]) if index is None else index
        if session.target == "contrast" and other is None:
            other = int(next(rank for rank in order if rank != index))
    if index == other:
        raise InputError(f"{label(index, classes)} against itself explains nothing; name two classes.")
    return Question(index, other, classes), session(x, cotangent(session, index, other), **extras)


def cotangent(session: Session, index: int, against: int | None) -> npt.NDArray[Any]:
    """`target` of a batch of one, in the form this file takes."""
    if session.target == "index":
        return np.array([index])
    if session.target == "contrast":
        return np.array([[index, 0 if against is None else against]])
    weights = np.zeros((1, session.class_count), np.float32)
    weights[0, index] += 1
    if against is not None:
        weights[0, against] -= 1
    return weights


def draw(x: Array, question: Question, result: Result, kinds: Sequence[str] | None = None) -> Image.Image:
    """The panel of one explanation; `kinds` as in `panel`."""
    name, before = question.text, question.logit(result.logits)
    about: dict[str, Any] = {"contribution": _on_a_picture(result.contribution), "draw": kinds, "name": name}
    if result.counterfactual is None or result.counterfactual_logits is None:
        return panel(x, result.pullback, f"{name}: {question.unit} {before:.2f}", **about)
    after = question.logit(result.counterfactual_logits)
    texts = f"picture: {question.unit} {before:.2f}", f"counterfactual: {question.unit} {after:.2f}"
    title = f"{name}: {question.unit} {before:.2f}, counterfactual {after:.2f}"
    return panel(x, result.pullback, title, counterfactual=result.counterfactual, captions=texts, **about)


def _on_a_picture(contribution: Array | None) -> Array | None:
    """The map of a batch of one, where it has height and width."""
    return contribution[0] if contribution is not None and contribution.ndim == 3 else None


def kinds_of(session: Session, given: Sequence[str]) -> list[str] | None:
    """What to draw, as asked for with --draw; None for the default.

    Raises:
        typer.BadParameter: There is no such kind.
        InputError: It is drawn of a contribution, and the file has none.
    """
    wanted = [word.strip() for text in given for word in text.split(",")]
    for kind in wanted:
        if kind not in KINDS:
            raise typer.BadParameter(f"{kind!r}: give {', '.join(KINDS)}; several with commas.", param_hint="--draw")
        if kind in (CONTRIBUTION, FOCUS) and session.contributions is None:
            raise InputError(
                f"{session.path}: it has no contribution to draw. Compile the model with --tap auto, or draw "
                f"{PULLBACK} and {STRENGTH}."
            )
    return wanted or None


def answer(question: Question, result: Result) -> Table:
    """The class asked for and the five likeliest, with their logits."""
    logits = result.logits[0]
    changed = result.counterfactual_logits
    table = Table(box=None, pad_edge=False)
    for heading in ("", "class", "index", "logit", *(() if changed is None else ("counterfactual",))):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    order = [int(index) for index in np.argsort(-logits)[:TOP]]
    asked = [index for index in (question.index, question.against) if index is not None]
    for index in order + [index for index in asked if index not in order]:
        rank = int((logits > logits[index]).sum()) + 1
        cells = [str(rank), escape(label(index, question.classes)), str(index), f"{logits[index]:.3f}"]
        if changed is not None:
            cells.append(f"{changed[0, index]:.3f}")
        table.add_row(*cells, style="bold" if index in asked else None)
    return table


def default_output(picture: Path, question: Question) -> Path:
    """`PICTURE-CLASS.png` in the working directory."""
    name = re.sub(r"\W+", "-", question.text).strip("-").lower()
    return Path(f"{picture.stem}-{name}.png")
