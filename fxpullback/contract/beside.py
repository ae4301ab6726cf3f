"""A pullback that was put beside a file's own nodes: what the file calls its inputs and outputs. Needs no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fxpullback.contract.tensor_input import TensorInput

Shape = tuple[int | str, ...]


@dataclass(frozen=True)
class Beside:
    """The file beside whose nodes a pullback stands; its name and digest are in the metadata's `origin`.

    Attributes:
        nodes: how many nodes are its own; they come first.
        nodes_sha256: digest of them, one after the other.
        inputs: what it calls the inputs of fxpullback, by what those are called there: `{"input": "pixel_values"}`.
        outputs: what the outputs of fxpullback are called in it.
        sizes: what fxpullback calls its free sizes: `{"N": "batch"}`.
    """

    nodes: int
    nodes_sha256: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    sizes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, held: Mapping[str, Any]) -> Beside:
        """As a file's metadata has it.

        Raises:
            TypeError: something is missing, or stands there that belongs nowhere.
        """
        return cls(**held)

    def to_dict(self) -> dict[str, Any]:
        """For a file's metadata."""
        return asdict(self)

    def presented(self, inputs: Mapping[str, TensorInput]) -> dict[str, TensorInput]:
        """The file's inputs by the names of fxpullback; those that it does not know keep theirs."""
        names = {theirs: ours for ours, theirs in self.inputs.items()}
        return {
            names.get(name, name): replace(value, name=names.get(name, name), shape=self.sized(value.shape))
            for name, value in inputs.items()
        }

    def returned(self, outputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """The shapes of the outputs of fxpullback, by its names."""
        return {ours: self.sized(outputs[theirs]) for ours, theirs in self.outputs.items() if theirs in outputs}

    def sized(self, shape: Shape) -> Shape:
        """A shape with the names that fxpullback has for free sizes."""
        return tuple(self.sizes.get(size, size) if isinstance(size, str) else size for size in shape)

    def fed(self, feed: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by the file's own names."""
        return {self.inputs.get(name, name): value for name, value in feed.items()}


def nodes_sha256(nodes: Iterable[Any]) -> str:
    """sha256 over the bytes of ONNX nodes, one after the other."""
    digest = hashlib.sha256()
    for node in nodes:
        digest.update(node.SerializeToString())
    return digest.hexdigest()
