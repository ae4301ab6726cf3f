"""fxpullback: compile a PyTorch model and its semantic pullback into one explicit, forward-only graph.

The compiler needs torch and nothing else; `fxpullback.export` holds what needs ONNX, a runtime or a terminal.
"""

from fxpullback.calibration import calibrate
from fxpullback.certificate import Certificate
from fxpullback.pipeline import Pullback, compile
from fxpullback.rules import EXACT, REFERENCE, SEMANTIC, RuleSet
from fxpullback.unroll import Ascent, Double, Soft

__version__ = "0.1.0"
__all__ = [
    "EXACT",
    "REFERENCE",
    "SEMANTIC",
    "Ascent",
    "Certificate",
    "Double",
    "Pullback",
    "RuleSet",
    "Soft",
    "calibrate",
    "compile",
]
