"""Networks of timm with random weights, written as files by the exporters of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

TIMM: tuple[tuple[str, dict[str, Any]], ...] = (
    ("resnet10t", {}), ("mobilenetv3_small_050", {}), ("efficientnet_lite0", {}), ("convnext_zepto_rms", {}),
    ("vit_tiny_patch16_224", {"img_size": 64}), ("swin_tiny_patch4_window7_224", {}), ("densenet121", {}),
    ("regnetx_002", {}), ("ghostnet_050", {}), ("mixer_s32_224", {}), ("poolformer_s12", {}), ("repvgg_a0", {}),
    ("deit_tiny_patch16_224", {}), ("cait_xxs24_224", {}), ("edgenext_xx_small", {}), ("levit_128s", {}),
    ("mobilevit_xxs", {}), ("pit_ti_224", {}), ("resmlp_12_224", {}), ("fastvit_t8", {}),
)  # fmt: skip


def exported(name: str, options: dict[str, Any], how: str, path: Path) -> nn.Module:
    """A timm network with random weights, exported."""
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **options).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.8, 1.2)
                nn.init.normal_(module.bias, 0, 0.1)
    side = int(options.get("img_size") or model.default_cfg["input_size"][-1])  # type: ignore[index]
    x = torch.randn(2, 3, side, side)
    if how.endswith("dynamo"):
        torch.onnx.export(
            model, (x,), str(path), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
            external_data=False,
        )  # fmt: skip
    else:
        torch.onnx.export(model, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    return model
