"""The options of `fxpullback explain`; the work is in `explain.py`, imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxpullback.export.cli.terminal import option as _option
from fxpullback.export.cli.terminal import out

File = Annotated[Path, typer.Argument(metavar="FILE", help="A file written by fxpullback compile.")]
Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture file.")]
PictureOut = Annotated[
    Path | None, _option("--output", "-o", text="Picture to write (default: PICTURE-CLASS.png)", meta="FILE")
]


def explain(
    file: File,
    picture: Picture,
    target: Annotated[str | None, _option(text="Class name or index (default: the top-1 class)", meta="CLASS")] = None,
    against: Annotated[str | None, _option(text="Class to set it against", meta="CLASS")] = None,
    extra: Annotated[
        list[str] | None, _option(text="What the file takes besides; repeatable", meta="NAME=FILE.npy")
    ] = None,
    output: PictureOut = None,
    provider: Annotated[str | None, _option(text="cpu, cuda, ... (default: the best that works here)")] = None,
    draw: Annotated[
        list[str] | None,
        _option(
            text="What to draw: contribution, pullback, focus, strength (default: the first two)", meta="KIND,KIND"
        ),
    ] = None,
) -> None:
    """Explain a picture: its classes, and a drawing of what the chosen one rests on."""
    from fxpullback.export.cli.explain import run

    run(
        file,
        picture,
        target=target,
        against=against,
        extras=extra or [],
        output=output,
        provider=provider,
        console=out(),
        kinds=draw or (),
    )
