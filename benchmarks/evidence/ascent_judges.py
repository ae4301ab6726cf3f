"""Moved pictures judged: by networks other than the one explained, and by how far they are from where they were."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxpullback.unroll import length

Scores = dict[str, list[float]]
"""A value for each picture, by measure; NaN where there is none."""
LAYERS = (1, 4, 7, 8, 9, 10, 12)
"""In the features of SqueezeNet 1.0: the first ReLU, and the second, fourth to eighth fire module, as in LPIPS."""


def log_probabilities(models: Mapping[str, nn.Module], x: Tensor) -> dict[str, Tensor]:
    """log softmax [n, classes] of each network."""
    with torch.no_grad():
        return {name: F.log_softmax(model(x).double(), 1) for name, model in models.items()}


def coherence(before: Mapping[str, Tensor], after: Mapping[str, Tensor], classes: Tensor, own: str) -> Scores:
    """What networks make of one picture, moved towards several classes.

    Args:
        before: Log-probabilities [n, classes] of each network on the pictures as they were.
        after: The same on the moved pictures.
        classes: The class that each was moved towards, [n].
        own: The network that was explained. It is no judge, and has measures of its own.

    Returns:
        `top`: share of the judges whose first class is the target. `flip`: the same of those whose first class it was
        not before; NaN where it was for all. `up`: share whose probability of the target rose. `gain`: mean change of
        its log-probability. `specific`: mean of how much higher its log-probability is than on the pictures that were
        moved towards the other classes. What makes a network less sure raises all unlikely classes, and this not.
        `self top`, `self gain`: of the network that was explained.
    """
    judges = [name for name in after if name != own]
    if not judges:
        raise ValueError(f"nobody but {own} is there to judge: name further networks.")
    tops = torch.stack([after[name].argmax(1) == classes for name in judges])
    tops_before = torch.stack([before[name].argmax(1) == classes for name in judges])
    rises = torch.stack([_of(after[name], classes) - _of(before[name], classes) for name in judges])
    specific = torch.stack([_specific(after[name], classes) for name in judges])
    others = (~tops_before).sum(0)
    flips = (tops & ~tops_before).sum(0)
    return {
        "top": tops.double().mean(0).tolist(),
        "flip": [int(f) / int(o) if o else math.nan for f, o in zip(flips, others, strict=True)],
        "up": (rises > 0).double().mean(0).tolist(),
        "gain": rises.mean(0).tolist(),
        "specific": specific.mean(0).tolist(),
        "self top": (after[own].argmax(1) == classes).double().tolist(),
        "self gain": (_of(after[own], classes) - _of(before[own], classes)).tolist(),
    }


def _of(values: Tensor, classes: Tensor) -> Tensor:
    return values.gather(1, classes[:, None])[:, 0]


def _specific(values: Tensor, classes: Tensor) -> Tensor:
    """Of [n, classes]: v[i, c_i] minus the mean of v[j, c_i] over all j but i."""
    taken = values[:, classes]
    own = taken.diagonal()
    return own - (taken.sum(0) - own) / (len(taken) - 1)


def distances(x: Tensor, moved: Tensor) -> Scores:
    """How far moved pictures are from where they were; both [n, channels, height, width] in [-1, 1].

    Returns:
        `L2` over all values; `RMS`, the root mean square of a value's change; `MS-SSIM` (Wang et al., 2003), 1 where
        they are equal, pixels in [0, 1].
    """
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    away = length(moved - x).flatten()
    like = ms_ssim((moved + 1) / 2, (x + 1) / 2, data_range=1.0, reduction="none")
    return {
        "L2": away.tolist(),
        "RMS": (away / math.sqrt(x[0].numel())).tolist(),
        "MS-SSIM": like.flatten().tolist(),
    }


def features(ruler: nn.Module, x: Tensor) -> list[Tensor]:
    """Features of SqueezeNet 1.0 at `LAYERS`, of unit length at each place: [n, channels, height, width] each.

    Args:
        ruler: A normalisation and SqueezeNet 1.0 behind it.
        x: Pictures in [-1, 1].
    """
    front, backbone = ruler.children()
    found = []
    with torch.no_grad():
        x = front(x)
        for number, module in enumerate(backbone.features):  # type: ignore[arg-type]
            x = module(x)
            if number in LAYERS:
                found.append(F.normalize(x, dim=1, eps=1e-10))
    return found


def perceptual(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """LPIPS without learned weights, of the `features` of two batches of pictures: [n].

    Zhang et al., The unreasonable effectiveness of deep features as a perceptual metric, 2018: features of a layer have
    unit length at each place; squared differences are summed over channels, averaged over places, summed over layers.
    """
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in zip(one, other, strict=True)]).sum(0)
