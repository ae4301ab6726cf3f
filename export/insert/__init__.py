"""A pullback beside an ONNX file's own nodes, for those whose deployed forward must not change."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fxpullback
from fxpullback.export.insert.write import write_beside
from fxpullback.importer.load import load

__all__ = ["insert", "write_beside"]


def insert(
    path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    example_inputs: Any = None,
    *,
    logits: str | int | None = None,
    first: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | str | None = None,
    certify: bool = True,
    **options: Any,
) -> Path:
    """Put the pullback of an ONNX file beside its nodes: further nodes, inputs and outputs; all that was there stays.

    The nodes and initialisers of the file are taken over byte for byte, and what it returns is the same bit for bit in
    the same runtime. The pullback reads the file's values and weights where they are.

    Args:
        path: the file.
        output: the file to write.
        example_inputs: an example of each input; by default made of what the file says.
        logits: which output, or value inside, is explained, where there are several.
        first: the input that is explained, where it is not the file's first.
        classes: class names in the order of the logits.
        preprocessing: how a picture becomes an input; a mapping, or JSON text.
        certify: run the file in ONNX Runtime on fresh inputs and keep the outcome in it.
        options: of `fxpullback.compile`: rules, program, target and the like.

    Returns:
        The path of the file.

    Raises:
        CaptureError: the file cannot be read, or holds what is not imported.
        ExportError: the new file cannot be written, or the outputs of the old one would not stay as they are.
        VerifyError: the certificate did not pass; nothing is written.
    """
    module = load(Path(path), logits, first)
    module.beside = True
    pb = fxpullback.compile(module, example_inputs, output=logits, **options)
    return write_beside(pb, output, classes=classes, preprocessing=preprocessing, certify=certify)
