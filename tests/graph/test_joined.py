"""Several inputs explained together, beside eager autograd of the module itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.contract.errors import CaptureError, InputError, TapError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from tests.helpers import assert_near, draw

IDS, DIM = 13, 6


class Siamese(nn.Module):
    """One trunk on both sides; how alike they are."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, DIM, 3, padding=1))

    def forward(self, left: Tensor, right: Tensor) -> Any:
        a, b = (F.normalize(self.trunk(side).relu().mean((2, 3)), dim=1) for side in (left, right))
        return torch.stack([(a * b).sum(1), -(a - b).abs().sum(1)], 1)


class Match(nn.Module):
    """A picture and words: one logit for how well they match, one of the words alone; and a bias for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Sequential(nn.Conv2d(3, 5, 2, 2), nn.ReLU(), nn.Conv2d(5, DIM, 1), nn.ReLU())
        self.words, self.places = nn.Embedding(IDS, DIM), nn.Embedding(9, DIM)
        self.read = nn.Sequential(nn.Linear(DIM, DIM), nn.ReLU(), nn.Linear(DIM, DIM))

    def forward(self, shift: Tensor, pixels: Tensor, ids: Tensor, mask: Tensor) -> Any:
        seen = self.see(pixels).mean((2, 3))
        h = self.read(self.words(ids) + self.places(torch.arange(ids.shape[1], device=ids.device)))
        read = (h * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.stack([(seen * read).sum(1), read.sum(1)], 1) + shift


def made(kind: Callable[[], nn.Module]) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return kind().double().eval()


def sides(seed: int, count: int = 2) -> dict[str, Tensor]:
    return {"left": draw(count, 2, 6, 5, seed=seed), "right": draw(count, 2, 6, 5, seed=seed + 1)}


def both(seed: int, count: int = 2) -> dict[str, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(IDS, (count, 5), generator=drawn)
    mask = torch.ones(count, 5, dtype=torch.float64)
    mask[-1, 3:] = 0
    pixels = draw(count, 3, 8, 6, seed=seed)
    return {"shift": draw(count, 2, seed=seed + 2), "pixels": pixels, "ids": ids, "mask": mask}


def test_both_sides_of_a_siamese_network() -> None:
    net, target = made(Siamese), torch.tensor([0, 1, 0])
    pb = fxpullback.compile(net, sides(0), explain=("left", "right"), rules=fxpullback.EXACT)
    assert pb.output_names == ("logits", "pullback.left", "pullback.right")
    leaves = [side.requires_grad_(True) for side in sides(5, 3).values()]
    logits = net(*leaves)
    gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaves)
    found = pb(leaves[0].detach(), target, leaves[1].detach())
    for value, wanted in zip(found, (logits.detach(), *gradients), strict=True):
        assert_near(value, wanted)
    assert pb.verify().passed


def eager(net: Any, inputs: dict[str, Tensor], target: Tensor) -> list[Tensor]:
    """Logits, gradients at picture and words, and value times gradient behind both encoders."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, args, output, name=name: seen.update({name: output}))
        for name, module in (("words", net.words), ("see", net.see), ("read", net.read))
    ]
    pixels = inputs["pixels"].clone().requires_grad_(True)
    logits = net(**{**inputs, "pixels": pixels})
    for hook in hooks:
        hook.remove()
    at = [pixels, seen["words"], seen["see"], seen["read"]]
    gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), at)
    maps = [(seen["see"] * gradients[2]).sum(1), (seen["read"] * gradients[3]).sum(-1)]
    return [logits.detach(), *gradients[:2], *(value.detach() for value in maps)]


def test_a_picture_and_its_words_with_contributions() -> None:
    net, target = made(Match), torch.tensor([0, 1])
    pb = fxpullback.compile(net, both(0), explain=("pixels", "ids"), taps=["see", "read"], rules=fxpullback.EXACT)
    names = ("logits", "pullback.pixels", "pullback.ids", "contribution.pixels", "contribution.ids")
    assert pb.output_names == names
    inputs = both(7)
    found = pb(inputs["pixels"], target, inputs["ids"], inputs["shift"], inputs["mask"])
    for value, wanted in zip(found, eager(net, inputs, target), strict=True):
        assert_near(value, wanted)
    assert pb.verify().passed


