"""Ids in front of a graph: where they are looked up is found by data flow, and explained is what the lookup gives.

The oracle is eager autograd of the module itself, at the output of its embedding layer.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.contract.errors import CaptureError, InputError
from fxpullback.export import Session, to_onnx
from fxpullback.export.certify.recheck import recheck
from tests.helpers import assert_near

IDS, ROWS, DIM, CLASSES = 11, 16, 6, 3


class Encoder(nn.Module):
    """Words, places and kinds, one block of attention, and a head at the first place."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.places = nn.Embedding(2, DIM), nn.Embedding(ROWS, DIM)
        self.words = nn.Embedding(IDS, DIM, padding_idx=0)
        self.norm, self.q, self.k = nn.LayerNorm(DIM), nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.mix, self.head = nn.Linear(DIM, DIM), nn.Linear(DIM, CLASSES)

    def embed(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        places = torch.arange(ids.shape[1], device=ids.device)
        return self.places(places) + self.kinds(kinds) + self.words(ids)

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        h = self.norm(self.embed(ids, mask, kinds))
        scores = self.q(h) @ self.k(h).transpose(-1, -2) / math.sqrt(DIM)
        scores = scores.masked_fill(mask[:, None] == 0, float("-inf"))
        h = h + torch.relu(self.mix(scores.softmax(-1) @ h))
        return self.head(h[:, 0])


class PlacesOfIds(Encoder):
    """As RoBERTa counts: places are computed of the ids, padding left out."""

    def embed(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        known = (ids != 0).long()
        return self.places(known.cumsum(1) * known) + self.kinds(kinds) + self.words(ids)


class MaskOfIds(Encoder):
    """The mask is made of the ids, and the one that is passed is not read."""

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        return super().forward(ids, (ids != 0).long() + 0 * mask, kinds)


class TokensFirst(Encoder):
    """The ids are looked up with the batch behind the tokens, as recurrent networks and XLNet have it."""

    def embed(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        words = self.words(ids.t().contiguous()) * 2
        return (words + self.words(ids.permute(1, 0))).transpose(0, 1) + self.kinds(kinds)


class Tied(Encoder):
    """The table is the head as well, at one place."""

    def forward(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        h = self.embed(ids, mask, kinds)
        return torch.tanh(self.mix(h.mean(1))) @ self.words.weight.T


class Scaled(Encoder):
    """The lookup is scaled before it is added."""

    def embed(self, ids: Tensor, mask: Tensor, kinds: Tensor) -> Any:
        return self.words(ids.to(torch.int64)) * math.sqrt(DIM) + self.kinds(kinds)


NETWORKS = {kind.__name__: kind for kind in (Encoder, PlacesOfIds, MaskOfIds, TokensFirst, Tied, Scaled)}


def made(name: str = "Encoder") -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return NETWORKS[name]().double().eval()


def batch(count: int, length: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, IDS, (count, length), generator=drawn)
    mask = torch.ones_like(ids)
    ids[-1, -2:], mask[-1, -2:] = 0, 0
    return ids, mask, torch.randint(2, (count, length), generator=drawn)


def named(inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip(("ids", "mask", "kinds"), inputs, strict=True))


def eager(net: Any, inputs: tuple[Tensor, ...], target: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and gradient of the target's logit at what the words are looked up as."""
    seen: list[Tensor] = []
    handle = net.words.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = net(*inputs)
    handle.remove()
    gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), seen)
    gradient = torch.stack(gradients).sum(0)
    return logits.detach(), gradient.transpose(0, 1) if isinstance(net, TokensFirst) else gradient


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("free", [False, True])
def test_exact_is_autograd_at_the_embedding_layer(name: str, free: bool) -> None:
    net = made(name)
    pb = fxpullback.compile(
        net, named(batch(3, 7)), at="embeddings", rules=fxpullback.EXACT, free_size=[1] if free else False
    )
    for length in (7, 4, 11) if free else (7,):
        inputs, target = batch(2, length, seed=length), torch.tensor([0, 2])
        found = pb(inputs[0], target, *inputs[1:])
        for value, wanted in zip(found, eager(net, inputs, target), strict=True):
            assert_near(value, wanted)
    assert pb.verify().passed


@pytest.mark.parametrize(("name", "most"), [("Encoder", ROWS), ("PlacesOfIds", ROWS - 1), ("Scaled", None)])
def test_a_table_of_places_bounds_the_length(name: str, most: int | None) -> None:
    pb = fxpullback.compile(made(name), named(batch(2, 5)), at="embeddings", free_size=[1])
    assert pb.free[0].most == most
    if most is not None:
        ids, *others = batch(2, most + 1)
        with pytest.raises(InputError, match=f"length is {most + 1}.*to {most}"):
            pb(ids, torch.tensor([0, 0]), *others)
        ids, *others = batch(2, most)
        pb(ids, torch.tensor([0, 0]), *others)


def test_contribution_at_every_token() -> None:
    net = made()
    pb = fxpullback.compile(net, named(batch(2, 6)), at="embeddings", taps="norm", rules=fxpullback.EXACT)
    inputs, target = batch(3, 6, seed=5), torch.tensor([1, 0, 2])
    seen: list[Tensor] = []
    handle = net.norm.register_forward_hook(lambda module, args, output: seen.append(output))
    logits = net(*inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), seen)
    assert_near(pb(inputs[0], target, *inputs[1:])[2], (seen[0] * gradient).sum(-1).detach())


def test_the_file_takes_the_ids_by_their_name(tmp_path: Path) -> None:
    net = made("PlacesOfIds").float()
    pb = fxpullback.compile(net, named(batch(2, 5)), at="embeddings", free_size=[1], taps="auto")
    path = to_onnx(pb, tmp_path / "text.onnx")
    session = Session(path)
    assert list(session.inputs) == ["ids", "mask", "kinds", "target"]
    assert session.input_shape == ("batch", "length")
    assert (session.metadata.vocabulary, session.metadata.ends.at) == (IDS, "embeddings")
    inputs, target = batch(2, 9, seed=3), torch.tensor([1, 2])
    arrays = [value.numpy() for value in inputs]
    result = session(arrays[0], target.numpy(), *arrays[1:])
    for value, wanted in zip((result.logits, result.pullback), pb(inputs[0], target, *inputs[1:])[:2], strict=True):
        np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=1e-5 * float(wanted.abs().max()))
    assert recheck(path).passed
    with pytest.raises(InputError, match=r"ids: there is no id 11; the model has 11 ids, 0 to 10.*tokenizer"):
        session(np.full((1, 4), IDS), [0], np.ones((1, 4), np.int64), np.zeros((1, 4), np.int64))
    with pytest.raises(InputError, match=r"mask: the shape is \(1, 3\), and \(1, 4\) is wanted"):
        session(np.ones((1, 4), np.int64), [0], np.ones((1, 3), np.int64), np.zeros((1, 4), np.int64))
    with pytest.raises(InputError, match="ids: the type is float32, and ids are wanted"):
        session(np.ones((1, 4), np.float32), [0], *arrays[1:])


def test_half_precision_holds_the_table_in_half_precision(tmp_path: Path) -> None:
    pb = fxpullback.compile(made().float(), named(batch(2, 5)), at="embeddings", taps="auto")
    path = to_onnx(pb, tmp_path / "half.onnx", precision="fp16")
    assert recheck(path).passed


@pytest.mark.parametrize("program", [fxpullback.Double(0.5), fxpullback.Ascent(2, 0.5, None)])
def test_programs_move_what_is_looked_up(program: Any) -> None:
    pb = fxpullback.compile(made(), named(batch(2, 5)), at="embeddings", program=program)
    assert pb.verify().passed


class TwoTables(nn.Module):
    """Two tables looked up by the same ids, and one of them twice."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Embedding(IDS, 4), nn.Embedding(IDS, 3), nn.Linear(7, CLASSES)

    def forward(self, ids: Tensor) -> Any:
        a, b, again = self.a(ids), self.b(ids), self.a(ids)
        return self.head(torch.cat([torch.relu(a) + again, torch.tanh(b)], -1).mean(1))


def test_two_tables_are_one_embedding_side_by_side() -> None:
    net = TwoTables().double().eval()
    ids, target = torch.randint(0, IDS, (2, 5)), torch.tensor([0, 2])
    pb = fxpullback.compile(net, {"ids": ids}, at="embeddings", rules=fxpullback.EXACT)
    a, b = (table(ids).detach().requires_grad_(True) for table in (net.a, net.b))
    logits = net.head(torch.cat([torch.relu(a) + a, torch.tanh(b)], -1).mean(1))
    gradients = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), [a, b])
    assert_near(pb(ids, target)[1], torch.cat(gradients, -1))
    assert pb.verify().passed


class Hashed(TwoTables):
    def forward(self, ids: Tensor) -> Any:
        return super().forward((ids * 7 + 3) % IDS)


class Shifted(TwoTables):
    def forward(self, ids: Tensor) -> Any:
        return super().forward(ids[:, None].reshape(-1, 1, ids.shape[1]).transpose(1, 2)[..., 0])


@pytest.mark.parametrize(
    ("net", "given", "message"),
    [
        (Hashed(), torch.ones(2, 5, dtype=torch.long), "looked up in no embedding table as it comes"),
        (Shifted(), torch.ones(2, 5, dtype=torch.long), "looked up in no embedding table as it comes"),
        (TwoTables(), torch.ones(2, 5), "takes ids first, integers"),
    ],
)
def test_what_cannot_be_cut_is_refused(net: nn.Module, given: Tensor, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        fxpullback.compile(net.eval(), given, at="embeddings")


def test_ids_without_a_place_are_told_of_it() -> None:
    with pytest.raises(CaptureError, match="at='embeddings'"):
        fxpullback.compile(TwoTables().eval(), torch.ones(2, 5, dtype=torch.long))
    with pytest.raises(CaptureError, match="pass one of 'embeddings'"):
        fxpullback.compile(TwoTables().eval(), torch.ones(2, 5, dtype=torch.long), at="words")
