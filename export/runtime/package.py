"""A package that AOTInductor compiled: its metadata is read without torch, the machine code in it runs in torch.

A package is a zip file whose entries lie in one folder; what fxpullback says of it is in `extra/fxpullback.json`.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fxpullback.contract import metadata as md
from fxpullback.contract.errors import SessionError
from fxpullback.contract.tensor_input import TensorInput

SUFFIX = ".pt2"
DESCRIPTION = "extra/fxpullback.json"
SIGNATURE = md.PREFIX + "signature"
DEVICE = md.PREFIX + "device"


class Package:
    """A package, loaded. Loading it runs the machine code in it: load those alone that you trust.

    Args:
        path: The file.
        providers: None, or the device the package was compiled for, such as `["cpu"]`.
        io_binding: None or False; bound buffers are for ONNX files.
        cuda_graph: False; likewise.

    Attributes:
        metadata: What fxpullback wrote into it, texts by key.
        inputs: Every input by name.
        outputs: The shape of every output by name; a dimension that is free is its name.
        providers: The device it runs on.

    Raises:
        SessionError: The file is damaged, was not written by `to_aoti`, or cannot be run here.
    """

    runtime = "AOTInductor"

    def __init__(
        self,
        path: Path,
        providers: Sequence[Any] | None = None,
        io_binding: bool | None = None,
        cuda_graph: bool | Collection[int] = False,
    ) -> None:
        self.metadata = read(path)
        self.inputs = inputs_of(self.metadata)
        outputs = json.loads(self.metadata[SIGNATURE])["outputs"]
        self.outputs: dict[str, tuple[int | str, ...]] = {name: tuple(shape) for name, shape in outputs.items()}
        self.device = self.metadata[DEVICE]
        self.providers: tuple[str, ...] = (self.device,)
        if io_binding or cuda_graph or (providers is not None and list(providers) != [self.device]):
            raise SessionError(
                f"{path}: a package runs where it was compiled for, which is {self.device}. Leave providers, "
                "io_binding and cuda_graph out; they are for ONNX files."
            )
        self._model = _load(path)

    def run(self, feed: Mapping[str, Any]) -> list[Any]:
        """From arguments by name to the outputs in order, numpy arrays."""
        import torch

        # Compiled for this layout; an array that may not be written to would be warned of.
        arrays = (np.require(feed[name], requirements=("C", "W")) for name in self.inputs)
        outputs = self._model(*(torch.from_numpy(array).to(self.device) for array in arrays))
        return [output.contiguous().cpu().numpy() for output in outputs]


def inputs_of(metadata: Mapping[str, str]) -> dict[str, TensorInput]:
    """Every input of a package by name."""
    described = json.loads(metadata[SIGNATURE])["inputs"]
    return {item["name"]: TensorInput(item["name"], item["dtype"], tuple(item["shape"])) for item in described}


def is_package(path: Path) -> bool:
    """Whether a file is a zip archive, which no ONNX file is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def is_compiled(path: Path) -> bool:
    """Whether `to_aoti` wrote a file."""
    try:
        return is_package(path) and bool(read(path))
    except SessionError:
        return False


def on_cpu(path: Path) -> list[str] | None:
    """Providers to look into a file with: the CPU for an ONNX file, and for a package what it was compiled for."""
    return None if is_package(path) else ["cpu"]


def read(path: Path) -> dict[str, str]:
    """The metadata of a package, of which nothing is run.

    Raises:
        SessionError: The file is damaged, or was not written by `to_aoti`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.partition("/")[2] == DESCRIPTION]
            texts = json.loads(archive.read(names[0])) if names else {}
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise SessionError(f"{path}: this is no whole package ({error}). Copy or compile it again.") from error
    if not names:
        raise SessionError(
            f"{path}: this {path.suffix or 'archive'} was not compiled by fxpullback. If it is an exported program, "
            f"compile it: fxpullback compile {path.name} -o FILE"
        )
    absent = [key for key in (SIGNATURE, DEVICE) if key not in texts]
    if absent:
        raise SessionError(f"{path}: the package lacks the metadata {', '.join(absent)}. Compile it again.")
    return dict(texts)


def _load(path: Path) -> Any:
    """What runs the package."""
    try:
        import torch._inductor
    except ImportError as error:
        raise SessionError(f"{path}: a package runs in torch, which is not installed ({error}).") from error
    from fxpullback.capture.quiet import quiet

    try:
        with quiet():
            return torch._inductor.aoti_load_package(os.fspath(path))
    except Exception as error:
        raise SessionError(
            f"{path}: torch cannot load the package: {' '.join(str(error).split())[:400]}. It runs on machines like "
            "the one it was compiled on, with the same version of torch; compile it again here."
        ) from error
