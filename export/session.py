"""Load a compiled file in ONNX Runtime and run it on checked inputs.

Needs numpy and ONNX Runtime; no torch is used on the way from a picture to its explanation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from fxpullback.errors import InputError, SessionError
from fxpullback.export import metadata as md
from fxpullback.export.providers import CPU, Provider, ProviderWarning, chosen, startable, warn_if_unused
from fxpullback.export.signature import TensorInput, array, input_of
from fxpullback.names import complain
from fxpullback.sizes import misfits

__all__ = ["ProviderWarning", "Result", "Session"]

Array: TypeAlias = npt.NDArray[np.float32]
_INFINITY = float("inf")


@dataclass(frozen=True, slots=True)
class Result:
    """What one call returns.

    Attributes:
        logits: float32 [batch, classes], the model's own output.
        pullback: float32, the shape of the input. For ascent: the displacement, counterfactual minus input.
        counterfactual: float32, the shape of the input; ascent only, else None.
        counterfactual_logits: float32 [batch, classes] of the counterfactual; ascent only, else None.
    """

    logits: Array
    pullback: Array
    counterfactual: Array | None = None
    counterfactual_logits: Array | None = None


class Session:
    """A compiled file, loaded in ONNX Runtime.

    A session holds no state between calls and may be shared by threads.

    Args:
        path: The ONNX file; external data is looked for beside it.
        providers: Execution providers in order of preference, as ONNX Runtime takes them. None picks the best that
            works here: CUDA where there is a GPU that ONNX Runtime can use, else the CPU.

    Attributes:
        metadata: Everything the file says about itself.
        program: `soft`, `double` or `ascent`, with its options where the file has them.
        rules: The rule set the file was compiled under.
        target: `index`, `top1`, `cotangent` or `contrast`.
        classes: Class names in the order of the logits, or None.
        preprocessing: How a picture becomes an input, or None.
        ledger: What happened to every operator of the model.
        certificate: What was verified at export, or None.
        inputs: Every input of the file by name, with its type and shape: `input`, what is passed through, `target`.
        extras: The inputs that are passed through and not explained, by name; empty for most files.
        input_shape: Shape of `input`; a dimension that is free is its name, such as `"batch"`.
        sizes: The axes of `input` beside the batch whose size is free, and what sizes they allow; empty for most files.
        class_count: Number of logits.
        providers: Execution providers actually used, in order of preference.

    Raises:
        SessionError: The file is absent, truncated, not written by fxpullback, or lacks its external data.

    Warns:
        ProviderWarning: A GPU was asked for and is not used.
    """

    def __init__(self, path: str | os.PathLike[str], *, providers: Sequence[Provider] | None = None) -> None:
        self.path = Path(path)
        _check_file(self.path)
        wanted = chosen(providers)
        self._session, failure = _load(self.path, startable(wanted))
        self.metadata = _metadata(self.path, self._session)
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        warn_if_unused(wanted, self.providers, asked=providers is not None, failure=failure)
        self.program = self.metadata.program
        self.rules = self.metadata.rules
        self.target = self.metadata.target
        self.classes = self.metadata.classes
        self.preprocessing = self.metadata.preprocessing
        self.ledger: dict[str, Any] = self.metadata.ledger
        self.certificate = self.metadata.certificate
        self.inputs, self.class_count = _signature(self.path, self._session, self.metadata)
        self.input_shape = self.inputs["input"].shape
        self.extras = {name: self.inputs[name] for name in self.metadata.extras}
        self.sizes = self.metadata.sizes
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._rank = len(self.input_shape)
        self._sizes = tuple((axis, size) for axis, size in enumerate(self.input_shape) if isinstance(size, int))
        self._ascent = len(self._outputs) == 4

    def __call__(
        self, x: npt.ArrayLike, /, target: npt.ArrayLike | None = None, *extras: npt.ArrayLike, **named: npt.ArrayLike
    ) -> Result:
        """Logits and pullback of a batch.

        Args:
            x: Floating point, the shape of `input_shape`: for a picture model [batch, 3, H, W], RGB scaled to [-1, 1].
                Other floating types are converted to float32.
            target: What to explain, by the file's target. `index`: one class per sample, integers [batch]. `contrast`:
                two classes per sample, integers [batch, 2], the first minus the second. `cotangent`: floating point
                [batch, classes]. `top1`: nothing.
            *extras: What the file takes besides, in the order of `session.extras`.
            **named: The same by name, as in `session(x, target, mask=mask)`.

        Returns:
            The outputs of the file, as numpy arrays.

        Raises:
            InputError: An input has the wrong rank, size or type, holds NaN or infinity, names no class, or an extra is
                missing or unknown.
            SessionError: ONNX Runtime failed while running.
        """
        data = self._checked_input(x)
        feed: dict[str, Any] = {"input": data, **self._checked_extras(extras, named, data.shape[0])}
        if self.target != "top1":
            feed["target"] = self._checked_target(target, data.shape[0])
        elif target is not None:
            raise InputError(
                "target: none is taken by this file, which explains the top-1 class of each sample. "
                'Leave it out, or compile the model with target="index".'
            )
        try:
            outputs = self._session.run(self._outputs, feed)
        except Exception as error:
            raise SessionError(
                f"{self.path}: ONNX Runtime failed on an input of shape {data.shape}: {error}"
            ) from error
        return Result(*outputs)

    def __repr__(self) -> str:
        program = self.metadata.program_name
        return f"Session({str(self.path)!r}, program={program!r}, target={self.target!r}, providers={self.providers})"

    def _checked_input(self, x: npt.ArrayLike) -> Array:
        """`x` as float32, or an InputError. Cheap: two passes over the data, no copy when it is float32 already."""
        data = array("input", x)
        if data.dtype.kind != "f":
            raise InputError(
                f"input: the type is {data.dtype}, and float32 is wanted. Pixels are expected as RGB scaled to "
                "[-1, 1]: pass x.astype(np.float32) / 127.5 - 1 for 8-bit pixels."
            )
        if data.dtype != np.float32:
            with np.errstate(over="ignore"):  # what overflows is reported below
                data = data.astype(np.float32)
        shape = data.shape
        if len(shape) != self._rank or any(shape[axis] != size for axis, size in self._sizes) or not data.size:
            raise InputError(_shape_text("input", shape, self.input_shape))
        if self.sizes and (wrong := misfits(shape, self.sizes)):
            raise InputError(f"input: the shape is {shape}: {'; '.join(wrong)}. Resize or pad it.")
        if not (data.min() > -_INFINITY and data.max() < _INFINITY):
            bad = np.argwhere(~np.isfinite(data))
            raise InputError(
                f"input: {len(bad)} of {data.size} values are NaN or infinite, the first at {tuple(map(int, bad[0]))}. "
                "An explanation of such an input would mean nothing; look at the step that made it."
            )
        return data

    def _checked_extras(self, given: Sequence[Any], named: dict[str, Any], batch: int) -> dict[str, npt.NDArray[Any]]:
        """The extras by name, in the types the graph takes, or an InputError."""
        if not self.extras and not given and not named:
            return {}
        names = list(self.extras)
        complain(names, len(given), named)
        held = {**dict(zip(names, given, strict=False)), **named}
        return {name: extra.checked(held[name], batch) for name, extra in self.extras.items()}

    def _checked_target(self, target: npt.ArrayLike | None, batch: int) -> npt.NDArray[Any]:
        """`target` in the type the graph takes, or an InputError."""
        if target is None:
            raise InputError(f"target: this file needs one. {_target_text(self.target, batch, self.class_count)}")
        data = array("target", target)
        width = {"index": (), "contrast": (2,), "cotangent": (self.class_count,)}[self.target]
        kinds = "f" if self.target == "cotangent" else "iu"
        if data.dtype.kind not in kinds:
            raise InputError(f"target: the type is {data.dtype}. {_target_text(self.target, batch, self.class_count)}")
        if data.shape != (batch, *width):
            raise InputError(f"target: the shape is {data.shape}. {_target_text(self.target, batch, self.class_count)}")
        low, high = data.min(), data.max()
        if self.target == "cotangent":
            if not (low > -_INFINITY and high < _INFINITY):
                raise InputError("target: the cotangent holds NaN or infinite values.")
            return data.astype(np.float32, copy=False)
        if low < 0 or high >= self.class_count:
            bad = int(low) if low < 0 else int(high)
            raise InputError(
                f"target: there is no class {bad}; the model has {self.class_count} classes, "
                f"0 to {self.class_count - 1}."
            )
        return data.astype(np.int64, copy=False)


def _shape_text(name: str, shape: tuple[int, ...], wanted: tuple[int | str, ...]) -> str:
    """Says which shape came, which is wanted, and what to do."""
    wish = f"[{', '.join(map(str, wanted))}]"
    if len(shape) == len(wanted) - 1:
        return f"{name}: the shape is {shape}, and {wish} is wanted. For a single sample, add the batch axis: x[None]."
    if len(wanted) == 4 and len(shape) == 4 and shape[3] == wanted[1] != shape[1]:
        return f"{name}: the shape is {shape}, and {wish} is wanted. Channels come first: x.transpose(0, 3, 1, 2)."
    if 0 in shape:
        return f"{name}: the shape is {shape}, which holds no data; {wish} is wanted."
    advice = "Resize the pictures, or compile" if len(wanted) == 4 else "Compile"
    return f"{name}: the shape is {shape}, and {wish} is wanted. {advice} the model for this size."


def _target_text(target: str, batch: int, classes: int) -> str:
    """What a file of this target takes."""
    return {
        "index": f"Pass one class per sample, integers of shape ({batch},), each from 0 to {classes - 1}.",
        "contrast": f"Pass two classes per sample, integers of shape ({batch}, 2): the first against the second.",
        "cotangent": f"Pass one weight per class and sample, floating point of shape ({batch}, {classes}).",
    }[target]


def _check_file(path: Path) -> None:
    """Raise a SessionError unless `path` is a file that can be read and is not empty."""
    if not path.exists():
        raise SessionError(f"{path}: there is no such file. Write one with: fxpullback compile MODEL -o {path}")
    if path.is_dir():
        raise SessionError(f"{path}: this is a folder, and the ONNX file itself is wanted.")
    if path.stat().st_size == 0:
        raise SessionError(f"{path}: the file is empty. Compile it again, or copy it again.")
    if not os.access(path, os.R_OK):
        raise SessionError(f"{path}: the file cannot be read; this user lacks the permission.")


def _load(path: Path, providers: Sequence[Provider]) -> tuple[ort.InferenceSession, str | None]:
    """The ONNX Runtime session of `path`, on the CPU where the others fail; and what was said about those."""
    try:
        # ONNX Runtime's own fallback prints to stdout and changes a session that is shared by threads.
        return ort.InferenceSession(os.fspath(path), providers=list(providers), enable_fallback=0), None
    except Exception as error:
        text = " ".join(str(error).split())
        if list(providers) != [CPU] and (session := _load_on_cpu(path)) is not None:
            return session, text
        raise SessionError(f"{path}: {_load_reason(text)} ONNX Runtime says: {text}") from error


def _load_on_cpu(path: Path) -> ort.InferenceSession | None:
    """The session on the CPU, or None when the file itself is at fault."""
    try:
        return ort.InferenceSession(os.fspath(path), providers=[CPU], enable_fallback=0)
    except Exception:
        return None


def _load_reason(text: str) -> str:
    """What a loading failure of ONNX Runtime most probably means, and what to do."""
    lower = text.lower()
    if "external data" in lower or "external initializer" in lower:
        return (
            "the external data with its weights is missing or cut short. Keep that file beside it, under its own name."
        )
    if "parsing failed" in lower or "graph" in lower:
        return "this is no whole ONNX file: it is truncated, or another kind of file. Copy or compile it again."
    return "ONNX Runtime cannot load the file."


def _metadata(path: Path, session: ort.InferenceSession) -> md.Metadata:
    """The metadata of a loaded file, or a SessionError for a file that fxpullback did not write."""
    raw: dict[str, str] = session.get_modelmeta().custom_metadata_map
    if not any(key.startswith(md.PREFIX) for key in raw):
        raise SessionError(
            f"{path}: this ONNX file was not written by fxpullback (no metadata {md.PREFIX}*), or it was cut short. "
            "Compile the PyTorch model it came from: fxpullback compile MODEL -o FILE"
        )
    try:
        return md.parse(raw)
    except ValueError as error:
        raise SessionError(
            f"{path}: the file is damaged or comes from another version of fxpullback: {error}."
        ) from error


def _signature(path: Path, session: ort.InferenceSession, metadata: md.Metadata) -> tuple[dict[str, TensorInput], int]:
    """The inputs and the number of classes, once the names are found to be those of the contract."""
    inputs = {value.name: input_of(value) for value in session.get_inputs()}
    outputs = {value.name: value for value in session.get_outputs()}
    wanted = ["input", *metadata.extras, *([] if metadata.target == "top1" else ["target"])]
    returned = ["logits", "pullback"]
    if metadata.program_name == "ascent":
        returned += ["counterfactual", "counterfactual_logits"]
    if sorted(inputs) != sorted(wanted) or list(outputs) != returned:
        raise SessionError(
            f"{path}: the file takes {', '.join(inputs)} and returns {', '.join(outputs)}, where its metadata promises "
            f"{', '.join(wanted)} and {', '.join(returned)}. It was changed after export; compile it again."
        )
    classes = outputs["logits"].shape[-1]
    if not isinstance(classes, int):
        raise SessionError(
            f"{path}: the number of classes is not fixed in the file (logits are {outputs['logits'].shape})."
        )
    return inputs, classes
