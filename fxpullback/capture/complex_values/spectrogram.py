"""Short-time Fourier transforms and their inverse, as convolutions of stride `hop` with windowed cosines and sines."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fxpullback.capture.complex_values import fourier
from fxpullback.capture.complex_values.constants import Constants
from fxpullback.capture.complex_values.pair import Pair, Real, bilinear, pair, plus
from fxpullback.capture.complex_values.transforms import FORWARD, refusal
from fxpullback.graph.ir import aten, schema_arguments
from fxpullback.graph.rebuild import Site
from fxpullback.graph.shapes import is_free, plain

LARGEST = 4096  # points of a window; the kernel of as many holds 17 million numbers
EMPTY = 1e-11  # torch's own bound on the sum of squared windows


def stft(site: Site, constants: Constants) -> Any:
    """`aten.stft.default`: `[batch, samples]` to `[batch, frequencies, frames]`."""
    x, points, hop, width, _, *rest = site.arguments()
    return _stft(site, pair(x), points, hop, _window(site, constants, points, width), *rest)


def centred_stft(site: Site, constants: Constants) -> Any:
    """`aten.stft.center`: the same of a signal that is padded first."""
    x, points, hop, width, _, centre, mode, *rest = site.arguments()
    x, window = pair(x), _window(site, constants, points, width)
    if centre:
        x = x.each(lambda z: _padded(z, points // 2, mode))
    return _stft(site, x, points, hop, window, *rest)


def _padded(x: Real, sides: int, mode: str) -> Real:
    """The last axis padded on both sides, behind an axis of channels, which torch's padding wants."""
    padded: Real = x.builder.call(aten.pad.default, (_rows(x), [sides, sides], mode), {})
    return padded.reshape([*x.shape[:-1], padded.shape[-1]])


def _rows(x: Real) -> Real:
    """`[batch, 1, samples]` of `[batch, samples]`, or of `[samples]` with a batch of one."""
    rows: Real = x.unsqueeze(0).unsqueeze(0) if x.ndim == 1 else x.unsqueeze(1)
    return rows


def _window(site: Site, constants: Constants, points: int, width: int | None) -> Tensor:
    """The window in float64, ones without one, zeros on both sides where it is narrower than the transform."""
    node = schema_arguments(site.node)[4]
    held = torch.ones(width or points, dtype=torch.float64)
    if node is not None:
        if node not in constants:
            raise refusal(site)("has a window that depends on an input. Make it a buffer or a parameter of the module")
        held = constants.value(node).detach().cpu()
    if held.is_complex():
        raise refusal(site)("has a complex window. Multiply the frames, x.unfold(-1, n_fft, hop), by it in the model")
    left = (points - len(held)) // 2
    return torch.nn.functional.pad(held.double(), (left, points - len(held) - left))


def _stft(
    site: Site, x: Pair, points: int, hop: int | None, window: Tensor, normalized: bool, onesided: bool | None,
    as_complex: bool | None, aligned: bool | None = None,
) -> Any:  # fmt: skip
    if aligned:
        raise refusal(site)("has align_to_window=True, which is not supported. Leave it out, with win_length=n_fft")
    half = x.imag is None if onesided is None else onesided
    kept = points // 2 + 1 if half else points
    scale = 1 / math.sqrt(points) if normalized else 1.0
    hop = hop or points // 4
    if points > LARGEST:
        frames = x.each(lambda z: z.unfold(-1, points, hop) * z.exact_constant(window))
        found = fourier.transform(frames, points, FORWARD, scale, refusal(site), kept)
        found = found.each(lambda z: z.transpose(-1, -2))
    else:
        cosine, sine = fourier.matrix(points, kept, points, FORWARD, scale)
        kernels = _kernels(x.some, cosine * window[:, None], sine * window[:, None])
        found = bilinear(lambda signal, kernel: _convolved(signal, kernel, hop), x, kernels)
    return found if as_complex else torch.stack(list(found.both()), -1)


def _kernels(like: Real, cosine: Tensor, sine: Tensor) -> Pair:
    """Matrices `[points, frequencies]` as kernels `[frequencies, 1, points]`."""
    real, imag = (part.transpose(0, 1).unsqueeze(1).contiguous() for part in (cosine, sine))
    return fourier.constants(like, (real, imag))


def _convolved(x: Real, kernel: Real, hop: int) -> Real:
    """`[batch, samples]` to `[batch, frequencies, frames]`, or without a batch as `x` is."""
    call = (_rows(x), kernel, None, [hop], [0], [1], False, [0], 1)
    found: Real = x.builder.call(aten.convolution.default, call, {})
    return found.squeeze(0) if x.ndim == 1 else found


def istft(site: Site, constants: Constants) -> Real:
    """`aten.istft.default`: frames are transformed back, added where they overlap, and divided by the windows' sum."""
    x, points, hop, width, _, centre, normalized, _, length, as_complex = site.arguments()
    refuse = refusal(site)
    if points > LARGEST:
        raise refuse(f"transforms windows of {points} samples back; {LARGEST} is the most")
    if as_complex:
        raise refuse("returns a complex signal. Transform its real and its imaginary part back by themselves")
    frames = x.some.shape[-1]
    if is_free(frames) or (length is not None and is_free(length)):
        raise refuse("gives a signal whose length is free. Compile with that axis fixed")
    hop, window = hop or points // 4, _window(site, constants, points, width)
    spectrum = x.each(lambda z: z[..., : points // 2 + 1, :])
    scale = 1 / math.sqrt(points) if normalized else 1 / points
    cosine, sine = fourier.half_inverse(points, scale)
    y = _overlapped(spectrum, cosine * window, sine * window, hop)
    return _cut_to_length(site, y, window, int(plain(frames)), hop, centre, None if length is None else plain(length))


def _overlapped(x: Pair, cosine: Tensor, sine: Tensor, hop: int) -> Real:
    """Each frame's windowed signal, added up: a transposed convolution. Kernels are `[frequencies, points]`."""

    def back(part: Real | None, kernel: Tensor) -> Real | None:
        if part is None:
            return None
        deep = part.unsqueeze(0) if part.ndim == 2 else part
        weight = part.exact_constant(kernel.unsqueeze(1).contiguous())
        call = (deep, weight, None, [hop], [0], [1], True, [0], 1)
        added: Real = part.builder.call(aten.convolution.default, call, {})
        return added.squeeze(1).squeeze(0) if part.ndim == 2 else added.squeeze(1)

    found = plus(back(x.real, cosine), back(x.imag, sine))
    assert found is not None
    return found


def _cut_to_length(
    site: Site, y: Real, window: Tensor, frames: int, hop: int, centre: bool, length: int | None
) -> Real:
    """The signal between the sides that centring added, over the sum of squared windows there; zeros behind it."""
    points = len(window)
    whole = points + hop * (frames - 1)
    start = points // 2 if centre else 0
    end = whole - start if length is None else start + length
    squares = torch.zeros(whole, dtype=torch.float64)
    for frame in range(frames):
        squares[frame * hop : frame * hop + points] += window * window
    stop = min(end, whole)
    if not float(squares[start:stop].abs().min()) > EMPTY:
        raise refusal(site)(
            "divides by windows that do not overlap everywhere, as torch.istft itself refuses. Use a shorter hop or "
            "another window"
        )
    cut = y[..., start:stop] * y.exact_constant(1 / squares[start:stop])
    if end > whole:
        cut = cut.builder.call(aten.constant_pad_nd.default, (cut, [0, end - whole], 0.0), {})
    return cut
