"""What may be passed to a file, and what is said of everything else. Needs no torch.

A call that is in order costs one pass over its data: what is plainly right is let through at once, and only what is not
is looked at again to say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fxpullback.contract.ends import POSITIONS, Ends
from fxpullback.contract.errors import InputError
from fxpullback.contract.names import INPUT, complain
from fxpullback.contract.sizes import FreeAxis, misfits
from fxpullback.contract.tensor_input import TensorInput, array

Array: TypeAlias = npt.NDArray[np.float32]
_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int64)
_INFINITY = float("inf")
_FEW = 64
"""Class indices up to which Python's min and max are faster than those of numpy."""


class Arguments:
    """The arguments of a file: `feed` checks those of one call.

    Args:
        inputs: Every input of the file, the explained one and `target` among them.
        extras: Names of the inputs that are passed through, in order.
        target: `index`, `top1`, `cotangent` or `contrast`.
        classes: Number of logits.
        sizes: The axes of `input` beside the batch whose size is free.
        explained: Name of the input that is explained.
        vocabulary: How many ids there are, where that input holds ids.
        ends: What of the model is explained.
        also: The extras that are explained as well, with how many ids there are of each; None for values.
    """

    def __init__(
        self,
        inputs: Mapping[str, TensorInput],
        extras: Sequence[str],
        target: str,
        classes: int,
        sizes: Sequence[FreeAxis],
        explained: str = INPUT,
        vocabulary: int | None = None,
        ends: Ends | None = None,
        also: Mapping[str, int | None] = MappingProxyType({}),
    ) -> None:
        self.also = also
        self.ends = ends or Ends()
        self.explained, self.vocabulary = inputs[explained], vocabulary
        self.shape = self.explained.shape
        self.extras = {name: inputs[name] for name in extras}
        self.target, self.classes, self.sizes = target, classes, sizes
        self._takes_target = target != "top1"
        self._kinds = "f" if target == "cotangent" else "iu"
        self._width: tuple[int, ...] = {"contrast": (2,), "cotangent": (classes,)}.get(target, ())
        self._fixed = tuple((axis, size) for axis, size in enumerate(self.shape) if isinstance(size, int))
        only_batch = not isinstance(self.shape[0], int) and len(self._fixed) == len(self.shape) - 1
        self._sample = self.shape[1:] if only_batch and not sizes and vocabulary is None else None

    def feed(
        self, x: npt.ArrayLike, target: npt.ArrayLike | None, extras: Sequence[Any], named: Mapping[str, Any]
    ) -> dict[str, npt.NDArray[Any]]:
        """The arguments of one call by name, in the types the graph takes.

        Args:
            x: The input that is explained.
            target: What to explain, or None.
            extras: What the file takes besides, in order.
            named: The same by name.

        Raises:
            InputError: One is missing, unknown, or of the wrong kind, shape, type or values.
        """
        data = x if self._is_ready(x) else self._checked_input(x)
        batch = data.shape[0]  # type: ignore[union-attr]  # an array, as `_is_ready` found
        found: dict[str, Any] = {self.explained.name: data}
        if self.extras or extras or named:
            found.update(self._checked_extras(extras, named, data.shape))  # type: ignore[union-attr]
        if self._takes_target:
            found["target"] = self._checked_target(target, batch)
        elif target is not None:
            raise InputError(
                "target: none is taken by this file, which explains the top-1 class of each sample. "
                'Leave it out, or compile the model with target="index".'
            )
        return found

    def _is_ready(self, x: Any) -> bool:
        """Whether `x` is float32, of the right shape and finite, found in one pass; in doubt, no."""
        if type(x) is not np.ndarray or x.dtype is not _FLOAT or x.shape[1:] != self._sample or not x.size:
            return False
        # A sum of squares is finite only where every value is. One that overflows is no answer, so it is a doubt.
        return bool(np.vdot(x, x) < _INFINITY)

    def _checked_input(self, x: npt.ArrayLike) -> npt.NDArray[Any]:
        """`x` in the type the graph takes, or an InputError."""
        return self._checked_values(x) if self.vocabulary is None else self._checked_ids(x, self.vocabulary)

    def _checked_ids(self, x: npt.ArrayLike, vocabulary: int) -> npt.NDArray[Any]:
        """`x` as ids, each of them a row of the table, or an InputError."""
        name, data = self.explained.name, array(self.explained.name, x)
        if data.dtype.kind not in "iu":
            raise InputError(
                f"{name}: the type is {data.dtype}, and ids are wanted, integers of shape {_wish(self.shape)}. Make "
                "the text into ids with the tokenizer of the model."
            )
        self._check_shape(name, data)
        _check_ids(name, data, vocabulary)
        return np.ascontiguousarray(data.astype(self.explained.dtype, copy=False))

    def _check_shape(self, name: str, data: npt.NDArray[Any]) -> None:
        """Refuse what has another shape than the file takes."""
        shape = data.shape
        if len(shape) != len(self.shape) or any(shape[axis] != size for axis, size in self._fixed) or not data.size:
            raise InputError(_shape_text(name, shape, self.shape, self.vocabulary is not None))
        if self.sizes and (wrong := misfits(shape, self.sizes)):
            advice = "Resize or pad it." if self.vocabulary is None else "Shorten the text, or compile for that length."
            raise InputError(f"{name}: the shape is {shape}: {'; '.join(wrong)}. {advice}")

    def _checked_values(self, x: npt.ArrayLike) -> Array:
        """`x` as float32, or an InputError."""
        name = self.explained.name
        data = array(name, x)
        if data.dtype.kind != "f":
            raise InputError(
                f"{name}: the type is {data.dtype}, and float32 is wanted. Pixels are expected as RGB scaled to "
                "[-1, 1]: pass x.astype(np.float32) / 127.5 - 1 for 8-bit pixels."
            )
        if data.dtype != np.float32:
            with np.errstate(over="ignore"):  # what overflows is reported below
                data = data.astype(np.float32)
        self._check_shape(name, data)
        _check_finite(name, data)
        return data

    def _checked_extras(
        self, given: Sequence[Any], named: Mapping[str, Any], shape: tuple[int, ...]
    ) -> dict[str, npt.NDArray[Any]]:
        """The extras by name, in the types the graph takes, or an InputError."""
        names = list(self.extras)
        complain(names, len(given), named)
        held = {**dict(zip(names, given, strict=False)), **named}
        sizes = {"batch": shape[0]} | {axis.name: shape[axis.axis] for axis in self.sizes}
        found = {name: extra.checked(held[name], sizes) for name, extra in self.extras.items()}
        for name, vocabulary in self.also.items():
            if vocabulary is not None:
                _check_ids(name, found[name], vocabulary)
            else:
                _check_finite(name, found[name])
        if self.ends.positions is not None:
            self.ends.check(found[POSITIONS], sizes)
        return found

    def _checked_target(self, target: npt.ArrayLike | None, batch: int) -> npt.NDArray[Any]:
        """`target` in the type the graph takes, or an InputError."""
        if target is None:
            raise InputError(f"target: this file needs one. {self._target_text(batch)}")
        data = array("target", target)
        if data.dtype.kind not in self._kinds:
            raise InputError(f"target: the type is {data.dtype}. {self._target_text(batch)}")
        if data.shape != (batch, *self._width):
            raise InputError(f"target: the shape is {data.shape}. {self._target_text(batch)}")
        if self.target == "cotangent":
            if not (data.min() > -_INFINITY and data.max() < _INFINITY):
                raise InputError("target: the cotangent holds NaN or infinite values.")
            return data.astype(np.float32, copy=False)
        few = data.ravel().tolist() if data.size <= _FEW else (data.min(), data.max())
        low, high = min(few), max(few)
        if low < 0 or high >= self.classes:
            bad = int(low) if low < 0 else int(high)
            raise InputError(
                f"target: there is no class {bad}; the model has {self.classes} classes, 0 to {self.classes - 1}."
            )
        return data if data.dtype is _INT else data.astype(np.int64, copy=False)

    def _target_text(self, batch: int) -> str:
        """What a file of this target takes."""
        classes = self.classes
        return {
            "index": f"Pass one class per sample, integers of shape ({batch},), each from 0 to {classes - 1}.",
            "contrast": f"Pass two classes per sample, integers of shape ({batch}, 2): the first against the second.",
            "cotangent": f"Pass one weight per class and sample, floating point of shape ({batch}, {classes}).",
        }[self.target]


