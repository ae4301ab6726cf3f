"""A compiled pullback as an ONNX file."""

from fxpullback.export.onnx.write import to_onnx

__all__ = ["to_onnx"]
