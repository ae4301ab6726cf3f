"""Fourier transforms. A complex value is a pair on the last axis, as ONNX has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.site import Node, tensor


def dft(node: Node, x: Any, *rest: Any) -> Any:
    """The discrete Fourier transform along an axis, or its inverse."""
    values = [x, *rest]
    length = node.number(1, values)
    axis = node.get("axis", 1) if node.opset < 20 else node.number(2, values, -2)
    axis %= x.ndim
    inverse, half = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    given = torch.view_as_complex(x) if x.shape[-1] == 2 else x[..., 0]
    if inverse and half:
        made = torch.fft.irfft(given, length, axis)
        return made.unsqueeze(-1)
    if inverse:
        made = torch.fft.ifft(given, length, axis)
    elif half:
        made = torch.fft.rfft(given if not given.is_complex() else given.real, length, axis)
    else:
        made = torch.fft.fft(given, length, axis)
    return torch.view_as_real(made)


def stft(node: Node, x: Any, step: Any, window: Any = None, length: Any = None) -> Any:
    """Fourier transforms of windows of a signal."""
    values = [x, step, window, length]
    hop, frame = int(node.number(1, values)), node.number(3, values)
    window = tensor(window)
    frame = int(frame if frame is not None else window.shape[0])
    if x.ndim == 3 and x.shape[-1] == 2:
        raise CaptureError("a signal of complex values is not supported")
    signal = x.reshape([x.shape[0], -1]) if x.ndim == 3 else x
    frames = signal.unfold(-1, frame, hop)
    frames = frames if window is None else frames * window
    made = torch.fft.rfft(frames) if node.get("onesided", 1) else torch.fft.fft(frames)
    return torch.view_as_real(made)


OPERATORS: dict[str, Callable[..., Any]] = {"DFT": dft, "STFT": stft}
