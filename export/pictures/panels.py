"""Draw an explanation: picture, contribution and pullback side by side, and the counterfactual for ascent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fxpullback.export.pictures.colours import CARRIES, DIVERGING, HEAT, Ramp, coloured, scale
from fxpullback.export.pictures.maps import contribution_tile, focus_tile
from fxpullback.export.pictures.smooth import smoothed

Array: TypeAlias = npt.NDArray[np.floating[Any]]

_MIN_TILE = 320
_MARGIN = 20
_INK, _GREY = (24, 24, 28), (92, 92, 100)

CONTRIBUTION, FOCUS, PULLBACK, STRENGTH = "contribution", "focus", "pullback", "strength"
KINDS = (CONTRIBUTION, FOCUS, PULLBACK, STRENGTH)
"""What can be drawn of an explanation, beside the picture."""


@dataclass(frozen=True)
class Tile:
    """One picture of a panel.

    Attributes:
        image: The picture.
        caption: What stands under it.
        legend: A ramp of colours with what its two ends mean, or None.
        smooth: Whether it is enlarged smoothly; a pullback keeps its pixels apart.
    """

    image: Image.Image
    caption: str
    legend: tuple[Ramp, str, str] | None = None
    smooth: bool = True


def panel(
    picture: Array,
    pullback: Array,
    title: str,
    *,
    contribution: Array | None = None,
    counterfactual: Array | None = None,
    draw: Sequence[str] | None = None,
    name: str = "the class",
    captions: tuple[str, str] = ("picture", "counterfactual"),
) -> Image.Image:
    """One picture that explains one picture.

    Args:
        picture: [channels, height, width] in [-1, 1]; a leading batch axis of 1 is dropped.
        pullback: Of the same shape. Shown signed, summed over the channels; its largest half percent saturates.
        title: The line above, with the class and its logit.
        contribution: [h, w] on any grid, what each place carries of the logit.
        counterfactual: For ascent, of the shape of the picture; a further tile.
        draw: What to draw beside the picture, of `KINDS`, in order. None for contribution and pullback, or for
            pullback and strength where there is no contribution.
        name: What the class is called in the captions.
        captions: What stands under picture and counterfactual.

    Returns:
        RGB, wide enough for the text to be read.
    """
    picture, pullback = _planes(picture), _planes(pullback)
    kinds = draw or ((PULLBACK, STRENGTH) if contribution is None else (CONTRIBUTION, PULLBACK))
    moved = counterfactual is not None
    tiles = [Tile(picture_tile(picture), captions[0])]
    tiles += [_tile(kind, picture, pullback, contribution, name, moved=moved) for kind in kinds]
    if counterfactual is not None:
        tiles.append(Tile(picture_tile(_planes(counterfactual)), captions[1]))
    return _composed([replace(tile, image=_enlarged(tile.image, smooth=tile.smooth)) for tile in tiles], title)


def _tile(kind: str, picture: Array, pullback: Array, contribution: Array | None, name: str, *, moved: bool) -> Tile:
    if kind == PULLBACK:
        if moved:
            text, ends = f"pullback: the change that raises {name}", ("darker", "brighter")
        else:
            text, ends = f"pullback: what would raise the logit of {name}, colours summed", ("lowers", "raises")
        return Tile(pullback_tile(pullback), text, (DIVERGING, *ends), smooth=False)
    if kind == STRENGTH:
        return Tile(
            overlay_tile(picture, pullback), "overlay: strength of the pullback, smoothed", (HEAT, "0", "strong")
        )
    if contribution is None:
        raise ValueError(f"{kind} is drawn of a contribution, and there is none")
    if kind == FOCUS:
        text = f"focus: where {name} is carried and the pullback is strong"
        return Tile(focus_tile(dim(picture), contribution, pullback), text, (HEAT, "0", "strong"))
    text = f"contribution: what carries {name}"
    return Tile(contribution_tile(dim(picture), contribution), text, (CARRIES, "against", "for"))


def picture_tile(picture: Array) -> Image.Image:
    """[channels, height, width] in [-1, 1] as RGB."""
    pixels = np.clip(np.round((picture + 1) * 127.5), 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).copy())


def pullback_tile(pullback: Array) -> Image.Image:
    """The sum over channels, red where positive and blue where negative; white is 0."""
    signed = pullback.sum(0)
    return Image.fromarray(coloured(signed / scale(signed) / 2 + 0.5, DIVERGING))


def overlay_tile(picture: Array, pullback: Array) -> Image.Image:
    """The picture in dim grey under the pullback's magnitude, smoothed over 1.5 percent of its side."""
    magnitude = np.sqrt((pullback.astype(np.float64) ** 2).sum(0))
    smooth = smoothed(magnitude, max(magnitude.shape) * 0.015)
    smooth = np.clip(smooth / scale(smooth), 0, 1)[..., None]
    grey = dim(picture)[..., None]
    alpha = np.clip(1.25 * smooth - 0.12, 0, 0.85)
    mixed = grey * (1 - alpha) + coloured(smooth[..., 0], HEAT) * alpha
    return Image.fromarray(mixed.round().astype(np.uint8))


