"""The command `fxpullback`: compile, insert, explain, evaluate, inspect, verify, demo.

The options of the larger commands are declared in files of their own, and the work is imported when needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxpullback.export.cli.compile_command import compile_command
from fxpullback.export.cli.evaluate_command import evaluate
from fxpullback.export.cli.explain_command import explain
from fxpullback.export.cli.insert_command import insert_command
from fxpullback.export.cli.terminal import PlainErrors, Stages, err, out, say
from fxpullback.export.cli.terminal import option as _option

app = typer.Typer(
    cls=PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile a PyTorch classifier and the semantic pullback that explains it into one ONNX file.",
)


File = Annotated[Path, typer.Argument(metavar="FILE", help="A file written by fxpullback compile.")]
FolderOut = Annotated[Path, _option("--output", "-o", text="Folder to write to (default: demo-output)", meta="FOLDER")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `debug` is read by `PlainErrors`."""


app.command("compile")(compile_command)
app.command("insert")(insert_command)
app.command()(explain)
app.command()(evaluate)


@app.command()
def inspect(
    file: File,
    full: Annotated[bool, typer.Option("--full", help="Print the ledger row by row.")] = False,
) -> None:
    """Print what a file is: program, rules, ledger, certificate, opset, size."""
    from fxpullback.export.cli.inspect import run

    run(file, full=full, console=out())


@app.command()
def verify(
    file: File,
    seed: Annotated[int | None, _option(text="Seed of the fresh inputs (default: a new one)")] = None,
) -> None:
    """Make the certificate again, on fresh inputs."""
    from fxpullback.export.cli.inspect import certificate_table

    with Stages() as stages:
        stages("load")
        from fxpullback.export.runtime.session import Session

        Session(file)  # says plainly what is wrong with a file that is none
        from fxpullback.export.certify.recheck import recheck

        stages("certify")
        chosen = fresh_seed() if seed is None else seed
        certificate = recheck(file, chosen)
    console = out()
    console.print(certificate_table(certificate.to_json()))
    console.print(f"inputs drawn with --seed {chosen}", markup=False)
    if not certificate.passed:
        say("error", f"{file}: the certificate does not pass; the file must not be trusted. Compile the model again.")
        raise typer.Exit(1)


@app.command()
def demo(
    output: FolderOut = Path("demo-output"),
) -> None:
    """The whole journey on a small network that ships with the package, in under a minute."""
    with err().status("loading torch"):
        from fxpullback.export.cli.demo import run_demo

    run_demo(output, out())


def fresh_seed() -> int:
    """A seed nobody has chosen."""
    import secrets

    return secrets.randbelow(2**31)


def main() -> None:
    """Entry of the console command."""
    app(prog_name="fxpullback")


if __name__ == "__main__":
    main()
