"""The pictures of an evaluation: files in a folder, their classes, and where the object is, as far as that is known."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import numpy as np
from PIL import Image

from fxpullback.contract.errors import EvaluateError, ModelSourceError
from fxpullback.export.evaluate.patches import Array, Mask
from fxpullback.export.pictures.class_names import class_index
from fxpullback.export.pictures.load import SUFFIXES, prepare, read_picture
from fxpullback.export.pictures.preprocessing import Preprocessing

LABELS = "labels.csv"
KEPT = 64
FORMS = (
    f"a {LABELS} in the folder with the columns file and class_index (or class; and mask, a picture that is white on "
    "the object), or a subfolder for each class, called by its name or index"
)


@dataclass(frozen=True)
class Case:
    """One picture.

    Attributes:
        name: Its path inside the folder.
        path: The file.
        label: Its class, where it is known.
        mask: A picture that is white on the object, where there is one.
    """

    name: str
    path: Path
    label: int | None = None
    mask: Path | None = None


def find(folder: Path, classes: Sequence[str] | None, count: int) -> list[Case]:
    """The pictures of a folder.

    Args:
        folder: Pictures, with a `labels.csv` beside them; or subfolders by class; or pictures alone.
        classes: Class names in the order of the logits, or None.
        count: Number of classes.

    Raises:
        EvaluateError: No picture is there, or the labels cannot be used.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        raise EvaluateError(f"{folder}: {what}; a folder of pictures is wanted.")
    if (folder / LABELS).is_file():
        return _listed(folder, classes, count)
    pictures = _pictures(folder)
    if pictures:
        return [Case(path.name, path) for path in pictures]
    cases = []
    for inside in sorted(path for path in folder.iterdir() if path.is_dir() and _pictures(path)):
        try:
            label = class_index(inside.name, classes, count)
        except ModelSourceError as error:
            raise EvaluateError(f"{inside}: a subfolder is called by its class. {error}") from error
        cases += [Case(f"{inside.name}/{path.name}", path, label) for path in _pictures(inside)]
    if not cases:
        raise EvaluateError(
            f"{folder}: there is no picture in it ({', '.join(SUFFIXES)}), nor in its subfolders. Labels are read from "
            f"{FORMS}."
        )
    return cases


def _pictures(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())


def _listed(folder: Path, classes: Sequence[str] | None, count: int) -> list[Case]:
    """The pictures that labels.csv names."""
    file = folder / LABELS
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluateError(f"{file}: it cannot be read ({error}). {_WANTED}") from error
    if not rows or "file" not in rows[0]:
        raise EvaluateError(f"{file}: it has no rows with a column called file. {_WANTED}")
    cases = []
    for number, row in enumerate(rows, 2):
        name = (row["file"] or "").strip()
        if not name or not (folder / name).is_file():
            raise EvaluateError(f"{file}, line {number}: there is no picture {name!r} in {folder}.")
        written = (row.get("class_index") or row.get("class") or "").strip()
        try:
            label = class_index(written, classes, count) if written else None
        except ModelSourceError as error:
            raise EvaluateError(f"{file}, line {number}: {error}") from error
        drawn = (row.get("mask") or "").strip()
        if drawn and not (folder / drawn).is_file():
            raise EvaluateError(f"{file}, line {number}: there is no mask {drawn!r} in {folder}.")
        cases.append(Case(name, folder / name, label, folder / drawn if drawn else None))
    return cases


_WANTED = "A header is wanted, such as file,class_index, and a line for each picture."


class Pictures:
    """Cases, loaded when they are looked at.

    Args:
        cases: What `find` found.
        preprocessing: How a picture becomes an input.
    """

    def __init__(self, cases: Sequence[Case], preprocessing: Preprocessing) -> None:
        self.cases, self.preprocessing = list(cases), preprocessing
        self._load = lru_cache(KEPT)(lambda place: self._read(self.cases[place].path))

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, place: int) -> Array:
        """float32 [channels, height, width] in [-1, 1]."""
        return self._load(place)

    def mask(self, place: int) -> Mask | None:
        """Where the object is, bool [height, width]; None where nobody says."""
        path = self.cases[place].mask
        if path is None:
            return None
        drawn = prepare(Image.merge("RGB", [read_picture(path).convert("L")] * 3), self.preprocessing)
        mask: Mask = drawn[0].mean(0) > 0
        if not mask.any():
            raise EvaluateError(f"{path}: nothing of the mask is white inside the part that the model sees.")
        return mask

    def digest(self, place: int) -> str:
        """Tells pictures apart by what the model sees."""
        return f"{crc32(self[place].tobytes()):08x}"

    def _read(self, path: Path) -> Array:
        return np.ascontiguousarray(prepare(read_picture(path), self.preprocessing)[0])
