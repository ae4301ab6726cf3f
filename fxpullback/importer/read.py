"""Reading an ONNX file that nobody vouches for: what it declares is checked before anything is made of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from fxpullback.contract.errors import CaptureError

OLDEST = 7
LARGEST = 2_000_000_000
"""Bytes of the largest file without its external data: no protobuf is larger."""
MICROSOFT = "com.microsoft"
_THEIRS = {"LayerNormalization": 17, "SimplifiedLayerNormalization": 1 << 30}
"""Operators of ONNX Runtime that its optimiser leaves in ai.onnx, and from which opset on that has them itself."""
_PACKED: dict[int, int] = {TensorProto.INT4: 2, TensorProto.UINT4: 2, TensorProto.FLOAT4E2M1: 2}
_PACKED |= {getattr(TensorProto, name): 4 for name in ("INT2", "UINT2") if hasattr(TensorProto, name)}
"""Types of which several entries share a byte, and how many."""


def read(path: Path) -> ModelProto:
    """The model of a file, its external data read, its own functions written out.

    Args:
        path: the file.

    Raises:
        CaptureError: there is no such file, it is no ONNX file, it is damaged, it names data outside its folder, or its
            version is not supported.
    """
    model = _parsed(path)
    tensors = list(tensors_of(model.graph))
    for function in model.functions:
        tensors += [t for node in function.node for a in node.attribute for t in _of_attribute(a)]
    for tensor in tensors:
        _checked(path, tensor)
    _check_version(path, model)
    _say_domains(model)
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        if model.ByteSize() < LARGEST:
            for value in model.graph.output:
                if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape"):
                    value.type.tensor_type.shape.dim.add()  # the checker asks for one, and nobody reads it
            model.ir_version = max(model.ir_version, 4)  # in front of 4 initialisers must be inputs, too
            onnx.checker.check_model(model)
    except Exception as error:
        raise CaptureError(f"{path.name} is damaged: {_first_line(error)}. Get the file anew.") from error
    return model


def _parsed(path: Path) -> ModelProto:
    if not path.is_file():
        raise CaptureError(f"no file {path}; pass the path of an ONNX file.")
    if path.stat().st_size > LARGEST:
        raise CaptureError(f"{path.name} has {path.stat().st_size} bytes, and no ONNX file has more than 2 GB.")
    try:
        model = onnx.load_model(os.fspath(path), load_external_data=False)
    except (DecodeError, OSError, ValueError, RuntimeError) as error:
        raise CaptureError(
            f"{path.name} cannot be read as an ONNX file: {_first_line(error)}. Pass a file that an exporter wrote."
        ) from error
    if not model.graph.node or not model.graph.output:
        raise CaptureError(f"{path.name} is no ONNX file, or an empty one: it holds no nodes and outputs.")
    return model


def _check_version(path: Path, model: ModelProto) -> None:
    newest = onnx.defs.onnx_opset_version()
    own = opset_of(model)
    if not OLDEST <= own <= newest:
        raise CaptureError(
            f"{path.name} is of opset {own}; supported are {OLDEST} to {newest}. Convert it: "
            "onnx.version_converter.convert_version(model, 17), or export it anew."
        )


def _say_domains(model: ModelProto) -> None:
    """Give norms the domain that they are of: ONNX Runtime writes its own into ai.onnx, where old opsets have none."""
    own = opset_of(model)
    moved = [
        node
        for node in model.graph.node
        if node.domain in ("", "ai.onnx") and node.op_type in _THEIRS and own < _THEIRS[node.op_type]
    ]
    for node in moved:
        node.domain = MICROSOFT
    if moved and all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(onnx.helper.make_opsetid(MICROSOFT, 1))


def opset_of(model: ModelProto) -> int:
    """The version of the operators of ai.onnx; 0 where the file says none."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    return int(versions.get("", versions.get("ai.onnx", 0)))


def graphs_of(attribute: AttributeProto) -> Iterator[GraphProto]:
    """The inner graphs of a node that stand in one of its attributes."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def tensors_of(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor of a graph: initialisers, attributes, those of inner graphs."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from _of_attribute(attribute)


def _of_attribute(attribute: AttributeProto) -> Iterator[TensorProto]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    for graph in graphs_of(attribute):
        yield from tensors_of(graph)


def _checked(path: Path, tensor: TensorProto) -> None:
    """Refuse a tensor that does not hold what it declares; read its data where it lies beside the file."""
    if any(size < 0 for size in tensor.dims):
        raise CaptureError(f"{path.name} is damaged: tensor {tensor.name} has the shape {list(tensor.dims)}.")
    count = math.prod(tensor.dims)
    if tensor.data_type in (TensorProto.STRING, TensorProto.UNDEFINED):
        return
    try:
        item = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    except KeyError as error:
        raise CaptureError(f"{path.name} is damaged: tensor {tensor.name} is of no known type.") from error
    wanted = -(-count // _PACKED[tensor.data_type]) if tensor.data_type in _PACKED else count * item
    if tensor.data_location == TensorProto.EXTERNAL:
        tensor.raw_data = _external(path, tensor, wanted)
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]
    elif tensor.HasField("raw_data"):
        if len(tensor.raw_data) != wanted:
            raise CaptureError(
                f"{path.name} is damaged: tensor {tensor.name} declares {list(tensor.dims)}, {wanted} bytes, and holds "
                f"{len(tensor.raw_data)}."
            )
    else:
        held = max(len(field) for field in _typed(tensor))
        fits = held in (count, 2 * count, wanted) or (held == 0 and count == 0)
        if not fits:
            raise CaptureError(
                f"{path.name} is damaged: tensor {tensor.name} declares {list(tensor.dims)}, {count} entries, and "
                f"holds {held}."
            )


def _typed(tensor: TensorProto) -> tuple[Any, ...]:
    return (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)


def _external(path: Path, tensor: TensorProto, wanted: int) -> bytes:
    """The data of a tensor that lies in another file of the same folder."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.resolve().parent
    outside = (
        not location
        or "\0" in location
        or os.path.isabs(location)
        or location.startswith(("\\", "/"))
        or ".." in location.replace("\\", "/").split("/")
    )
    file = folder if outside else (folder / location).resolve()
    if outside or folder not in file.parents:
        raise CaptureError(
            f"{path.name} names data outside its folder, {location!r}, for tensor {tensor.name}: nothing is read from "
            "there. Put the data beside the file, under a plain name."
        )
    if not file.is_file():
        raise CaptureError(f"{path.name}: its data {location!r} is missing. Put that file beside it.")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", wanted))
    except ValueError as error:
        raise CaptureError(f"{path.name} is damaged: tensor {tensor.name} names its data wrongly.") from error
    if length != wanted or offset < 0 or offset + length > file.stat().st_size:
        raise CaptureError(
            f"{path.name} is damaged: tensor {tensor.name} declares {list(tensor.dims)}, {wanted} bytes, and "
            f"{location!r} does not hold them at {offset}."
        )
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
