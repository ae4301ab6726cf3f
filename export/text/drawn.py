"""A text with what its tokens carry: coloured in a terminal, and as one HTML page that loads nothing.

Orange is for what is explained, blue against it. Without colour the numbers say the same: the strongest words bear
theirs in the text, and a table lists them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from rich.console import Group
from rich.table import Table
from rich.text import Text as Line

from fxpullback.export.pictures.colours import SIGNED, coloured
from fxpullback.export.text.explanation import Explanation, Span

TEMPLATE = "text.html.j2"
BAR = 20
_DARKEST = 0.8
"""How far up the ramp the strongest token is drawn: beyond, colours are too dark to tell orange from blue."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a line: the space between tokens where it has no token.

    Attributes:
        text: What is shown.
        token: The token it is, or None.
        number: The score of the word that ends here, where it is one of the strongest; else None.
    """

    text: str
    token: Span | None = None
    number: float | None = None


def terminal(explained: Explanation, top: int = 10) -> Group:
    """What `fxpullback explain` prints: the text in colours, a legend, the strongest words, what adds up to what."""
    full = full_of(explained)
    lines = []
    for part in range(len(explained.texts)):
        line = Line()
        for piece in pieces(explained, part, top):
            line.append(printable(piece.text), style="" if piece.token is None else _style(piece.token, full))
            if piece.number is not None:
                line.append(f"[{number(piece.number, explained)}]", style="dim")
        lines.append(line)
    return Group(*lines, Line(), legend(explained, full), Line(), table(explained, top), Line(), Line(sums(explained)))


def pieces(explained: Explanation, part: int, top: int) -> Iterator[Piece]:
    """One of the texts, stretch by stretch, its special tokens left out."""
    text, end = explained.texts[part], 0
    numbered = {word.end: word.score for word in explained.strongest(top) if word.part == part}
    tokens = [token for token in explained.tokens if token.part == part]
    for index, token in enumerate(tokens):
        if token.start > end:
            yield Piece(text[end : token.start])
        own = text[max(token.start, end) : token.end]
        space = len(own) - len(own.lstrip())
        if space:
            yield Piece(own[:space])
        end = max(end, token.end)
        is_last = index + 1 == len(tokens) or tokens[index + 1].end > token.end
        yield Piece(own[space:], token, numbered.get(token.end) if is_last else None)
    if end < len(text):
        yield Piece(text[end:])


def printable(text: str) -> str:
    """Text without what a terminal takes for a command."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def full_of(explained: Explanation) -> float:
    """The score that is drawn at full strength: the largest of a token that is text."""
    return max((abs(token.score) for token in explained.tokens if token.part is not None), default=0.0) or 1.0


def colour_of(score: float, full: float) -> tuple[int, int, int]:
    """The colour behind a token."""
    place = 0.5 + 0.5 * _DARKEST * float(np.clip(score / full, -1, 1))
    red, green, blue = coloured(np.array([[place]]), SIGNED)[0, 0]
    return int(red), int(green), int(blue)


def ink_on(colour: tuple[int, int, int]) -> str:
    """Black or white, whichever is told better from a colour, by the contrast of WCAG."""
    shares = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    light = 0.2126 * shares[0] + 0.7152 * shares[1] + 0.0722 * shares[2]
    return "#000000" if (light + 0.05) ** 2 > 1.05 * 0.05 else "#ffffff"


def _style(token: Span, full: float) -> str:
    colour = colour_of(token.score, full)
    return f"{ink_on(colour)} on rgb({colour[0]},{colour[1]},{colour[2]})"


def number(score: float, explained: Explanation) -> str:
    """A score as it is printed: with its sign where it has one."""
    return f"{score:+.3f}" if explained.signed else f"{score:.3f}"


