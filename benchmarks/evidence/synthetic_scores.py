"""How a map of samples compares with the truth, and with another map of the same samples."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.evidence.synthetic_data import Sample
from fxpullback.export.evaluate.metrics import Column, Metric

SHARE, AUC, PRECISION = "share", "AUC", "precision"
SLOPE, PATTERN, AGAIN, NOISE = "true slope", "pattern", "trained again", "noise"
COLUMNS = {
    SHARE: Column(SHARE, True, "share of the map's absolute values on the inputs that decide"),
    AUC: Column(AUC, True, "chance that an input that decides ranks before one that does not, by absolute value"),
    PRECISION: Column(PRECISION, True, "of as many inputs as decide, the strongest of the map: how many do"),
    SLOPE: Column(SLOPE, True, "cosine to the slope of the true log-odds; of a map times input, to that times input"),
    PATTERN: Column(PATTERN, True, "cosine to what the class put there; of a map times input, to that times input"),
    AGAIN: Column(AGAIN, True, "cosine to the map of the next network, of other first weights and training samples"),
    NOISE: Column(NOISE, True, "cosine to the map of the sample with a fifth of the noise again"),
}


def _unmeasured(*_: object) -> dict[str, float]:
    raise NotImplementedError("values come with their rows")


METRIC = Metric("truth", tuple(COLUMNS.values()), _unmeasured, "Does the map say what is known of the data?")
"""The columns in the form that reports and tables take."""


def against_truth(maps: Tensor, sample: Sample, slope: Tensor, *, shares: bool = False) -> dict[str, float]:
    """Means over samples.

    Args:
        maps: [n, inputs].
        sample: What is explained.
        slope: Of the true log-odds, [n, inputs].
        shares: The map is a slope times input, and is compared with such.
    """
    strength = maps.abs()
    unit = sample.x if shares else torch.ones_like(sample.x)
    return {
        SHARE: float((strength * sample.relevant).sum(1).div(strength.sum(1)).mean()),
        AUC: float(ranking(strength, sample.relevant).mean()),
        PRECISION: float(precision(strength, sample.relevant).mean()),
        SLOPE: alike(maps, slope * unit),
        PATTERN: alike(maps, sample.pattern * unit),
    }


def alike(a: Tensor, b: Tensor) -> float:
    """Mean cosine of two maps of the same samples."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=1).mean())


def ranking(strength: Tensor, relevant: Tensor) -> Tensor:
    """Area under the receiver operating characteristic of every sample [n]; equal values count half.

    Both kinds of input have to be there.
    """
    above = (strength[:, :, None] > strength[:, None, :]).double() + (strength[:, :, None] == strength[:, None, :]) / 2
    pairs = (relevant[:, :, None] & ~relevant[:, None, :]).double()
    return (above * pairs).sum((1, 2)) / pairs.sum((1, 2))


def precision(strength: Tensor, relevant: Tensor) -> Tensor:
    """Of the k strongest inputs of every sample, k of which decide, the share that does [n]."""
    order = strength.argsort(1, descending=True)
    place = torch.arange(strength.shape[1])[None]
    count = relevant.sum(1, keepdim=True)
    hits = relevant.gather(1, order) & (place < count)
    return hits.sum(1) / count[:, 0]
