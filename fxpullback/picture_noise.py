"""Noise with the spectrum of pictures: what temperatures are calibrated on where there are no pictures.

A photograph's amplitude falls as 1/f with the spatial frequency f, whatever it shows, and its colours mostly agree.
Noise of that kind gives the gates of a network inputs of about the scale that pictures give them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SAMPLES = 16
SEED = 0
DEVIATION = 0.5  # of pixels in [-1, 1]
SHARED = 0.8  # of a channel's variance, the part that all channels have in common
SMALLEST_SIDE = 8
CHANNELS = (1, 3, 4)


def is_picture(example: Tensor) -> bool:
    """Whether an input is taken for pictures: float, `[batch, 1, 3 or 4, height, width]`, sides of at least 8.

    This is the one place where that is decided. Any other input is calibrated on its examples.
    """
    return (
        example.is_floating_point()
        and example.ndim == 4
        and example.shape[1] in CHANNELS
        and min(example.shape[2:]) >= SMALLEST_SIDE
    )


def picture_noise(shape: Sequence[int], samples: int = SAMPLES, seed: int = SEED) -> Tensor:
    """Random pictures: amplitude 1/f, mean 0, standard deviation .5, clipped to [-1, 1].

    With F a field of white noise filtered by 1/f, of mean 0 and variance 1, channel c of a sample is

        .5 * (sqrt(.8) F_common + sqrt(.2) F_c)

    so two channels of a sample correlate by .8. f = sqrt(f_y^2 + f_x^2), in cycles per pixel; nothing at f = 0.
    What lies beyond two deviations is clipped, which leaves a deviation of about .48.

    Args:
        shape: channels, height and width.
        samples: how many pictures.
        seed: of torch's generator on the CPU; the same numbers for the same seed, shape and version of torch.

    Returns:
        float64 `[samples, channels, height, width]`.
    """
    channels, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    pictures = []
    for _ in range(samples):  # one by one: the spectra of all at once would take four times the memory
        fields = _fields(torch.randn((1 + channels, height, width), generator=generator, dtype=torch.float64))
        mixed = math.sqrt(SHARED) * fields[:1] + math.sqrt(1 - SHARED) * fields[1:]
        pictures.append((DEVIATION * mixed).clamp(-1, 1))
    return torch.stack(pictures)


def _fields(white: Tensor) -> Tensor:
    """White noise `[n, height, width]` filtered by 1/f, each field of mean 0 and variance 1."""
    height, width = white.shape[-2:]
    down, across = torch.fft.fftfreq(height, dtype=white.dtype), torch.fft.rfftfreq(width, dtype=white.dtype)
    frequency = torch.sqrt(down[:, None] ** 2 + across**2)
    frequency[0, 0] = math.inf
    found: Tensor = torch.fft.irfft2(torch.fft.rfft2(white) / frequency, s=(height, width))
    return found / found.std((-2, -1), correction=0, keepdim=True)


def described() -> dict[str, Any]:
    """What a rule set says of temperatures that were calibrated on this noise."""
    return {"kind": "noise", "samples": SAMPLES, "seed": SEED, "spectrum": "1/f", "deviation": DEVIATION}
