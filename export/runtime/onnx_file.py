"""An ONNX file in ONNX Runtime: loading it, what it takes and returns, and the reasons where it cannot be loaded."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import onnxruntime as ort

from fxpullback.contract.beside import Beside
from fxpullback.contract.errors import SessionError
from fxpullback.contract.metadata import PREFIX, beside_of
from fxpullback.contract.tensor_input import TensorInput, input_of
from fxpullback.export.runtime.binding import Bound
from fxpullback.export.runtime.providers import (
    CPU,
    CUDA,
    ON_GPU,
    Provider,
    asks_for_graphs,
    chosen,
    recording,
    startable,
    warn_if_unused,
    why_not,
)

Run: TypeAlias = Callable[[Mapping[str, Any]], Sequence[Any]]

BUFFERS = "cuda"
"""Where the buffers of GPU providers lie, in ONNX Runtime's words."""


class OnnxFile:
    """An ONNX file, loaded.

    Args:
        path: The file; external data is looked for beside it.
        providers: Execution providers as ONNX Runtime takes them; None for the best that works here.
        io_binding: Whether inputs and outputs are bound to buffers that stay; None binds them on a GPU.
        cuda_graph: Whether CUDA records graphs and replays them, or for which batch sizes.

    Attributes:
        metadata: The custom metadata map of the file.
        inputs: Every input by name.
        outputs: The shape of every output by name; a dimension that is free is its name.
        providers: Execution providers actually used, in order of preference.
        run: From arguments by name to the outputs in order, numpy arrays.

    Raises:
        SessionError: The file cannot be loaded, or graphs were asked for and cannot be recorded.

    Warns:
        ProviderWarning: A GPU was asked for and is not used.
    """

    runtime = "ONNX Runtime"

    def __init__(
        self,
        path: Path,
        providers: Sequence[Provider] | None,
        io_binding: bool | None = None,
        cuda_graph: bool | Collection[int] = False,
    ) -> None:
        wanted = chosen([CUDA] if providers is None and cuda_graph else providers)
        cuda_graph = cuda_graph or asks_for_graphs(wanted)
        wanted = recording(wanted, cuda_graph)
        if cuda_graph and io_binding is False:
            raise SessionError(
                "io_binding=False: CUDA graphs are recorded of bound buffers alone. Leave one of them out."
            )
        session, failure = _load(path, startable(wanted))
        self.providers: tuple[str, ...] = tuple(session.get_providers())
        if cuda_graph and self.providers[0] != CUDA:
            raise SessionError(f"{path}: no CUDA graphs can be recorded. ONNX Runtime says: {failure or why_not(CUDA)}")
        warn_if_unused(wanted, self.providers, asked=providers is not None, failure=failure)
        self.metadata: dict[str, str] = session.get_modelmeta().custom_metadata_map
        inputs: dict[str, TensorInput] = {value.name: input_of(value) for value in session.get_inputs()}
        outputs: dict[str, tuple[int | str, ...]] = {v.name: tuple(v.shape) for v in session.get_outputs()}
        beside = _beside(path, self.metadata)
        if beside is not None:
            outputs = {name: outputs[name] for name in beside.outputs.values() if name in outputs}
        self.inputs = inputs if beside is None else beside.presented(inputs)
        self.outputs = outputs if beside is None else beside.returned(outputs)
        on_gpu = self.providers[0] in ON_GPU
        run: Run = partial(session.run, list(outputs))
        if io_binding or cuda_graph or (io_binding is None and on_gpu):
            run = Bound(
                session,
                inputs,
                outputs,
                device=BUFFERS if on_gpu else "cpu",
                device_id=_device_id(session, self.providers[0]),
                recorded=cuda_graph if isinstance(cuda_graph, bool) else frozenset(cuda_graph),
            )
        self.run: Run = run if beside is None else lambda feed: run(beside.fed(feed))


def _beside(path: Path, metadata: Mapping[str, str]) -> Beside | None:
    try:
        return beside_of(metadata)
    except ValueError as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: ValueError) -> SessionError:
    """What is said of a file whose metadata cannot be read."""
    return SessionError(f"{path}: the file is damaged or comes from another version of fxpullback: {error}.")


def _device_id(session: ort.InferenceSession, provider: str) -> int:
    """Which device a provider runs on."""
    return int(session.get_provider_options().get(provider, {}).get("device_id", 0))


def _load(path: Path, providers: Sequence[Provider]) -> tuple[ort.InferenceSession, str | None]:
    """The ONNX Runtime session of `path`, on the CPU where the others fail; and what was said about those."""
    try:
        # ONNX Runtime's own fallback prints to stdout and changes a session that is shared by threads.
        options = cpu_options() if list(providers) == [CPU] else None
        session = ort.InferenceSession(
            os.fspath(path), sess_options=options, providers=list(providers), enable_fallback=0
        )
        return session, None
    except Exception as error:
        text = " ".join(str(error).split())
        if list(providers) != [CPU] and (session := _load_on_cpu(path)) is not None:
            return session, text
        raise SessionError(f"{path}: {_load_reason(text, path)} ONNX Runtime says: {text}") from error


def cpu_options() -> ort.SessionOptions:
    """Options for a session on the CPU: without plans of its memory.

    ONNX Runtime plans a call's memory as one block once it has seen its sizes, beside what the first call took in
    pieces: of a pullback, which keeps what every gate saw, that is half of the memory again, for no time that could be
    measured.
    """
    options = ort.SessionOptions()
    options.enable_mem_pattern = False
    return options


def _load_on_cpu(path: Path) -> ort.InferenceSession | None:
    """The session on the CPU, or None when the file itself is at fault."""
    try:
        return ort.InferenceSession(os.fspath(path), sess_options=cpu_options(), providers=[CPU], enable_fallback=0)
    except Exception:
        return None


def computes_in_bfloat16(path: Path) -> bool:
    """Whether a file says of itself that it computes in bfloat16; told without loading it."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(f"{PREFIX}precision".encode()) >= 0 and data.find(b'{"name": "bf16"') >= 0


def _load_reason(text: str, path: Path) -> str:
    """What a loading failure of ONNX Runtime most probably means, and what to do."""
    lower = text.lower()
    if "not_implemented" in lower and computes_in_bfloat16(path):
        return (
            "the file computes in bfloat16, for which ONNX Runtime has no kernels on the CPU. Run it on an NVIDIA GPU, "
            "or compile the model with --precision fp16 or fp32."
        )
    if "external data" in lower or "external initializer" in lower:
        return (
            "the external data with its weights is missing or cut short. Keep that file beside it, under its own name."
        )
    if "parsing failed" in lower or "graph" in lower:
        return "this is no whole ONNX file: it is truncated, or another kind of file. Copy or compile it again."
    return "ONNX Runtime cannot load the file."
