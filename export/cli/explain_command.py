"""The options of `fxpullback explain`; the work is in `explain.py` and `explain_text.py`, imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fxpullback.export.cli.terminal import option as _option
from fxpullback.export.cli.terminal import out

_PICTURES, _TEXTS = "Pictures", "Texts"
File = Annotated[Path, typer.Argument(metavar="FILE", help="A file written by fxpullback compile.")]
Picture = Annotated[Path | None, typer.Argument(metavar="PICTURE", help="A picture file.")]
Output = Annotated[
    Path | None,
    _option("--output", "-o", text="Picture to write (default: PICTURE-CLASS.png)", meta="FILE", panel=_PICTURES),
]
Extra = Annotated[
    list[str] | None,
    _option(text="What the file takes besides; repeatable", meta="NAME=FILE.npy", panel=_PICTURES),
]
Image = Annotated[
    list[str] | None,
    _option(text="A picture of a file of several explained inputs; repeatable", meta="INPUT=FILE", panel=_PICTURES),
]
Draw = Annotated[
    list[str] | None,
    _option(
        text="What to draw: contribution, pullback, focus, strength (default: the first two)",
        meta="KIND,KIND",
        panel=_PICTURES,
    ),
]
Target = Annotated[str | None, _option(text="Class name or index, or a token (default: the top-1 class)", meta="CLASS")]
Text = Annotated[str | None, _option(text="A text, in place of a picture", meta="TEXT", panel=_TEXTS)]
Pair = Annotated[str | None, _option(text="The second text of a pair", meta="TEXT", panel=_TEXTS)]
Html = Annotated[Path | None, _option(text="Page to write, besides what is printed", meta="FILE", panel=_TEXTS)]
Top = Annotated[
    int | None, _option(text="So many of the strongest words (default: 10; page: 30)", least=0, panel=_TEXTS)
]
Position = Annotated[
    int | None,
    _option(text="Token whose logits are explained, from 0 (default: the last)", panel=_TEXTS),
]


def explain(
    file: File,
    picture: Picture = None,
    target: Target = None,
    against: Annotated[str | None, _option(text="Class to set it against", meta="CLASS")] = None,
    extra: Extra = None,
    output: Output = None,
    provider: Annotated[str | None, _option(text="cpu, cuda, ... (default: the best that works here)")] = None,
    draw: Draw = None,
    text: Text = None,
    pair: Pair = None,
    html: Html = None,
    top: Top = None,
    position: Position = None,
    image: Image = None,
) -> None:
    """Explain a picture or a text, or both together: the classes, and what of it the chosen one rests on."""
    if _takes_several(file, picture, text, extra or [], image or []):
        _refuse("a file of one text", {"--pair": pair, "--position": position})
        from fxpullback.export.cli.explain_several import Asked as Several
        from fxpullback.export.cli.explain_several import run as run_several

        given = Several(picture, tuple(image or ()), text, tuple(extra or ()), target, against, tuple(draw or ()))
        run_several(file, given, output=output, page=html, top=top, provider=provider, console=out())
        return
    if text is None:
        _refuse("a text: pass it with --text", {"--pair": pair, "--html": html, "--top": top, "--position": position})
        if picture is None:
            raise typer.BadParameter("a picture is wanted, or a text with --text.", param_hint="PICTURE")
        from fxpullback.export.cli.explain import run

        about: dict[str, Any] = {"target": target, "against": against, "extras": extra or [], "kinds": draw or ()}
        run(file, picture, output=output, provider=provider, console=out(), **about)
        return
    _refuse("a picture: pass it alone", {"PICTURE": picture, "--extra": extra, "--output": output, "--draw": draw})
    from fxpullback.export.cli.explain_text import Asked
    from fxpullback.export.cli.explain_text import run as run_text

    asked = Asked(text, pair, target, against, position)
    run_text(file, asked, output=html, top=top, provider=provider, console=out())


def _takes_several(file: Path, picture: Path | None, text: str | None, extra: list[str], image: list[str]) -> bool:
    """Whether what is passed is for several explained inputs; the file is asked where it may be."""
    if image or not (extra or (picture is not None and text is not None)):
        return bool(image)
    from fxpullback.export.runtime.described import explains_several

    return explains_several(file)


def _refuse(what: str, given: dict[str, object]) -> None:
    """Refuse what belongs to the other kind of input."""
    for name, value in given.items():
        if value not in (None, []):
            raise typer.BadParameter(f"is for {what}.", param_hint=name)
