"""Small networks that compute with complex numbers, one of each kind that is in use."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Beside(nn.Module):
    """A branch on the waveform beside one on its spectrogram."""

    size = (256,)
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(1, 6, 9), nn.Linear(23, 4)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Any:
        power = torch.stft(x, 32, 16, window=self.window, return_complex=True).abs().mean(2)
        return self.head(torch.cat([power, F.relu(self.conv(x[:, None])).mean(2)], 1))


class MelNetwork(nn.Module):
    """A convolutional network on the logarithm of a mel spectrogram."""

    size = (320,)
    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(24))
        self.register_buffer("mel", torch.rand(10, 17, generator=torch.Generator().manual_seed(0)))
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Any:
        power = torch.stft(x, 32, 10, 24, window=self.window, return_complex=True).abs() ** 2
        return self.head(self.body(torch.log(self.mel @ power + 1e-3)[:, None]).mean((2, 3)))


class Mask(nn.Module):
    """A mask on a spectrogram that is transformed back, as separation of sources has it."""

    size = (128,)
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(32))
        self.mask, self.head = nn.Conv1d(17, 17, 3, padding=1), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        z = torch.stft(x, 32, 8, window=self.window, return_complex=True)
        y = torch.istft(z * torch.sigmoid(self.mask(z.abs())), 32, 8, window=self.window, length=x.shape[1])
        return self.head(F.relu(y.reshape(y.shape[0], -1, 16)).mean(1))


class FourierMixing(nn.Module):
    """Tokens mixed by the real part of a transform over both axes (FNet, arXiv 2105.03824)."""

    size = (12, 8)

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.first, self.second = nn.Linear(8, 16), nn.LayerNorm(16), nn.LayerNorm(16)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.embed(x)
        y = self.first(y + torch.fft.fft(torch.fft.fft(y, dim=-1), dim=-2).real)
        return self.head(self.second(y + self.mlp(y)).mean(1))


class GlobalFilter(nn.Module):
    """A learnt filter of the spectrum of feature maps (GFNet, arXiv 2107.00645)."""

    size = (3, 32, 32)

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8), nn.Linear(8, 4)
        self.filter = nn.Parameter(torch.randn(8, 5, 8, 2, generator=torch.Generator().manual_seed(1)) * 0.3)

    def forward(self, x: Tensor) -> Any:
        y = self.patches(x).permute(0, 2, 3, 1)
        z = torch.fft.rfft2(self.norm(y), dim=(1, 2), norm="ortho") * torch.view_as_complex(self.filter)
        return self.head((y + F.gelu(torch.fft.irfft2(z, s=(8, 8), dim=(1, 2), norm="ortho"))).mean((1, 2)))


class SpectralConvolution(nn.Module):
    """Low frequencies mixed across channels by complex weights (FNO, arXiv 2010.08895)."""

    size = (1, 12, 12)

    def __init__(self) -> None:
        super().__init__()
        self.lift, self.skip, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 3)
        drawn = torch.Generator().manual_seed(2)
        self.low = nn.Parameter(torch.randn(4, 4, 3, 3, 2, generator=drawn) * 0.3)
        self.high = nn.Parameter(torch.randn(4, 4, 3, 3, 2, generator=drawn) * 0.3)

    def forward(self, x: Tensor) -> Any:
        y = self.lift(x)
        f = torch.fft.rfft2(y)
        mixed = torch.zeros(*f.shape, dtype=f.dtype, device=f.device)
        for rows, weight in ((slice(None, 3), self.low), (slice(-3, None), self.high)):
            mixed[:, :, rows, :3] = torch.einsum("bixy,ioxy->boxy", f[:, :, rows, :3], torch.view_as_complex(weight))
        return self.head(F.gelu(torch.fft.irfft2(mixed, s=y.shape[-2:]) + self.skip(y)).mean((2, 3)))


class StateSpace(nn.Module):
    """A diagonal state space layer as a long convolution (S4D, arXiv 2206.11893)."""

    size = (16, 2)

    def __init__(self, width: int = 6, states: int = 4) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(3)
        self.embed, self.head = nn.Linear(2, width), nn.Linear(width, 3)
        self.step = nn.Parameter(torch.rand(width, generator=drawn) - 3)
        self.out = nn.Parameter(torch.randn(width, states, 2, generator=drawn))
        self.decay = nn.Parameter(torch.full((width, states), math.log(0.5)))
        self.turn = nn.Parameter(math.pi * torch.arange(states).repeat(width, 1).float())

    def forward(self, x: Tensor) -> Any:
        u = self.embed(x).transpose(1, 2)
        length = u.shape[-1]
        a = -torch.exp(self.decay) + 1j * self.turn
        turned = a * torch.exp(self.step).unsqueeze(-1)
        weight = torch.view_as_complex(self.out) * (torch.exp(turned) - 1.0) / a
        powers = torch.exp(turned.unsqueeze(-1) * torch.arange(length, device=x.device))
        kernel = 2 * torch.einsum("hn,hnl->hl", weight, powers).real
        spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(kernel, n=2 * length)
        return self.head(F.gelu(torch.fft.irfft(spectrum, n=2 * length)[..., :length] + u).mean(2))


class AutoCorrelation(nn.Module):
    """Weights from the correlation of queries with keys, by way of their spectra (Autoformer, arXiv 2106.13008)."""

    size = (10, 4)

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.head = (nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 8),
                                                       nn.Linear(8, 3))  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        q, k = torch.fft.rfft(self.query(x), dim=1), torch.fft.rfft(self.key(x), dim=1)
        found = torch.fft.irfft(q * torch.conj(k), n=x.shape[1], dim=1)
        return self.head((torch.softmax(found, 1) * self.value(x)).sum(1))


class Rotary(nn.Module):
    """Attention whose queries and keys are turned by complex numbers, as Llama's first code has it."""

    size = (10, 4)
    turns: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.head = (nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(4, 8),
                                                       nn.Linear(8, 3))  # fmt: skip
        angle = torch.outer(torch.arange(10.0), 1 / 10 ** (torch.arange(0, 8, 2) / 8))
        self.register_buffer("turns", torch.view_as_real(torch.polar(torch.ones_like(angle), angle)))

    def _turned(self, x: Tensor) -> Any:
        z = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) * torch.view_as_complex(self.turns)
        return torch.view_as_real(z).flatten(2)

    def forward(self, x: Tensor) -> Any:
        q, k = self._turned(self.query(x)), self._turned(self.key(x))
        return self.head((torch.softmax(q @ k.transpose(1, 2), -1) @ self.value(x)).mean(1))


class Phases(nn.Module):
    """Modulus and angle taken apart and put together again."""

    size = (32,)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(34, 4)

    def forward(self, x: Tensor) -> Any:
        z = torch.fft.rfft(x, dim=1)
        y = torch.polar(z.abs() * 2, z.angle() * 0.5).conj() * z
        return self.head(torch.cat([y.real, y.imag.sin()], 1))


NETWORKS = (Beside, MelNetwork, Mask, FourierMixing, GlobalFilter, SpectralConvolution, StateSpace, AutoCorrelation,
            Rotary, Phases)  # fmt: skip
