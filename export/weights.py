"""Where `load_weights` was before the house was built; it is in `fxpullback.export.zoo.weights`."""

from __future__ import annotations

from fxpullback.export.zoo.weights import load_weights

__all__ = ["load_weights"]
