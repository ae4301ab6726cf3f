"""Pictures with known truth, written to a folder: what the network of `fxpullback demo` was trained on, with masks.

python -m fxpullback.export.evaluate.drawn FOLDER --count 60
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from PIL import Image

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.cases import LABELS
from fxpullback.export.zoo.demo_model import CLASSES, draw

SEED = 2**20
"""Pictures that the network was not trained on."""


def write_drawn(folder: str | Path, count: int = 60, seed: int = SEED) -> Path:
    """Draw pictures, with a mask for each and `labels.csv`.

    Args:
        folder: Made if it is not there; it must be empty.
        count: How many pictures.
        seed: Which ones.

    Raises:
        EvaluateError: The folder holds something.
    """
    folder = Path(folder)
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        raise EvaluateError(f"{folder}: the folder is not empty. Name a new one.")
    pixels, classes, masks = draw(seed, count)
    (folder / "masks").mkdir()
    with (folder / LABELS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "class_index", "class", "mask"])
        for number, (picture, index, mask) in enumerate(zip(pixels, classes.tolist(), masks, strict=True)):
            name = f"{number:04d}-{CLASSES[index]}.png"
            shown = ((picture.permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
            Image.fromarray(shown).save(folder / name)
            Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(folder / "masks" / name)
            writer.writerow([name, index, CLASSES[index], f"masks/{name}"])
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw pictures with known truth.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    print(write_drawn(options.folder, options.count, options.seed))