def legend(explained: Explanation, full: float) -> Line:
    """What the colours mean."""
    line = Line()
    if not explained.signed:
        line.append(" weak ", style=_style(Span("", 0.0, 0, 0, 0), full)).append(" to ")
        line.append(f" strong {full:.3f} ", style=_style(Span("", full, 0, 0, 0), full))
        return line.append(f"  {explained.kind} of a token: for or against is not told")
    line.append(f" against {-full:.3f} ", style=_style(Span("", -full, 0, 0, 0), full)).append("  ")
    line.append(f" for {full:+.3f} ", style=_style(Span("", full, 0, 0, 0), full))
    return line.append(f"  {explained.kind} of a token; in brackets that of the strongest words")


def table(explained: Explanation, top: int) -> Table:
    """The strongest words, the strongest first."""
    made = Table(box=None, pad_edge=False)
    pair = len(explained.texts) > 1
    made.add_column("", justify="right")
    made.add_column("word", overflow="fold")
    if pair:
        made.add_column("text")
    made.add_column(explained.kind if len(explained.kind) < BAR else "score", justify="right")
    made.add_column("")
    for row in rows(explained, top):
        style = None if not explained.signed else "rgb(200,95,0)" if row["score"] >= 0 else "rgb(40,110,220)"
        cells = [str(row["rank"]), Line(printable(row["word"])), *([row["text"]] if pair else []), row["number"]]
        made.add_row(*cells, Line(row["bar"], style=style or ""))
    return made


def rows(explained: Explanation, top: int) -> list[dict[str, Any]]:
    """The strongest words as rows of a table; a bar of `+` is for, one of `-` against."""
    strongest = explained.strongest(top)
    full = max((abs(word.score) for word in strongest), default=0.0) or 1.0
    return [
        {
            "rank": rank,
            "word": word.text,
            "text": "first" if word.part == 0 else "second",
            "score": word.score,
            "number": number(word.score, explained),
            "bar": ("+" if word.score >= 0 else "-") * round(BAR * abs(word.score) / full),
        }
        for rank, word in enumerate(strongest, 1)
    ]


def sums(explained: Explanation) -> str:
    """`words 3.210 + special tokens 0.120 + the rest 0.400 = 3.730`."""
    if not explained.signed:
        return "the strength of a pullback does not add up; compile the model with --tap auto for scores that do"
    terms = [("words", explained.of_words), ("special tokens", explained.of_specials)]
    if explained.padding:
        terms.append(("padding", explained.padding))
    told = " + ".join(f"{name} {value:.3f}" for name, value in [*terms, ("what no token carries", explained.rest)])
    return f"{told} = {explained.logit:.3f}"


def html(
    explained: Explanation,
    top: int = 20,
    about: str = "",
    notes: tuple[str, ...] = (),
    pictures: Sequence[tuple[str, str]] = (),
) -> str:
    """One page, self-contained: the text in colours, every number on its token, the strongest words in a table.

    `pictures` are drawings above the text: a name, and the drawing as a URI that holds it.
    """
    text = (resources.files("fxpullback.export") / "assets" / TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    full = full_of(explained)
    return environment.from_string(text).render(
        name=explained.name,
        logit=f"{explained.logit:.3f}",
        kind=explained.kind,
        signed=explained.signed,
        about=about,
        notes=notes,
        pictures=pictures,
        texts=[
            [_element(piece, explained, full) for piece in pieces(explained, part, 0)] for part in _parts(explained)
        ],
        specials=[_element(Piece(t.text, t), explained, full) for t in explained.tokens if t.part is None],
        rows=rows(explained, top),
        pair=len(explained.texts) > 1,
        sums=sums(explained),
        full=f"{full:.3f}",
        against=_css(-full, full),
        favour=_css(full, full),
    )


def _parts(explained: Explanation) -> range:
    return range(len(explained.texts))


def _css(score: float, full: float) -> dict[str, str]:
    colour = colour_of(score, full)
    return {"back": "#{:02x}{:02x}{:02x}".format(*colour), "ink": ink_on(colour)}


def _element(piece: Piece, explained: Explanation, full: float) -> dict[str, Any]:
    """What the template shows of a stretch."""
    if piece.token is None:
        return {"text": piece.text, "number": None}
    return {"text": piece.text, "number": number(piece.token.score, explained), **_css(piece.token.score, full)}
