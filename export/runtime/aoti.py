"""A compiled pullback as machine code: a package of AOTInductor with its metadata, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from fxpullback.capture.quiet import quiet
from fxpullback.certify.fresh import Looks, fresh_target
from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ExportError
from fxpullback.contract.names import INPUT, OF_INPUT, TARGET, own_output
from fxpullback.contract.parts import COLUMNS, PARTS, PUSHED
from fxpullback.contract.text import Text
from fxpullback.export.onnx.write import certificate, described, drafted, writable
from fxpullback.export.runtime.package import DESCRIPTION, DEVICE, SIGNATURE, SUFFIX
from fxpullback.graph.modes import plain_mode

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

_BATCH = 5
_SETTINGS = {"aot_inductor.enable_line_tables": False, "aot_inductor.precompile_headers": False}
"""Without the lines of the sources, which are not kept, and without headers for a next time, which take longer once."""


@plain_mode()
def to_aoti(
    pb: Compiled,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | str | None = None,
    text: Text | None = None,
    certify: bool = True,
) -> Path:
    """Compile a pullback ahead of time and write it as a package, which `Session` runs as it runs an ONNX file.

    It is machine code for the device of the example `pb` was compiled with and for processors like this machine's. A
    C++ compiler is needed to write it and none to run it; it runs in torch. Writing takes minutes for large networks.

    Args:
        pb: What `fxpullback.compile` returned.
        path: The file; its name ends in `.pt2`.
        classes: Class names in the order of the logits.
        preprocessing: How a picture becomes an input; a mapping, or JSON text.
        text: How a text becomes an input: the tokenizer of a file that takes tokens.
        certify: Run the package on fresh inputs, compare it with autograd, and keep the outcome in it.

    Returns:
        The path of the file.

    Raises:
        VerifyError: The certificate did not pass; nothing is written.
        ExportError: There is no C++ compiler, AOTInductor cannot compile the graph, the folder cannot be written to, or
            the class names do not fit. What was at `path` before is still there.
    """
    target = writable(path)
    if target.suffix != SUFFIX:
        raise ExportError(f"{target}: the name of a package ends in {SUFFIX}, by which torch knows it.")
    if pb.example.dtype != torch.float32:
        raise ExportError(f"the model was compiled in {pb.example.dtype}; files are float32. Compile model.float().")
    texts = described(pb, classes, preprocessing, text=text)
    texts[SIGNATURE], texts[DEVICE] = json.dumps(signature(pb)), pb.example.device.type
    texts[md.WEIGHTS_SHA256] = _constants_sha256(pb.graph)
    _demand_compiler()
    with drafted(target) as draft:
        made = _compiled(pb, draft.with_name("compiled.pt2"))
        _pack(made, draft, texts)
        if certify:
            texts[md.CERTIFICATE] = json.dumps(certificate(pb, draft))
            _pack(made, draft, texts)
        os.replace(draft, target)
    return target


def signature(pb: Compiled) -> dict[str, Any]:
    """What a package takes and returns, as `Package` reads it."""
    shape = ["batch", *pb.example.shape[1:]]
    for axis in pb.free:
        shape[axis.axis] = axis.name
    logits = ["batch", pb.classes]
    inputs = [] if pb.entry is not None else [_described(INPUT, pb.example, shape)]
    inputs += [_described(extra.name, extra.example, extra.wanted(pb.free)) for extra in pb.extras]
    if pb.target != "top1":
        wanted = {"index": ["batch"], "contrast": ["batch", 2], "cotangent": logits}[pb.target]
        inputs.append({"name": TARGET, "dtype": "float32" if pb.target == "cotangent" else "int64", "shape": wanted})
    outputs = dict.fromkeys(pb.output_names, shape) | {n: logits for n in pb.output_names if n.endswith("logits")}
    for part in pb.entry.parts if pb.entry is not None and pb.entry.is_joined else ():
        outputs |= {
            own_output(name, part.name): ["batch", *part.sample]
            for name in OF_INPUT
            if own_output(name, part.name) in outputs
        }
    if pb.contributions is not None:
        outputs |= {name: ["batch", *map(_extent, grid)] for name, grid in pb.contributions.extents.items()}
    if pb.parts is not None:
        outputs |= {PUSHED: ["batch", *pb.parts.pushed]} if pb.parts.pushed else {}
        outputs[PARTS] = ["batch", len(COLUMNS)]
    return {"inputs": inputs, "outputs": outputs}


def _extent(extent: int | None) -> int | str:
    return "free" if extent is None else extent


def _described(name: str, example: Tensor, shape: Sequence[int | str]) -> dict[str, Any]:
    return {"name": name, "dtype": str(example.dtype).removeprefix("torch."), "shape": list(shape)}


def _demand_compiler() -> None:
    """Refuse to begin where nothing could be compiled."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise ExportError(
            "AOTInductor writes C++ and needs a compiler for it, and there is none here: install g++ (on Debian and "
            "Ubuntu the package g++), or name one in the environment variable CXX. to_onnx needs none. "
            f"torch says: {error}"
        ) from error


def _compiled(pb: Compiled, path: Path) -> Path:
    """The graph, compiled with its batch free and no metadata of ours."""
    looks, like = Looks.of(pb), torch.empty(0, device=pb.example.device)
    inputs = looks.draw(_BATCH, 0, like)
    target = fresh_target(pb.target, _BATCH, pb.classes, inputs.x, 1)
    free = {0: torch.export.Dim.DYNAMIC}
    shapes: list[Any] = [] if pb.entry is not None else [free | {axis.axis: free[0] for axis in pb.free}]
    for extra in pb.extras:
        axes = [0] * extra.batched + [axis for axis, _ in extra.follows]
        shapes.append(dict.fromkeys(axes, free[0]) or None)
    passed = looks.passed(inputs)
    given = passed if target is None else (*passed, target)
    shapes += [] if target is None else [free]
    try:
        with quiet(), torch.no_grad():
            fx.GraphModule.recompile(pb.graph)  # else its forward takes `*args` until it has run once
            program = torch.export.export(pb.graph, given, dynamic_shapes=tuple(shapes))
            # On a CPU the weights are laid out for its convolutions beforehand: a quarter faster, and twice the size.
            settings = {**_SETTINGS, "freezing": pb.example.device.type == "cpu"}
            torch._inductor.aoti_compile_and_package(program, package_path=os.fspath(path), inductor_configs=settings)
    except Exception as error:
        raise ExportError(
            f"AOTInductor cannot compile this graph: {' '.join(str(error).split())[:600]} "
            "to_onnx writes the same graph for ONNX Runtime."
        ) from error
    return path


def _pack(made: Path, path: Path, texts: Mapping[str, str]) -> None:
    """The package with our metadata in it, and without the C++ it was compiled from."""
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for entry in old.infolist():
            if not entry.filename.endswith(".cpp"):
                with old.open(entry) as source, new.open(entry.filename, "w", force_zip64=True) as sink:
                    shutil.copyfileobj(source, sink)
        root = old.namelist()[0].partition("/")[0]
        new.writestr(f"{root}/{DESCRIPTION}", json.dumps(texts))


def _constants_sha256(graph: fx.GraphModule) -> str:
    """sha256 over names, types, shapes and bytes of the constants of a graph, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted({**dict(graph.named_buffers()), **dict(graph.named_parameters())}.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
