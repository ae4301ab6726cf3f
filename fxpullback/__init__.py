"""fxpullback: compile a PyTorch model and its semantic pullback into one explicit, forward-only graph.

The compiler needs torch and nothing else; `fxpullback.export` holds what needs ONNX, a runtime or a terminal. The names
below are imported on first use, so that a server which only runs a compiled file never loads torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxpullback.calibration import calibrate
    from fxpullback.contract.certificate import Certificate
    from fxpullback.contract.errors import FxPullbackError
    from fxpullback.pipeline import Pullback, compile
    from fxpullback.rules import EXACT, REFERENCE, SEMANTIC, RuleSet
    from fxpullback.unroll import Ascent, Double, Soft

__version__ = "0.1.0"

_HOMES = {
    "calibration": ("calibrate",),
    "contract.certificate": ("Certificate",),
    "contract.errors": ("FxPullbackError",),
    "pipeline": ("Pullback", "compile"),
    "rules": ("EXACT", "REFERENCE", "SEMANTIC", "RuleSet"),
    "unroll": ("Ascent", "Double", "Soft"),
}

__all__ = [
    "EXACT",
    "REFERENCE",
    "SEMANTIC",
    "Ascent",
    "Certificate",
    "Double",
    "FxPullbackError",
    "Pullback",
    "RuleSet",
    "Soft",
    "calibrate",
    "compile",
]


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module(f"{__name__}.errors")
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
