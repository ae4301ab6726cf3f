"""What temperatures were calibrated on, in words; read from a rule set, a ledger or a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def calibrated_text(on: Mapping[str, Any]) -> str:
    """`calibrated on 16 pictures`, of what a rule set says under `calibrated_on`; empty for one without calibration."""
    if not on:
        return ""
    kind, samples = on.get("kind"), on.get("samples", 0)
    if kind == "none":
        return f"not calibrated: {on.get('why')}"
    if kind == "noise":
        of = f"{on.get('spectrum')}, deviation {on.get('deviation')}, seed {on.get('seed')}"
        return f"calibrated on {samples} samples of noise with the spectrum of pictures ({of})"
    one = {"pictures": "picture", "examples": "example input"}.get(str(kind), str(kind))
    return f"calibrated on {samples} {one}{'' if samples == 1 else 's'}"
