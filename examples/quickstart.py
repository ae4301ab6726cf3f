"""Compile a model, look at what became of it, check it, write it, serve it.

A small convolutional network with random weights stands for yours. Writes model.onnx into the current folder.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import fxpullback
from fxpullback import SEMANTIC, Ascent
from fxpullback.export import Session, to_onnx


def network() -> nn.Module:
    """Two convolutions, a max-pool, a linear head for five classes."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 5),
    ).eval()


def main() -> None:
    torch.manual_seed(0)
    model, example = network(), torch.rand(1, 3, 32, 32) * 2 - 1

    pb = fxpullback.compile(model, (example,))
    print(pb.ledger)
    print(pb.verify())

    logits, pullback = pb(example, torch.tensor([2]))
    print("in torch:", tuple(logits.shape), tuple(pullback.shape))

    session = Session(to_onnx(pb, "model.onnx"))
    batch = np.random.default_rng(0).uniform(-1, 1, (4, 3, 32, 32)).astype(np.float32)
    result = session(batch, np.array([0, 1, 2, 3]))
    print("in ONNX Runtime:", result.logits.shape, result.pullback.shape, session.providers)

    cooler = SEMANTIC.with_temperature(relu=0.4)
    rules = fxpullback.calibrate(model, torch.rand(8, 3, 32, 32) * 2 - 1, rules=cooler, spread=0.9)
    ascent = fxpullback.compile(model, (example,), rules=rules, program=Ascent(steps=3, alpha=2.0), target="top1")
    results = dict(zip(ascent.output_names, ascent(example), strict=True))
    top = int(results["logits"].argmax())
    print(f"class {top}: {results['logits'][0, top]:.3f} -> {results['counterfactual_logits'][0, top]:.3f}")


if __name__ == "__main__":
    main()
