"""Complex values become pairs of real ones: values and gradients are torch's own, and what is not known is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fft import fft, fftn, fftshift, hfft, ifft, ihfft, irfft, irfft2, irfftn, rfft, rfft2, rfftn

from fxpullback.capture import capture
from fxpullback.capture.complex_values import is_complex
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.invariants import check_captured
from tests.helpers import Flat, assert_near, draw, graph_of, pulled_back

HANN = torch.hann_window(16, dtype=torch.float64)
NARROW = torch.hamming_window(11, dtype=torch.float64)
WEIGHT = torch.complex(draw(5, 16, seed=1), draw(5, 16, seed=2))
KERNEL = torch.complex(draw(3, 2, 3, seed=1), draw(3, 2, 3, seed=2))
BIAS = torch.complex(draw(3, seed=3), draw(3, seed=4))
MASK = draw(16, seed=5) > 0


def two(x: Tensor) -> Tensor:
    """Complex numbers that depend on all of x in both parts."""
    return torch.complex(x, x.flip([1]) * 0.5)


def real(z: Tensor) -> Tensor:
    """Real numbers that depend on both parts."""
    return torch.view_as_real(z.resolve_conj())


def stft(x: Tensor, size: int = 16, hop: int = 4, **options: Any) -> Tensor:
    return torch.stft(x, size, hop, **{"window": HANN, "return_complex": True, **options})


def istft(x: Tensor, **options: Any) -> Tensor:
    given = {key: value for key, value in options.items() if key in ("center", "normalized", "onesided", "window")}
    z = stft(x, **given)
    return torch.istft(z * (1 + z.abs()), 16, 4, **{"window": HANN, **options})


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rfft, forward": lambda x: real(rfft(x, norm="forward")),
    "rfft, backward": lambda x: real(rfft(x, norm="backward")),
    "rfft, ortho": lambda x: real(rfft(x, norm="ortho")),
    "irfft, forward": lambda x: irfft(two(x), norm="forward"),
    "irfft, backward": lambda x: irfft(two(x), norm="backward"),
    "irfft, ortho": lambda x: irfft(two(x), norm="ortho"),
    "fft of real": lambda x: real(fft(x)),
    "fft": lambda x: real(fft(two(x))),
    "ifft, padded": lambda x: real(ifft(two(x), n=19)),
    "rfft, padded": lambda x: real(rfft(x, n=21)),
    "rfft, cut": lambda x: real(rfft(x, n=7)),
    "irfft, cut": lambda x: irfft(two(x), n=13),
    "irfft, padded": lambda x: irfft(two(x), n=36),
    "hfft": lambda x: hfft(two(x)),
    "ihfft": lambda x: real(ihfft(x)),
    "rfft2": lambda x: real(rfft2(x.reshape(-1, 2, 4, 4))),
    "irfft2": lambda x: irfft2(two(x).reshape(-1, 2, 4, 4), s=(5, 6), norm="ortho"),
    "rfftn, an axis cut": lambda x: real(rfftn(x.reshape(-1, 2, 4, 4), s=(3, 4), dim=(2, 1))),
    "fftn, some axes": lambda x: real(fftn(two(x).reshape(-1, 2, 4, 4), dim=(1, 3), norm="forward")),
    "irfftn, all axes": lambda x: irfftn(two(x).reshape(-1, 2, 4, 4), dim=(1, 2, 3)),
    "shifted": lambda x: real(fftshift(fft(two(x)), dim=(1,))),
    "power": lambda x: rfft(x).abs() ** 2,
    "stft": lambda x: real(stft(x)),
    "stft, not centred": lambda x: stft(x, center=False).abs(),
    "stft, narrow": lambda x: stft(x, win_length=11, window=NARROW).abs(),
    "stft, no window": lambda x: real(stft(x, 10, 3, window=None)),
    "stft, constant padding": lambda x: real(stft(x, pad_mode="constant", normalized=True)),
    "stft, both sides": lambda x: real(stft(x, onesided=False)),
    "stft of complex": lambda x: real(stft(two(x))),
    "stft, as real": lambda x: stft(x, return_complex=False),
    "stft of channels": lambda x: stft(x.reshape(-1, 16)).abs().reshape(-1, 2, 9, 5),
    "istft": istft,
    "istft, length": lambda x: istft(x, length=29),
    "istft, a longer one": lambda x: istft(x, length=40),
    "istft, normalized, both sides": lambda x: istft(x, normalized=True, onesided=False),
    "istft, not centred": lambda x: istft(x, center=False, window=HANN + 0.1),
}  # fmt: skip

OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: real(two(x) * two(x.sin())),
    "product with real": lambda x: real(two(x) * x),
    "product with a constant": lambda x: real(two(x).reshape(-1, 2, 1, 16) * WEIGHT),
    "product with i": lambda x: real(x * 1j * two(x)),
    "quotient": lambda x: real(two(x) / two(x + 3)),
    "quotient by real": lambda x: real(two(x) / (x.abs() + 1)),
    "quotient by a number": lambda x: real(two(x) / (2 - 1j)),
    "reciprocal": lambda x: real(two(x).reciprocal()),
    "sums": lambda x: real(two(x) + x - (1 + 2j) + 3 - two(x).conj() * 2),
    "a sum that spreads": lambda x: real((x * 1j).reshape(-1, 2, 16)[:, :1] + x.reshape(-1, 2, 16)),
    "a number less it": lambda x: real((1 - 2j) - two(x)),
    "norm": lambda x: torch.linalg.vector_norm(two(x).reshape(-1, 8, 4), dim=1),
    "a part set to zero": lambda x: real(_cleared(two(x), 0)),
    "a part set to a number": lambda x: real(_cleared(two(x), 2 - 1j)),
    "by its own sizes": lambda x: real(two(x).reshape(two(x).shape[0], 4, -1)),
    "conjugate": lambda x: real(two(x).conj() * two(x).exp()),
    "modulus": lambda x: two(x).abs(),
    "angle": lambda x: two(x).angle(),
    "parts": lambda x: two(x).real.sin() + two(x).imag.cos(),
    "polar": lambda x: real(torch.polar(x.abs(), x * 2)),
    "as complex": lambda x: real(torch.view_as_complex(x.reshape(-1, 16, 2)).square()),
    "exp": lambda x: real(torch.exp(two(x))),
    "log": lambda x: real(torch.log(two(x) + 5)),
    "cube": lambda x: real(two(x) ** 3),
    "reductions": lambda x: real(two(x).sum(1, keepdim=True) * two(x).mean(1, keepdim=True)),
    "matrices": lambda x: real(two(x).reshape(-1, 2, 16) @ WEIGHT.T),
    "einsum": lambda x: real(torch.einsum("bni,oi->bon", two(x).reshape(-1, 2, 16), WEIGHT)),
    "linear": lambda x: real(nn.functional.linear(two(x).reshape(-1, 2, 16), WEIGHT, WEIGHT[:, 0])),
    "convolution": lambda x: real(nn.functional.conv1d(two(x).reshape(-1, 2, 16), KERNEL, BIAS, padding=1)),
    "joined": lambda x: real(torch.cat([two(x), x * 1j, x.to(torch.complex128)], 1)),
    "stacked": lambda x: real(torch.stack([two(x), (x * 2).to(torch.complex128)], 1)),
    "cut in parts": lambda x: real(torch.cat(torch.chunk(two(x), 4, 1)[::-1], 1)),
    "written into": lambda x: real(_written(two(x))),
    "chosen": lambda x: real(torch.where(MASK.repeat(2), two(x), two(x).conj() * 1j)),
    "filled": lambda x: real(two(x).masked_fill(MASK.repeat(2), 2.0)),
    "padded": lambda x: real(nn.functional.pad(two(x), (1, 2), value=3.0)),
    "moved": lambda x: real(two(x).reshape(-1, 2, 16).transpose(1, 2).flip([1]).roll(3, 1)[:, 2:7].squeeze(1)),
    "weights alone": lambda x: x * torch.linalg.eigvals(WEIGHT[:, :5] * 0.1).abs().max() + (WEIGHT**1.5).real[0, 0],
}


def _cleared(z: Tensor, number: Any) -> Tensor:
    z = z.clone()
    z[:, 3:9] = number
    z.real[:, 20:] = 0
    return z


def _written(z: Tensor) -> Tensor:
    out = torch.zeros(z.shape[0], 40, dtype=z.dtype)
    out[:, 3:35] = z * 2
    out[:, 5] = z[:, 0]
    return out


@pytest.mark.filterwarnings("ignore:A window was not provided", "ignore:stft with return_complex=False")
@pytest.mark.parametrize("name", [*TRANSFORMS, *OPERATORS])
def test_values_and_gradients_are_those_of_torch(name: str) -> None:
    function = {**TRANSFORMS, **OPERATORS}[name]
    graph = graph_of(function, 32)
    check_captured(graph)
    assert not any(map(is_complex, graph.graph.nodes))
    x = draw(3, 32)
    wanted = function(x)
    assert_near(graph(x)[0], wanted.reshape(3, -1))
    ct = draw(*wanted.shape, seed=9)
    assert_near(pulled_back(lambda v: graph(v)[0], x, ct.reshape(3, -1)), pulled_back(function, x, ct))


@pytest.mark.parametrize("points", [1031, 1536, 2310])
def test_long_transforms_are_taken_apart(points: int) -> None:
    def function(x: Tensor) -> Tensor:
        return torch.cat([rfft(x).abs(), ifft(fft(x) * 1j).imag, irfft(rfft(x) * (1 + 1j), n=points)], 1)

    graph = graph_of(function, points)
    held = sum(t.numel() for t in graph.buffers())
    x, ct = draw(2, points), draw(2, points // 2 + 1 + 2 * points, seed=1)
    assert_near(graph(x)[0], function(x))
    assert_near(pulled_back(lambda v: graph(v)[0], x, ct), pulled_back(function, x, ct))
    assert points == 1031 or held < 40 * points


def test_long_windows_are_taken_apart() -> None:
    window = torch.hann_window(4200, dtype=torch.float64)

    def function(x: Tensor) -> Tensor:
        return stft(x, 4200, 1000, window=window, center=False, normalized=True).abs()

    graph, x = graph_of(function, 6300), draw(2, 6300)
    wanted = function(x)
    assert_near(graph(x)[0], wanted.reshape(2, -1))
    ct = draw(*wanted.shape, seed=1)
    assert_near(pulled_back(lambda v: graph(v)[0], x, ct.reshape(2, -1)), pulled_back(function, x, ct))


@pytest.mark.parametrize("of", [lambda x: two(x).abs(), lambda x: two(x).angle(), lambda x: stft(x).abs() ** 2])
def test_gradients_at_zero_are_those_of_torch(of: Callable[[Tensor], Tensor]) -> None:
    x = draw(2, 32)
    x[0] = 0.0
    wanted = pulled_back(of, x, torch.ones(1, dtype=torch.float64).expand(of(x).shape))
    graph = graph_of(of, 32)
    assert bool(wanted[1].any())
    assert_near(pulled_back(lambda v: graph(v)[0], x, torch.ones_like(graph(x)[0])), wanted)


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "sign": (lambda x: real(torch.sgn(two(x))), r"aten\.sgn at .*helpers\.py:\d+.* complex numbers .*z\.real and z"),
    "tanh": (lambda x: real(torch.tanh(rfft(x))), r"aten\.tanh at .*helpers\.py:\d+.* complex numbers"),
    "power": (lambda x: (two(x) ** 1.5).real, r"aten\.pow\.Tensor_Scalar at .* complex numbers"),
    "a long prime": (
        lambda x: rfft(x, n=4099).abs(),
        r"aten\._fft_r2c at .*4099 points, a prime number.*small factors",
    ),
    "a computed window": (lambda x: stft(x[:1], window=x[0, :16]).abs(), r"window that depends on an input"),
    "complex logits": (lambda x: rfft(x), "the model returns complex numbers"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name: str) -> None:
    function, message = REFUSED[name]
    with pytest.raises(CaptureError, match=f"(?s){message}"):
        graph_of(function, 32)


def test_the_advice_of_a_refusal_works() -> None:
    def function(x: Tensor) -> Tensor:
        z = rfft(x)
        return torch.cat([torch.tanh(z.real), torch.tanh(z.imag)], 1)

    graph, x = graph_of(function, 32), draw(3, 32)
    assert_near(graph(x)[0], function(x))


def test_a_spectrogram_of_a_free_length() -> None:
    def function(x: Tensor) -> Tensor:
        return stft(x, center=False).abs().mean(2)

    graph = capture(Flat(function).eval(), torch.zeros(1, 64, dtype=torch.float64), free_size=[1])
    x = draw(2, 100)
    assert_near(graph(x)[0], function(x))


def test_a_transform_of_a_free_length_is_refused() -> None:
    with pytest.raises(CaptureError, match=r"aten\._fft_r2c at .* axis 1, whose length is free"):
        capture(Flat(lambda x: rfft(x).abs().mean(1, keepdim=True)).eval(), torch.zeros(1, 64), free_size=[1])
