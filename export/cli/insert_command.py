"""The options of `fxpullback insert`, those of `compile` that an ONNX file has; the work is in `compile.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fxpullback.export.cli import compile_command as of
from fxpullback.export.cli.terminal import Stages, out
from fxpullback.export.cli.terminal import option as _option

FileIn = Annotated[str, typer.Argument(metavar="FILE.onnx", help="The file beside whose nodes the pullback is put")]
FileOut = Annotated[
    Path | None, _option("--output", "-o", text="File to write (default: NAME-explained.onnx)", meta="FILE")
]


def insert_command(
    model: FileIn,
    output: FileOut = None,
    size: of.Size = None,
    input_shape: of.InputShape = None,
    free_size: of.FreeSize = False,
    example: of.Example = None,
    classes: of.Classes = None,
    program: of.ProgramOption = of.ProgramName.soft,
    target: of.Target = of.TargetName.index,
    alpha: of.Alpha = None,
    steps: of.Steps = None,
    clip: of.Clip = None,
    clip_when: of.ClipTime = None,
    eps: of.Eps = None,
    rules: of.Rules = of.RulesName.semantic,
    temperature: of.Temperature = None,
    calibrate: of.Calibrate = None,
    spread: of.Spread = None,
    noise: of.Noise = None,
    keep_exact: of.KeepExact = None,
    without: of.Without = None,
    tap: of.Tap = None,
    each_tap: of.EachTap = False,
    bias: of.Bias = None,
    logits: of.Logits = None,
    input_: of.Input = None,
    positions: of.Positions = None,
    explain: of.Explain = None,
) -> None:
    """Put the pullback beside the nodes of an ONNX file, all of which stay as they are, byte for byte."""
    from fxpullback.export.cli import compile as work
    from fxpullback.export.cli import compile_options as read

    if not model.endswith(".onnx"):
        raise typer.BadParameter("an ONNX file is wanted; fxpullback compile takes other models.", param_hint="FILE")
    about: Any = (None, False, size, input_shape, [], classes, None, None, example, None)
    asked = read.rules_of(rules.value, temperature or [], keep_exact or [], of.value_of(noise))
    chosen_rules, folder = read.calibration_of(rules.value, asked, calibrate, spread)
    steps_of = {"alpha": alpha, "steps": steps, "clip": clip, "clip-when": of.value_of(clip_when), "eps": eps}
    job = work.Job(
        model,
        output or work.default_output(model),
        read.program_of(program.value, steps_of),
        chosen_rules,
        *(target.value, "fp32", folder, free_size, tuple(without or ())),
        read.source_of(*about) | read.of_a_file(model, logits, input_, []),
        {"taps": read.taps_of(tap or []), "each_tap": each_tap, "bias": bias},
        explains={"output": logits, "positions": of.value_of(positions), "explain": explain or None},
        beside=True,
    )
    with Stages() as stages:
        out().print(work.run(job, stages), markup=False)