def dim(picture: Array) -> npt.NDArray[Any]:
    """The picture in dim grey, [height, width] from 0 to 255: what overlays lie on."""
    grey: npt.NDArray[Any] = np.asarray(picture_tile(picture).convert("L"), dtype=np.float64) * 0.6 + 30
    return grey


def _planes(value: Array) -> Array:
    """[channels, height, width], whatever batch axis of 1 stood before it."""
    value = np.asarray(value, dtype=np.float64)
    return value[0] if value.ndim == 4 and len(value) == 1 else value


def _enlarged(tile: Image.Image, *, smooth: bool) -> Image.Image:
    """Whole-numbered enlargement of a small tile; a pullback keeps its pixels apart."""
    factor = -(-_MIN_TILE // min(tile.size))
    if factor == 1:
        return tile
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return tile.resize((tile.width * factor, tile.height * factor), method)


def _composed(tiles: Sequence[Tile], title: str) -> Image.Image:
    """Tiles in a row, the title above, legend and caption under each."""
    width, height = tiles[0].image.size
    large, small = (ImageFont.load_default(size=max(14, round(width * share))) for share in (0.062, 0.044))
    total = len(tiles) * width + (len(tiles) + 1) * _MARGIN
    heading = _wrapped(title, large, total - 2 * _MARGIN)
    texts = [_wrapped(tile.caption, small, width) for tile in tiles]
    top = _MARGIN + _height(heading, large) + _MARGIN // 2
    bar = _height("Ag", small) + _MARGIN // 2
    bottom = bar + max(_height(text, small) for text in texts) + _MARGIN
    canvas = Image.new("RGB", (total, top + height + _MARGIN // 2 + bottom), "white")
    draw = ImageDraw.Draw(canvas)
    draw.multiline_text((_MARGIN, _MARGIN * 3 // 4), heading, fill=_INK, font=large)
    for index, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        left = _MARGIN + index * (width + _MARGIN)
        canvas.paste(tile.image, (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(205, 205, 210))
        below = top + height + _MARGIN // 2
        if tile.legend is not None:
            _legend(canvas, (left, below), width, tile.legend, small)
        draw.multiline_text((left, below + (bar if tile.legend else 0)), text, fill=_GREY, font=small)
    return canvas


def _legend(canvas: Image.Image, place: tuple[int, int], width: int, legend: tuple[Ramp, str, str], font: Any) -> None:
    """A ramp of colours with a word at either end."""
    ramp, low, high = legend
    draw, (left, top) = ImageDraw.Draw(canvas), place
    height, before, after = _height("Ag", font), round(font.getlength(low)), round(font.getlength(high))
    room = width - before - after - _MARGIN
    strip = coloured(np.broadcast_to(np.linspace(0, 1, room), (height * 2 // 3, room)), ramp)
    draw.text((left, top), low, fill=_INK, font=font)
    canvas.paste(Image.fromarray(strip), (left + before + _MARGIN // 2, top + height // 4))
    draw.text((left + width - after, top), high, fill=_INK, font=font)


def _wrapped(text: str, font: Any, width: int) -> str:
    """`text` broken between words so that no line is wider than `width`."""
    lines: list[str] = []
    for part in text.splitlines() or [""]:
        line = ""
        for word in part.split(" "):
            longer = f"{line} {word}" if line else word
            if line and font.getlength(longer) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return "\n".join(lines)


def _height(text: str, font: Any) -> int:
    """Height in pixels of text with several lines."""
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text or " ", font=font)
    return round(box[3])
