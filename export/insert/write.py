"""The file with its pullback, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnx import ModelProto

from fxpullback.contract import metadata as md
from fxpullback.contract.errors import ExportError
from fxpullback.export.certify.file import demand
from fxpullback.export.insert.beside import Inserted
from fxpullback.export.onnx.write import described, drafted, writable
from fxpullback.graph.collection import seldom_collected
from fxpullback.graph.modes import plain_mode
from fxpullback.importer.origin import locations

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled


@plain_mode()
@seldom_collected()
def write_beside(
    pb: Compiled,
    path: str | os.PathLike[str],
    *,
    classes: Sequence[str] | None = None,
    preprocessing: Mapping[str, object] | str | None = None,
    certify: bool = True,
) -> Path:
    """Write the file that a model came in with its pullback beside its nodes; see `insert`.

    Args:
        pb: what was compiled of an imported module whose `beside` was set.
        path: the file to write.
        classes: class names in the order of the logits.
        preprocessing: how a picture becomes an input; a mapping, or JSON text.
        certify: whether the file is run on fresh inputs, and the outcome kept in it.

    Raises:
        ExportError: `pb` came of no file; the file cannot be written; or the outputs would not stay as they are.
        VerifyError: the certificate did not pass; nothing is written.
    """
    target, inserted = writable(path), Inserted.of(pb)
    if target.exists() and target.samefile(inserted.path):
        raise ExportError(f"{target}: this is the file itself. Give another name; nothing was changed.")
    texts = described(pb, classes, preprocessing)
    with drafted(target) as draft:
        beside = _data_of(inserted.model, inserted.path.parent, target.parent, draft.parent)
        grafted = inserted.into(draft)
        save(grafted.model, draft, texts | inserted.texts(grafted, draft))
        if certify:
            made = inserted.certificate(grafted, draft)
            demand(made, draft)
            save(grafted.model, draft, {md.CERTIFICATE: json.dumps(made.to_dict())})
        for location in [*beside, target.name]:
            (target.parent / location).parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft.parent / location, target.parent / location)
    return target


def save(model: ModelProto, path: Path, texts: Mapping[str, str]) -> None:
    """Write a model with further metadata."""
    held = {entry.key: entry for entry in model.metadata_props}
    for key, value in texts.items():
        entry = held.get(key) or model.metadata_props.add(key=key)
        entry.value = value
    path.write_bytes(model.SerializeToString())


def _data_of(model: ModelProto, source: Path, target: Path, folder: Path) -> list[str]:
    """Lay the data that lies beside a file where the new one is drafted; returns what of it must be moved along.

    Raises:
        ExportError: other data lies where it would go.
    """
    moved = []
    for location in sorted(locations(model)):
        here, there, draft = source / location, target / location, folder / location
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(here, draft)  # a link is refused by those who read it
        if not there.exists():
            moved.append(location)
        elif not there.samefile(here) and there.read_bytes() != here.read_bytes():
            raise ExportError(
                f"{there}: the data of the file belongs there, and other data is there. Choose another folder."
            )
    return moved
