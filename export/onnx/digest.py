"""The digest of the weights of an ONNX file, which binds a file to what was certified."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import onnx_ir as ir
from onnx import NodeProto


def weights_sha256(model: ir.Model) -> str:
    """sha256 over names, types, shapes and bytes of the initializers, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(model.graph.initializers):
        tensor = model.graph.initializers[name].const_value
        if tensor is not None:
            digest.update(f"{name} {tensor.dtype.name} {list(tensor.shape.numpy())}\n".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()


def nodes_sha256(nodes: Iterable[NodeProto]) -> str:
    """sha256 over the bytes of nodes, one after the other."""
    digest = hashlib.sha256()
    for node in nodes:
        digest.update(node.SerializeToString())
    return digest.hexdigest()
