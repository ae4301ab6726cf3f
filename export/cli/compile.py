"""`fxpullback compile`: options to a model, rules and a program; then the compiler, stage by stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import typer

import fxpullback
from fxpullback import EXACT, REFERENCE, SEMANTIC, Ascent, Double, Soft
from fxpullback.contract import metadata as md
from fxpullback.contract.calibrated import calibrated_text
from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.cli.inspect import precision_text
from fxpullback.export.cli.terminal import check_output, options_of, pairs, say, spoken_warnings
from fxpullback.export.onnx.write import to_onnx
from fxpullback.export.pictures.load import SUFFIXES, load_picture
from fxpullback.export.runtime.aoti import to_aoti
from fxpullback.export.runtime.package import SUFFIX, read
from fxpullback.export.zoo.models import LoadedModel, load_model

RULES = {"semantic": SEMANTIC, "reference": REFERENCE, "exact": EXACT}
MAX_CALIBRATION = 64


@dataclass(frozen=True)
class Job:
    """One compilation, with its options checked.

    Attributes:
        spec: The model, as the user named it.
        output: ONNX file to write; or, by its suffix .pt2, a package of AOTInductor.
        program: Soft, Double or Ascent.
        rules: The rule set; one with a spread is calibrated, on noise where `calibrate` names no folder.
        target: `index`, `top1`, `cotangent` or `contrast`.
        precision: `fp32`, `fp16` or `bf16`.
        calibrate: Folder of pictures to calibrate temperatures on, or None.
        free_size: Whether the size behind the channels stays free.
        without: Rewrites of the lowering that are left out.
        source: Keyword arguments of `load_model`.
        taps: Where contributions are read off, as `fxpullback.compile` takes it.
        each_tap: Whether each tap's own map is an output besides.
        bias: `share` for the parts of the logit as an output, or `pushed`, as `fxpullback.compile` takes it.
    """

    spec: str
    output: Path
    program: Any
    rules: Any
    target: str
    precision: str
    calibrate: Path | None
    free_size: bool
    without: tuple[str, ...]
    source: dict[str, Any]
    taps: str | tuple[str, ...] | None = None
    each_tap: bool = False
    bias: str | None = None


def run(job: Job, stage: Callable[[str], None]) -> str:
    """Compile and write. Returns what to tell the user.

    Raises:
        FxPullbackError: Whatever went wrong; nothing is left at `job.output` that was not there before.
    """
    check_output(job.output)
    if is_aoti(job.output) and Path(job.spec).is_file() and job.output.resolve() == Path(job.spec).resolve():
        raise ModelSourceError(f"{job.output}: this is the model itself; name another file with -o.")
    if is_aoti(job.output) and job.precision != "fp32":
        raise typer.BadParameter(f"{SUFFIX} files are fp32; half precision is for ONNX.", param_hint="--precision")
    stage("load model")
    loaded = load_model(job.spec, **job.source)
    for note in loaded.notes:
        say("note", note)
    note_step_length(job.program, loaded)
    rules = job.rules
    if job.calibrate is not None:
        stage("calibrate")
        if loaded.extras:
            raise ModelSourceError(
                f"{loaded.name}: --calibrate has pictures alone, and the model takes {1 + len(loaded.extras)} inputs. "
                "Calibrate in Python, fxpullback.calibrate(model, [(x, extra)]), or leave --calibrate out."
            )
        pictures = calibration_pictures(job.calibrate, loaded)
        rules = fxpullback.calibrate(loaded.model, pictures, rules=rules, spread=rules.spread)
    with spoken_warnings("note"):
        pb = fxpullback.compile(
            loaded.model,
            (loaded.example, *loaded.extras),
            rules=rules,
            program=job.program,
            target=job.target,
            free_size=job.free_size,
            without=job.without,
            taps=job.taps,
            each_tap=job.each_tap,
            bias=job.bias,
            progress=stage,
        )
    for axis in pb.free:
        say("note", str(axis))
    if pb.rules.calibrated_on.get("kind") == "none":
        say("note", f"temperatures {calibrated_text(pb.rules.calibrated_on)}")
    if pb.contributions is not None:
        say("note", f"contribution: {pb.contributions}")
    stage("export, certify")
    preprocessing = None if loaded.preprocessing is None else loaded.preprocessing.to_json()
    texts = _written(job, pb, classes=loaded.classes, preprocessing=preprocessing)
    meta = md.parse(texts)
    if job.precision != "fp32":
        say("note", precision_text(meta.precision))
    if job.precision == "bf16":
        say(
            "note", "certified in torch: ONNX Runtime has no bfloat16 arithmetic on the CPU, and runs the file on a GPU"
        )
    certificate = meta.certificate
    checks = f", certificate passed with {len(certificate['checks'])} checks" if certificate else ", no certificate"
    return f"{job.output}: {size_text(job.output)}, {pb.ledger.sum()}{checks}"


def _written(job: Job, pb: fxpullback.Pullback, **about: Any) -> dict[str, str]:
    """Write the file; returns its metadata."""
    if is_aoti(job.output):
        to_aoti(pb, job.output, **about)
        return read(job.output)
    to_onnx(pb, job.output, precision=job.precision, **about)
    return {prop.key: prop.value for prop in onnx.load(job.output, load_external_data=False).metadata_props}


def is_aoti(output: Path) -> bool:
    """Whether a file is to hold machine code, and not ONNX."""
    return output.suffix == SUFFIX


def note_step_length(program: Any, loaded: LoadedModel) -> None:
    """Say so when a default step, a length in pixel space for 224x224, meets an input of another size."""
    alpha, side = getattr(program, "alpha", None), max(loaded.example.shape[1:])
    if alpha is None or alpha != type(program)().alpha:
        return
    if loaded.preprocessing is None:
        say("note", f"a step of {alpha:g} is meant for pictures of 224x224 pixels; choose --alpha for this input")
    elif side != 224:
        say(
            "note",
            f"a step of {alpha:g} is meant for 224x224 pixels; for {side} the like is --alpha {alpha * side / 224:.2g}",
        )


def calibration_pictures(folder: Path, loaded: LoadedModel) -> torch.Tensor:
    """The pictures of a folder, at most 64 of them, evenly taken from the sorted names.

    Returns:
        float32 [n, channels, height, width] in [-1, 1].

    Raises:
        ModelSourceError: No folder, no pictures in it, or a picture that cannot be read.
    """
    if loaded.preprocessing is None:
        raise ModelSourceError(f"{loaded.name}: --calibrate needs a model that takes pictures of 1 or 3 channels.")
    if not folder.is_dir():
        raise ModelSourceError(f"{folder}: there is no such folder of pictures to calibrate on.")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ModelSourceError(f"{folder}: no pictures to calibrate on in there (looked for {', '.join(SUFFIXES)}).")
    if len(files) > MAX_CALIBRATION:
        say("note", f"calibrating on {MAX_CALIBRATION} of {len(files)} pictures")
        files = [files[round(index)] for index in np.linspace(0, len(files) - 1, MAX_CALIBRATION)]
    pictures = [load_picture(path, loaded.preprocessing) for path in files]
    return torch.from_numpy(np.concatenate(pictures))


def default_output(spec: str) -> Path:
    """`resnet50.onnx` for `timm:resnet50`, in the working directory."""
    name = Path(spec).stem if spec.endswith(".pt2") else spec.rpartition(":")[2]
    return Path(f"{name.replace('/', '_') or 'model'}.onnx")


def program_of(
    name: str, *, alpha: float | None, steps: int | None, clip: bool | None, clip_when: str | None, eps: float | None
) -> Any:
    """The program with its options.

    Raises:
        typer.BadParameter: An option that this program does not have.
    """
    given = {"alpha": alpha, "steps": steps, "clip": clip, "clip-when": clip_when, "eps": eps}
    takes = {"soft": (), "double": ("alpha",), "ascent": tuple(given)}[name]
    for option, value in given.items():
        if value is not None and option not in takes:
            raise typer.BadParameter(f"the program {name} has none.", param_hint=f"--{option}")
    if clip is False and clip_when not in (None, "never"):
        raise typer.BadParameter("contradicts --no-clip.", param_hint="--clip-when")
    if name == "soft":
        return Soft()
    if name == "double":
        return Double() if alpha is None else Double(alpha=alpha)
    options: dict[str, Any] = {"alpha": alpha, "steps": steps, "eps": eps, "clip_when": clip_when}
    if clip is False or clip_when == "never":
        options |= {"clip_when": None}
        return Ascent(clip=None, **{key: value for key, value in options.items() if value is not None})
    return Ascent(**{key: value for key, value in options.items() if value is not None})


def rules_of(name: str, temperatures: list[str], keep_exact: list[str], noise: str | None) -> Any:
    """The rule set with temperatures, exceptions and noise.

    Raises:
        RuleError: A name that the rule set does not know, a temperature that is none, or noise that it does not take.
    """
    rules: Any = RULES[name]
    values = {}
    for key, text in pairs(temperatures, "--temperature").items():
        try:
            values[key] = float(text)
        except ValueError:
            raise typer.BadParameter(f"{key}={text}: a number is wanted.", param_hint="--temperature") from None
    if values:
        rules = rules.with_temperature(**values)
    if noise is not None:
        rules = rules.with_noise(noise)
    return rules.keep_exact(*keep_exact) if keep_exact else rules


def calibration_of(name: str, rules: Any, calibrate: str | None, spread: float | None) -> tuple[Any, Path | None]:
    """The rule set as it is to be calibrated, and the folder of pictures, None for noise or for no calibration.

    Args:
        name: Name of the rule set; `semantic` alone is calibrated.
        rules: The rule set.
        calibrate: `noise`, `none` or a folder; None for noise, or for none where the rules are not `semantic`.
        spread: Temperature over the standard deviation of a gate's input; None for 0.9.

    Raises:
        typer.BadParameter: Calibration of rules that have the temperatures of the paper, or a spread without any.
    """
    if name != "semantic" and calibrate not in (None, "none"):
        raise typer.BadParameter(
            f"the rules {name} keep the temperatures of the paper; leave --calibrate out, or choose --rules semantic.",
            param_hint="--calibrate",
        )
    how = calibrate or ("noise" if name == "semantic" else "none")
    if how == "none":
        if spread is not None:
            raise typer.BadParameter("has no meaning without calibration; leave it out.", param_hint="--spread")
        return rules, None
    if spread is not None and not 0 < spread < float("inf"):
        raise typer.BadParameter("a positive number is wanted.", param_hint="--spread")
    return rules.with_spread(*() if spread is None else (spread,)), None if how == "noise" else Path(how)


def taps_of(given: list[str]) -> str | tuple[str, ...] | None:
    """What `compile` takes as taps.

    Raises:
        typer.BadParameter: A word that stands alone, among others.
    """
    if given in ([], ["auto"]):
        return "auto"
    if given == ["none"]:
        return None
    if alone := [word for word in given if word in ("auto", "none")]:
        raise typer.BadParameter(f"{alone[0]} stands alone; name modules, or leave them out.", param_hint="--tap")
    return tuple(given)


def source_of(
    weights: Path | None,
    pretrained: bool,
    size: str | None,
    input_shape: str | None,
    options: list[str],
    classes: Path | None,
    mean: str | None,
    std: str | None,
    example: Path | None,
) -> dict[str, Any]:
    """Keyword arguments of `load_model`."""
    return {
        "weights": weights,
        "pretrained": pretrained,
        "size": None if size is None else _size(size),
        "input_shape": None if input_shape is None else _sample(input_shape),
        "options": options_of(options),
        "classes": classes,
        "mean": None if mean is None else _numbers(mean, "--mean"),
        "std": None if std is None else _numbers(std, "--std"),
        "example": example,
    }


def size_text(path: Path) -> str:
    """Size on disk of a file, with its external data beside it."""
    beside = [path.with_name(path.name + suffix) for suffix in (".data", "_data")]
    extra = sum(file.stat().st_size for file in beside if file.is_file())
    total = path.stat().st_size + extra
    text = f"{total / 2**20:.1f} MiB" if total >= 2**20 else f"{total / 2**10:.1f} KiB"
    return f"{text} with the weights beside it" if extra else text


def _size(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: SIDE, HxW or CxHxW is wanted.", param_hint="--size") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _sample(text: str) -> tuple[int, ...]:
    """The shape of one sample, `2,16000`."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r}: whole numbers with commas between are wanted, such as 2,16000.", param_hint="--input-shape"
        ) from None


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: numbers with commas between are wanted.", param_hint=option) from None
