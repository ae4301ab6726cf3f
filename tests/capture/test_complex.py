"""Complex values are refused by name: no part of a cotangent is dropped without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from tests.helpers import graph_of

WINDOW = torch.hann_window(8, dtype=torch.float64)

HELD: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "stft": (lambda x: torch.stft(x, 8, 4, window=WINDOW, return_complex=True).abs(), r"aten\.stft"),
    "rfft": (lambda x: torch.fft.rfft(x).abs(), r"aten\._fft_r2c"),
    "there and back": (lambda x: torch.fft.irfft(torch.fft.rfft(x) * 2, n=16), r"aten\._fft_r2c"),
    "the real part": (lambda x: torch.fft.fft(x).real, r"aten\._fft_r2c"),
    "two parts": (lambda x: torch.complex(x, x * 2).abs(), r"aten\.complex"),
    "a pair": (lambda x: torch.view_as_complex(x.reshape(-1, 8, 2)).abs(), r"aten\.view_as_complex"),
    "times i": (lambda x: (x * 1j).imag, r"aten\.mul"),
    "beside another path": (lambda x: torch.cat([torch.fft.rfft(x).abs(), torch.relu(x)], 1), r"aten\._fft_r2c"),
}


@pytest.mark.parametrize("name", HELD)
def test_complex_values_are_refused_by_name(name: str) -> None:
    function, operator = HELD[name]
    with pytest.raises(CaptureError, match=operator + r".* at .*helpers\.py:\d+.* complex numbers"):
        graph_of(function, 16)
