"""What a file says about itself, also where ONNX Runtime cannot load it: bfloat16 has no kernels on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from fxpullback.contract import metadata as md
from fxpullback.contract.beside import Beside
from fxpullback.contract.errors import SessionError
from fxpullback.export.runtime.onnx_file import computes_in_bfloat16
from fxpullback.export.runtime.package import is_package, on_cpu, read
from fxpullback.export.runtime.session import Session


@dataclass(frozen=True)
class Described:
    """A file that was read and not loaded; what is shown of it has the names that a session has."""

    path: Path
    metadata: md.Metadata
    class_count: int

    @classmethod
    def read(cls, file: Path) -> Described:
        """Of an ONNX file."""
        model = onnx.load(file, load_external_data=False)
        texts = {prop.key: prop.value for prop in model.metadata_props}
        beside = md.beside_of(texts)
        name = "logits" if beside is None else beside.outputs["logits"]
        (logits,) = (value for value in model.graph.output if value.name == name)
        classes = logits.type.tensor_type.shape.dim[-1].dim_value
        return cls(file, md.parse(texts), classes)

    @property
    def extras(self) -> Sequence[str]:
        """Names of the inputs that are passed through."""
        return self.metadata.extras

    @property
    def ledger(self) -> dict[str, Any]:
        """What happened to every operator."""
        return self.metadata.ledger

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What was verified at export."""
        return self.metadata.certificate

    @property
    def classes(self) -> list[str] | None:
        """Class names."""
        return self.metadata.classes


def opened(file: Path) -> Session | Described:
    """A session on the CPU; for a file in bfloat16, which the CPU cannot run, what it says about itself.

    Raises:
        SessionError: not a file of fxpullback, or it cannot be loaded.
    """
    try:
        return Session(file, providers=on_cpu(file))
    except SessionError:
        if not file.is_file() or is_package(file) or not computes_in_bfloat16(file):
            raise
        return Described.read(file)


def explains_several(file: Path) -> bool:
    """Whether a file explains several inputs together; False for what is no file of fxpullback."""
    try:
        held = md.parse(read(file)) if is_package(file) else Described.read(file).metadata
    except Exception:  # whoever loads it says what is wrong with it
        return False
    return bool(held.also)


def told_inputs(metadata: md.Metadata) -> list[tuple[str, str]]:
    """Which inputs are explained together, and which are passed through, in words."""
    through = [name for name in metadata.extras if name not in metadata.also]
    together = [metadata.explained, *metadata.also] if metadata.also else []
    rows = [("explained together", together), ("passed through", through)]
    return [(title, ", ".join(names)) for title, names in rows if names]


def origin_text(origin: Mapping[str, Any]) -> str:
    """`model.onnx, written by pytorch 2.9.0, opset ai.onnx 18, sha256 9f86d0...`, and the digests of its data."""
    opset = ", ".join(f"{domain} {version}" for domain, version in dict(origin.get("opset") or {}).items())
    producer = origin.get("producer") or "what it does not say"
    data = [f"{name} sha256 {text}" for name, text in dict(origin.get("data") or {}).items()]
    parts = [f"written by {producer}", f"opset {opset}", f"sha256 {origin.get('sha256')}", *data]
    return ", ".join([str(origin.get("file")), *parts])


def beside_rows(beside: Beside | None, nodes: int) -> list[tuple[str, str]]:
    """Beside whose nodes a pullback stands, in words; `nodes` is how many the file has."""
    if beside is None:
        return []
    own, more = beside.nodes, nodes - beside.nodes
    return [("beside", f"that file: its {own} nodes as they were, {more} added")]
