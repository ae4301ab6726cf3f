"""Files of a folder, with what its `files.json` says of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.importer.files import Job

SAYS = "files.json"


def folder_jobs(folder: Path) -> Iterator[Job]:
    """The .onnx files of a folder.

    Args:
        folder: beside the files it may hold `files.json`: `{"name.onnx": {"source": "PACKAGE==VERSION", "logits": NAME,
            "input": NAME, "sizes": {INPUT: [2, 3, 224, 224]}, "at": "embeddings"}}`.
    """
    said = json.loads((folder / SAYS).read_text()) if (folder / SAYS).exists() else {}
    for path in sorted(folder.glob("*.onnx")):
        options: dict[str, Any] = said.get(path.name, {})
        yield Job("file", path.stem, str(options.get("source", "")), partial(_copied, path), options)


def _copied(source: Path, path: Path) -> None:
    shutil.copyfile(source, path)
