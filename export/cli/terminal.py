"""What every command shares: plain errors, stages on stderr, files written whole or not at all."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.status import Status
from typer.core import TyperGroup

from fxpullback.contract.errors import ExportError, FxPullbackError

COLUMNS = 100
# The base of usage errors: of the click that typer carries inside, or of the one it imports, by its version.
_UsageError: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def option(*names: str, text: str, meta: str | None = None, panel: str | None = None, least: int | None = None) -> Any:
    """An option; its panel is the heading it stands under in --help, `least` the smallest number it takes."""
    return typer.Option(*names, help=text, metavar=meta, rich_help_panel=panel, show_default=False, min=least)


def out() -> Console:
    """The console for results: stdout, at most 100 columns, and exactly those when it is no terminal."""
    console = Console(highlight=False, soft_wrap=False)
    return Console(highlight=False, width=min(console.width, COLUMNS) if console.is_terminal else COLUMNS)


def err() -> Console:
    """The console for progress, notes and errors: stderr."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(kind: str, message: object) -> None:
    """One message on stderr: `note: ...`, `warning: ...` or `error: ...`."""
    style = {"error": "bold red", "warning": "bold yellow", "note": "bold"}[kind]
    console = err()
    console.print(f"{kind}: ", style=style, end="")
    console.print(str(message), markup=False)


class PlainErrors(TyperGroup):
    """Commands whose failures end in one message and exit code 1; `--debug` adds the traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and turn what it raises into a message."""
        try:
            return super().invoke(ctx)
        except FxPullbackError as error:
            self._report(ctx, str(error))
        except (_UsageError, typer.Exit, typer.Abort):
            raise
        except OSError as error:
            self._report(ctx, f"{error.filename or 'the system'}: {error.strerror or error}.")
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            self._report(ctx, f"unexpected, and a bug of fxpullback: {text}. `fxpullback --debug ...` shows where.")
        raise typer.Exit(1)

    def _report(self, ctx: Any, message: str) -> None:
        if ctx.params.get("debug"):
            traceback.print_exc(file=sys.stderr)
        say("error", message)


class Stages:
    """Progress by stage: a spinner in a terminal, a line per stage elsewhere.

    Call it with the name of the stage that begins. As a context manager it ends the last one.
    """

    def __init__(self) -> None:
        self._console = err()
        self._status: Status | None = None
        self._name, self._since, self._start = "", 0.0, time.perf_counter()

    def __call__(self, name: str) -> None:
        """Begin the stage `name`."""
        self._end()
        self._name, self._since = name, time.perf_counter()
        if self._console.is_terminal:
            self._status = self._console.status(name)
            self._status.start()
        else:
            self._console.print(f"{name} ...", markup=False)

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end(failed=kind is not None)

    @property
    def seconds(self) -> float:
        """Time since the first stage."""
        return time.perf_counter() - self._start

    def _end(self, *, failed: bool = False) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
            seconds = time.perf_counter() - self._since
            self._console.print(f"{'x' if failed else '-'} {self._name:<16} {seconds:6.1f} s", markup=False)


@contextmanager
def spoken_warnings(kind: str = "warning") -> Iterator[None]:
    """Print warnings raised inside as `warning: ...`, or as another kind, instead of with file and line."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        say(kind, warning.message)


def check_output(path: Path) -> None:
    """Raise an ExportError unless a file can be written at `path`; asked before the work, not after.

    Raises:
        ExportError: The folder is absent or cannot be written, or `path` is a folder.
    """
    folder = path.parent
    if path.is_dir():
        raise ExportError(f"{path}: this is a folder; name a file in it with -o.")
    if not folder.is_dir():
        raise ExportError(f"{path}: there is no folder {folder}. Make it first, or name another with -o.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ExportError(f"{path}: the folder cannot be written ({error.strerror}). Name another with -o.") from error


def save_picture(image: Any, path: Path) -> None:
    """Write a Pillow picture, whole or not at all."""
    with written_whole(path) as draft:
        image.save(draft)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to, which takes its place in the end; after an error nothing is left of it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def pairs(items: list[str], option: str) -> dict[str, str]:
    """`["relu=0.4"]` to `{"relu": "0.4"}`.

    Raises:
        typer.BadParameter: An item has no `=`, or a key comes twice.
    """
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (equals and key.strip() and value.strip()) or key.strip() in found:
            raise typer.BadParameter(f"{item!r}: KEY=VALUE is wanted, each key once.", param_hint=option)
        found[key.strip()] = value.strip()
    return found


def options_of(items: list[str]) -> dict[str, object]:
    """What `--model-option` gives the constructor of a model.

    Raises:
        typer.BadParameter: An item has no `=`, or a key comes twice.
    """
    return {key: _value(text) for key, text in pairs(items, "--model-option").items()}


def _value(text: str) -> object:
    """A Python literal where the text is one (`7`, `0.5`, `(1, 2)`), true, false, none in any case, else text."""
    word = {"true": True, "false": False, "none": None}
    if text.lower() in word:
        return word[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
