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
    "swin3d_t": (4, SIDE, {}),
}
"""Frames, height and width, and what the model is made with."""
BLOCKS = ((1, 16, 32, 1), (2, 32, 64, 2), (4, 64, 64, 1))
"""Of a small MViT: heads, channels in and out, stride of the queries."""


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
        Case("task:MViT", "video", _mvit, partial(_frames, 4, SIDE)),
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


def _mvit() -> nn.Module:
    """A multiscale transformer of video, with relative positions and residual pooling."""
    from torchvision.models.video import mvit

    blocks = [
        mvit.MSBlockConfig(heads, into, out, [3, 3, 3], [3, 3, 3], [1, stride, stride], [1, 2, 2])
        for heads, into, out, stride in BLOCKS
    ]
    return _seeded(
        partial(
            mvit.MViT, (SIDE, SIDE), 4, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
            proj_after_attn=True, num_classes=CLASSES,
        )
    )  # fmt: skip


def _picture(positions: str, batch: int, longer: bool) -> Inputs:
    drawn = torch.Generator().manual_seed(batch)
    mask = torch.rand(batch, SIDE, SIDE, generator=drawn) < 0.3
    return {"x": torch.randn(batch, 3, SIDE, SIDE, generator=drawn), positions: mask}


def _frames(frames: int, side: int, batch: int, longer: bool) -> Inputs:
    drawn = torch.Generator().manual_seed(batch)
    return {"x": torch.randn(batch, 3, frames, side, side, generator=drawn)}
