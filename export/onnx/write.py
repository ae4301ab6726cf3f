"""A compiled pullback as an ONNX file with its metadata, written whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch

from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ExportError
from fxpullback.contract.names import INPUT
from fxpullback.contract.text import Text
from fxpullback.export.certify.file import certify as certify_file
from fxpullback.export.certify.file import demand, oracle_text
from fxpullback.export.certify.half import advice, certify_half
from fxpullback.export.onnx.digest import weights_sha256
from fxpullback.export.onnx.translate import OPSET, Translations, translate
from fxpullback.export.onnx.translate.own import checked
from fxpullback.graph.collection import seldom_collected
from fxpullback.graph.modes import plain_mode
from fxpullback.half.autocast import HalfPrecision, check_precision, in_half_precision
from fxpullback.unroll import describe

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled
    from fxpullback.contract.certificate import Certificate

log = logging.getLogger(__name__)

BFLOAT16_OPSET = 22
"""The first opset whose convolutions and pools take bfloat16."""

EXTERNAL_ABOVE = 2_000_000_000
"""Bytes of weights above which they go to a file of their own: one ONNX file holds no more than 2 GiB."""


@plain_mode()
def to_onnx(
    pb: Compiled,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | str | None = None,
    text: Text | None = None,
    precision: str = "fp32",
    cotangent_scale: float | None = None,
    certify: bool = True,
    external_above: int = EXTERNAL_ABOVE,
    translations: Translations | None = None,
) -> Path:
    """Write a compiled pullback as an ONNX file.

    Args:
        pb: What `fxpullback.compile` returned.
        path: The file. Weights above `external_above` bytes go to `<path>.data` beside it.
        classes: Class names in the order of the logits.
        preprocessing: How a picture becomes an input; a mapping, or JSON text.
        text: How a text becomes an input: the tokenizer of a file that takes tokens.
        precision: `fp32`, or `fp16` or `bf16` for weights and activations of half the size; inputs and outputs stay
            float32. See `fxpullback.half`.
        cotangent_scale: For half precision, what cotangents are scaled by; measured by default.
        certify: Run the file in ONNX Runtime on fresh inputs and keep the outcome in it.
        external_above: Bytes of weights above which they go to a file of their own.
        translations: Functions that translate operators which have no translation, such as your own, by overload:
            `{torch.ops.mylib.scale.default: function}`; one for an operator that has a translation is taken instead
            of it. What they get and return is said in `fxpullback.export.onnx.translate.own`.

    Returns:
        The path of the file.

    Raises:
        VerifyError: The certificate did not pass; nothing is written.
        ProgramError: A precision that there is not.
        ExportError: The folder cannot be written to, the class names do not fit, an operator has no translation, or
            one passed in is none or returns something wrong. What was at `path` before is still there.
    """
    translations = checked(translations)
    if pb.example.dtype != torch.float32:
        raise ExportError(
            f"the model was compiled in {pb.example.dtype}; files are float32, since ONNX Runtime has no float64 "
            "convolution. Compile model.float() with a float32 example."
        )
    half = None if check_precision(precision) == "fp32" else in_half_precision(pb, precision, cotangent_scale)
    if half is not None:
        log.info("%s", half)
    return write(
        pb.graph if half is None else half.graph,
        path,
        lambda: described(pb, classes, preprocessing, half, text),
        oracle=lambda model: oracle_text(pb, model),
        certificate=(lambda file: certificate(pb, file, half)) if certify else None,
        external_above=external_above,
        translations=translations,
    )


@seldom_collected()
def write(
    graph: torch.fx.GraphModule,
    path: str | os.PathLike[str],
    metadata: Callable[[], Mapping[str, str]],
    *,
    oracle: Callable[[ir.Model], str | None] | None = None,
    certificate: Callable[[Path], Mapping[str, Any] | None] | None = None,
    external_above: int = EXTERNAL_ABOVE,
    translations: Translations | None = None,
) -> Path:
    """Translate a lowered graph and write it with `metadata()`; `to_onnx` without a `Pullback`."""
    target = writable(path)
    texts = metadata()
    model = translate(graph, BFLOAT16_OPSET if _holds_bfloat16(graph) else OPSET, translations)
    model.metadata_props.update(texts)
    model.metadata_props[md.WEIGHTS_SHA256] = weights_sha256(model)
    carried = oracle(model) if oracle is not None else None
    if carried is not None:
        model.metadata_props[md.ORACLE] = carried
    model.metadata_props[f"{md.PREFIX}output_names"] = json.dumps([value.name for value in model.graph.outputs])
    with drafted(target) as draft:
        files = _save(model, draft, external_above)
        if certificate is not None:
            outcome = certificate(draft)
            if outcome is not None:
                model.metadata_props[md.CERTIFICATE] = json.dumps(outcome)
                files = _save(model, draft, external_above)
        for file in files:
            os.replace(file, target.parent / file.name)
    return target


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """Where a file is made before it is moved to its place: in a folder beside that, which is gone in the end.

    Raises:
        ExportError: the folder cannot be made, or something cannot be written; what was at `target` is still there.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise refused(target, error) from error
    try:
        yield folder / target.name
    except OSError as error:
        raise refused(target, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def certificate(pb: Compiled, file: Path, half: HalfPrecision | None = None) -> Mapping[str, Any]:
    """The certificate that goes into the file, made of the finished file under a temporary name.

    Raises:
        VerifyError: a check failed; the file is not written.
    """
    if half is None:
        made = certify_file(pb, file)
        demand(made, file)
    else:
        made = certify_half(pb, half, file)
        demand(made, file, advice(half.precision) if _is_of_type(made, half.precision) else "")
    return made.to_dict()


def _is_of_type(made: Certificate, precision: str) -> bool:
    """Whether nothing failed but what the half-precision type is responsible for."""
    return all(check.passed or check.name.startswith(precision) for check in made.checks)


def _holds_bfloat16(graph: torch.fx.GraphModule) -> bool:
    return any(getattr(n.meta.get("val"), "dtype", None) is torch.bfloat16 for n in graph.graph.nodes)


def described(
    pb: Compiled,
    classes: Sequence[str] | None,
    preprocessing: Mapping[str, object] | str | None,
    half: HalfPrecision | None = None,
    text: Text | None = None,
) -> dict[str, str]:
    """The metadata of a compiled pullback, as texts."""
    if classes is not None and len(classes) != pb.classes:
        raise ExportError(f"{len(classes)} class names for a model of {pb.classes} classes. Pass one for each logit.")
    texts = {
        md.VERSION: version("fxpullback"),
        md.RULES: json.dumps(pb.rules.describe()),
        md.PROGRAM: json.dumps(describe(pb.program)),
        md.TARGET: pb.target,
        md.LEDGER: pb.ledger.to_json(),
        md.REWRITES: json.dumps(pb.rewrites),
        md.INPUTS: json.dumps(_inputs(pb)),
    }
    if pb.original is not None and pb.original.origin:
        texts[md.ORIGIN] = json.dumps(dict(pb.original.origin))
    if half is not None:
        texts[md.PRECISION] = json.dumps(half.describe())
    if pb.contributions is not None:
        texts[md.CONTRIBUTIONS] = json.dumps(pb.contributions.to_dict())
    if pb.parts is not None:
        texts[md.PARTS] = json.dumps(pb.parts.to_dict())
    if pb.free:
        texts[md.SIZES] = json.dumps([asdict(axis) for axis in pb.free])
    if classes is not None:
        texts[md.CLASSES] = json.dumps(list(classes))
    if preprocessing is not None:
        texts[md.PREPROCESSING] = preprocessing if isinstance(preprocessing, str) else json.dumps(dict(preprocessing))
    if text is not None:
        texts[md.TEXT] = json.dumps(text.to_dict())
    return texts


def _inputs(pb: Compiled) -> dict[str, Any]:
    """The inputs of a file, beside the target."""
    named = {"explained": INPUT, "extras": [extra.name for extra in pb.passed], **pb.ends.to_dict()}
    if pb.entry is None:
        return named
    first, *others = pb.entry.parts
    also = {part.name: part.vocabulary for part in others}
    return {**named, "explained": first.name, "vocabulary": first.vocabulary, **({"also": also} if also else {})}


def writable(path: str | os.PathLike[str]) -> Path:
    """The absolute path of the file to write, once it is clear that it can be written."""
    target = Path(path).absolute()
    if not target.parent.is_dir():
        raise ExportError(f"{target}: there is no folder {target.parent}. Make it first.")
    if target.is_dir():
        raise ExportError(f"{target} is a folder. Give the name of a file, such as {target / 'model.onnx'}.")
    try:
        tempfile.TemporaryFile(dir=target.parent).close()
    except OSError as error:
        raise refused(target, error) from error
    return target


def refused(target: Path, error: OSError) -> ExportError:
    """What is said of a file that cannot be written."""
    return ExportError(
        f"{target} cannot be written: {error.strerror or error}. Nothing was changed; choose another path."
    )


def _save(model: ir.Model, path: Path, external_above: int) -> list[Path]:
    """Write the file, and its weights beside it where they are many. Returns what was written, weights first."""
    tensors: Iterable[ir.TensorProtocol | None] = (value.const_value for value in model.graph.initializers.values())
    if sum(tensor.nbytes for tensor in tensors if tensor is not None) <= external_above:
        ir.save(model, path)
        return [path]
    data = path.with_name(f"{path.name}.data")
    ir.save(model, path, external_data=data.name)
    return [data, path]
