"""A compiled pullback as an ONNX file.

`to_onnx` writes it. `Builder` and `sizes` are for translations of operators of your own, which `to_onnx` takes as
`translations`: a translation builds with the first, and the second says the sizes of its arguments.
"""

from fxpullback.export.onnx.translate import Builder
from fxpullback.export.onnx.translate.values import sizes
from fxpullback.export.onnx.write import to_onnx

__all__ = ["Builder", "sizes", "to_onnx"]
