"""Runs whose inputs and outputs are bound to buffers that stay where they are; on CUDA they may be recorded as graphs.

A set of buffers belongs to one shape of the inputs. It is written, run and read out under its lock, and what a call
returns is a copy, so that no later call can change it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort

from fxpullback.contract.errors import SessionError
from fxpullback.contract.tensor_input import TensorInput

Feed: TypeAlias = Mapping[str, Any]
Shape: TypeAlias = tuple[int | str, ...]

KEPT = 8
"""Shapes whose buffers are kept; the one that was not used for longest makes room. Recorded ones all stay."""


class Bound:
    """Calls of a session with bound buffers; threads may share it.

    Args:
        session: The session.
        inputs: Every input of the file by name.
        outputs: The shape of every output by name, in order.
        device: Where the buffers lie: `cpu` or `cuda`.
        device_id: Which of several devices.
        recorded: Batch sizes whose runs CUDA records once and then replays; True for every one that comes, False for
            none.

    Attributes:
        recorded: As given.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        inputs: Mapping[str, TensorInput],
        outputs: Mapping[str, Shape],
        *,
        device: str,
        device_id: int = 0,
        recorded: bool | frozenset[int] = False,
    ) -> None:
        self.recorded = recorded
        self._session, self._inputs, self._outputs = session, inputs, outputs
        self._device = (device, device_id)
        self._sets: OrderedDict[tuple[tuple[int, ...], ...], _Buffers] = OrderedDict()
        self._lock = Lock()
        self._graphs = 0
        # ONNX Runtime forbids several threads on a session that records, and keeps its graphs by thread.
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fxpullback") if recorded else None

    def __call__(self, feed: Feed) -> list[Any]:
        """From arguments by name to the outputs in order, arrays of their own."""
        return self._call(feed) if self._worker is None else self._worker.submit(self._call, feed).result()

    def _call(self, feed: Feed) -> list[Any]:
        return self._buffers(feed).run(feed)

    def _buffers(self, feed: Feed) -> _Buffers:
        """The buffers for the shapes of a call, made where there are none yet."""
        shapes = tuple(feed[name].shape for name in self._inputs)
        with self._lock:
            found = self._sets.get(shapes)
            if found is None:
                found = self._sets[shapes] = self._made(dict(zip(self._inputs, shapes, strict=True)))
                passing = [key for key, kept in self._sets.items() if not kept.is_recorded]
                for key in passing[:-KEPT]:
                    del self._sets[key]
            self._sets.move_to_end(shapes)
            return found

    def _made(self, shapes: Mapping[str, tuple[int, ...]]) -> _Buffers:
        binding, options = self._session.io_binding(), ort.RunOptions()
        held = {
            name: _value(shape, np.dtype(self._inputs[name].dtype), *self._device) for name, shape in shapes.items()
        }
        for name, value in held.items():
            binding.bind_ortvalue_input(name, value)
        free = {
            str(dim): size
            for name, shape in shapes.items()
            for dim, size in zip(self._inputs[name].shape, shape, strict=True)
        }
        for name, wanted in self._outputs.items():
            shape = tuple(dim if isinstance(dim, int) else _size(name, dim, free) for dim in wanted)
            binding.bind_ortvalue_output(name, _value(shape, np.dtype(np.float32), *self._device))
        batch = next((shape[0] for name, shape in shapes.items() if isinstance(self._inputs[name].shape[0], str)), 1)
        records = self.recorded if isinstance(self.recorded, bool) else batch in self.recorded
        if self.recorded:
            self._graphs += records
            options.add_run_config_entry("gpu_graph_id", str(self._graphs if records else -1))
        return _Buffers(self._session, binding, held, options, records)


class _Buffers:
    """Bound buffers for inputs of one shape."""

    def __init__(
        self,
        session: ort.InferenceSession,
        binding: ort.IOBinding,
        inputs: Mapping[str, ort.OrtValue],
        options: ort.RunOptions,
        is_recorded: bool,
    ) -> None:
        self.is_recorded = is_recorded
        self._session, self._binding, self._inputs, self._options = session, binding, inputs, options
        self._lock = Lock()

    def run(self, feed: Feed) -> list[Any]:
        """Copy in, run, copy out."""
        with self._lock:
            for name, value in self._inputs.items():
                value.update_inplace(feed[name])
            self._binding.synchronize_inputs()
            self._session.run_with_iobinding(self._binding, self._options)
            self._binding.synchronize_outputs()
            return list(self._binding.copy_outputs_to_cpu())


def _value(shape: Sequence[int], dtype: np.dtype[Any], device: str, device_id: int) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, device, device_id)


def _size(output: str, dim: str, free: Mapping[str, int]) -> int:
    """The size of a free dimension of an output."""
    if dim not in free:
        raise SessionError(
            f"{output} has the free dimension {dim}, which no input has, so no buffer can be made for it beforehand. "
            "The file was changed after export; compile it again, or pass io_binding=False."
        )
    return free[dim]
