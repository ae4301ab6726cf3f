"""`fxpullback evaluate`: metrics on the explanations of a file, in a folder with rows, table and page."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.cli.terminal import err, options_of, say, spoken_warnings, written_whole
from fxpullback.export.evaluate.exact import exact_baselines
from fxpullback.export.evaluate.intervals import Mean
from fxpullback.export.evaluate.metrics import Metric
from fxpullback.export.evaluate.page import page
from fxpullback.export.evaluate.report import Report
from fxpullback.export.evaluate.run import evaluate
from fxpullback.export.evaluate.settings import Settings
from fxpullback.export.evaluate.sources import other_file
from fxpullback.export.runtime.session import Session

ROWS, TABLE, SUMMARY, PAGE = "rows.jsonl", "table.csv", "report.json", "index.html"


@dataclass(frozen=True)
class Job:
    """One evaluation, as it was asked for.

    Attributes:
        file: The file.
        pictures: The folder of pictures.
        output: The folder to write to.
        metrics: Which, by name; empty for all that apply.
        methods: Likewise.
        baseline: A file of the same model compiled without rules.
        beside: Other files of the same model, each with the name that goes before its methods.
        model: A model for baselines in torch, with the keyword arguments of `load_model`; None for none.
        options: Further keyword arguments of `evaluate`.
    """

    file: Path
    pictures: Path
    output: Path
    metrics: list[str]
    methods: list[str]
    baseline: Path | None
    beside: list[tuple[str, Path]]
    model: tuple[str, dict[str, Any]] | None
    settings: Settings
    options: dict[str, Any]


def run(job: Job, console: Console) -> None:
    """Evaluate, print the means, and write the folder.

    Raises:
        FxPullbackError: The file, the pictures, a name or the folder is at fault; rows that were written stay.
    """
    sources: list[Callable[..., Any]] = [] if job.baseline is None else [exact_baselines(job.baseline)]
    sources += [other_file(name, path) for name, path in job.beside]
    if job.model is not None:
        sources.append(torch_source(*job.model, job.file))
    make_folder(job.output)
    with spoken_warnings(), _Bar() as bar:
        report = evaluate(
            job.file,
            job.pictures,
            sources=sources,
            metrics=job.metrics or None,
            methods=job.methods or None,
            settings=job.settings,
            rows=job.output / ROWS,
            progress=bar,
            **job.options,
        )
    for name, text in ((TABLE, report.csv()), (SUMMARY, report.json()), (PAGE, page(report))):
        with written_whole(job.output / name) as draft:
            draft.write_text(text, encoding="utf-8")
    for skipped in report.skipped:
        say("note", f"left out: {skipped}")
    for note in report.notes:
        say("note", note)
    for metric in report.metrics:
        console.print(table_of(metric, report))
    console.print(f"{job.output / PAGE}: the same with plots; {TABLE}, {SUMMARY}, {ROWS} beside it", soft_wrap=True)


def torch_source(spec: str, source: dict[str, Any], file: Path) -> Callable[..., Any]:
    """Baselines through the model that `spec` names, built for pictures of the file's size."""
    from fxpullback.export.evaluate.torch_methods import torch_baselines
    from fxpullback.export.zoo.models import load_model

    size = [side for side in Session(file).input_shape[1:] if isinstance(side, int)]
    loaded = load_model(spec, size=size if len(size) == 3 and not spec.endswith(".pt2") else None, **source)
    for note in loaded.notes:
        say("note", note)
    return torch_baselines(loaded.model)  # type: ignore[arg-type] # a .pt2 file is refused there


def model_of(
    spec: str | None, weights: Path | None, pretrained: bool, options: list[str]
) -> tuple[str, dict[str, Any]] | None:
    """`Job.model` of what was given on the command line.

    Raises:
        typer.BadParameter: Something is said of a model, and no model is named; or an option is no KEY=VALUE.
    """
    if spec is None:
        for given, name in ((weights, "--weights"), (pretrained, "--pretrained"), (options, "--model-option")):
            if given:
                raise typer.BadParameter("it says something of a model, and --model names none.", param_hint=name)
        return None
    return spec, {"weights": weights, "pretrained": pretrained, "options": options_of(options)}


def default_output(file: Path) -> Path:
    """`NAME-evaluation` in the working directory."""
    return Path(f"{file.stem}-evaluation")


def make_folder(folder: Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        EvaluateError: It cannot be made, or a file of that name is there.
    """
    try:
        folder.mkdir(exist_ok=True)
    except FileExistsError as error:
        raise EvaluateError(f"{folder}: this is a file; name a folder with -o.") from error
    except OSError as error:
        raise EvaluateError(f"{folder}: the folder cannot be made ({error.strerror}). Name another with -o.") from error
    if not os.access(folder, os.W_OK):
        raise EvaluateError(f"{folder}: the folder cannot be written to. Name another with -o.")


def table_of(metric: Metric, report: Report) -> Table:
    """Means with intervals of one metric, a row for each method; the best of each column is bold."""
    table = Table(title=metric.name, title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.add_column("")
    for column in metric.columns:
        table.add_column(f"{column.name} ({'high' if column.high else 'low'})", justify="right")
    best = {column.name: report.best(column) for column in metric.columns}
    for name, _ in report.methods:
        means = [report.mean(column, name) for column in metric.columns]
        if any(mean.count for mean in means):
            cells = [
                f"[bold]{cell(mean)}[/bold]" if best[column.name] == name else cell(mean)
                for column, mean in zip(metric.columns, means, strict=True)
            ]
            table.add_row(escape(name), *cells)
    return table


def cell(mean: Mean) -> str:
    """`.44 ± .03`, or the mean alone where there is no interval."""
    if not mean.count:
        return "-"
    if mean.low != mean.low:
        return f"{mean.mean:.3g}"
    return f"{mean.mean:.3g} ± {(mean.high - mean.low) / 2:.2g}"


class _Bar:
    """Progress: a bar in a terminal, a line for each picture elsewhere."""

    def __init__(self) -> None:
        console = err()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task = None if self._bar is None else self._bar.add_task("load", total=None)
        self._console, self._picture = console, ""

    def __enter__(self) -> _Bar:
        if self._bar is not None:
            self._bar.start()
        else:
            self._console.print("load ...")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, whole: int, what: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=whole, description=what)
            return
        picture = what.rpartition(", ")[2]
        if picture != self._picture:
            self._picture = picture
            self._console.print(f"{done} of {whole}: {picture} ...", markup=False)


def names_of(given: list[str] | None) -> list[str]:
    """Names that may be given one by one or with commas between."""
    return [name.strip() for item in given or [] for name in item.split(",") if name.strip()]


def named_file(given: str) -> tuple[str, Path]:
    """`NAME=FILE`.

    Raises:
        typer.BadParameter: It is not that.
    """
    name, found, path = given.partition("=")
    if not (found and name.strip() and path.strip()):
        raise typer.BadParameter(f"--beside {given}: a name and a file are wanted, such as double=double.onnx.")
    return name.strip(), Path(path.strip())


def settings_of(**given: Any) -> Settings:
    """Settings, with defaults for what was not given.

    Raises:
        typer.BadParameter: A number makes no sense.
    """
    try:
        return Settings(**{key: value for key, value in given.items() if value is not None})
    except EvaluateError as error:
        raise typer.BadParameter(str(error)) from error
