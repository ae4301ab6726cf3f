"""The options of `fxpullback evaluate`; the work is in `evaluate.py`, imported when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fxpullback.export.cli.terminal import option, out

_METRICS, _METHODS = "Metrics", "Methods"
_Beside = Annotated[
    list[str] | None,
    option(text="Another file of the same model, as double=double.onnx; repeatable", meta="NAME=FILE", panel=_METHODS),
]
_Method = Annotated[
    list[str] | None, option(text="Method; repeatable (default: all there are)", meta="NAME", panel=_METHODS)
]
_Steps = Annotated[int | None, option(text="Steps of insertion and deletion (default: 28)", panel=_METRICS)]
_Option = Annotated[
    list[str] | None, option(text="For that model's constructor; repeatable", meta="KEY=VALUE", panel=_METHODS)
]


def evaluate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by fxpullback compile.")],
    pictures: Annotated[
        Path, typer.Argument(metavar="PICTURES", help="A folder: pictures with labels.csv, or subfolders by class.")
    ],
    output: Annotated[
        Path | None, option("--output", "-o", text="Folder to write to (default: NAME-evaluation)", meta="FOLDER")
    ] = None,
    metric: Annotated[
        list[str] | None, option(text="Metric; repeatable (default: all that apply)", meta="NAME", panel=_METRICS)
    ] = None,
    seed: Annotated[int | None, option(text="Seed of everything random (default: 0)", panel=_METRICS)] = None,
    grid: Annotated[int | None, option(text="Patches in a row (default: 14)", panel=_METRICS)] = None,
    steps: _Steps = None,
    runs: Annotated[int | None, option(text="Random changes of a picture (default: 100)", panel=_METRICS)] = None,
    limit: Annotated[int | None, option(text="At most so many pictures", panel=_METRICS)] = None,
    only_correct: Annotated[
        bool, option("--only-correct", text="Only pictures that are classified correctly", panel=_METRICS)
    ] = False,
    method: _Method = None,
    baseline: Annotated[
        Path | None,
        option(text="The model compiled with --rules exact, for gradient baselines", meta="FILE", panel=_METHODS),
    ] = None,
    beside: _Beside = None,
    model: Annotated[
        str | None, option(text="The model itself, for Grad-CAM and the like", meta="MODEL", panel=_METHODS)
    ] = None,
    weights: Annotated[
        Path | None, option(text="Weights of that model: safetensors, or a torch file", meta="FILE", panel=_METHODS)
    ] = None,
    pretrained: Annotated[bool, option("--pretrained", text="Fetch its published weights", panel=_METHODS)] = False,
    model_option: _Option = None,
    reference: Annotated[
        str | None, option(text="Method to compare with (default: the first)", meta="NAME", panel=_METHODS)
    ] = None,
    provider: Annotated[str | None, option(text="cpu, cuda, ... (default: the best that works here)")] = None,
) -> None:
    """Measure how good the explanations are: metrics on pictures, beside baselines and controls."""
    from fxpullback.export.cli import evaluate as work

    job = work.Job(
        file=file,
        pictures=pictures,
        output=output or work.default_output(file),
        metrics=work.names_of(metric),
        methods=work.names_of(method),
        baseline=baseline,
        beside=[work.named_file(item) for item in beside or []],
        model=work.model_of(model, weights, pretrained, model_option or []),
        settings=work.settings_of(seed=seed, grid=grid, steps=steps, runs=runs),
        options={
            "limit": limit,
            "only_correct": only_correct,
            "reference": reference,
            "providers": None if provider is None else [provider],
        },
    )
    work.run(job, out())
