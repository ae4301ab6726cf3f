"""A page of explanations: networks with real weights, pictures in rows, methods in columns, with what they measure.

`python -m benchmarks.gallery [NAME ...]` writes build/gallery.html, one file that loads nothing. Networks and pictures
come from `zoo.py`, as in `benchmarks.precision`, and from the demo; `--data FOLDER` names another folder that holds a
`zoo.py`, or your pictures (as for `fxpullback evaluate`), for networks that `--model SPEC` and `--weights FILE` name.
Without arguments the table of means is put between the markers of docs/gallery.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

import fxpullback
from benchmarks.gallery_page import METHODS, Section, page, section_of, table
from benchmarks.networks import Network, linked, of_demo, of_specs, of_zoo
from benchmarks.precision import ROOT, insert
from fxpullback import EXACT
from fxpullback.export import to_onnx
from fxpullback.export.evaluate.cases import find
from fxpullback.export.evaluate.exact import exact_baselines
from fxpullback.export.evaluate.run import MOSAIC, evaluate
from fxpullback.export.evaluate.settings import Settings

BUILD = ROOT / "build"
DOCS = ROOT / "docs" / "gallery.md"
MARKERS = "<!-- gallery -->", "<!-- /gallery -->"
COUNT = 6
ASKED = ("occlusion", "insertion", "mosaic")
SETTINGS = Settings(grid=7, steps=14)
"""Patches of a seventh of the side: what takes most of the time grows with their number."""


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
