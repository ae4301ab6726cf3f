"""What a file that is imported says of itself, so that what is made of it names where it comes from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto

from fxpullback.importer.read import tensors_of

PIECE = 1 << 20


def origin(path: Path) -> dict[str, Any]:
    """Name, digest, producer and operator versions of a file.

    Returns:
        `file`, its name; `sha256`, of its bytes; `producer`, what it says wrote it, with the version; `opset`, the
        version of its operators by domain; where it keeps weights in other files, `data`: their digests by name.
    """
    model = onnx.load_model(str(path), load_external_data=False)
    made: dict[str, Any] = {
        "file": path.name,
        "sha256": digest(path),
        "producer": f"{model.producer_name} {model.producer_version}".strip(),
        "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
    }
    beside = sorted(name for name in locations(model) if (path.parent / name).is_file())
    return {**made, "data": {name: digest(path.parent / name) for name in beside}} if beside else made


def digest(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    made = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            made.update(piece)
    return made.hexdigest()


def locations(model: ModelProto) -> set[str]:
    """The files beside a model that hold tensors of it."""
    tensors = tensors_of(model.graph)
    return {entry.value for tensor in tensors for entry in tensor.external_data if entry.key == "location"}
