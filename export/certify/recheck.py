"""`fxpullback verify`: the certificate of a file, made again from the file alone."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch

from fxpullback.certify.fresh import Looks
from fxpullback.contract import metadata as md
from fxpullback.contract.certificate import Certificate, Check, at_most
from fxpullback.contract.errors import VerifyError
from fxpullback.export.certify.file import BATCHES, HALF, file_checks, runtime_checks
from fxpullback.export.certify.half import half_checks
from fxpullback.export.certify.oracle import Oracle
from fxpullback.export.onnx.digest import weights_sha256
from fxpullback.export.runtime.package import Package
from fxpullback.export.runtime.session import Session
from fxpullback.graph.modes import plain_mode
from fxpullback.graph.text import from_text
from fxpullback.taps.contribution import Taps
from fxpullback.target import Target
from fxpullback.unroll import NO_TAPS, Ascent, Double, Program, Soft


@plain_mode()
def recheck(path: str | os.PathLike[str], seed: int = 1) -> Certificate:
    """Check a file again, from the file alone, on inputs drawn with another seed.

    Args:
        path: a file that `to_onnx` wrote.
        seed: seed of the fresh inputs.

    Returns:
        The new certificate. For a file in half precision it compares with float64 at the weights that the file holds.

    Raises:
        SessionError: the file cannot be loaded.
        VerifyError: the file does not carry what the check needs.
    """
    session = Session(path)
    if session.runtime == Package.runtime:
        raise VerifyError(
            f"{path} is machine code, and its weights are in it: there is nothing to check it against. It was "
            "certified as it was written. In Python, fxpullback.export.certify.file.certify(pb, path) checks it again."
        )
    carried = json.loads(_carried(session, path))
    weights = {name: torch.from_numpy(array.copy()) for name, array in _initializers(path).items()}
    weights |= {ours: weights[theirs] for ours, theirs in carried.get("names", {}).items() if theirs in weights}
    injected = from_text(carried["graph"], weights)
    target: Target = session.target  # type: ignore[assignment]
    program, looks = program_of(session.metadata.program), Looks.from_dict(carried, weights)
    taps = Taps.from_dict(carried["contributions"]) if "contributions" in carried else NO_TAPS
    check = runtime_checks if session.metadata.precision_name == "fp32" else half_checks
    ran = check(session, Oracle(injected, program, target, looks, taps), seed)
    checks = (*file_checks(path), _weights_check(path, session), *ran)
    environment = {"torch": torch.__version__, "onnxruntime": ort.__version__, "seed": seed, "batches": list(BATCHES)}
    return Certificate(checks, {**environment, "providers": list(session.providers)})


def _carried(session: Session, path: str | os.PathLike[str]) -> str:
    text = session.metadata.raw.get(md.ORACLE)
    if text is None:
        raise VerifyError(
            f"{path} does not carry the injected form of its model, so there is nothing to check it against. "
            "Write it anew with fxpullback.export.to_onnx, or call verify() on the compiled model."
        )
    return text


def _initializers(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The weights of a file by name, half precision as float32."""
    model = ir.load(path)
    held = {n: v.const_value.numpy() for n, v in model.graph.initializers.items() if v.const_value is not None}
    return {n: array.astype(np.float32) if array.dtype.name in HALF else array for n, array in held.items()}


def program_of(described: Mapping[str, Any]) -> Program:
    """The program that a file's metadata describes."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in described.items() if k != "name"}
    return {"soft": Soft, "double": Double, "ascent": Ascent}[described["name"]](**options)  # type: ignore[no-any-return]


def _weights_check(path: str | os.PathLike[str], session: Session) -> Check:
    found, wanted = weights_sha256(ir.load(path)), session.metadata.weights_sha256
    detail = "" if found == wanted else f"the file's weights have sha256 {found}, its metadata says {wanted}"
    return at_most("file: sha256 of the weights", float(found != wanted), 0.0, detail)
