"""A page of explanations: networks with real weights, pictures in rows, methods in columns, with what they measure.

`python -m benchmarks.gallery [NAME ...]` writes build/gallery.html, one file that loads nothing. Networks and pictures
come from `zoo.py`, as in `benchmarks.precision`, and from the demo; `--data FOLDER` names another folder that holds a
`zoo.py`, or your pictures (as for `fxpullback evaluate`), for networks that `--model SPEC` and `--weights FILE` name.
Without arguments the table of means is put between the markers of docs/gallery.md.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch

import fxpullback
from benchmarks.gallery_page import METHODS, Section, page, section_of, table
from benchmarks.precision import ROOT, insert, zoo
from fxpullback import EXACT
from fxpullback.export import to_onnx
from fxpullback.export.cli.demo import PICTURES, SEED, TAPS
from fxpullback.export.evaluate.cases import LABELS, Case, find
from fxpullback.export.evaluate.exact import exact_baselines
from fxpullback.export.evaluate.run import MOSAIC, evaluate
from fxpullback.export.evaluate.settings import Settings
from fxpullback.export.pictures.panels import picture_tile
from fxpullback.export.pictures.preprocessing import Preprocessing
from fxpullback.export.zoo import demo_model as demo
from fxpullback.export.zoo.models import load_model

BUILD = ROOT / "build"
DOCS = ROOT / "docs" / "gallery.md"
MARKERS = "<!-- gallery -->", "<!-- /gallery -->"
COUNT = 6
ASKED = ("occlusion", "insertion", "mosaic")
CIFAR = 32
SETTINGS = Settings(grid=7, steps=14)
"""Patches of a seventh of the side: what takes most of the time grows with their number."""


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


def section(network: Network, build: Path, count: int) -> Section:
    """Compile, measure and draw one network."""
    build.mkdir(parents=True, exist_ok=True)
    height, width = network.preprocessing.size
    example = torch.rand(2, network.preprocessing.channels, height, width) * 2 - 1
    paths = {}
    for kind, rules in (("gradient", EXACT), ("soft", None)):
        say(f"{network.name}: compile {kind}")
        pb = fxpullback.compile(network.model, (example,), rules=rules, taps=network.taps)
        told = network.preprocessing.to_json()
        paths[kind] = to_onnx(pb, build / f"{kind}.onnx", preprocessing=told, certify=False)
    with torch.no_grad():
        classes = int(network.model(example).shape[1])
    pictures = linked(network, classes, build / "pictures")
    labels = {case.label for case in find(pictures, None, classes)} - {None}
    report = evaluate(
        paths["soft"],
        pictures,
        sources=[exact_baselines(paths["gradient"])],
        metrics=[metric for metric in ASKED if metric != "mosaic" or len(labels) >= MOSAIC],
        methods=list(METHODS),
        settings=SETTINGS,
        limit=count,
        only_correct=bool(labels),
        reference="contribution",
        rows=build / "rows.jsonl",
        progress=lambda done, of, what: say(f"{network.name}: {done} of {of}, {what}"),
    )
    return section_of(network.name, report, paths, pictures, network.classes)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def networks(options: argparse.Namespace, build: Path) -> Iterator[Network]:
    """What the options ask for."""
    data = None if options.data is None else options.data.resolve()
    if data is not None and not (data / "zoo.py").is_file():
        if not options.model:
            raise SystemExit(f"{data}: pictures alone; name a network with --model, such as timm:resnet18.")
        yield from of_specs(options.model, options.weights, options.size, data)
        return
    if data is not None:
        os.environ["FXPULLBACK_SHARED"] = str(data)
    wanted = [name for name in options.names if name != "demo"]
    if wanted or not options.names:
        yield from of_zoo(wanted)
    if "demo" in options.names or not options.names:
        yield of_demo(build / "demo")


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write a page of explanations beside the plain gradient's.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks of zoo.py, or demo; all by default")
    parser.add_argument("--data", type=Path, help="a folder with zoo.py, or of pictures with labels.csv")
    parser.add_argument("--model", action="append", default=[], help="timm:NAME and the like, for --data; repeatable")
    parser.add_argument("--weights", action="append", default=[], help="weights of each --model, in order")
    parser.add_argument("--size", type=int, help="side of the pictures that --model takes, where it does not say")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures of each network")
    parser.add_argument("-o", "--output", type=Path, default=BUILD / "gallery.html")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Write the page; returns where."""
    options = parsed(arguments)
    build = options.output.parent / "gallery"
    found = [section(network, build / network.name, options.count) for network in networks(options, build)]
    options.output.write_text(page(found), encoding="utf-8")
    print(table(found))
    if arguments is None and len(sys.argv) == 1 and insert(table(found), DOCS, MARKERS):
        print("written to docs/gallery.md", file=sys.stderr)
    return Path(options.output)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(main())
