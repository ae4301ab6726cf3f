"""Execution providers of ONNX Runtime: which to ask for, and a warning when a GPU is asked for and not used."""

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Collection, Sequence
from typing import Any, TypeAlias

import onnxruntime as ort

from fxpullback.contract.errors import SessionError

Provider: TypeAlias = str | tuple[str, dict[Any, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
ON_GPU = frozenset({CUDA, TENSORRT, "NvTensorRTRTXExecutionProvider"})
"""Providers whose buffers lie on a CUDA device."""
_SHORT = {"cpu": CPU, "cuda": CUDA, "gpu": CUDA, "tensorrt": TENSORRT}


class ProviderWarning(UserWarning):
    """A GPU was asked for, or is there, and is not used."""


def full_name(name: str) -> str:
    """ONNX Runtime's name of a provider: `cuda` becomes `CUDAExecutionProvider`; a full name stays.

    Raises:
        SessionError: ONNX Runtime knows no such provider.
    """
    known = {provider.lower(): provider for provider in ort.get_all_providers()}
    short = {provider.lower().removesuffix("executionprovider"): provider for provider in ort.get_all_providers()}
    found = known.get(name.lower()) or _SHORT.get(name.lower()) or short.get(name.lower())
    if found is None:
        offered = ", ".join(
            provider.removesuffix("ExecutionProvider").lower() for provider in ort.get_available_providers()
        )
        raise SessionError(f"provider {name!r}: ONNX Runtime has none of that name. Offered here: {offered}.")
    return found


def gpu_present() -> bool:
    """Whether the CUDA driver sees a device; asked of the driver, so that no failed start of a provider is logged."""
    library = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = ctypes.CDLL(library)
        count = ctypes.c_int(0)
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except (OSError, AttributeError):
        return False


def chosen(providers: Sequence[Provider] | None) -> list[Provider]:
    """The providers a caller wants, under their full names and with the CPU last.

    Args:
        providers: What the caller asked for; None for the best that works here.

    Raises:
        SessionError: Something else than a list of names, or a name ONNX Runtime does not know.
    """
    if providers is None:
        return [CUDA, CPU] if CUDA in ort.get_available_providers() and gpu_present() else [CPU]
    if isinstance(providers, str) or not providers:
        raise SessionError(
            f"providers={providers!r}: pass a list, such as ['CUDAExecutionProvider', 'CPUExecutionProvider']."
        )
    wanted = [full_name(item) if isinstance(item, str) else (full_name(item[0]), item[1]) for item in providers]
    return wanted if CPU in map(name_of, wanted) else [*wanted, CPU]


def startable(wanted: Sequence[Provider]) -> list[Provider]:
    """Those of `wanted` that have a chance to start here: ONNX Runtime logs errors of its own for the others."""
    offered = ort.get_available_providers()
    gpu = any(name_of(item) in ON_GPU for item in wanted) and gpu_present()
    if gpu:
        _preload()
    return [item for item in wanted if name_of(item) in offered and (gpu or name_of(item) not in ON_GPU)]


def recording(wanted: Sequence[Provider], cuda_graph: bool | Collection[int]) -> list[Provider]:
    """The providers with CUDA told to record graphs, where that was asked for and can be done.

    Args:
        wanted: Providers as `chosen` returned them.
        cuda_graph: Whether to record, or for which batch sizes.

    Raises:
        SessionError: CUDA is not the first provider, is not here, or the batch sizes are none; nothing else is tried.
    """
    if not cuda_graph:
        return list(wanted)
    if not isinstance(cuda_graph, bool) and any(type(batch) is not int or batch < 1 for batch in cuda_graph):
        raise SessionError(f"cuda_graph={cuda_graph!r}: pass True, or the batch sizes to record, such as (1, 8).")
    if name_of(wanted[0]) != CUDA:
        raise SessionError(
            f"cuda_graph: {name_of(wanted[0])} comes first, and CUDA graphs are recorded by CUDA alone. "
            "Pass providers=['cuda'], or leave cuda_graph out."
        )
    if CUDA not in ort.get_available_providers() or not gpu_present():
        raise SessionError(f"cuda_graph: {why_not(CUDA)} Leave cuda_graph out to run without.")
    return [(CUDA, {**options_of(wanted[0]), "enable_cuda_graph": "1"}), *wanted[1:]]


def asks_for_graphs(wanted: Sequence[Provider]) -> bool:
    """Whether the options of CUDA itself ask for graphs."""
    given = [options_of(item).get("enable_cuda_graph") for item in wanted if name_of(item) == CUDA]
    return any(str(value).lower() in ("1", "true") for value in given)


def warn_if_unused(wanted: Sequence[Provider], used: Sequence[str], *, asked: bool, failure: str | None) -> None:
    """Warn for every provider of `wanted` that a session does not use.

    Args:
        wanted: Providers as `chosen` returned them.
        used: Providers the session reports.
        asked: Whether the caller named the providers; otherwise a GPU was found on this machine.
        failure: What ONNX Runtime said when it could not start with them, if it said anything.

    Warns:
        ProviderWarning: With the reason, as far as it can be told, and what to do.
    """
    for name in map(name_of, wanted):
        if name not in used:
            what = f"{name} was asked for and is not used" if asked else f"a GPU is here, but {name} does not start"
            warnings.warn(f"{what}: {failure or why_not(name)} Running on {used[0]}.", ProviderWarning, stacklevel=4)


def why_not(name: str) -> str:
    """Why a provider does not start here, as far as it can be told."""
    if name not in ort.get_available_providers():
        return "this build of ONNX Runtime does not have it (onnxruntime-gpu brings CUDA)."
    if name in ON_GPU and not gpu_present():
        return "the CUDA driver sees no GPU on this machine."
    return (
        "ONNX Runtime could not start it, as its own message above says; it needs CUDA and cuDNN of matching versions."
    )


def _preload() -> None:
    """Let ONNX Runtime find the CUDA and cuDNN libraries that came as Python packages."""
    preload = getattr(ort, "preload_dlls", None)
    if preload is not None:
        preload()


def name_of(provider: Provider) -> str:
    """The name of a provider, without its options."""
    return provider if isinstance(provider, str) else provider[0]


def options_of(provider: Provider) -> dict[Any, Any]:
    """The options of a provider."""
    return {} if isinstance(provider, str) else provider[1]
