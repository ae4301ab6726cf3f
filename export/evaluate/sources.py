"""Where methods come from: files, controls, models; each with what tells it apart, and with its weights drawn anew."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from fxpullback.export.evaluate.methods import Method, controls
from fxpullback.export.evaluate.randomise import randomised_copy
from fxpullback.export.evaluate.served import OWN, Served, check_same
from fxpullback.export.evaluate.settings import Settings

Made = Callable[[Served], list[Method]]


@dataclass(frozen=True)
class Source:
    """Methods of one origin.

    Attributes:
        methods: What it explains with.
        identity: Tells it apart from others that go by the same names.
        again: The same methods under weights drawn anew, from the top down to a share of the layers, 0 for the top one
            alone; None where it has none.
        absent: Methods that it cannot give, and why.
    """

    methods: list[Method]
    identity: str
    again: Callable[[float], list[Method]] | None = None
    absent: Mapping[str, str] = field(default_factory=dict)


def digest_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_file(served: Served, settings: Settings, made: Made = Served.methods) -> Source:
    """The methods of a file, or those that `made` builds on it."""

    @cache
    def again(share: float) -> list[Method]:
        with randomised_copy(served.path, share, settings.seed) as path:
            return made(served.on(path))

    identity = digest_of(served.path)
    return Source(made(served), identity, again if served.path.suffix != ".pt2" else None)


def other_file(name: str, file: str | Path) -> Callable[[Served, Settings], Source]:
    """Another file of the same network, for `evaluate(sources=)`: other rules, another program, another precision.

    Args:
        name: What comes before the names of its methods: `double` gives `double pullback`, `double contribution`.
        file: A file written by fxpullback.

    Raises:
        EvaluateError: Its logits are not those of the file that is evaluated.
        SessionError: It cannot be loaded.
    """

    def make(served: Served, settings: Settings) -> Source:
        called = {kind: f"{name} {own}" for kind, own in OWN.items()}
        other = Served(Path(file), served.providers, called, served.batch)
        check_same(served, other.predict, str(file))
        return of_file(other, settings)

    return make


def of_controls(settings: Settings) -> Source:
    """Maps that know nothing of the network, and so do not change with its weights."""
    made = controls(settings.seed)
    return Source(made, f"controls {settings.seed}", lambda share: made)
