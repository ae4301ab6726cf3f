"""`fxpullback compile`: options to a model, rules and a program; then the compiler, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import typer

import fxpullback
from fxpullback.contract import metadata as md
from fxpullback.contract.calibrated import calibrated_text
from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.cli.inspect import precision_text
from fxpullback.export.cli.terminal import check_output, say, spoken_warnings
from fxpullback.export.insert.write import write_beside
from fxpullback.export.onnx.write import to_onnx
from fxpullback.export.pictures.load import SUFFIXES, load_picture
from fxpullback.export.runtime.aoti import to_aoti
from fxpullback.export.runtime.package import SUFFIX, read
from fxpullback.export.zoo.arrays import input_names
from fxpullback.export.zoo.models import LoadedModel, load_model

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
        returns: What the file returns besides: `taps`, `each_tap` and `bias`, as `fxpullback.compile` takes them.
        explains: What is explained: `output`, `positions` and `explain`, likewise.
        beside: Whether the pullback is put beside the nodes of an ONNX file.
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
    returns: dict[str, Any] = field(default_factory=dict)
    explains: dict[str, Any] = field(default_factory=dict)
    beside: bool = False


def run(job: Job, stage: Callable[[str], None]) -> str:
    """Compile and write. Returns what to tell the user.

    Raises:
        FxPullbackError: Whatever went wrong; nothing is left at `job.output` that was not there before.
    """
    check_output(job.output)
    if Path(job.spec).is_file() and job.output.resolve() == Path(job.spec).resolve():
        raise ModelSourceError(f"{job.output}: this is the model itself; name another file with -o.")
    if is_aoti(job.output) and job.precision != "fp32":
        raise typer.BadParameter(f"{SUFFIX} files are fp32; half precision is for ONNX.", param_hint="--precision")
    stage("load model")
    loaded = load_model(job.spec, **job.source, beside=job.beside)
    if loaded.text is not None and getattr(job.program, "clip", None) is not None:
        raise typer.BadParameter(
            "it keeps pixels in [-1, 1], and embeddings have no range: pass --no-clip.", param_hint="--clip"
        )
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
        pb = compiled(job, loaded, rules, stage)
    for axis in pb.free:
        say("note", str(axis))
    if pb.rules.calibrated_on.get("kind") == "none":
        say("note", f"temperatures {calibrated_text(pb.rules.calibrated_on)}")
    if pb.contributions is not None:
        say("note", f"contribution: {pb.contributions}")
    stage("export, certify")
    preprocessing = loaded.sound if loaded.preprocessing is None else loaded.preprocessing.to_json()
    texts = _written(job, pb, classes=loaded.classes, preprocessing=preprocessing, text=loaded.text)
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


def compiled(job: Job, loaded: LoadedModel, rules: Any, stage: Callable[[str], None]) -> fxpullback.Pullback:
    """The model, compiled: at its input, or at the embeddings of the tokens it takes."""
    examples: Any = (loaded.example, *loaded.extras)
    free: bool | tuple[int, ...] = job.free_size
    explains = asked_or_given(job.explains, loaded.explains)
    if explains.get("explain"):
        examples = _named(job.spec, loaded, examples, explains["explain"])
    elif loaded.text is not None:
        examples = dict(zip(loaded.names, examples, strict=True))
        free = (1,) if loaded.is_free else False
        explains |= {"at": "embeddings"}
    return fxpullback.compile(
        loaded.model,
        examples,
        rules=rules,
        program=job.program,
        target=job.target,
        free_size=free,
        without=job.without,
        progress=stage,
        **job.returns,
        **explains,
    )


def _named(
    spec: str, loaded: LoadedModel, examples: Sequence[torch.Tensor], explain: Sequence[str]
) -> dict[str, torch.Tensor]:
    """The examples by name, where several inputs are explained.

    Raises:
        ModelSourceError: The model takes one input, or none of a name.
    """
    if given := loaded.explains.get("explain"):
        if sorted(explain) != sorted(given):
            raise ModelSourceError(
                f"{spec}: {' and '.join(given)} are explained together, as the folder has what makes each an input. "
                "Leave --explain out."
            )
        explain = given
    names = loaded.names or tuple(input_names(loaded.model))[: len(examples)]
    if len(examples) < 2:
        raise ModelSourceError(
            f"{spec}: --explain names one or several of the inputs of a model, and there is an example of one. Pass "
            "examples of all of them with --example FILE, or leave --explain out."
        )
    if missing := [name for name in explain if name not in names]:
        raise ModelSourceError(f"{spec}: --explain {missing[0]}: the model takes {', '.join(names)}.")
    return dict(zip(names, examples, strict=True))


def asked_or_given(asked: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is explained, and which logits: those that are asked for, else those that the model calls so."""
    if asked.get("output") not in (None, given.get("output")):
        given = {name: value for name, value in given.items() if name in ("explain", "at")}
    found = {**given, **{name: value for name, value in asked.items() if value is not None}}
    if "positions" in given and asked.get("positions") is None:
        say("note", "the model has logits at every token; the file takes positions, which says of which token")
    return found


def _written(job: Job, pb: fxpullback.Pullback, **about: Any) -> dict[str, str]:
    """Write the file; returns its metadata."""
    if job.beside:
        write_beside(pb, job.output, classes=about["classes"], preprocessing=about["preprocessing"])
    elif is_aoti(job.output):
        to_aoti(pb, job.output, **about)
        return read(job.output)
    else:
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
    if loaded.text is not None:
        say("note", f"a step of {alpha:g} is meant for pixels; choose --alpha for embeddings")
    elif loaded.preprocessing is None:
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
    """`resnet50.onnx` for `timm:resnet50`, `net-explained.onnx` for `net.onnx`, in the working directory."""
    if spec.endswith(".onnx"):
        return Path(f"{Path(spec).stem}-explained.onnx")
    name = Path(spec).stem if spec.endswith(".pt2") else spec.rpartition(":")[2]
    return Path(f"{name.replace('/', '_') or 'model'}.onnx")


def size_text(path: Path) -> str:
    """Size on disk of a file, with its external data beside it."""
    beside = [path.with_name(path.name + suffix) for suffix in (".data", "_data")]
    extra = sum(file.stat().st_size for file in beside if file.is_file())
    total = path.stat().st_size + extra
    text = f"{total / 2**20:.1f} MiB" if total >= 2**20 else f"{total / 2**10:.1f} KiB"
    return f"{text} with the weights beside it" if extra else text
