"""The errors, under the path that users import them from; they are defined in `fxpullback.contract.errors`."""

from fxpullback.contract.errors import (
    CaptureError,
    DifferentiateError,
    EvaluateError,
    ExportError,
    FixedSizeError,
    FxPullbackError,
    InputError,
    InvariantError,
    LowerError,
    ModelSourceError,
    ProgramError,
    RuleError,
    SessionError,
    UnknownOperatorError,
    UnsupportedGateError,
    VerifyError,
)

__all__ = [
    "CaptureError",
    "DifferentiateError",
    "EvaluateError",
    "ExportError",
    "FixedSizeError",
    "FxPullbackError",
    "InputError",
    "InvariantError",
    "LowerError",
    "ModelSourceError",
    "ProgramError",
    "RuleError",
    "SessionError",
    "UnknownOperatorError",
    "UnsupportedGateError",
    "VerifyError",
]
