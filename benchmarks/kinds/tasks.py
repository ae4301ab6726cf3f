"""torchvision's tasks beside the classification of pictures: segmentation and video, at small sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.kinds.case import POSITIONS, Case, Inputs, at_positions, logits_of

SIDE, CLASSES = 64, 5
SEGMENTATION = ("fcn_resnet50", "deeplabv3_mobilenet_v3_large", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large")
VIDEO: dict[str, tuple[int, int, dict[str, Any]]] = {
    "r3d_18": (4, 32, {}),
    "mc3_18": (4, 32, {}),
    "r2plus1d_18": (4, 32, {}),
    "mvit_v1_b": (4, SIDE, {"spatial_size": (SIDE, SIDE), "temporal_size": 4}),
    "mvit_v2_s": (4, SIDE, {"spatial_size": (SIDE, SIDE), "temporal_size": 4}),
    "swin3d_t": (4, SIDE, {}),
}
"""Frames, height and width, and what the model is made with."""


def task_cases() -> list[Case]:
    """Segmentation explained over a mask of positions, then video."""
    return [
        *(
            Case(
                f"task:{name}", "segmentation", partial(_segmenter, name), partial(_picture, POSITIONS),
                {"output": "out", "positions": "mask"}, None, _over_mask,
            )
            for name in SEGMENTATION
        ),
        *(
            Case(f"task:{name}", "video", partial(_video, name), partial(_frames, frames, side))
            for name, (frames, side, _) in VIDEO.items()
        ),
    ]  # fmt: skip


def _over_mask(result: Any, given: Inputs) -> Tensor:
    return at_positions("mask", logits_of(result), given)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
                nn.init.normal_(module.bias, 0, 0.1)
                nn.init.uniform_(module.weight, 0.8, 1.2)
        return model


def _segmenter(name: str) -> nn.Module:
    from torchvision.models import segmentation

    make = getattr(segmentation, name)
    return _seeded(partial(make, weights=None, weights_backbone=None, num_classes=CLASSES))


def _video(name: str) -> nn.Module:
    from torchvision.models import video

    return _seeded(partial(getattr(video, name), weights=None, num_classes=CLASSES, **VIDEO[name][2]))


def _picture(positions: str, batch: int, longer: bool) -> Inputs:
    drawn = torch.Generator().manual_seed(batch)
    mask = torch.rand(batch, SIDE, SIDE, generator=drawn) < 0.3
    return {"x": torch.randn(batch, 3, SIDE, SIDE, generator=drawn), positions: mask}


def _frames(frames: int, side: int, batch: int, longer: bool) -> Inputs:
    drawn = torch.Generator().manual_seed(batch)
    return {"x": torch.randn(batch, 3, frames, side, side, generator=drawn)}
