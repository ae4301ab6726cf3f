"""Options of ONNX Runtime's TensorRT provider for a file whose batch is free. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from fxpullback.contract.errors import SessionError
from fxpullback.contract.names import INPUT
from fxpullback.contract.tensor_input import TensorInput
from fxpullback.export.runtime.providers import TENSORRT

_KINDS = ("min", "opt", "max")


def tensorrt(
    path: str | os.PathLike[str],
    batches: Sequence[int],
    *,
    sizes: Mapping[str, Sequence[int]] | None = None,
    cache: str | os.PathLike[str] | None = None,
    **options: Any,
) -> tuple[str, dict[str, str]]:
    """The TensorRT provider for a file, with the shapes its engine is to be built for.

    Without them TensorRT builds an engine for the first batch size it meets, and another one, for minutes, whenever a
    larger or smaller one comes.

    Args:
        path: The ONNX file.
        batches: Batch sizes that will come; the engine serves all from the smallest to the largest, and is tuned for
            the one in the middle (of an even number, the larger one).
        sizes: The same for every other free dimension of the file: `{"height": (224, 512), "width": (224, 512)}`.
        cache: Folder for built engines, found again by the next process (`trt_engine_cache_enable`,
            `trt_engine_cache_path`, and the timing cache beside it); None builds anew in every process.
        **options: Further options of the provider, passed through. `trt_fp16_enable=True` computes in half precision:
            pullbacks are small numbers, so compare with the CPU before trusting it. `trt_max_workspace_size` is in
            bytes, `trt_builder_optimization_level` 0 to 5.

    Returns:
        What `Session(path, providers=[...])` takes, to be followed by `"cuda"` for what TensorRT leaves over.

    Raises:
        SessionError: The file cannot be loaded, or a free dimension has no sizes or ones that are none.
    """
    from fxpullback.export.runtime.session import Session

    inputs = Session(path, providers=["cpu"]).inputs
    found: dict[str, Any] = profile(inputs, {"batch": batches, **(sizes or {})})
    if cache is not None:
        folder = os.fspath(cache)
        found |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": folder}
        found |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": folder}
    given = {**found, **options}
    return TENSORRT, {name: _text(value) for name, value in given.items()}


def profile(inputs: Mapping[str, TensorInput], sizes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The options `trt_profile_min_shapes`, `..._opt_shapes` and `..._max_shapes`.

    Args:
        inputs: Every input of a file.
        sizes: For every free dimension by name, the sizes that will come.

    Raises:
        SessionError: A free dimension has no sizes, or ones that are none; or a name is no free dimension.
    """
    free = list(dict.fromkeys(dim for item in inputs.values() for dim in item.shape if isinstance(dim, str)))
    spans = {name: _span(name, given) for name, given in sizes.items()}
    if set(free) != set(spans):
        raise SessionError(
            f"TensorRT's engine needs the sizes of {', '.join(free)}, the free dimensions of {INPUT} and the other "
            f"inputs, and was given those of {', '.join(spans)}."
        )
    return {
        f"trt_profile_{kind}_shapes": ",".join(
            f"{name}:{'x'.join(str(dim if isinstance(dim, int) else spans[dim][i]) for dim in item.shape)}"
            for name, item in inputs.items()
        )
        for i, kind in enumerate(_KINDS)
    }


def _span(name: str, given: Sequence[int]) -> tuple[int, int, int]:
    """Smallest, middle and largest."""
    ordered = sorted(given)
    if not ordered or ordered[0] < 1:
        raise SessionError(f"TensorRT: the sizes of {name} are {list(given)}; positive numbers are wanted.")
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]


def _text(value: Any) -> str:
    """An option as the provider reads it."""
    return str(int(value)) if isinstance(value, bool) else str(value)