@pytest.mark.parametrize("program", [fxpullback.Double(0.5), fxpullback.Ascent(2, 0.5, None)])
def test_programs_move_all_of_them(program: Any) -> None:
    pb = fxpullback.compile(made(Match), both(0), explain=("pixels", "ids"), program=program, taps="auto")
    assert pb.verify().passed


def test_the_file_takes_and_returns_each_by_its_name(tmp_path: Path) -> None:
    examples = {name: value.float() if value.is_floating_point() else value for name, value in both(0).items()}
    pb = fxpullback.compile(made(Match).float(), examples, explain=("pixels", "ids"), taps="auto")
    path = to_onnx(pb, tmp_path / "match.onnx")
    session = Session(path)
    assert list(session.inputs) == ["pixels", "ids", "shift", "mask", "target"]
    pixels, ids, shift, mask = (examples[name].numpy() for name in ("pixels", "ids", "shift", "mask"))
    result = session(pixels, [1, 0], ids=ids, shift=shift, mask=mask)
    wanted = pb(*(torch.from_numpy(v) for v in (pixels, np.array([1, 0]), ids, shift, mask)))
    found = [result.logits, *result.pullbacks.values(), *result.contributions.values()]
    assert list(result.pullbacks) == list(result.contributions) == ["pixels", "ids"]
    assert result["pullback.ids"] is result.pullbacks["ids"]
    for value, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(value, other.numpy(), rtol=0, atol=1e-5 * float(other.abs().max()))
    assert recheck(path).passed
    with pytest.raises(InputError, match="ids: there is no id 13"):
        session(pixels, [1, 0], ids=np.full_like(ids, IDS), shift=shift, mask=mask)
    half = to_onnx(pb, tmp_path / "half.onnx", precision="fp16")
    assert recheck(half).passed


class Matrix(Siamese):
    """Each left side against each right side, as dual encoders return it."""

    def __init__(self, take: Callable[[Tensor], Tensor] = lambda m: m) -> None:
        super().__init__()
        self.take = take

    def forward(self, left: Tensor, right: Tensor) -> Any:
        a, b = (F.normalize(self.trunk(side).relu().mean((2, 3)), dim=1) for side in (left, right))
        return self.take(a @ b.t() * 3)


@pytest.mark.parametrize(
    "take",
    [lambda m: m.diagonal()[:, None], lambda m: torch.diagonal(m, 0, -1, 0).unsqueeze(1)],
    ids=["diagonal", "of the transpose"],
)
def test_the_diagonal_of_a_similarity_matrix(take: Callable[[Tensor], Tensor]) -> None:
    net = made(lambda: Matrix(take))
    pb = fxpullback.compile(net, sides(0), explain=("left", "right"), rules=fxpullback.EXACT)
    leaves = [side.requires_grad_(True) for side in sides(5, 3).values()]
    logits = net(*leaves)
    assert logits.shape == (3, 1)
    gradients = torch.autograd.grad(logits.sum(), leaves)
    found = pb(leaves[0].detach(), torch.zeros(3, dtype=torch.int64), leaves[1].detach())
    for value, wanted in zip(found, (logits.detach(), *gradients), strict=True):
        assert_near(value, wanted)
    assert pb.verify().passed


def test_samples_against_each_other_are_refused() -> None:
    with pytest.raises(
        CaptureError, match=r"as many logits as there are samples.*logits_per_image\.diagonal\(\)\[:, None\]"
    ):
        fxpullback.compile(made(Matrix), sides(0), explain=("left", "right"))


@pytest.mark.parametrize(
    ("examples", "options", "message"),
    [
        (sides(0), {"explain": ("left", "up")}, "the model takes left, right. Name each input that is explained once"),
        (sides(0), {"explain": ("left", "left")}, "name each input that is explained once"),
        (tuple(sides(0).values()), {"explain": ("right", "left")}, "Pass those that are explained first"),
        (sides(0), {"explain": ("left", "right"), "free_size": True}, "fixed sizes behind it. Leave free_size out"),
    ],
)
def test_what_cannot_be_explained_together(examples: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(made(Siamese), examples, **options)


def test_no_bias_has_a_place_in_several_inputs() -> None:
    with pytest.raises(TapError, match="Pass bias='share'"):
        fxpullback.compile(made(Siamese), sides(0), explain=("left", "right"), taps="auto", bias="pushed")
