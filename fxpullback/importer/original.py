"""What an imported model is held to: ONNX Runtime on the file itself, on inputs drawn anew at several batch sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxpullback.certify.fresh import Looks
from fxpullback.certify.levels import bound
from fxpullback.compiled import Compiled
from fxpullback.contract.certificate import Check, at_most
from fxpullback.contract.ends import INDEX, MASK
from fxpullback.contract.errors import CaptureError
from fxpullback.importer.held import Held, held_file
from fxpullback.importer.numbers import Array

BATCHES = (1, 3)
BOUND = 1e-4
NAME = "original file in ONNX Runtime: logits"


@dataclass(frozen=True)
class Original:
    """A file as it came.

    Attributes:
        path: the file.
        inputs: names of its inputs.
        outputs: names of the outputs that the module returns; one of them may be a value inside.
        batch: the batch that the file fixes, or None.
        fronts: what stands in front of the file in what is compiled, in order.
        held: what inputs hold that are none of what is compiled.
        origin: what the file says of itself, as `fxpullback.importer.origin` has it.
    """

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int | None
    fronts: tuple[nn.Module, ...] = ()
    held: Held = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def behind(self, front: nn.Module) -> Original:
        """The same with one more module in front."""
        return replace(self, fronts=(front, *self.fronts))

    def __deepcopy__(self, memo: Any) -> Original:
        return self

    def checks(self, pb: Compiled, seed: int) -> tuple[Check, ...]:
        """The captured graph against the file, at batches of one and three.

        Args:
            pb: what was compiled of it.
            seed: seed of the fresh inputs.

        Raises:
            CaptureError: ONNX Runtime cannot run the file.
        """
        session = self._session()
        found = []
        for batch in BATCHES:
            drawn = Looks.of(pb).draw(batch, seed + batch, pb.example)
            with torch.no_grad():
                ours = pb.captured(*drawn)[0]
            error = self._error(session, pb, drawn, ours)
            most = (BOUND, "") if error <= BOUND else bound(pb.captured, [*drawn], BOUND)
            found.append(at_most(f"{NAME}, batch {batch}", error, *most))
        return tuple(found)

    def judge(self, pb: Compiled) -> None:
        """Refuse what does not compute the logits of the file.

        Raises:
            CaptureError: with the check that failed.
        """
        for check in self.checks(pb, 0):
            if not check.passed:
                why = f" ({check.detail})" if check.detail else ""
                raise CaptureError(
                    f"{self.path.name}: {check.name}: off by {check.measured:.1e}, allowed {check.bound:.0e}{why}. The "
                    "file is not computed as ONNX Runtime does, so no explanation is made of it; please report the "
                    "file."
                )

    def _error(self, session: Any, pb: Compiled, drawn: Any, ours: Tensor) -> float:
        given = [drawn.x, *drawn.extras]
        if pb.entry is not None:
            given = [*drawn.extras]
        kind = pb.ends.positions
        places = None if kind is None else given.pop()  # the last of the extras
        for front in self.fronts:
            given[0] = front(given[0])
        theirs = self.run(session, given, self._explained(pb.ends.output))
        if kind is not None and places is not None:
            theirs = at_positions(theirs, kind, places.numpy())
        wanted = theirs.reshape(ours.shape)
        scale = max(float(np.abs(wanted).max()), 1e-30)
        return float(np.abs(ours.numpy() - wanted).max()) / scale

    def run(self, session: Any, given: Sequence[Tensor], output: str) -> Array:
        """The output `[batch, ...]` that ONNX Runtime computes; of a fixed batch, one batch after the other."""
        arrays = [value.detach().cpu().numpy() for value in given]
        types = {value.name: value.type for value in session.get_inputs()}
        arrays = [a.astype(_numpy(types[name])) for name, a in zip(self.inputs, arrays, strict=True)]
        count, step = len(arrays[0]), self.batch or len(arrays[0])
        try:
            return self._in_steps(session, output, arrays, count, step)
        except Exception as error:
            if count == 1 or step == 1:
                raise self._refused(error) from error
        try:
            return self._in_steps(session, output, arrays, count, 1)  # a state of one sample, of a batch called free
        except Exception as error:
            raise self._refused(error) from error

    def _in_steps(self, session: Any, output: str, arrays: Sequence[Array], count: int, step: int) -> Array:
        made = []
        for start in range(0, count, step):
            part = [_filled(a[start : start + step], step) if a.ndim and len(a) == count else a for a in arrays]
            found = session.run([output], dict(zip(self.inputs, part, strict=True)))[0]
            made.append(_batch_first(found, step))
        return np.concatenate(made)[:count]

    def _explained(self, output: str | int | None) -> str:
        """The name of the output that is explained, which may be told by its place."""
        if isinstance(output, str) and output in self.outputs:
            return output
        return self.outputs[int(output or 0)]

    def _session(self) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry(
            "session.disable_quant_qdq", "1"
        )  # pairs as they are, in no kernel of integers
        try:
            return ort.InferenceSession(self._model(), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> CaptureError:
        line = str(error).strip().splitlines()[0][:300]
        return CaptureError(
            f"ONNX Runtime cannot run {self.path.name}: {line}. What it cannot run is not certified nor written."
        )

    def _model(self) -> Any:
        """The file, with what is held as constants, and the value that is explained as a further output."""
        return held_file(str(self.path), str(self.path.parent), self.held, self.inputs[0], self.outputs)


def _batch_first(found: Array, count: int) -> Array:
    """An output with its batch first, which may be its second axis, or have been squeezed away where it is one."""
    if found.ndim and len(found) == count:
        return found
    if found.ndim == 3 and found.shape[1] == count:
        return np.moveaxis(found, 1, 0)
    return found.reshape(count, -1)


def at_positions(logits: Array, kind: str, places: Array) -> Array:
    """The logits `[batch, classes]` at the positions that are asked for.

    Args:
        logits: `[batch, positions, classes]`, or `[batch, classes, *positions]` of rank 4 and more.
        kind: what `places` hold, as of `fxpullback.compile(positions=...)`.
        places: one for each sample.
    """
    last = logits if logits.ndim == 3 else np.moveaxis(logits, 1, -1)
    found = []
    for sample, place in zip(last, places, strict=True):
        if kind == INDEX:
            found.append(sample[tuple(np.atleast_1d(place))])
        else:
            flat, shares = sample.reshape(-1, sample.shape[-1]), place.reshape(-1).astype(sample.dtype)
            found.append(shares @ flat / (shares.sum() if kind == MASK else 1))
    return np.stack(found)


def _filled(array: Array, count: int) -> Array:
    """An array with its first sample over again, up to a number of samples."""
    return np.concatenate([array, *[array[:1]] * (count - len(array))]) if len(array) < count else array


def _numpy(kind: str) -> str:
    names = {"float": "float32", "double": "float64", "float16": "float16"}
    inner = kind.removeprefix("tensor(").removesuffix(")")
    return names.get(inner, inner)
