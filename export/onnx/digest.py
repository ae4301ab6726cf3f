"""The digest of the weights of an ONNX file, which binds a file to what was certified."""

from __future__ import annotations

import hashlib

import onnx_ir as ir


def weights_sha256(model: ir.Model) -> str:
    """sha256 over names, types, shapes and bytes of the initializers, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(model.graph.initializers):
        tensor = model.graph.initializers[name].const_value
        if tensor is not None:
            digest.update(f"{name} {tensor.dtype.name} {list(tensor.shape.numpy())}\n".encode())
            digest.update(tensor.tobytes())
    return digest.hexdigest()
