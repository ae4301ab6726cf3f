"""How much of each explanation of the demo's network falls on the object, by rules and by where it is tapped.

`python -m benchmarks.demo` prints two tables as Markdown: the pictures of `fxpullback demo`, and pictures of another
seed. Pullbacks run in torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

import fxpullback
from fxpullback import EXACT, SEMANTIC, RuleSet
from fxpullback.export.cli.demo import PICTURES, SEED, TAPS, contribution_share, object_share
from fxpullback.export.zoo.demo_model import demo_model, draw

OTHERS = (7, 200)
"""Seed and number of pictures that nothing was chosen on."""
RULES: dict[str, RuleSet | None] = {"gradient": EXACT, "paper": SEMANTIC, "calibrated": None}
CHOICES: tuple[tuple[str, str | Sequence[str]], ...] = (
    ("auto", "auto"),
    (" + ".join(TAPS), TAPS),
    *((name, name) for name in ("gate", "patches", "blocks.0", "blocks.1")),
)


def shares(seed: int, count: int) -> dict[str, list[float]]:
    """For each rule set the mean share of |pullback|, then that of the contribution at each choice of taps."""
    x, y, masks = draw(seed, count)
    found = {}
    for name, rules in RULES.items():
        outputs = [fxpullback.compile(demo_model(), (x[:2],), rules=rules, taps=taps)(x, y) for _, taps in CHOICES]
        pullback, carried = outputs[0][1], [output[2] for output in outputs]
        values = [object_share(pullback.numpy(), masks.numpy())]
        values += [contribution_share(one.numpy(), masks.numpy()) for one in carried]
        found[name] = [float(value.mean()) for value in values]
    return found


def table(seed: int, count: int) -> str:
    """The same as Markdown."""
    area = float(draw(seed, count)[2].float().mean())
    lines = [
        f"Seed {seed}, {count} pictures; the object has {area:.1%} of the area.\n",
        f"| rules | pullback | {' | '.join(name for name, _ in CHOICES)} |",
        f"|{'---|' * (2 + len(CHOICES))}",
    ]
    lines += [f"| {name} | {' | '.join(f'{v:.1%}' for v in values)} |" for name, values in shares(seed, count).items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    torch.set_num_threads(1)
    for asked in ((SEED, PICTURES), OTHERS):
        print(table(*asked))
