"""Files of one network compiled in several ways, measured side by side on the same pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

import fxpullback
from benchmarks.evidence.command import Run, say
from benchmarks.networks import Network, linked
from fxpullback import EXACT, RuleSet
from fxpullback.export import to_onnx
from fxpullback.export.evaluate import Report, Settings, evaluate, exact_baselines, other_file, torch_baselines
from fxpullback.export.evaluate.cases import find
from fxpullback.export.evaluate.run import MOSAIC
from fxpullback.unroll import Program, Soft

SETTINGS = Settings()
DEFAULT, GRADIENT = "soft", "gradient"


@dataclass(frozen=True)
class Variant:
    """One way to compile a network.

    Attributes:
        name: What comes before the names of its methods in tables.
        rules: Its rule set; None for the default, calibrated on noise.
        program: What is unrolled.
        taps: Where contributions are read off; None for the network's own choice.
    """

    name: str
    rules: RuleSet | None = None
    program: Program = field(default_factory=Soft)
    taps: tuple[str, ...] | None = None


OURS, PLAIN = Variant(DEFAULT), Variant(GRADIENT, EXACT)


def compiled(network: Network, variant: Variant, build: Path) -> Path:
    """The file of a variant: `build/NETWORK/VARIANT.onnx`, kept as long as the package and the weights are the same."""
    folder = build / network.name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{variant.name.replace(' ', '-')}.onnx"
    mark, stamp = path.with_suffix(".mark"), _stamp(network, variant)
    if path.is_file() and mark.is_file() and mark.read_text() == stamp:
        return path
    say(f"{network.name}: compile {variant.name}")
    pb = fxpullback.compile(
        network.model,
        (example_of(network),),
        rules=variant.rules,
        program=variant.program,
        taps=variant.taps or network.taps,
    )
    to_onnx(pb, path, preprocessing=network.preprocessing.to_json(), certify=False)
    mark.write_text(stamp)
    return path


def example_of(network: Network) -> torch.Tensor:
    """Two pictures of noise, of the shape that a network takes."""
    drawn = torch.Generator().manual_seed(0)
    return torch.rand(2, network.preprocessing.channels, *network.preprocessing.size, generator=drawn) * 2 - 1


def _stamp(network: Network, variant: Variant) -> str:
    """Everything a file hangs on."""
    home = Path(fxpullback.__file__).parent
    sources = b"".join(path.read_bytes() for path in sorted([*home.rglob("*.py"), *(home / "export").rglob("*.py")]))
    weights = b"".join(value.numpy().tobytes() for value in network.model.state_dict().values())
    taps = variant.taps or network.taps
    told = f"{variant.program!r} {taps!r} {_rules(variant.rules)} {network.preprocessing.to_json()}"
    return sha256(sources + weights + told.encode()).hexdigest()


def _rules(rules: RuleSet | None) -> str:
    """A rule set as text, the functions in it by name."""
    if rules is None:
        return "default"
    held = {
        "rules": [(rule.name, rule.temperature) for rule in rules.all_rules],
        "kept": sorted(rules.kept),
        "temperatures": dict(rules.temperatures),
        "calibrated": dict(rules.calibrated),
    }
    return json.dumps([rules.name, rules.otherwise, rules.spread, rules.noise, held], sort_keys=True, default=str)


def shown(network: Network, build: Path) -> tuple[Path, int]:
    """The folder of pictures by turns of their classes, and of how many classes there are labels."""
    with torch.no_grad():
        classes = int(network.model(example_of(network)).shape[1])
    folder = linked(network, classes, build / network.name / "pictures")
    return folder, len({case.label for case in find(folder, None, classes)} - {None})


def measured(
    run: Run,
    network: Network,
    metrics: Sequence[str],
    *,
    variants: Sequence[Variant] = (),
    methods: Sequence[str] | None = None,
    reference: str = "contribution",
    settings: Settings = SETTINGS,
    model: bool = False,
    pictures: Path | None = None,
) -> Report:
    """Measure the default file, the gradient's, and those of the variants, on correctly classified pictures.

    Args:
        run: What was asked for.
        network: What is explained.
        metrics: Names of metrics; `mosaic` is left out where fewer than four classes are known.
        variants: Further files.
        methods: Which methods are measured, by name; None for all.
        reference: The method that differences are taken to.
        settings: Grid, steps, runs, samples.
        model: Whether Grad-CAM and other methods that need the torch model are measured too.
        pictures: A folder of pictures in place of the network's own.
    """
    folder, labels = shown(network, run.build) if pictures is None else (pictures, MOSAIC)
    files = [(variant.name, compiled(network, variant, run.build)) for variant in variants]
    sources: list[Any] = [exact_baselines(compiled(network, PLAIN, run.build))]
    sources += [other_file(name, file) for name, file in files]
    if model:
        sources.append(torch_baselines(network.model))
    return evaluate(
        compiled(network, OURS, run.build),
        folder,
        sources=sources,
        metrics=[name for name in metrics if name != "mosaic" or labels >= MOSAIC],
        methods=methods,
        settings=settings,
        limit=run.count,
        only_correct=pictures is None and labels > 0,
        reference=reference,
        rows=run.build / network.name / "rows.jsonl",
        progress=lambda done, of, what: say(f"{network.name}: {done} of {of}, {what}"),
    )
