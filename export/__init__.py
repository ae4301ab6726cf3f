"""Everything that needs ONNX, a runtime or a terminal: export, sessions, the command line.

The compiler in `fxpullback` never imports this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxpullback.export.onnx.write import to_onnx
    from fxpullback.export.runtime.aoti import to_aoti
    from fxpullback.export.runtime.session import ProviderWarning, Result, Session
    from fxpullback.export.runtime.tensorrt import tensorrt

_HOMES = {
    "onnx": ("to_onnx",),
    "runtime.aoti": ("to_aoti",),
    "runtime.session": ("ProviderWarning", "Result", "Session"),
    "runtime.tensorrt": ("tensorrt",),
}

__all__ = ["ProviderWarning", "Result", "Session", "tensorrt", "to_aoti", "to_onnx"]


def __getattr__(name: str) -> Any:
    """Import on first use: a server that only runs a file has no need of what writes one."""
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
