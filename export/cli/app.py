"""The command `fxpullback`: compile, explain, evaluate, inspect, verify, demo.

Options are declared here; the work is in `compile.py`, `explain.py` and `inspect.py`, imported when needed.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from fxpullback.export.cli.evaluate_command import evaluate
from fxpullback.export.cli.terminal import PlainErrors, Stages, err, out, say
from fxpullback.export.cli.terminal import option as _option

app = typer.Typer(
    cls=PlainErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compile a PyTorch classifier and the semantic pullback that explains it into one ONNX file.",
)


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


class ClipWhen(Enum):
    """When ascent clips to [-1, 1]."""

    every = "every"
    last = "last"
    never = "never"


_MODEL, _PROGRAM, _RULES = "Model", "Program", "Rules"
ModelSpec = Annotated[
    str,
    typer.Argument(metavar="MODEL", help="timm:NAME, torchvision:NAME, package.module:factory, or file.pt2"),
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="A file written by fxpullback compile.")]
Picture = Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture file.")]
FileOut = Annotated[
    Path | None,
    _option("--output", "-o", text="ONNX file to write (default: NAME.onnx); .pt2 for machine code", meta="FILE"),
]
PictureOut = Annotated[
    Path | None, _option("--output", "-o", text="Picture to write (default: PICTURE-CLASS.png)", meta="FILE")
]
FolderOut = Annotated[Path, _option("--output", "-o", text="Folder to write to (default: demo-output)", meta="FOLDER")]

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
    _option("--bias", text="What biases and gates add to the logit, as an output", meta="share", panel=_PROGRAM),
]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `debug` is read by `PlainErrors`."""


@app.command("compile")
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
) -> None:
    """Compile a model: one file with its logits, its pullback and the ledger of both."""
    from fxpullback.export.cli import compile as work

    when = None if clip_when is None else clip_when.value
    chosen = work.program_of(program.value, alpha=alpha, steps=steps, clip=clip, clip_when=when, eps=eps)
    under = None if noise is None else noise.value
    chosen_rules = work.rules_of(rules.value, temperature or [], keep_exact or [], under)
    chosen_rules, folder = work.calibration_of(rules.value, chosen_rules, calibrate, spread)
    job = work.Job(
        spec=model,
        output=output or work.default_output(model),
        program=chosen,
        rules=chosen_rules,
        target=target.value,
        precision=precision.value,
        calibrate=folder,
        free_size=free_size,
        without=tuple(without or ()),
        taps=work.taps_of(tap or []),
        each_tap=each_tap,
        bias=bias,
        source=work.source_of(weights, pretrained, size, input_shape, model_option or [], classes, mean, std, example),
    )
    with Stages() as stages:
        report = work.run(job, stages)
    out().print(report, markup=False)


@app.command()
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
