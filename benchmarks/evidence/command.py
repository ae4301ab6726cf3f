"""What every experiment's command takes, and where it writes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.networks import Network, of_demo, of_zoo
from benchmarks.precision import ROOT

RESULTS = Path(__file__).resolve().parent / "results"
BUILD = ROOT / "build" / "evidence"


@dataclass(frozen=True)
class Run:
    """What a command was asked for.

    Attributes:
        study: The experiment's name: its files are called after it.
        names: Networks of `zoo.py`, or `demo`.
        count: Pictures of each network.
        build: Where compiled files and rows go, to be found again.
        output: Where table and figures go.
    """

    study: str
    names: tuple[str, ...]
    count: int
    build: Path
    output: Path

    def networks(self) -> Iterator[Network]:
        """The networks, one after the other."""
        wanted = [name for name in self.names if name != "demo"]
        if wanted:
            yield from of_zoo(wanted)
        if "demo" in self.names:
            yield of_demo(self.build / "demo")

    def write(self, suffix: str, text: str) -> Path:
        """Write a result; returns where."""
        self.output.mkdir(parents=True, exist_ok=True)
        path = self.output / f"{self.study}{suffix}"
        path.write_text(text, encoding="utf-8")
        say(f"written: {path}")
        return path


def run_of(study: str, about: str, names: Sequence[str], count: int, arguments: Sequence[str] | None) -> Run:
    """Read the command line of an experiment. Without arguments it writes the committed results.

    Args:
        study: Its name.
        about: What it does, in a line.
        names: The networks it asks by default.
        count: Pictures of each, by default.
        arguments: The command line; None for that of the process.
    """
    return run_from(parser_of(study, about, names, count), study, names, arguments)[0]


def parser_of(study: str, about: str, names: Sequence[str], count: int) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.evidence.{study}", description=about)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"networks (default: {' '.join(names)})")
    parser.add_argument("--count", type=int, default=count, help=f"pictures of each network (default: {count})")
    parser.add_argument("--data", type=Path, help="a folder with zoo.py (default: FXPULLBACK_SHARED)")
    parser.add_argument("--build", type=Path, default=BUILD, help="where files and rows are kept between runs")
    parser.add_argument("-o", "--output", type=Path, help="where table and figures go")
    return parser


def run_from(
    parser: argparse.ArgumentParser, study: str, names: Sequence[str], arguments: Sequence[str] | None
) -> tuple[Run, argparse.Namespace]:
    """What a command line asks for, and the options as they are."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if options.data is not None:
        os.environ["FXPULLBACK_SHARED"] = str(options.data.resolve())
    output = options.output or (options.build / "results" if given else RESULTS)
    return Run(study, tuple(options.names or names), options.count, options.build, output), options


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)
