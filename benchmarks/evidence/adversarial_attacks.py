"""Pictures attacked, and written as files of 8 bits: FGSM, PGD, and random signs beside them.

Goodfellow et al., Explaining and harnessing adversarial examples, 2014; Madry et al., Towards deep learning models
resistant to adversarial attacks, 2017. All are untargeted: they raise the cross-entropy of the true class. Pixels are
in [-1, 1], and eps is given in steps of 8 bits, each 2/255 there.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from fxpullback.export.evaluate.cases import LABELS
from fxpullback.export.pictures.panels import picture_tile

STEP = 2 / 255
"""One step of 8 bits, of pixels in [-1, 1]."""
PGD_STEPS = 10
PGD_SHARE = 0.25
"""Length of a step of PGD as a share of eps, as in Madry et al.: 2 of 8."""
Attack = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]


def slope(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """The gradient of the cross-entropy, picture by picture."""
    with torch.enable_grad():
        at = x.detach().requires_grad_()
        (found,) = torch.autograd.grad(F.cross_entropy(model(at), classes, reduction="sum"), [at])
    return found


def near(moved: Tensor, x: Tensor, eps: float) -> Tensor:
    """The nearest picture that no value of x is farther from than eps, in [-1, 1]."""
    return torch.maximum(torch.minimum(moved, x + eps), x - eps).clamp(-1, 1)


def signs(model: nn.Module, x: Tensor, classes: Tensor, rng: Generator, *, eps: float) -> Tensor:
    """Control: every value eps up or down at random."""
    return near(x + eps * (torch.randint(0, 2, x.shape, generator=rng) * 2 - 1), x, eps)


def fgsm(model: nn.Module, x: Tensor, classes: Tensor, rng: Generator, *, eps: float) -> Tensor:
    """One step along the sign of the gradient."""
    return near(x + eps * slope(model, x, classes).sign(), x, eps)


def pgd(model: nn.Module, x: Tensor, classes: Tensor, rng: Generator, *, eps: float) -> Tensor:
    """Ten steps along the sign of the gradient from a random start, each projected on the ball."""
    moved = near(x + eps * (torch.rand(x.shape, generator=rng) * 2 - 1), x, eps)
    for _ in range(PGD_STEPS):
        moved = near(moved + PGD_SHARE * eps * slope(model, moved, classes).sign(), x, eps)
    return moved


CLEAN, NOISE, FGSM_2, FGSM_8, PGD_2, PGD_8 = "clean", "signs 8", "FGSM 2", "FGSM 8", "PGD 2", "PGD 8"
ATTACKS: dict[str, Attack] = {
    NOISE: partial(signs, eps=8 * STEP),
    FGSM_2: partial(fgsm, eps=2 * STEP),
    FGSM_8: partial(fgsm, eps=8 * STEP),
    PGD_2: partial(pgd, eps=2 * STEP),
    PGD_8: partial(pgd, eps=8 * STEP),
}


@dataclass(frozen=True)
class Attacked:
    """The pictures of one attack, as files.

    Attributes:
        name: Which attack.
        folder: The pictures, labelled with their true classes.
        before: The network's first class for each, before they were rounded to 8 bits.
        after: The same of what is in the files.
        farthest: By how many steps of 8 bits a value differs from the clean picture's at most, in the files.
    """

    name: str
    folder: Path
    before: tuple[int, ...]
    after: tuple[int, ...]
    farthest: float


def rounded(x: Tensor) -> Tensor:
    """Pixels in [-1, 1] as a file of 8 bits gives them back."""
    return torch.round((x + 1) * 127.5).clamp(0, 255) / 127.5 - 1


def first_classes(model: nn.Module, x: Tensor) -> tuple[int, ...]:
    """The network's first class for each picture."""
    with torch.no_grad():
        return tuple(int(index) for index in model(x).argmax(1))


def attacked(
    model: nn.Module, name: str, x: Tensor, classes: Sequence[int], names: Sequence[str], folder: Path, seed: int
) -> Attacked:
    """Attack pictures [n, channels, height, width] and write them; `clean` writes them as they are."""
    drawn = torch.Generator().manual_seed(seed)
    moved = x if name == CLEAN else ATTACKS[name](model, x, torch.tensor(classes), drawn)
    write(moved, names, classes, folder)
    held = rounded(moved)
    farthest = float((held - rounded(x)).abs().max()) / STEP
    return Attacked(name, folder, first_classes(model, moved), first_classes(model, held), farthest)


def write(x: Tensor, names: Sequence[str], classes: Sequence[int], folder: Path) -> None:
    """Pictures as PNG, at the size that the network takes, with the classes that are to be explained."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture, name in zip(x, names, strict=True):
        picture_tile(picture.numpy()).save(folder / name)
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "class_index"], *zip(names, classes, strict=True)])
