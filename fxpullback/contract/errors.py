"""Every error fxpullback raises on purpose: one class per stage under `FxPullbackError`.

Each message says what went wrong, where (node, module path, source line), why, and what to do next.
"""

from __future__ import annotations


class FxPullbackError(Exception):
    """Base of every error that fxpullback raises on purpose."""


class CaptureError(FxPullbackError):
    """The model could not be turned into a functional ATen graph."""


class RuleError(FxPullbackError):
    """A rule set was put together wrongly: an unknown name, two rules for one operator, a bad temperature."""


class UnsupportedGateError(FxPullbackError):
    """The model holds nonlinear operators that no rule of the rule set covers."""


class UnknownOperatorError(FxPullbackError):
    """Something was asked of an operator that the table of operator traits says nothing of."""


class DifferentiateError(FxPullbackError):
    """An operator on the path from the input to the logits has no VJP rule."""


class FixedSizeError(FxPullbackError):
    """A rule met a free size that it can only handle fixed; the stage that ran it says where."""


class TapError(FxPullbackError):
    """A contribution was asked for where none can be read off."""


class LowerError(FxPullbackError):
    """A lowering step met a graph it cannot handle."""


class InvariantError(FxPullbackError):
    """A stage produced a graph that breaks one of the compiler's invariants."""


class ProgramError(FxPullbackError):
    """A program or target was asked for with options that make no sense."""


class VerifyError(FxPullbackError):
    """A certificate did not pass, or could not be made."""


class InputError(FxPullbackError):
    """An input has the wrong rank, size, type or values."""


class ExportError(FxPullbackError):
    """The graph could not be written as an ONNX file."""


class SessionError(FxPullbackError):
    """An ONNX file could not be loaded or run."""


class ModelSourceError(FxPullbackError):
    """A model, its weights, a picture or a class name given by the user could not be used."""


class EvaluateError(FxPullbackError):
    """Explanations could not be measured: the pictures, the labels, the file or a metric is at fault."""
