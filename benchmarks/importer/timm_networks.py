"""Networks of timm with random weights, written as files by the exporters of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

EXPORTERS = {"script": "torch.onnx script", "dynamo": "torch.onnx dynamo", "fixed": "torch.onnx script, batch of one"}
"""How a file is written, by the end of its name."""
FIXED = ("swin_tiny_patch4_window7_224",)
"""Networks of which a file of a fixed batch is measured too: its constants hold the batch and the windows."""
_SMALL = {"img_size": 64}
TIMM: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("resnet10t", 64, {}), ("mobilenetv3_small_050", 64, {}), ("efficientnet_lite0", 64, {}),
    ("convnext_zepto_rms", 64, {}), ("vit_tiny_patch16_224", 64, _SMALL), ("swin_tiny_patch4_window7_224", 224, {}),
    ("densenet121", 64, {}), ("regnetx_002", 64, {}), ("ghostnet_050", 64, {}), ("mixer_s32_224", 64, _SMALL),
    ("poolformer_s12", 64, {}), ("repvgg_a0", 64, {}), ("deit_tiny_patch16_224", 64, _SMALL),
    ("cait_xxs24_224", 64, _SMALL), ("edgenext_xx_small", 64, {}), ("levit_128s", 224, {}), ("mobilevit_xxs", 64, {}),
    ("pit_ti_224", 64, _SMALL), ("resmlp_12_224", 64, _SMALL), ("fastvit_t8", 64, {}),
)  # fmt: skip
"""Names, the side of the input, and options."""


def exported(name: str, side: int, options: dict[str, Any], how: str, path: Path) -> nn.Module:
    """A timm network with random weights, exported."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    _draw(model)
    x = torch.randn(1 if how == "fixed" else 2, 3, side, side)
    if how == "dynamo":
        torch.onnx.export(
            model, (x,), str(path), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            external_data=False,
        )  # fmt: skip
    else:
        axes = {} if how == "fixed" else {"x": {0: "batch"}}
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return model


def _draw(model: nn.Module) -> None:
    """Weights of a network as if it were trained: what begins at zero, or near it, takes part."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, 0, 0.1)
        for name, parameter in model.named_parameters():
            if float(parameter.abs().max()) < 1e-3 and not name.endswith("bias"):
                nn.init.normal_(parameter, 0, 0.1)
