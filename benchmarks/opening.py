"""The picture at the top of README.md: explanations of the demo's network, on pictures that it draws itself.

`python -m benchmarks.opening [-o FILE]` writes docs/pictures/opening.png. One row for the first picture of each class
of `CLASSES` among those of `fxpullback demo`; none is chosen by how it looks.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

import fxpullback
from fxpullback import EXACT
from fxpullback.export.cli.demo import PICTURES, SEED, TAPS, contribution_share, object_share
from fxpullback.export.pictures.colours import CARRIES, SIGNED, Ramp, coloured, scale
from fxpullback.export.pictures.maps import contribution_tile
from fxpullback.export.pictures.panels import picture_tile
from fxpullback.export.zoo import demo_model as demo

Array: TypeAlias = npt.NDArray[np.floating[Any]]

PATH = Path(__file__).resolve().parent.parent / "docs" / "pictures" / "opening.png"
CLASSES = ("ring", "triangle", "cross", "star")
TILE, GAP, MARGIN, LABEL, NOTE = 192, 14, 18, 88, 24
INK, GREY, LINE = (24, 24, 28), (92, 92, 100), (205, 205, 210)
HEADS = (
    ("picture", "what the network sees,\nand rightly names"),
    ("plain gradient", "autograd, at the pixels: what\nwould raise the logit"),
    ("contribution", "softened, at inner layers:\nwhat carries the class"),
    ("pullback", "softened, at the pixels: what\nwould raise the logit"),
)


@dataclass(frozen=True)
class Row:
    """One picture and what is drawn of it.

    Attributes:
        name: Its class.
        tiles: Picture, gradient, contribution, pullback.
        shares: How much of each of the last three is on the object.
    """

    name: str
    tiles: tuple[Image.Image, ...]
    shares: tuple[float, ...]


def rows(classes: Sequence[str] = CLASSES) -> tuple[list[Row], tuple[float, ...]]:
    """The rows, in the order of the classes, and the mean shares of all pictures of the demo."""
    x, y, masks = demo.draw(SEED, PICTURES)
    inside, model = masks.numpy(), demo.demo_model()
    gradient = fxpullback.compile(model, (x[:2],), rules=EXACT)(x, y)[1].numpy()
    _, pullback, contribution = (v.numpy() for v in fxpullback.compile(model, (x[:2],), taps=TAPS)(x, y))
    shares = (
        object_share(gradient, inside),
        contribution_share(contribution, inside),
        object_share(pullback, inside),
    )
    found = []
    for name in classes:
        i = int((y == demo.CLASSES.index(name)).nonzero()[0])
        picture = picture_tile(x[i].numpy()).resize((TILE, TILE), Image.Resampling.NEAREST)
        grey = np.asarray(picture.convert("L"), dtype=np.float64) * 0.6 + 30
        carried = contribution_tile(grey, contribution[i])
        tiles = (picture, signed_tile(gradient[i]), carried, signed_tile(pullback[i]))
        found.append(Row(name, tiles, tuple(float(share[i]) for share in shares)))
    return found, tuple(float(share.mean()) for share in shares)


def signed_tile(pullback: Array) -> Image.Image:
    """A pullback, colours summed: orange where it raises the logit, blue where it lowers it, white for nothing."""
    signed = pullback.sum(0)
    tile = Image.fromarray(coloured(signed / scale(signed) / 2 + 0.5, SIGNED))
    return tile.resize((TILE, TILE), Image.Resampling.NEAREST)


def sheet(found: Sequence[Row], means: Sequence[float]) -> Image.Image:
    """All rows in one picture, with headings, shares and the meaning of the colours."""
    top, foot = 84, 96
    width = LABEL + len(HEADS) * (TILE + GAP) - GAP + 2 * MARGIN
    height = top + len(found) * (TILE + NOTE + GAP) + foot
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    lefts = [MARGIN + LABEL + column * (TILE + GAP) for column in range(len(HEADS))]
    for left, (head, text) in zip(lefts, HEADS, strict=True):
        pen.text((left, 14), head, fill=INK, font=_font(20))
        pen.multiline_text((left, 42), text, fill=GREY, font=_font(13), spacing=3)
    for number, row in enumerate(found):
        down = top + number * (TILE + NOTE + GAP)
        pen.text((MARGIN, down + TILE // 2 - 12), row.name, fill=INK, font=_font(20))
        texts = ("", *(f"{share:.0%} on the {row.name}" for share in row.shares))
        for left, tile, text in zip(lefts, row.tiles, texts, strict=True):
            canvas.paste(tile, (left, down))
            pen.rectangle((left - 1, down - 1, left + TILE, down + TILE), outline=LINE)
            pen.text((left, down + TILE + 5), text, fill=INK, font=_font(14))
    down = height - foot + 8
    pen.line((lefts[0], down - 8, width - MARGIN, down - 8), fill=LINE)
    pen.text((lefts[0], down), f"mean of {PICTURES} pictures", fill=INK, font=_font(14))
    ends = ("lowers the logit", "raises it", SIGNED), ("against", "for the class", CARRIES)
    for left, mean, (low, high, ramp) in zip(lefts[1:], means, (ends[0], ends[1], ends[0]), strict=True):
        pen.text((left, down), f"{mean:.0%} on the object", fill=INK, font=_font(14))
        _legend(canvas, (left, down + 32), low, high, ramp)
    return canvas


def _legend(canvas: Image.Image, place: tuple[int, int], low: str, high: str, ramp: Ramp) -> None:
    """A ramp of colours as wide as a tile, with what its ends mean below."""
    left, top = place
    pen, font = ImageDraw.Draw(canvas), _font(13)
    canvas.paste(Image.fromarray(coloured(np.tile(np.linspace(0, 1, TILE), (12, 1)), ramp)), (left, top))
    pen.rectangle((left - 1, top - 1, left + TILE, top + 12), outline=LINE)
    pen.text((left, top + 16), low, fill=GREY, font=font)
    pen.text((left + TILE - font.getlength(high), top + 16), high, fill=GREY, font=font)


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def make(path: Path = PATH) -> Path:
    """Write the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(*rows()).save(path, optimize=True)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the picture at the top of README.md.")
    parser.add_argument("-o", "--output", type=Path, default=PATH)
    torch.set_num_threads(1)
    print(make(parser.parse_args().output))