def _check_ids(name: str, data: npt.NDArray[Any], vocabulary: int) -> None:
    low, high = int(data.min()), int(data.max())
    if low < 0 or high >= vocabulary:
        raise InputError(
            f"{name}: there is no id {low if low < 0 else high}; the model has {vocabulary} ids, 0 to "
            f"{vocabulary - 1}. Was the text made into ids by the tokenizer of this model?"
        )


def _check_finite(name: str, data: npt.NDArray[Any]) -> None:
    if not (data.min() > -_INFINITY and data.max() < _INFINITY):
        bad = np.argwhere(~np.isfinite(data))
        raise InputError(
            f"{name}: {len(bad)} of {data.size} values are NaN or infinite, the first at {tuple(map(int, bad[0]))}. "
            "An explanation of such an input would mean nothing; look at the step that made it."
        )


def _wish(wanted: tuple[int | str, ...]) -> str:
    return f"[{', '.join(map(str, wanted))}]"


def _shape_text(name: str, shape: tuple[int, ...], wanted: tuple[int | str, ...], is_ids: bool) -> str:
    """Says which shape came, which is wanted, and what to do."""
    wish = _wish(wanted)
    if len(shape) == len(wanted) - 1:
        return f"{name}: the shape is {shape}, and {wish} is wanted. For a single sample, add the batch axis: x[None]."
    if len(wanted) == 4 and len(shape) == 4 and shape[3] == wanted[1] != shape[1]:
        return f"{name}: the shape is {shape}, and {wish} is wanted. Channels come first: x.transpose(0, 3, 1, 2)."
    if 0 in shape:
        return f"{name}: the shape is {shape}, which holds no data; {wish} is wanted."
    if is_ids:
        return f"{name}: the shape is {shape}, and {wish} is wanted. Pad or cut the text, or compile for this length."
    advice = "Resize the pictures, or compile" if len(wanted) == 4 else "Compile"
    return f"{name}: the shape is {shape}, and {wish} is wanted. {advice} the model for this size."
