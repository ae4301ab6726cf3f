"""`fxpullback explain --text`: a text through a compiled file, its tokens coloured in the terminal and as a page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from fxpullback.contract.ends import INDEX, MASK, POSITIONS
from fxpullback.contract.errors import InputError
from fxpullback.export.cli.explain import Question, answer, ask, refuse_several
from fxpullback.export.cli.terminal import Stages, check_output, say, spoken_warnings, written_whole
from fxpullback.export.runtime.session import Result, Session
from fxpullback.export.text.drawn import html, terminal
from fxpullback.export.text.explanation import Explanation, explanation, shown
from fxpullback.export.text.tokenizer import Reader, Tokens
from fxpullback.export.text.vocabulary import token_index, token_name

TOP, TOP_OF_A_PAGE = 10, 30


@dataclass(frozen=True)
class Asked:
    """What is asked of a text.

    Attributes:
        text: The text.
        pair: The second of a pair, or None.
        target: A class by name or index, for a language model a token; None for the top-1 class.
        against: What to set it against, or None.
        position: For files with logits at every token: the one that is explained, by its place, from the end where
            negative; None for the last, or for the mean over all where the file takes a mask.
    """

    text: str
    pair: str | None = None
    target: str | None = None
    against: str | None = None
    position: int | None = None


def run(
    file: Path, asked: Asked, *, output: Path | None, top: int | None, provider: str | None, console: Console
) -> None:
    """Explain a text, print it in colours, and write the page where one is asked for.

    Raises:
        FxPullbackError: The file, the text, the class or the place to write to is at fault.
    """
    if output is not None:
        check_output(output)
    with Stages() as stages:
        stages("load")
        with spoken_warnings():
            session = Session(file, providers=None if provider is None else [provider])
        refuse_several(session)
        reader = Reader.of(session, besides=(POSITIONS,))
        stages("explain")
        tokens = reader(asked.text, asked.pair)
        question, result, found = explained(session, reader, tokens, asked)
    for note in tokens.notes:
        say("note", note)
    console.print(f"{found.name}: {question.unit} {found.logit:.3f}", style="bold", markup=False)
    console.print(terminal(found, TOP if top is None else top))
    if session.classes is not None:
        console.print()
        console.print(answer(question, result))
    if output is not None:
        about = f"{file}; {question.unit} of {found.name}; contribution: {session.contributions or 'none'}"
        page = html(found, TOP_OF_A_PAGE if top is None else top, about, tokens.notes)
        with written_whole(output) as draft:
            draft.write_text(page, encoding="utf-8")
        console.print(f"{output}: the text and its explanation", markup=False, soft_wrap=True)


def explained(session: Session, reader: Reader, tokens: Tokens, asked: Asked) -> tuple[Question, Result, Explanation]:
    """The class that is asked for, the outputs of the file for it, and what the tokens carry of it."""
    inputs: dict[str, npt.NDArray[Any]] = dict(tokens.inputs)
    ids = inputs.pop(session.metadata.explained)
    given, at = positions(session, tokens, asked.position)
    of_tokens = session.classes is None and session.class_count == session.metadata.vocabulary
    target, against = asked.target, asked.against
    if of_tokens:
        target, against = (
            None if name is None else str(token_index(name, reader.tokenizer, session.class_count))
            for name in (target, against)
        )
    question, result = ask(session, ids, target, against, inputs | given)
    name = question.text
    if of_tokens:
        chosen = [index for index in (question.index, question.against) if index is not None]
        name = " against ".join(token_name(index, reader.tokenizer) for index in chosen)
    outputs = {"logits": result.logits, "pullback": result.pullback, "contribution": result.contribution}
    found = explanation(tokens, outputs, f"{name}{at}", question.logit(result.logits))
    return question, result, found


def positions(session: Session, tokens: Tokens, position: int | None) -> tuple[dict[str, npt.NDArray[Any]], str]:
    """What the file takes to say at which tokens logits are explained, and the same in words.

    Raises:
        InputError: The file has one vector of logits for the whole text, or the text has no such token.
    """
    kind, count = session.metadata.ends.positions, len(tokens.tokens)
    if kind is None:
        if position is not None:
            raise InputError(f"{session.path}: its logits are of the whole text; leave --position out.")
        return {}, ""
    if position is not None and not -count <= position < count:
        listed = ", ".join(f"{place} {token.piece}" for place, token in enumerate(tokens.tokens))
        raise InputError(f"--position {position}: the text has {count} tokens: {listed}.")
    if kind == INDEX or position is not None:
        place = (-1 if position is None else position) % count
        at = f" at token {place}, {shown(tokens.tokens[place], tokens.texts)}"
    else:
        at = ", mean over all tokens"
    if kind == INDEX:
        return {POSITIONS: np.array([tokens.place + place])}, at
    weights: npt.NDArray[Any] = np.zeros((1, tokens.length), np.bool_ if kind == MASK else np.float32)
    weights[0, tokens.place : tokens.place + count] = position is None
    if position is not None:
        weights[0, tokens.place + place] = 1
    elif kind != MASK:
        weights /= count
    return {POSITIONS: weights}, at
