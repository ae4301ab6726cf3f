"""Attacked pictures: how explanations change, and how faithful they are to a network that was fooled.

`python -m benchmarks.evidence.adversarial` writes results/adversarial.md, .csv and .svg: how many pictures FGSM and PGD
fool, how much the maps of each method change, and the metrics on clean and attacked pictures. Stopped, it goes on where
it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.evidence.adversarial_attacks import (
    ATTACKS,
    CLEAN,
    FGSM_8,
    NOISE,
    PGD_2,
    PGD_8,
    Attacked,
    attacked,
    first_classes,
    write,
)
from benchmarks.evidence.adversarial_maps import Inquiry, available, changes, methods_of
from benchmarks.evidence.adversarial_page import INSTEAD, METHODS, STUDY, Found, page, picture, report_of
from benchmarks.evidence.command import Run, run_of, say
from benchmarks.evidence.tables import as_csv
from benchmarks.evidence.variants import OURS, PLAIN, compiled, measured, shown
from benchmarks.networks import Network
from fxpullback.export.evaluate import Settings
from fxpullback.export.evaluate.cases import Pictures, find
from fxpullback.export.evaluate.rows import Row, Rows
from fxpullback.export.evaluate.served import Served
from fxpullback.export.evaluate.sources import digest_of
from fxpullback.export.pictures.preprocessing import Preprocessing

NAMES = ("vit_tiny", "mobilenetv3_small", "cifar_resnet20")
COUNT = 10
METRICS = ("occlusion", "infidelity")
COMPARED = (NOISE, FGSM_8, PGD_2, PGD_8)
"""Attacks that maps are compared after."""
MEASURED = (CLEAN, FGSM_8, PGD_8)
"""Pictures that metrics are measured on."""
SETTINGS = Settings(runs=50)


@dataclass(frozen=True)
class Chosen:
    """The pictures that are attacked.

    Attributes:
        x: They, as the network takes them: [n, channels, height, width].
        classes: Their classes.
        names: What their files are called.
    """

    x: torch.Tensor
    classes: tuple[int, ...]
    names: tuple[str, ...]


def chosen(network: Network, build: Path, count: int) -> Chosen:
    """The first pictures that a network classifies correctly, by turns of their classes."""
    folder, _ = shown(network, build)
    pictures = Pictures(find(folder, None, 1 << 30), network.preprocessing)
    found = []
    for place, case in enumerate(pictures.cases):
        x = torch.from_numpy(pictures[place])
        if case.label is not None and first_classes(network.model, x[None]) == (case.label,):
            found.append((x, case.label, f"{Path(case.name).stem}.png"))
        if len(found) == count:
            break
    if not found:
        raise SystemExit(f"{network.name}: no picture is classified correctly, so there is nothing to attack.")
    return Chosen(
        torch.stack([x for x, _, _ in found]),
        tuple(label for _, label, _ in found),
        tuple(name for _, _, name in found),
    )


def examined(run: Run, network: Network) -> Found:
    """Everything that is measured on one network.

    Pictures are written at its own size and read without resizing: a file of the same network with that preprocessing
    is compiled for them.
    """
    own = replace(run, build=run.build / STUDY)
    pictures = chosen(network, own.build, run.count)
    folder = own.build / network.name
    made = {
        name: attacked(network.model, name, pictures.x, pictures.classes, pictures.names, folder / name, SETTINGS.seed)
        for name in (CLEAN, *ATTACKS)
    }
    plain = replace(network, preprocessing=Preprocessing.plain(tuple(pictures.x.shape[1:])))
    soft, exact = compiled(plain, OURS, own.build), compiled(plain, PLAIN, own.build)
    served = Served(soft)
    names = available(served, network.model, METHODS, INSTEAD)
    methods = methods_of(served, Served(exact), network.model, names, SETTINGS)
    others = [made[name] for name in COMPARED]
    identity = f"{digest_of(soft)} {digest_of(exact)}"
    say(f"{network.name}: maps")
    rows = changes(
        Inquiry(methods, made[CLEAN], others, plain.preprocessing, identity, SETTINGS), Rows(folder / "maps.jsonl")
    )
    rows += metrics(own, plain, [made[name] for name in MEASURED], pictures, names)
    return Found(report_of(rows, len(pictures.names)), made, pictures.classes)


def metrics(run: Run, network: Network, made: Sequence[Attacked], pictures: Chosen, names: Sequence[str]) -> list[Row]:
    """The metrics on each folder of pictures for the true class, on the last for the class the attack ended in, too."""
    fooled = [
        place for place, (true, ended) in enumerate(zip(pictures.classes, made[-1].after, strict=True)) if true != ended
    ]
    asked = [(one.name, one.folder) for one in made]
    if fooled:
        last = made[-1]
        folder = last.folder.parent / f"{last.name}, ended"
        x = torch.stack(
            [torch.from_numpy(Pictures(find(last.folder, None, 1 << 30), network.preprocessing)[p]) for p in fooled]
        )
        write(x, [pictures.names[place] for place in fooled], [last.after[place] for place in fooled], folder)
        asked.append((folder.name, folder))
    found = []
    for name, folder in asked:
        say(f"{network.name}: {name}")
        report = measured(run, network, METRICS, methods=names, settings=SETTINGS, model=True, pictures=folder)
        found += [replace(row, column=f"{row.column}, {name}") for row in report.rows]
    return found


def main(arguments: Sequence[str] | None = None) -> Run:
    """Measure and write."""
    run = run_of(STUDY, "Explanations of attacked pictures.", NAMES, COUNT, arguments)
    found = {network.name: examined(run, network) for network in run.networks()}
    run.write(".csv", as_csv({name: one.report for name, one in found.items()}))
    run.write(".svg", picture(found))
    run.write(".md", page(found))
    return run


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
