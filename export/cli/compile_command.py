"""The options of `fxpullback compile`; the work is in `compile.py`, imported when needed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fxpullback.export.cli.terminal import Stages, out
from fxpullback.export.cli.terminal import option as _option


class ProgramName(Enum):
    """Programs a file can hold."""

    soft = "soft"
    double = "double"
    ascent = "ascent"


class RulesName(Enum):
    """Rule sets."""

    semantic = "semantic"
    reference = "reference"
    exact = "exact"


class NoiseName(Enum):
    """Noise that gates are expected under."""

    normal = "normal"
    logistic = "logistic"


class TargetName(Enum):
    """What a file takes as target."""

    index = "index"
    top1 = "top1"
    cotangent = "cotangent"
    contrast = "contrast"


class PrecisionName(Enum):
    """Types of weights and activations."""

    fp32 = "fp32"
    fp16 = "fp16"
    bf16 = "bf16"


class PositionsName(Enum):
    """How a file is told at which positions to explain."""

    index = "index"
    mask = "mask"
    weights = "weights"


class ClipWhen(Enum):
    """When ascent clips to [-1, 1]."""

    every = "every"
    last = "last"
    never = "never"


_MODEL, _PROGRAM, _RULES = "Model", "Program", "Rules"
ModelSpec = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="timm:NAME, torchvision:NAME, hf:FOLDER, module:factory, file.pt2 or file.onnx"
    ),
]
FileOut = Annotated[
    Path | None,
    _option("--output", "-o", text="ONNX file to write (default: NAME.onnx); .pt2 for machine code", meta="FILE"),
]

Pretrained = Annotated[bool, _option("--pretrained", text="Fetch the published weights", panel=_MODEL)]
Weights = Annotated[
    Path | None, _option(text="Weights: safetensors, or a torch file of tensors", meta="FILE", panel=_MODEL)
]
FreeSize = Annotated[
    bool, _option("--free-size", text="Leave height and width free, where the model allows it", panel=_MODEL)
]
InputShape = Annotated[
    str | None,
    _option(text="Shape of one sample that is no picture, such as 2,16000 (channels, time)", meta="N,N", panel=_MODEL),
]
Size = Annotated[str | None, _option(text="SIDE, HxW or CxHxW (default: the network's own)", meta="SIZE", panel=_MODEL)]
Example = Annotated[
    Path | None,
    _option(text="Example inputs, the explained one first: .npz, .safetensors or .pt", meta="FILE", panel=_MODEL),
]
Length = Annotated[
    int | None,
    _option(
        text="Tokens of a text, filled up or cut off (default: free, where it can be); or samples of a sound",
        panel=_MODEL,
    ),
]
Logits = Annotated[
    str | None, _option(text="Which of several outputs holds the logits: its name or place", meta="NAME", panel=_MODEL)
]
Input = Annotated[
    str | None,
    _option("--input", text="The input of an .onnx file that is explained", meta="NAME", panel=_MODEL),
]
Hold = Annotated[
    list[str] | None,
    _option("--hold", text="An input of an .onnx file that is held; repeatable", meta="NAME=NUMBER", panel=_MODEL),
]
Positions = Annotated[
    PositionsName | None,
    _option(text="For logits at many positions: how the file is told of which (texts: index)", panel=_MODEL),
]
Explain = Annotated[
    list[str] | None,
    _option(
        text="Input that is explained, by its name in the forward; repeatable: several are explained together",
        meta="INPUT",
        panel=_MODEL,
    ),
]
Classes = Annotated[Path | None, _option(text="Class names: one per line, or JSON", meta="FILE", panel=_MODEL)]
ModelOption = Annotated[
    list[str] | None, _option(text="For the model's constructor; repeatable", meta="KEY=VALUE", panel=_MODEL)
]
Mean = Annotated[
    str | None, _option(text="Mean of the weights (default: the network's own)", meta="R,G,B", panel=_MODEL)
]
Std = Annotated[str | None, _option(text="Standard deviation, likewise", meta="R,G,B", panel=_MODEL)]

ProgramOption = Annotated[ProgramName, _option(text="What to compute (default: soft)", panel=_PROGRAM)]
Target = Annotated[TargetName, _option(text="What the file takes as target (default: index)", panel=_PROGRAM)]
Alpha = Annotated[
    float | None,
    _option(text="Step length, pixels in [-1, 1] (default: double 10, ascent 20: for 224x224)", panel=_PROGRAM),
]
Steps = Annotated[int | None, _option(text="Steps of ascent (default: 5)", panel=_PROGRAM)]
Clip = Annotated[
    bool | None, _option("--clip/--no-clip", text="Keep ascent in [-1, 1] (default: clip)", panel=_PROGRAM)
]
ClipTime = Annotated[ClipWhen | None, _option(text="When ascent clips (default: every)", panel=_PROGRAM)]
Eps = Annotated[float | None, _option(text="Radius around the picture that ascent stays in", panel=_PROGRAM)]

PrecisionOption = Annotated[
    PrecisionName, _option(text="Type of weights and activations (default: fp32)", panel=_PROGRAM)
]

Rules = Annotated[RulesName, _option(text="Rule set (default: semantic)", panel=_RULES)]
Temperature = Annotated[list[str] | None, _option(text="Temperature; repeatable", meta="RULE=T", panel=_RULES)]
Calibrate = Annotated[
    str | None,
    _option(
        text="Set temperatures gate by gate from noise like pictures (default) or a folder of pictures (./noise for "
        "one of that name); none: the paper's",
        meta="noise|none|FOLDER",
        panel=_RULES,
    ),
]
Noise = Annotated[
    NoiseName | None, _option(text="Noise of gates as ReLU: normal (default), or logistic for sigmoids", panel=_RULES)
]
Spread = Annotated[float | None, _option(text="Temperature over standard deviation (default: 0.9)", panel=_RULES)]
KeepExact = Annotated[list[str] | None, _option(text="Rule or operator; repeatable", meta="NAME", panel=_RULES)]
Without = Annotated[
    list[str] | None, _option(text="Rewrite of the lowering to leave out; repeatable", meta="NAME", panel=_PROGRAM)
]

Tap = Annotated[
    list[str] | None,
    _option(
        text="Module whose output's contribution is shown; repeatable (default: auto, chosen from the graph); none: no "
        "contribution",
        meta="auto|none|MODULE",
        panel=_PROGRAM,
    ),
]
EachTap = Annotated[bool, _option("--each-tap", text="Each tap's own map as an output besides", panel=_PROGRAM)]
Bias = Annotated[
    str | None,
    _option("--bias", text="What biases and gates add to the logit, as an output", meta="share|pushed", panel=_PROGRAM),
]


def compile_command(
    model: ModelSpec,
    output: FileOut = None,
    pretrained: Pretrained = False,
    weights: Weights = None,
    size: Size = None,
    input_shape: InputShape = None,
    free_size: FreeSize = False,
    example: Example = None,
    classes: Classes = None,
    model_option: ModelOption = None,
    mean: Mean = None,
    std: Std = None,
    program: ProgramOption = ProgramName.soft,
    target: Target = TargetName.index,
    alpha: Alpha = None,
    steps: Steps = None,
    clip: Clip = None,
    clip_when: ClipTime = None,
    eps: Eps = None,
    precision: PrecisionOption = PrecisionName.fp32,
    rules: Rules = RulesName.semantic,
    temperature: Temperature = None,
    calibrate: Calibrate = None,
    spread: Spread = None,
    noise: Noise = None,
    keep_exact: KeepExact = None,
    without: Without = None,
    tap: Tap = None,
    each_tap: EachTap = False,
    bias: Bias = None,
    length: Length = None,
    logits: Logits = None,
    input_: Input = None,
    hold: Hold = None,
    positions: Positions = None,
    explain: Explain = None,
) -> None:
    """Compile a model: one file with its logits, its pullback and the ledger of both."""
    from fxpullback.export.cli import compile as work
    from fxpullback.export.cli import compile_options as read

    about = weights, pretrained, size, input_shape, model_option or [], classes, mean, std, example, length
    asked = read.rules_of(rules.value, temperature or [], keep_exact or [], value_of(noise))
    chosen_rules, folder = read.calibration_of(rules.value, asked, calibrate, spread)
    steps_of = {"alpha": alpha, "steps": steps, "clip": clip, "clip-when": value_of(clip_when), "eps": eps}
    settings = target.value, precision.value, folder, free_size, tuple(without or ())
    returns = {"taps": read.taps_of(tap or []), "each_tap": each_tap, "bias": bias}
    job = work.Job(
        model,
        output or work.default_output(model),
        read.program_of(program.value, steps_of),
        chosen_rules,
        *settings,
        read.source_of(*about) | read.of_a_file(model, logits, input_, hold or []),
        returns,
        explains={"output": logits, "positions": value_of(positions), "explain": explain or None},
    )
    with Stages() as stages:
        out().print(work.run(job, stages), markup=False)


def value_of(chosen: Enum | None) -> str | None:
    """What an option of fixed choices says, or None."""
    return None if chosen is None else str(chosen.value)
