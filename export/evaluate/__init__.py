"""How good the explanations of a file are: metrics on pictures, beside baselines and controls.

`evaluate` measures; it needs numpy and ONNX Runtime. `torch_baselines` adds methods that need the torch model, some of
them Captum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fxpullback.export.evaluate.exact import exact_baselines
    from fxpullback.export.evaluate.libraries import ServedModule, quantus_metric
    from fxpullback.export.evaluate.metrics import METRICS
    from fxpullback.export.evaluate.report import Report
    from fxpullback.export.evaluate.run import evaluate
    from fxpullback.export.evaluate.settings import Settings
    from fxpullback.export.evaluate.sources import other_file
    from fxpullback.export.evaluate.torch_methods import torch_baselines

_HOMES = {
    "exact": ("exact_baselines",),
    "libraries": ("ServedModule", "quantus_metric"),
    "metrics": ("METRICS",),
    "report": ("Report",),
    "run": ("evaluate",),
    "settings": ("Settings",),
    "sources": ("other_file",),
    "torch_methods": ("torch_baselines",),
}

__all__ = [
    "METRICS",
    "Report",
    "ServedModule",
    "Settings",
    "evaluate",
    "exact_baselines",
    "other_file",
    "quantus_metric",
    "torch_baselines",
]


def __getattr__(name: str) -> Any:
    """Import on first use: each part has needs of its own."""
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
