"""Whole architectures with random weights and calibrated batch norms: strict, every operator accounted for, certified.

All of them take a while in float64; `FXPULLBACK_ALL=1` runs the ones that the default leaves to `make architectures`.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.export import to_onnx
from fxpullback.export.certify import certify
from fxpullback.ir import calls

SMALL = (
    "timm:mobilenetv3_small_100",
    "timm:levit_128s",
)
LARGE = (
    "timm:efficientnet_b0",
    "timm:mobilevit_xxs",
    "timm:vit_tiny_patch16_224",
    "torchvision:googlenet",
    "timm:resnet50",
    "timm:vgg11_bn",
    "timm:densenet121",
    "timm:inception_v3",
    "timm:convnext_tiny",
    "timm:swin_tiny_patch4_window7_224",
    "timm:pvt_v2_b1",
    "torchvision:vit_b_16",
    "torchvision:convnext_tiny",
)
everything = pytest.mark.skipif(not os.environ.get("FXPULLBACK_ALL"), reason="slow: make architectures runs it")


def build(spec: str) -> tuple[nn.Module, Tensor]:
    """(model, one example), its batch norms calibrated on noise."""
    import timm
    import torchvision

    kind, name = spec.split(":")
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = timm.create_model(name) if kind == "timm" else torchvision.models.get_model(name)
    config: Any = model.pretrained_cfg if kind == "timm" else {"input_size": (3, 224, 224)}
    size = config["input_size"]
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.randn(4, *size))
    return model.eval(), torch.randn(1, *size).clamp(-2, 2)


@pytest.mark.parametrize("spec", [*SMALL, *(pytest.param(s, marks=everything) for s in LARGE)])
def test_certificate_passes(tmp_path: Path, spec: str) -> None:
    model, example = build(spec)
    pb = fxpullback.compile(model, (example,))
    assert [row.node for row in pb.ledger.rows] == [node.name for node in calls(pb.captured.graph)]
    assert all(row.reason for row in pb.ledger.rows if row.verdict in ("exact", "constant"))
    assert all(row.reason or row.rule for row in pb.ledger.rows if row.verdict == "frozen")
    certificate = certify(pb, to_onnx(pb, tmp_path / "model.onnx", certify=False))
    assert certificate.passed, str(certificate)
