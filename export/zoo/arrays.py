"""Arrays and tensors from files: example inputs of a model, extras of a call. No file is allowed to run code."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxpullback.contract.errors import ModelSourceError
from fxpullback.export.zoo.weights import read_tensors

FORMS = ".npz or .npy of numpy, .safetensors, or a torch file of tensors (.pt)"


def read_examples(path: Path, model: Any) -> list[Tensor]:
    """Example inputs of a model, in the order of its forward.

    Args:
        path: Tensors one after the other, or by the names of the forward's parameters.
        model: What takes them; an `nn.Module` says the order of names.

    Raises:
        ModelSourceError: The file cannot be read, or holds something else.
    """
    held = _held(path)
    if isinstance(held, Mapping):
        held = [held[name] for name in _order(path, list(map(str, held)), model)]
    if not held or not all(isinstance(value, Tensor) for value in held):
        raise ModelSourceError(f"{path}: tensors are wanted, one for each input, the explained one first.")
    return [value.float() if value.dtype in (torch.float64, torch.float16) else value for value in held]


def _held(path: Path) -> Any:
    """What a file holds: a mapping or a list of tensors."""
    if not path.is_file():
        raise ModelSourceError(f"{path}: there is no such file of arrays; {FORMS} is wanted.")
    if path.suffix in (".npz", ".npy"):
        try:
            loaded = np.load(path, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return [torch.from_numpy(loaded)]
            with loaded:
                return {name: torch.from_numpy(loaded[name]) for name in loaded.files}
        except (OSError, ValueError, TypeError, EOFError) as error:
            raise ModelSourceError(f"{path}: no arrays can be read from it ({error}); {FORMS} is wanted.") from error
    held = read_tensors(path)
    return [held] if isinstance(held, Tensor) else list(held) if isinstance(held, tuple | list) else held


def _order(path: Path, names: list[str], model: Any) -> list[str]:
    """The names in the order of a forward's parameters; those numpy gives by itself, in their own."""
    if all(name == f"arr_{i}" for i, name in enumerate(names)):
        return names
    known = input_names(model)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ModelSourceError(
            f"{path}: it holds {', '.join(names)}, and the model takes {', '.join(known)}. Name the arrays so."
        )
    order = sorted(names, key=known.index)
    if order != known[: len(order)]:
        missing = next(name for name in known if name not in order)
        raise ModelSourceError(
            f"{path}: it holds no {missing}, which stands before {order[-1]} in the model's forward."
        )
    return order


def input_names(model: Any) -> list[str]:
    """What a model calls its inputs, in order: the parameters of its forward, or the inputs of a program."""
    if isinstance(model, nn.Module):
        return list(inspect.signature(model.forward).parameters)
    return [str(name) for name in model.graph_signature.user_inputs]


def read_extras(pairs: Mapping[str, str]) -> dict[str, np.ndarray[Any, Any]]:
    """Extras of one call by name, each from a file that holds one array.

    Raises:
        ModelSourceError: A file cannot be read, or holds several arrays.
    """
    found = {}
    for name, file in pairs.items():
        held = _held(Path(file))
        values: Sequence[Any] = list(held.values()) if isinstance(held, Mapping) else held
        if len(values) != 1 or not isinstance(values[0], Tensor):
            raise ModelSourceError(f"{file}: one array is wanted for {name}, and it holds {len(values)}.")
        found[name] = values[0].numpy()
    return found
