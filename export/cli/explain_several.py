"""`fxpullback explain` on a file of several explained inputs: pictures drawn, texts coloured, one class for all."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from rich.console import Console

from fxpullback.contract.errors import InputError
from fxpullback.export.cli.explain import Question, answer, ask, default_output, draw, kinds_of, parts_text
from fxpullback.export.cli.explain import given_arrays as arrays_of
from fxpullback.export.cli.terminal import (
    Stages,
    check_output,
    pairs,
    save_picture,
    say,
    spoken_warnings,
    written_whole,
)
from fxpullback.export.pictures.load import load_picture
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.runtime.session import Array, Result, Session
from fxpullback.export.text.drawn import html, terminal
from fxpullback.export.text.explanation import Explanation, explanation
from fxpullback.export.text.tokenizer import Reader, Token, Tokens

TOP, TOP_OF_A_PAGE = 10, 30


@dataclass(frozen=True)
class Asked:
    """What is asked of a file of several explained inputs.

    Attributes:
        picture: The picture of the first input that takes one, or None.
        images: Pictures by the names of inputs, `NAME=FILE`.
        text: The text of the input that holds ids, or None.
        extras: Arrays by the names of inputs, `NAME=FILE.npy`.
        target: A class by name or index; None for the top-1 class.
        against: What to set it against, or None.
        kinds: What to draw of pictures, as in `--draw`.
    """

    picture: Path | None = None
    images: tuple[str, ...] = ()
    text: str | None = None
    extras: tuple[str, ...] = ()
    target: str | None = None
    against: str | None = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """The inputs of one call.

    Attributes:
        values: Every input but the target, by name, of a batch of one.
        pictures: The files of those that are pictures.
        tokens: The tokens of those that are ids.
    """

    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)


def run(
    file: Path,
    asked: Asked,
    *,
    output: Path | None,
    page: Path | None,
    top: int | None,
    provider: str | None,
    console: Console,
) -> None:
    """Explain pictures and texts together: print the classes and the words, draw the pictures, write the page.

    Raises:
        FxPullbackError: The file, an input, the class or the place to write to is at fault.
    """
    for path in (output, page):
        if path is not None:
            check_output(path)
    with Stages() as stages:
        stages("load")
        with spoken_warnings():
            session = Session(file, providers=None if provider is None else [provider])
        wanted, given = kinds_of(session, asked.kinds), given_of(session, asked)
        stages("explain")
        explained = session.metadata.explained
        extras = {name: value for name, value in given.values.items() if name != explained}
        question, result = ask(session, given.values[explained], asked.target, asked.against, extras)
        texts = {name: _of_text(name, tokens, question, result) for name, tokens in given.tokens.items()}
        stages("draw")
        panels = {name: draw(given.values[name], question, _of(name, result), wanted) for name in given.pictures}
        paths = places(given.pictures, output, question)
        for name, path in paths.items():
            save_picture(panels[name], path)
    for tokens in given.tokens.values():
        for note in tokens.notes:
            say("note", note)
    console.print(f"{question.text}: {question.unit} {question.logit(result.logits):.3f}", style="bold", markup=False)
    for found in texts.values():
        console.print(terminal(found, TOP if top is None else top))
        console.print()
    console.print(answer(question, result))
    for line in carried(session, question, result):
        console.print(line, markup=False)
    for name, path in paths.items():
        console.print(f"{path}: {name}, the picture and its explanation", markup=False, soft_wrap=True)
    if page is not None:
        (found, tokens), *_ = zip(texts.values(), given.tokens.values(), strict=True)
        about = f"{file}; {question.unit} of {question.text}; contribution: {session.contributions or 'none'}"
        drawn = [(name, data_uri(image)) for name, image in panels.items()]
        with written_whole(page) as draft:
            text = html(found, TOP_OF_A_PAGE if top is None else top, about, tokens.notes, drawn)
            draft.write_text(text, encoding="utf-8")
        console.print(f"{page}: the pictures, the text and their explanation", markup=False, soft_wrap=True)


def given_of(session: Session, asked: Asked) -> Given:
    """The inputs of a call, from files and texts.

    Raises:
        InputError: The file explains one input alone, or one is missing, unknown or of another kind.
        ModelSourceError: A file cannot be read.
    """
    if not session.metadata.also:
        raise InputError(
            f"{session.path}: it explains {session.metadata.explained} alone: pass one picture, or one text with "
            "--text, and what it takes besides with --extra."
        )
    given = Given()
    for name, path in _pictures(session, asked).items():
        given.values[name] = load_picture(path, _preprocessing(session, name))
        given.pictures[name] = path
    given.values.update(arrays_of(session, asked.extras))
    if asked.text is not None:
        name = _ids(session)
        of_a_text = () if session.text is None else (session.text.mask, session.text.types)
        besides = [other for other in session.inputs if other in given.values or other not in of_a_text]
        tokens = Reader.of(session, besides, name)(asked.text)
        given.values.update(tokens.inputs)
        given.tokens[name] = tokens
    for name, vocabulary in session.metadata.explains.items():
        if vocabulary is not None and name in given.values and name not in given.tokens:
            given.tokens[name] = of_ids(name, given.values[name])
    missing = [name for name in session.inputs if name not in (*given.values, "target")]
    if missing:
        raise InputError(f"{session.path}: {'; '.join(_wish(session, name) for name in missing)}.")
    return given


def _wish(session: Session, name: str) -> str:
    """How an input that is missing is passed."""
    explains, taken = session.metadata.explains, session.inputs[name]
    if is_picture(session, name):
        return f"{name} is missing, a picture: pass --image {name}=FILE"
    if explains.get(name) is not None and session.text is not None:
        return f"{name} is missing, a text: pass it with --text"
    return f"{taken} is missing: pass --extra {name}=FILE.npy for a batch of one"


def is_picture(session: Session, name: str) -> bool:
    """Whether an explained input has the shape of pictures."""
    shape = session.inputs[name].shape[1:]
    explains = session.metadata.explains
    whole = all(isinstance(side, int) for side in shape)
    return name in explains and explains[name] is None and len(shape) == 3 and shape[0] in (1, 3) and whole


def _pictures(session: Session, asked: Asked) -> dict[str, Path]:
    """Picture files by the inputs they are for."""
    named = {name: Path(path) for name, path in pairs(list(asked.images), "--image").items()}
    taking = [name for name in session.metadata.explains if is_picture(session, name)]
    if unknown := [name for name in named if name not in taking]:
        raise InputError(
            f"{session.path}: --image {unknown[0]}: it explains {', '.join(session.metadata.explains)}, of which "
            f"{', '.join(taking) or 'none'} take a picture."
        )
    if asked.picture is not None:
        free = [name for name in taking if name not in named]
        if not free:
            raise InputError(f"{session.path}: no input is left that takes the picture {asked.picture}.")
        named[free[0]] = asked.picture
    return {name: named[name] for name in taking if name in named}


def _preprocessing(session: Session, name: str) -> Preprocessing:
    """How a picture becomes one of the inputs."""
    shape = tuple(int(side) for side in session.inputs[name].shape[1:])
    if session.preprocessing is not None:
        found = Preprocessing.from_json(session.preprocessing)
        if (found.channels, *found.size) == shape:
            return found
    say("note", f"the file says nothing about {name}; the picture is cropped to its size, pixels in [-1, 1]")
    return Preprocessing.plain(shape)


def _ids(session: Session) -> str:
    """The one explained input that takes a text."""
    found = [name for name, vocabulary in session.metadata.explains.items() if vocabulary is not None]
    if len(found) != 1:
        told = f"{', '.join(found)} take a text each" if found else "none of its inputs takes a text"
        raise InputError(f"{session.path}: {told}. Pass arrays with --extra NAME=FILE.npy.")
    return found[0]


def of_ids(name: str, ids: npt.NDArray[Any]) -> Tokens:
    """Ids as the tokens of a text of their numbers, for a file that has no tokenizer."""
    pieces, tokens, start = [str(number) for number in ids[0]], list[Token](), 0
    for group, piece in enumerate(pieces):
        tokens.append(Token(piece, start, start + len(piece), 0, group))
        start += len(piece) + 1
    return Tokens((" ".join(pieces),), tuple(tokens), 0, {name: ids})


def _of(name: str, result: Result) -> Result:
    """What a file returned for one of its explained inputs."""
    return replace(
        result,
        pullback=result.pullbacks[name],
        contribution=result.contributions.get(name),
        counterfactual=result.counterfactuals.get(name),
    )


def _of_text(name: str, tokens: Tokens, question: Question, result: Result) -> Explanation:
    own = _of(name, result)
    outputs: Mapping[str, Array | None] = {
        "logits": own.logits, "pullback": own.pullback, "contribution": own.contribution,
    }  # fmt: skip
    return explanation(tokens, outputs, question.text, question.logit(result.logits))


def carried(session: Session, question: Question, result: Result) -> list[str]:
    """What each input carries of the logit, in words."""
    lines = []
    for name in session.metadata.explains:
        if name in result.contributions:
            share = float(result.contributions[name][0].sum())
            lines.append(f"{name}: contribution {share:.3f} of the {question.unit}")
        else:
            norm = float(np.linalg.norm(result.pullbacks[name][0]))
            lines.append(f"{name}: no contribution, strength of its pullback {norm:.3g}")
    if result.parts is not None and session.parts is not None:
        lines.append(parts_text(question, result.parts[0], session.parts.at))
    return lines


def places(pictures: Mapping[str, Path], output: Path | None, question: Question) -> dict[str, Path]:
    """Where each drawing goes: the first where it is asked for, every other beside it with its input's name.

    Raises:
        ExportError: Nothing can be written there.
        typer.BadParameter: It is no format of pictures.
    """
    found: dict[str, Path] = {}
    for name, picture in pictures.items():
        path = output or default_output(picture, question)
        if path.suffix.lower() not in Image.registered_extensions():
            raise typer.BadParameter(
                f"{path.suffix or 'no suffix'}: a picture format such as .png is wanted.", param_hint="-o"
            )
        found[name] = path.with_name(f"{path.stem}-{name}{path.suffix}") if path in found.values() else path
        check_output(found[name])
    if output is not None and not pictures:
        raise typer.BadParameter("there is no picture to draw; leave it out.", param_hint="-o")
    return found


def data_uri(image: Image.Image) -> str:
    """A drawing as a page carries it."""
    held = io.BytesIO()
    image.save(held, "PNG")
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode()}"
