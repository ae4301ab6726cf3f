"""The page that `benchmarks.gallery` writes: what was measured and drawn of each network, as HTML and as a table."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from fxpullback.export.evaluate.cases import Pictures, find
from fxpullback.export.evaluate.exact import NAMES
from fxpullback.export.evaluate.metrics import Column
from fxpullback.export.evaluate.page import number
from fxpullback.export.evaluate.patches import Array
from fxpullback.export.evaluate.report import Report
from fxpullback.export.evaluate.served import Served
from fxpullback.export.pictures.colours import CARRIES, HEAT, Ramp
from fxpullback.export.pictures.maps import contribution_tile, focus_tile
from fxpullback.export.pictures.panels import dim, overlay_tile, picture_tile
from fxpullback.export.pictures.preprocessing import Preprocessing

TEMPLATE = Path(__file__).with_name("gallery.html.j2")
SIDE = 224
"""A picture smaller than this is enlarged, in pixels."""
QUALITY = 88
METHODS = {
    "gradient": ("gradient", "strength of the plain gradient at the pixels, colours summed, smoothed for the eye"),
    "HiResCAM": ("gradient contribution", "HiResCAM: value times plain gradient at the same inner layers"),
    "contribution": ("soft contribution", "what each place carries of the logit: value times soft cotangent"),
    "focus": ("focus", "soft contribution where positive, times the smoothed strength of the soft pullback"),
    "pullback": ("soft pullback", "strength of the soft pullback at the pixels: what would raise the logit"),
}
"""What each method of an evaluation is called on the page, and what it shows; in the order of the columns."""
COLUMNS = {"occlusion": "occ", "grid pointing": "GP", "insertion - deletion": "i-d"}


@dataclass(frozen=True)
class Section:
    """What the page shows of one network.

    Attributes:
        name: Its name.
        about: Where it is tapped, how many pictures, how many it gets right.
        report: What was measured.
        rows: Of each picture its class, its own tile, and tile and numbers of each method.
    """

    name: str
    about: str
    report: Report
    rows: list[dict[str, Any]]

    def mean(self, column: Column, method: str) -> float:
        """The mean over the pictures."""
        return self.report.mean(column, method).mean

    @property
    def columns(self) -> list[Column]:
        """The columns that are shown, in order."""
        return [column for name in COLUMNS for column in self.report.columns if column.name == name]


def section_of(
    name: str, report: Report, paths: Mapping[str, Path], folder: Path, classes: Mapping[int, str]
) -> Section:
    """Draw the pictures that were measured."""
    soft, exact = Served(paths["soft"]), Served(paths["gradient"], names=NAMES)
    held = soft.session.preprocessing
    assert held is not None, "the gallery writes it into its files"
    cases = find(folder, None, soft.session.class_count)
    pictures = Pictures(cases, Preprocessing.from_json(held))
    shown = {row.picture for row in report.rows}
    rows = []
    for place in [place for place, case in enumerate(cases) if case.name in shown]:
        x, case = pictures[place][None], cases[place]
        index = int(soft.predict(x)[0].argmax()) if case.label is None else case.label
        asked = np.array([index])
        tiles = tiles_of(x, exact.ask(x, asked), soft.ask(x, asked))
        cells = [{"image": uri(tiles[method]), "numbers": _numbers(report, method, case.name)} for method in METHODS]
        logit = float(soft.predict(x)[0, index])
        shown_as = classes.get(index, f"class {index}")
        rows.append({"name": shown_as, "logit": logit, "picture": uri(tiles["picture"]), "cells": cells})
    contributions = soft.session.contributions
    right = report.about["accuracy"]
    about = f"{report.about['count']} pictures" + ("" if right is None else f"; {right:.0%} of {len(cases)} are right")
    about += f". Contributions: {contributions or 'none'}."
    return Section(name, about, report, rows)


def tiles_of(x: Array, exact: tuple[Array, Array | None], soft: tuple[Array, Array | None]) -> dict[str, Image.Image]:
    """The tiles of one picture `[1, channels, height, width]`, of both files' pullbacks and contributions."""
    picture, (gradient, by_gradient), (pullback, carried) = x[0], exact, soft
    side = max(SIDE, *picture.shape[-2:])
    large = picture_tile(picture).resize((side, side), Image.Resampling.BICUBIC)
    grey = dim(np.asarray(large, dtype=np.float64).transpose(2, 0, 1) / 127.5 - 1)
    found = {
        "picture": large,
        "gradient": overlay_tile(picture, gradient[0]),
        "pullback": overlay_tile(picture, pullback[0]),
    }
    if by_gradient is not None and carried is not None:
        found["HiResCAM"] = contribution_tile(grey, by_gradient[0])
        found["contribution"] = contribution_tile(grey, carried[0])
        found["focus"] = focus_tile(dim(picture), carried[0], pullback[0])
    return {name: tile.resize((side, side), Image.Resampling.BICUBIC) for name, tile in found.items()}


def uri(image: Image.Image) -> str:
    """A picture as an address that holds it."""
    held = io.BytesIO()
    image.save(held, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(held.getvalue()).decode()}"


def _numbers(report: Report, method: str, picture: str) -> list[tuple[str, str]]:
    values = [(short, report.values(name, method).get(picture)) for name, short in COLUMNS.items()]
    return [(short, short_number(value)) for short, value in values if value is not None]


def short_number(value: float) -> str:
    """Two digits, without the zero in front: `.54`, `-.08`."""
    text = f"{value:.2f}"
    if float(text) == 0:
        return "0.00"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def table(sections: Sequence[Section]) -> str:
    """Means of every network and method, as Markdown; the best of a row in bold, number by number."""
    heads = " | ".join(head for head, _ in METHODS.values())
    lines = [f"| {' / '.join(COLUMNS.values())} | pictures | {heads} |", f"|---|--:|{'---|' * len(METHODS)}"]
    for one in sections:
        cells = [" / ".join(f"**{n}**" if best else n for n, best in numbers) for numbers in cells_of(one)]
        lines.append(f"| {one.name} | {one.report.about['count']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def cells_of(one: Section) -> list[list[tuple[str, bool]]]:
    """For each method its means, and whether each is the best of all methods as it is printed."""
    texts = {m: {c.name: short_number(one.mean(c, m)) for c in one.columns} for m in METHODS}
    best = {c.name: max(float(texts[m][c.name]) for m in METHODS) for c in one.columns}
    return [[(text, float(text) == best[name]) for name, text in texts[m].items()] for m in METHODS]


def page(sections: Sequence[Section]) -> str:
    """The page: nothing is loaded from elsewhere."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        methods=list(METHODS.values()),
        columns=[(short, name) for name, short in COLUMNS.items()],
        sections=[
            {
                "name": one.name,
                "about": one.about,
                "cells": cells_of(one),
                "rows": one.rows,
                "columns": [(COLUMNS[column.name], column.name) for column in one.columns],
                "means": [
                    [head, *(number(one.report.mean(c, m)) for c in one.columns)] for m, (head, _) in METHODS.items()
                ],
            }
            for one in sections
        ],
        carries=gradient_of(CARRIES),
        heat=gradient_of(HEAT),
    )


def gradient_of(ramp: Ramp) -> str:
    """A ramp of colours as CSS."""
    return f"linear-gradient(to right, {', '.join(f'rgb{tuple(colour)}' for colour in ramp)})"
