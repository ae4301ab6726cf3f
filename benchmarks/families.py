"""One network for each family of timm and torchvision: the smallest that is no toy.

`python -m benchmarks.families` writes families.json anew; counting the parameters of all of timm takes five minutes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHOSEN = Path(__file__).parent / "families.json"
COUNTED = CHOSEN.parent.parent / "build" / "timm_sizes.json"
"""Parameters of every timm network, counted once: a cache beside the sources, not among them."""


@dataclass(frozen=True)
class Network:
    """A network by name.

    Attributes:
        spec: `timm:NAME` or `torchvision:NAME`.
        family: module that builds it, e.g. `resnet`.
        parameters: how many numbers its weights are.
        size: (channels, height, width) of its input.
    """

    spec: str
    family: str
    parameters: int
    size: tuple[int, int, int]

    @property
    def name(self) -> str:
        """The network's name in its library."""
        return self.spec.split(":")[1]

    @property
    def work(self) -> int:
        """Parameters times pixels: what sweeps are ordered by."""
        return self.parameters * self.size[1] * self.size[2]


def families() -> list[Network]:
    """The chosen networks, one for each family, as committed; needs neither timm nor torchvision."""
    return _read(CHOSEN)


def timm_networks() -> list[Network]:
    """Every network of timm, its parameters counted on the meta device; five minutes the first time."""
    if not COUNTED.exists():
        COUNTED.parent.mkdir(exist_ok=True)
        _write(COUNTED, _count_timm())
    return _read(COUNTED)


def _count_timm() -> list[Network]:
    import timm
    import torch

    found = []
    for family in timm.list_modules():
        for name in timm.list_models(module=family):
            with torch.device("meta"):
                model: Any = timm.create_model(name)
            parameters = sum(weight.numel() for weight in model.parameters())
            found.append(Network(f"timm:{name}", family, parameters, tuple(model.pretrained_cfg["input_size"])))
    return found


def torchvision_networks() -> list[Network]:
    """Every classifier of torchvision, its parameters as its published weights state them."""
    from torchvision import models

    found = []
    for name in models.list_models(module=models):
        weights = models.get_model_weights(name).DEFAULT
        family = models.get_model_builder(name).__module__.rsplit(".", 1)[1]
        side = weights.transforms().crop_size[0]
        found.append(Network(f"torchvision:{name}", family, weights.meta["num_params"], (3, side, side)))
    return found


def smallest(networks: list[Network]) -> list[Network]:
    """The smallest network of each family; timm's `test_*` are toys and not among them."""
    chosen: dict[tuple[str, str], Network] = {}
    for network in sorted(networks, key=lambda n: (n.parameters, n.work, n.spec)):
        kind, name = network.spec.split(":")
        if not name.startswith("test_"):
            chosen.setdefault((kind, network.family), network)
    return [chosen[key] for key in sorted(chosen)]


def _read(path: Path) -> list[Network]:
    data: Mapping[str, Any] = json.loads(path.read_text())
    return [Network(spec, family, count, (c, h, w)) for spec, (family, count, (c, h, w)) in data.items()]


def _write(path: Path, networks: list[Network]) -> None:
    rows = [f"{json.dumps(n.spec)}: {json.dumps([n.family, n.parameters, list(n.size)])}" for n in networks]
    path.write_text("{\n  " + ",\n  ".join(rows) + "\n}\n")


if __name__ == "__main__":
    _write(CHOSEN, smallest([*timm_networks(), *torchvision_networks()]))
