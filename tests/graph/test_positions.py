"""Logits at many positions: one of them, a mean, or a weighted sum; beside eager autograd of the module itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.export import Session, to_onnx
from tests.helpers import assert_near, draw

CLASSES = 3


class Tagger(nn.Module):
    """`[batch, time, 4]` to `[batch, time, classes]`."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = torch.relu(self.inner(x))
        return {"hidden": h, "tags": self.head(h + h.cumsum(1))}


class Segmenter(nn.Module):
    """`[batch, 2, height, width]` to `[batch, classes, height, width]`."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, CLASSES, 3, padding=1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.net(x)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return kind().double().eval()


MASK = torch.tensor([[True, False, True, True, False], [False, False, False, False, True]])


def picked(logits: Tensor, kind: str, given: Tensor) -> Tensor:
    """What `positions` makes of the logits, their classes last."""
    if kind == "index":
        place = given if given.ndim > 1 else given[:, None]
        return torch.stack([sample[tuple(p.tolist())] for sample, p in zip(logits, place, strict=True)])
    flat, weights = logits.flatten(1, -2), given.to(logits.dtype).flatten(1)
    summed = torch.einsum("bpc,bp->bc", flat, weights)
    return summed / weights.sum(1, keepdim=True) if kind == "mask" else summed


class TimeFirst(nn.Module):
    """`[batch, time, 4]` to `[time, batch, classes]`, as recurrent networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.tagger = Tagger()

    def forward(self, x: Tensor) -> Tensor:
        tags: Tensor = self.tagger(x)["tags"]
        return tags.transpose(0, 1)


@pytest.mark.parametrize("kind", ["index", "mask", "weights"])
@pytest.mark.parametrize("time", [5, 3])
def test_the_batch_may_be_the_second_axis(kind: str, time: int) -> None:
    model = made(TimeFirst)
    x, target, places = draw(2, time, 4, seed=4), torch.tensor([0, 2]), TAGS[kind]
    places = places.clamp(-1, 1) if kind == "index" else places[:, -time:]
    pb = fxpullback.compile(model, x, rules=fxpullback.EXACT, positions=kind)
    leaf = x.clone().requires_grad_()
    logits = picked(model(leaf).transpose(0, 1), kind, places)
    (gradient,) = torch.autograd.grad(logits[range(2), target].sum(), leaf)
    found = pb(x, target, positions=places)
    assert_near(found[0], logits.detach())
    assert_near(found[1], gradient)


TAGS: dict[str, Tensor] = {
    "index": torch.tensor([3, -1]),
    "mask": MASK,
    "weights": draw(2, 5, seed=3),
}
PIXELS: dict[str, Tensor] = {
    "index": torch.tensor([[3, -1], [0, 2]]),
    "mask": MASK[:, 1:, None] | MASK[:, None],
    "weights": draw(2, 4, 5, seed=3),
}


def check(net: nn.Module, x: Tensor, output: str | int, kind: str, given: Tensor, **options: Any) -> None:
    pb = fxpullback.compile(
        net, draw(1, *x.shape[1:]), output=output, positions=kind, rules=fxpullback.EXACT, **options
    )
    target = torch.tensor([2, 0])
    leaf = x.clone().requires_grad_(True)
    everything = net(leaf)[output]
    logits = picked(everything if everything.ndim == 3 else everything.movedim(1, -1), kind, given)
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaf)
    found = pb(x, target, positions=given)
    assert_near(found[0], logits.detach())
    assert_near(found[1], gradient)
    assert pb.verify().passed


@pytest.mark.parametrize("kind", TAGS)
@pytest.mark.parametrize("free", [False, True])
def test_tags(kind: str, free: bool) -> None:
    check(made(Tagger), draw(2, 5, 4), "tags", kind, TAGS[kind], free_size=[1] if free else False)


@pytest.mark.parametrize("kind", PIXELS)
@pytest.mark.parametrize("free", [False, True])
def test_pixels(kind: str, free: bool) -> None:
    check(made(Segmenter), draw(2, 2, 4, 5), 1, kind, PIXELS[kind], free_size=free)


def test_a_file_says_what_it_was_compiled_for(tmp_path: Path) -> None:
    pb = fxpullback.compile(made(Tagger).float(), torch.randn(1, 5, 4), output="tags", positions="index")
    session = Session(to_onnx(pb, tmp_path / "tagger.onnx"))
    assert session.metadata.ends.to_dict() == {"output": "tags", "positions": "index", "extents": [5]}
    x = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    found = session(x, [0, 1], positions=np.array([-1, 2]))
    wanted = pb(torch.from_numpy(x), torch.tensor([0, 1]), positions=torch.tensor([-1, 2]))
    np.testing.assert_allclose(found.pullback, wanted[1].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"returns 2 values.*hidden \[batch, 5, 8\].*tags \[batch, 5, 3\].*Name the one that is meant: output="),
        ({"output": "tags"}, "say at which: positions='index', 'mask' or 'weights'"),
        ({"output": "logits"}, "output='logits': the model has no such output.*hidden .*tags"),
        ({"output": 2}, "output=2: the model has no such output"),
        ({"output": "tags", "positions": "all"}, "positions is 'all'; leave it out, or pass one of 'index'"),
        ({"output": True}, "pass the name of an output, or its place"),
    ],
)
def test_what_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(made(Tagger), draw(1, 5, 4), **options)


def test_logits_without_positions() -> None:
    with pytest.raises(CaptureError, match="which has no positions"):
        fxpullback.compile(nn.Linear(4, 3).double().eval(), draw(1, 4), positions="index")


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("index", [0, 5], "sample 1 asks for 5, and there are 5 positions, 0 to 4"),
        ("index", [-6, 0], "sample 0 asks for -6"),
        ("mask", [[True] * 5, [False] * 5], "the mask of sample 1 is False everywhere"),
    ],
)
@pytest.mark.parametrize("free", [False, True])
def test_positions_that_there_are_not(kind: str, given: Any, message: str, free: bool, tmp_path: Path) -> None:
    net, x = made(Tagger).float(), torch.randn(2, 5, 4)
    pb = fxpullback.compile(net, x, output="tags", positions=kind, free_size=[1] if free else False)
    with pytest.raises(InputError, match=message):
        pb(x, torch.tensor([0, 1]), positions=torch.tensor(given))
    session = Session(to_onnx(pb, tmp_path / "tagger.onnx", certify=False))
    with pytest.raises(InputError, match=message):
        session(x.numpy(), [0, 1], positions=np.array(given))
