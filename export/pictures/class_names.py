"""From what a user calls a class to its index."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from fxpullback.contract.errors import ModelSourceError

_SHOWN = 12


def label(index: int, classes: Sequence[str] | None) -> str:
    """What a class is called in print: its first name, or its number."""
    return f"class {index}" if classes is None else classes[index].split(",")[0].strip()


def class_index(wanted: str, classes: Sequence[str] | None, count: int) -> int:
    """The class that `wanted` names.

    Whole names come first, then one of several names with commas between, then an index, then part of a name; upper
    and lower case are alike.

    Args:
        wanted: A class name, part of one, or an index.
        classes: Class names in the order of the logits, or None.
        count: Number of classes.

    Raises:
        ModelSourceError: There is no such class, or several; they are listed.
    """
    text = _plain(wanted)
    names = [] if classes is None else [_plain(name) for name in classes]
    synonyms = [[part.strip() for part in name.split(",")] for name in names]
    for found in (
        [index for index, name in enumerate(names) if name == text],
        [index for index, parts in enumerate(synonyms) if text in parts],
    ):
        if found:
            return _one(wanted, found, classes)
    number = text.removeprefix("class ").removeprefix("+")
    if number.removeprefix("-").isdecimal():
        index = int(number)
        if not 0 <= index < count:
            raise ModelSourceError(f"class {wanted}: the model has {count} classes, 0 to {count - 1}.")
        return index
    if classes is None:
        raise ModelSourceError(
            f"class {wanted!r}: the file holds no class names. Pass an index from 0 to {count - 1}, or compile the "
            "model with --classes FILE."
        )
    found = [index for index, name in enumerate(names) if text and text in name]
    if found:
        return _one(wanted, found, classes)
    flat = sorted({part for parts in synonyms for part in parts})
    near = difflib.get_close_matches(text, flat, n=3, cutoff=0.6)
    hint = f"Did you mean {', '.join(near)}?" if near else f"Known are {', '.join(map(str, classes[:5]))}, ..."
    raise ModelSourceError(f"class {wanted!r}: none of the {count} classes is called that. {hint} An index works too.")


def _one(wanted: str, found: Sequence[int], classes: Sequence[str] | None) -> int:
    """The only one of `found`, or an error that lists them."""
    if len(found) == 1:
        return found[0]
    assert classes is not None
    listed = ", ".join(f"{classes[index]} ({index})" for index in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    raise ModelSourceError(
        f"class {wanted!r}: {len(found)} classes are meant by that: {listed}{more}. Pass the index of one."
    )


def _plain(name: str) -> str:
    """Lower case, single spaces, underscores as spaces."""
    return " ".join(name.casefold().replace("_", " ").split())
