"""Networks with real weights and the pictures they are shown: of a `zoo.py`, of the demo, or the reader's own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from benchmarks.precision import zoo
from fxpullback.export.cli.demo import PICTURES, SEED, TAPS
from fxpullback.export.evaluate.cases import LABELS, Case, find
from fxpullback.export.pictures.panels import picture_tile
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo import demo_model as demo
from fxpullback.export.zoo.models import load_model

CIFAR = 32


@dataclass(frozen=True)
class Network:
    """A network, and the pictures it is shown.

    Attributes:
        name: What it is called.
        model: Takes pixels in [-1, 1].
        preprocessing: How a picture becomes its input.
        folder: The pictures, with their classes.
        classes: Names by class, where they are known.
        taps: Where contributions are read off.
    """

    name: str
    model: Any
    preprocessing: Preprocessing
    folder: Path
    classes: Mapping[int, str] = field(default_factory=dict)
    taps: str | tuple[str, ...] = "auto"


def of_zoo(wanted: Sequence[str]) -> Iterator[Network]:
    """The networks of `zoo.py`, with the pictures beside it."""
    source = zoo()
    for name in wanted or source.NAMES:
        entry = source.load(name)
        folder = source.HERE / "images" / ("cifar" if entry.size == CIFAR else "imagenet")
        short = CIFAR if entry.size == CIFAR else round(entry.size / 0.9)
        yield Network(name, entry.model, Preprocessing((entry.size, entry.size), short), folder, names_in(folder))


def of_demo(build: Path) -> Network:
    """The network of `fxpullback demo`, its pictures written to a folder."""
    folder = build / "drawn"
    folder.mkdir(parents=True, exist_ok=True)
    x, y, _ = demo.draw(SEED, PICTURES)
    lines = ["file,class_index,name"]
    for number, (picture, label) in enumerate(zip(x, y, strict=True)):
        picture_tile(picture.numpy()).save(folder / f"{number:02}.png")
        lines.append(f"{number:02}.png,{int(label)},{demo.CLASSES[int(label)]}")
    (folder / LABELS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    plain = Preprocessing.plain((3, demo.SIZE, demo.SIZE))
    return Network("demo", demo.demo_model(), plain, folder, dict(enumerate(demo.CLASSES)), TAPS)


def of_specs(specs: Sequence[str], weights: Sequence[str], size: int | None, folder: Path) -> Iterator[Network]:
    """Networks of the reader's own; one of timm or torchvision without weights takes those that are downloaded."""
    for spec, file in zip_longest(specs, weights[: len(specs)]):
        hub = spec.startswith(("timm:", "torchvision:"))
        path = None if file is None else Path(file)
        loaded = load_model(spec, weights=path, pretrained=hub and path is None, size=size)
        if loaded.preprocessing is None:
            raise SystemExit(f"{spec}: it takes no pictures.")
        known = dict(enumerate(loaded.classes or [])) | names_in(folder)
        yield Network(re.sub(r"\W+", "-", spec), loaded.model, loaded.preprocessing, folder, known)


def names_in(folder: Path) -> dict[int, str]:
    """The column `name` of a folder's labels, by class."""
    if not (folder / LABELS).is_file():
        return {}
    with (folder / LABELS).open(newline="", encoding="utf-8-sig") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("class_index") and row.get("name")]
    return {int(row["class_index"]): row["name"].replace("_", " ") for row in rows}


def by_turns(cases: Sequence[Case]) -> list[Case]:
    """The first picture of every class, then the second of every class, and so on."""
    groups: dict[int | None, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.label, []).append(case)
    return [case for turn in zip_longest(*groups.values()) for case in turn if case is not None]


def linked(network: Network, count: int, folder: Path) -> Path:
    """A folder of links to the pictures, ordered by turns: the first of them are shown."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [network.classes.get(index, "") for index in range(count)]
    lines = []
    for case in by_turns(find(network.folder, names if all(names) else None, count)):
        link = folder / case.name.replace("/", "-")
        link.unlink(missing_ok=True)
        link.symlink_to(case.path.resolve())
        lines.append([link.name, "" if case.label is None else case.label])
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "class_index"], *lines])
    return folder
