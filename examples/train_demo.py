"""Train the network that `fxpullback demo` explains, on pictures this script has drawn.

The weights that ship with the package came from (about eight minutes on one CPU core)

    python examples/train_demo.py --steps 2500 --output export/assets/demo.safetensors

Without arguments it takes 20 steps and writes demo.safetensors to the current folder: enough to see that it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from fxpullback.export.zoo.demo_model import CLASSES, DemoNet, draw


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Turn and mirror a batch [batch, 3, 64, 64], swap its colours, shift its brightness: none of it is the class."""
    x = torch.rot90(x, int(torch.randint(4, (), generator=generator)), (2, 3))
    x = x.flip(3) if torch.rand((), generator=generator) < 0.5 else x
    x = x[:, torch.randperm(3, generator=generator)]
    return (x + 0.2 * torch.randn(len(x), 3, 1, 1, generator=generator)).clamp(-1, 1)


def train(model: nn.Module, steps: int, batch: int, pictures: int) -> None:
    """Adam with a one-cycle rate, on a fixed set of drawn pictures."""
    generator = torch.Generator().manual_seed(0)
    x, y, _ = draw(0, pictures)
    x = x.contiguous(memory_format=torch.channels_last)  # convolutions are quicker so on CPUs
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        chosen = torch.randint(pictures, (batch,), generator=generator)
        loss = F.cross_entropy(model(augment(x[chosen], generator)), y[chosen], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1:5d}  loss {loss.item():.3f}", flush=True)


@torch.no_grad()
def accuracy(model: nn.Module, pictures: int) -> float:
    """Share of pictures it was not trained on that get the right class."""
    x, y, _ = draw(1, pictures)
    return float((model.eval()(x).argmax(1) == y).float().mean())


def main() -> None:
    """Train, report the accuracy, write the weights."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=20, help="optimiser steps; 2500 for the weights that ship")
    parser.add_argument("--output", type=Path, default=Path("demo.safetensors"), help="where the weights go")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # the same sums in the same order on every machine
    model = DemoNet()
    train(model, arguments.steps, batch=64, pictures=min(12500, 64 * arguments.steps))
    print(f"{accuracy(model, 500):.1%} of 500 new pictures right, by chance {1 / len(CLASSES):.1%}")
    save_file(model.state_dict(), arguments.output)
    print(f"{arguments.output}: {arguments.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
