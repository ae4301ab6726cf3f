"""Noise with the spectrum of pictures: its slope, its scale, its colours."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fxpullback.picture_noise import is_picture, picture_noise


def slope(pictures: Tensor) -> float:
    """Slope of log amplitude over log frequency, by rings of the spectrum below the highest frequency of both axes."""
    height, width = pictures.shape[-2:]
    amplitude = torch.fft.fft2(pictures).abs().square().mean((0, 1)).sqrt()
    down, across = torch.fft.fftfreq(height), torch.fft.fftfreq(width)
    frequency = torch.hypot(down[:, None].expand(height, width), across.expand(height, width))
    rings = [(low, low * 1.5) for low in (0.05, 0.075, 0.11, 0.17, 0.25)]
    points = []
    for low, high in rings:
        inside = (frequency >= low) & (frequency < high)
        points.append((float(frequency[inside].log().mean()), float(amplitude[inside].log().mean())))
    x, y = (torch.tensor(values) for values in zip(*points, strict=True))
    return float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum())


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 63, 65), (1, 48, 96), (4, 37, 128), (3, 224, 224)])
def test_amplitude_falls_as_one_over_the_frequency(shape: Sequence[int]) -> None:
    noise = picture_noise(shape)
    assert noise.shape == (16, *shape)
    assert noise.dtype == torch.float64
    assert slope(noise) == pytest.approx(-1, abs=0.1)  # clipping adds a little at high frequencies
    assert float(noise.abs().max()) <= 1
    assert abs(float(noise.mean())) < 0.02
    assert 0.45 < float(noise.std()) < 0.5


def test_colours_are_mostly_shared() -> None:
    noise = picture_noise((4, 64, 64))
    channels = noise.transpose(0, 1).flatten(1)
    apart = torch.corrcoef(channels)[~torch.eye(4, dtype=torch.bool)]
    assert float(apart.min()) > 0.7
    assert float(apart.max()) < 0.9


def test_a_seed_is_a_picture() -> None:
    assert torch.equal(picture_noise((3, 9, 8)), picture_noise((3, 9, 8)))
    assert not torch.equal(picture_noise((3, 9, 8)), picture_noise((3, 9, 8), seed=1))
    state = torch.get_rng_state()
    picture_noise((3, 9, 8))
    assert torch.equal(state, torch.get_rng_state())


def test_samples_are_distinct() -> None:
    flat = picture_noise((3, 32, 32)).flatten(1)
    apart = torch.corrcoef(flat)[~torch.eye(16, dtype=torch.bool)]
    assert float(apart.abs().max()) < 0.75  # low frequencies hold most of the variance: few numbers decide


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        (torch.zeros(1, 3, 8, 8), True),
        (torch.zeros(2, 1, 28, 28), True),
        (torch.zeros(1, 4, 8, 100).half(), True),
        (torch.zeros(1, 2, 32, 32), False),
        (torch.zeros(1, 16, 32, 32), False),
        (torch.zeros(1, 3, 7, 32), False),
        (torch.zeros(1, 3, 32), False),
        (torch.zeros(1, 3, 16, 16, 16), False),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), False),
    ],
)
def test_what_a_picture_is(example: Tensor, wanted: bool) -> None:
    assert is_picture(example) == wanted
