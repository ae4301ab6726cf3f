"""Draw an explanation: picture, pullback and overlay side by side, and the counterfactual for ascent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Array: TypeAlias = npt.NDArray[np.floating[Any]]
Pixels: TypeAlias = npt.NDArray[np.uint8]

PERCENTILE = 99.5
_MIN_TILE = 320
_MARGIN = 20
_INK, _GREY = (24, 24, 28), (92, 92, 100)
# Colours at -1, ..., 0, ..., 1: blue through white to red, and from nothing to the strongest heat.
_DIVERGING = (
    (5, 48, 120),
    (45, 122, 190),
    (150, 200, 228),
    (250, 250, 250),
    (248, 178, 140),
    (214, 72, 60),
    (120, 6, 30),
)
_HEAT = ((60, 0, 70), (190, 30, 80), (245, 110, 40), (255, 205, 60), (255, 250, 190))


def panel(
    picture: Array,
    pullback: Array,
    title: str,
    *,
    counterfactual: Array | None = None,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """One picture that explains one picture.

    Args:
        picture: [channels, height, width] in [-1, 1]; a leading batch axis of 1 is dropped.
        pullback: Of the same shape. Shown signed, summed over the channels; its largest half percent saturates.
        title: The line above, with the class and its logit.
        counterfactual: For ascent, of the same shape; a fourth tile.
        captions: One line or two under each tile; None for a plain description of the colours.

    Returns:
        RGB, wide enough for the text to be read.
    """
    picture, pullback = _planes(picture), _planes(pullback)
    tiles = [picture_tile(picture), pullback_tile(pullback), overlay_tile(picture, pullback)]
    strength = "overlay: strength of the pullback,\nsmoothed"
    texts = ["picture", "pullback, colours summed: red raises\nthe class, blue lowers it", strength]
    if counterfactual is not None:
        tiles.append(picture_tile(_planes(counterfactual)))
        texts[1] = "pullback: the change that raises\nthe class; red brighter, blue darker"
        texts.append("counterfactual")
    return _composed([_enlarged(tile, smooth=index != 1) for index, tile in enumerate(tiles)], title, captions or texts)


def picture_tile(picture: Array) -> Image.Image:
    """[channels, height, width] in [-1, 1] as RGB."""
    pixels = np.clip(np.round((picture + 1) * 127.5), 0, 255).astype(np.uint8)
    return Image.fromarray(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).copy())


def pullback_tile(pullback: Array) -> Image.Image:
    """The sum over channels, red where positive and blue where negative; white is 0."""
    signed = pullback.sum(0)
    return Image.fromarray(_coloured(signed / _scale(signed) / 2 + 0.5, _DIVERGING))


def overlay_tile(picture: Array, pullback: Array) -> Image.Image:
    """The picture in dim grey under the pullback's magnitude, smoothed over 1.5 percent of its side."""
    magnitude = np.sqrt((pullback.astype(np.float64) ** 2).sum(0))
    smooth = _blurred(magnitude, max(magnitude.shape) * 0.015)
    smooth = np.clip(smooth / _scale(smooth), 0, 1)[..., None]
    grey = np.asarray(picture_tile(picture).convert("L"), dtype=np.float64)[..., None] * 0.6 + 30
    alpha = np.clip(1.25 * smooth - 0.12, 0, 0.85)
    mixed = grey * (1 - alpha) + _coloured(smooth[..., 0], _HEAT) * alpha
    return Image.fromarray(mixed.round().astype(np.uint8))


def _planes(value: Array) -> Array:
    """[channels, height, width], whatever batch axis of 1 stood before it."""
    value = np.asarray(value, dtype=np.float64)
    return value[0] if value.ndim == 4 and len(value) == 1 else value


def _blurred(values: npt.NDArray[Any], radius: float) -> npt.NDArray[Any]:
    """Gaussian smoothing of [height, width], the edges repeated; `radius` is its standard deviation in pixels."""
    reach = max(1, round(3 * radius))
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(radius, 1e-3)) ** 2)
    for axis in (0, 1):
        padded = np.pad(values, [(reach, reach) if axis == other else (0, 0) for other in (0, 1)], mode="edge")
        values = (
            sum(weight * np.take(padded, range(k, k + values.shape[axis]), axis) for k, weight in enumerate(weights))
            / weights.sum()
        )
    return values


def _scale(values: npt.NDArray[Any]) -> float:
    """What is drawn at full strength; 1 where there is nothing at all."""
    strong = float(np.percentile(np.abs(values), PERCENTILE))
    return strong or float(np.abs(values).max()) or 1.0


def _coloured(values: npt.NDArray[Any], colours: Sequence[tuple[int, int, int]]) -> Pixels:
    """[height, width] in [0, 1] through a ramp of colours."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(np.clip(values, 0, 1), stops, [colour[c] for colour in colours]) for c in range(3)]
    return np.stack(channels, -1).round().astype(np.uint8)


def _enlarged(tile: Image.Image, *, smooth: bool) -> Image.Image:
    """Whole-numbered enlargement of a small tile; a pullback keeps its pixels apart."""
    factor = -(-_MIN_TILE // min(tile.size))
    if factor == 1:
        return tile
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return tile.resize((tile.width * factor, tile.height * factor), method)


def _composed(tiles: Sequence[Image.Image], title: str, captions: Sequence[str]) -> Image.Image:
    """Tiles in a row, the title above, a caption under each."""
    width, height = tiles[0].size
    large, small = (ImageFont.load_default(size=max(14, round(width * share))) for share in (0.062, 0.044))
    total = len(tiles) * width + (len(tiles) + 1) * _MARGIN
    heading = _wrapped(title, large, total - 2 * _MARGIN)
    texts = [_wrapped(text, small, width) for text in captions]
    top = _MARGIN + _height(heading, large) + _MARGIN // 2
    bottom = max(_height(text, small) for text in texts) + _MARGIN
    canvas = Image.new("RGB", (total, top + height + _MARGIN // 2 + bottom), "white")
    draw = ImageDraw.Draw(canvas)
    draw.multiline_text((_MARGIN, _MARGIN * 3 // 4), heading, fill=_INK, font=large)
    for index, (tile, text) in enumerate(zip(tiles, texts, strict=True)):
        left = _MARGIN + index * (width + _MARGIN)
        canvas.paste(tile, (left, top))
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=(205, 205, 210))
        draw.multiline_text((left, top + height + _MARGIN // 2), text, fill=_GREY, font=small)
    return canvas


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
