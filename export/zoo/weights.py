"""Read a weights file without running code from it, and put it into a model, whole or not at all."""

from __future__ import annotations

import pickletools
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fxpullback.contract.errors import ModelSourceError

_WRAPPERS = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
)
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
"""What the last part of a name says of a count, which no logit depends on."""
_SHOWN = 5


def load_weights(model: nn.Module, path: Path) -> None:
    """Load the weights in `path` into `model`, in place.

    Args:
        model: Changed only when the whole file fits.
        path: A safetensors file, or a torch file that holds tensors and containers alone.

    Raises:
        ModelSourceError: The file is absent, holds pickled code or no tensors, holds NaN, or does not fit the model.
    """
    own = model.state_dict()
    state = _fitting(_unwrapped(path, read_tensors(path)), own)
    _check_keys(path, own, state)
    for key, value in state.items():
        if own[key].is_floating_point() != value.is_floating_point():
            raise ModelSourceError(
                f"{path}: {key} is {value.dtype}, and the model has {own[key].dtype} there: the file looks quantised. "
                "Convert it to floating point weights first."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelSourceError(f"{path}: {key} holds NaN or infinite values; the file is damaged. Fetch it again.")
    counted = {key: own[key] for key in own if key not in state and key.endswith(_COUNTERS)}
    model.load_state_dict(state | counted, strict=True)


def read_tensors(path: Path) -> Any:
    """What a weights file holds: a mapping of names to tensors, possibly wrapped.

    Raises:
        ModelSourceError: The file is absent, is no weights file, is truncated, or holds pickled code.
    """
    if not path.is_file():
        raise ModelSourceError(f"{path}: there is no such weights file. Check the path given as --weights.")
    _check_whole(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelSourceError(f"{path}: not a whole safetensors file ({error}). Fetch it again.") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its remark on pickle protocols; what it means is said below
            with torch.serialization.safe_globals(_numbers()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever arbitrary bytes provoke in the reader
        name = re.search(r"GLOBAL (\S+)", str(error))
        if name is not None or _is_pickle(path):
            what = f" ({name[1]})" if name is not None else ""
            raise ModelSourceError(
                f"{path}: the file holds pickled Python objects{what}, not weights alone, and loading would run code "
                "from it. Save model.state_dict() instead, or better a safetensors file."
            ) from error
        raise ModelSourceError(
            f"{path}: not a whole weights file: neither safetensors (*.safetensors) nor a torch file of tensors. "
            "Fetch it again, or save model.state_dict() with torch.save or safetensors."
        ) from error


def _numbers() -> list[Any]:
    """What numpy's numbers are made of, as metrics beside the weights are; none of it runs code."""
    import numpy as np

    numbers = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    made_by = np.float64(0).__reduce__()[0]
    return [np.dtype, made_by, *numbers, *(type(np.dtype(kind)) for kind in numbers)]


def _check_whole(path: Path) -> None:
    """Refuse the pointer that Git LFS leaves in place of a large file."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise ModelSourceError(
                f"{path}: a pointer of Git LFS, and not the weights themselves. Fetch them where it was cloned: "
                "git lfs pull."
            )


def _is_pickle(path: Path) -> bool:
    """Whether the file is one whole pickle. Reads its operations; runs none."""
    try:
        with path.open("rb") as file:
            return sum(1 for _ in pickletools.genops(file)) > 2
    except Exception:
        return False


def _unwrapped(path: Path, value: Any) -> dict[str, Tensor]:
    """The state dict inside a training checkpoint, without the prefixes that wrappers add to every key."""
    if isinstance(value, Mapping):
        for key in _WRAPPERS:
            if isinstance(value.get(key), Mapping):
                value = value[key]
                break
    if not isinstance(value, Mapping) or not value or not all(isinstance(item, Tensor) for item in value.values()):
        held = ", ".join(sorted(map(str, value))[:_SHOWN]) if isinstance(value, Mapping) else type(value).__name__
        raise ModelSourceError(
            f"{path}: no state dict in there: a mapping of names to tensors is wanted, and the file holds "
            f"{held or 'nothing'}. Save model.state_dict()."
        )
    return dict(value)


def _fitting(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of the model: without counters, and without a prefix that all of them share."""
    kept = {key: item for key, item in state.items() if key in own or not key.endswith(_COUNTERS)}
    while kept and not any(key in own for key in kept):
        prefix, dot, _ = next(iter(kept)).partition(".")
        if not dot or not all(key.startswith(f"{prefix}.") for key in kept):
            break
        kept = {key.removeprefix(f"{prefix}."): item for key, item in kept.items()}
    return kept


def _check_keys(path: Path, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Raise a ModelSourceError that lists what is missing, unexpected and of another shape."""
    missing = [key for key in own if key not in state and not key.endswith(_COUNTERS)]
    unexpected = [key for key in state if key not in own]
    reshaped = [
        f"{key} is {list(state[key].shape)} in the file and {list(own[key].shape)} in the model"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts = [
        f"{len(found)} {what}: {_listed(found)}"
        for what, found in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if found
    ]
    if parts:
        raise ModelSourceError(
            f"{path}: the weights do not fit the model. "
            + ". ".join(parts)
            + ". Name the architecture and options they "
            "were trained with (--model-option num_classes=... for another number of classes)."
        )


def _listed(items: Sequence[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
