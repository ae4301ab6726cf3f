"""Train a network in one of several ways, epoch by epoch: stopped, it goes on with the next."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.evidence.command import say
from benchmarks.evidence.training_form import ROUTING, form_of, temperatures_for
from benchmarks.evidence.training_networks import Recipe
from fxpullback import EXACT, SEMANTIC, RuleSet

CALIBRATED_ON = 4
"""Batches whose statistics batch norms have when temperatures are found, on the first of them."""


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        name: What tables call it.
        rules: The rules of the injected form; with a spread, temperatures are found anew before every epoch.
        text: What it is, in a line.
    """

    name: str
    rules: RuleSet
    text: str


ORDINARY = Way("ordinary", EXACT, "no rules: the gradient, as any training")
PAPER = Way("paper", SEMANTIC, "every rule, the paper's temperatures")
CALIBRATED = Way("calibrated", SEMANTIC.with_spread(), "every rule, temperatures calibrated before each epoch")
GATES = Way(
    "gates alone",
    SEMANTIC.with_spread().keep_exact(*ROUTING),
    "calibrated, but attention, gated products and norms keep their derivative",
)


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        way: How.
        seed: Which weights it began with, and which pictures came when.
        model: In eval mode.
        losses: Mean of each epoch.
    """

    way: Way
    seed: int
    model: nn.Module
    losses: tuple[float, ...]


def train(recipe: Recipe, way: Way, seed: int, folder: Path) -> Trained:
    """Train a network, or take it up where `folder` has it.

    Every way has the same first weights and the same pictures in the same order, changed in the same way.
    """
    path = folder / f"{recipe.name}-{way.name.replace(' ', '-')}-{seed}.pt"
    torch.manual_seed(seed)
    model = recipe.make()
    optimiser = recipe.optimiser(model, recipe.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.rate, total_steps=recipe.epochs * recipe.steps, pct_start=recipe.warm
    )
    held = _read(path, recipe, way)
    if held:
        model.load_state_dict(held["model"])
        optimiser.load_state_dict(held["optimiser"])
        schedule.load_state_dict(held["schedule"])
    losses, spent = list(held.get("losses", [])), float(held.get("spent", 0.0))
    for epoch in range(len(losses), recipe.epochs):
        began = time.perf_counter()
        losses.append(_epoch(recipe, way, model, optimiser, schedule, seed, epoch))
        spent += time.perf_counter() - began
        say(f"{path.stem}: epoch {epoch + 1} of {recipe.epochs}, loss {losses[-1]:.3f}, {spent:.0f} s")
        parts: dict[str, Any] = {"model": model, "optimiser": optimiser, "schedule": schedule}
        kept = {name: part.state_dict() for name, part in parts.items()}
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(kept | {"losses": losses, "spent": spent, "stamp": _stamp(recipe, way)}, path)
    return Trained(way, seed, model.eval().requires_grad_(False), tuple(losses))


def _epoch(
    recipe: Recipe,
    way: Way,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    seed: int,
    epoch: int,
) -> float:
    """One epoch; returns the mean loss."""
    rules = way.rules
    if rules.spread is not None:
        first = [recipe.train[0][at] for at in order(recipe, seed, epoch)][:CALIBRATED_ON]
        rules = temperatures_for(model, first, rules)
    form = form_of(model.train(), recipe.train[0][:2], rules)
    total = 0.0
    for x, y in batches(recipe, seed, epoch):
        loss = F.cross_entropy(form(x), y, label_smoothing=recipe.smoothing)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += float(loss.detach())
    return total / recipe.steps


def order(recipe: Recipe, seed: int, epoch: int) -> list[Tensor]:
    """Which pictures each step of an epoch sees."""
    drawn = torch.Generator().manual_seed(1000 * seed + epoch)
    whole = torch.randperm(len(recipe.train[0]), generator=drawn)
    return list(whole[: recipe.steps * recipe.batch].split(recipe.batch))


def batches(recipe: Recipe, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch: pictures, changed, and their classes."""
    drawn = torch.Generator().manual_seed(1000 * seed + epoch + 500)
    x, y = recipe.train
    for at in order(recipe, seed, epoch):
        yield recipe.augment(x[at], drawn), y[at]


def _stamp(recipe: Recipe, way: Way) -> str:
    """Everything that a trained network hangs on, but the code."""
    pictures = [sha256(value.numpy().tobytes()).hexdigest() for value in recipe.train]
    told = [str(recipe), recipe.smoothing, recipe.warm, way.name, way.rules.describe(), way.rules.spread, pictures]
    return sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _read(path: Path, recipe: Recipe, way: Way) -> dict[str, Any]:
    """What was kept of a network trained in the same way; nothing where there is none."""
    if not path.is_file():
        return {}
    held: dict[str, Any] = torch.load(path, weights_only=True)
    return held if held["stamp"] == _stamp(recipe, way) else {}
