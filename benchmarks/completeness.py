"""How much of a logit the input, the biases and the gates explain, on networks with real weights.

`python -m benchmarks.completeness [NAME ...]` prints a table as Markdown. Networks and pictures come from `zoo.py`, as
in `benchmarks.precision`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

import fxpullback
from benchmarks.precision import zoo
from fxpullback import EXACT, RuleSet

PICTURES = 8
RULES: dict[str, RuleSet | None] = {"soft": None, "exact": EXACT}
HEAD = """| network | rules | logit | input | biases | gates | abs. input | abs. biases | abs. gates |
|---|---|---:|---:|---:|---:|---:|---:|---:|"""


def parts_of(name: str, rules: RuleSet | None) -> Tensor:
    """`[pictures, 3]` of the true class, in float32 as a file gives them."""
    networks = zoo()
    x, y, _ = networks.images(name)
    pb = fxpullback.compile(networks.load(name).model, x[:1], rules=rules, bias="share")
    place = pb.output_names.index("parts")
    return torch.cat([pb(x[i : i + 1], y[i : i + 1])[place] for i in range(min(PICTURES, len(x)))])


def row(name: str, label: str, parts: Tensor) -> str:
    """One row: means over pictures, then means of absolute values."""
    numbers = [float(parts.sum(1).mean()), *parts.mean(0).tolist(), *parts.abs().mean(0).tolist()]
    return f"| {name} | {label} | " + " | ".join(f"{number + 0.0:.2f}" for number in numbers) + " |"


def main(names: Sequence[str]) -> None:
    """Print the table."""
    print(HEAD)
    for name in names or zoo().NAMES:
        for label, rules in RULES.items():
            print(row(name, label, parts_of(name, rules)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
