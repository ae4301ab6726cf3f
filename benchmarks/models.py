"""Networks of timm and torchvision by name, with random weights that leave no branch dead: for sweeps and tests."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

SEED = 0
TINY = 1e-3
"""Largest entry of a weight that leaves its branch as good as dead: heads of zeros, layer scales of 1e-6."""


def build(spec: str, size: int | None = None) -> tuple[nn.Module, Tensor]:
    """A network with random weights, the same on every run, and one example input.

    Args:
        spec: `timm:NAME` or `torchvision:NAME`.
        size: height and width of the input; None for the network's own.

    Returns:
        The network in eval mode, its batch norms calibrated on noise, and an input `[1, 3, height, width]`.
    """
    torch.manual_seed(SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, own = _create(spec, size)
    shape = own if size is None else (own[0], size, size)
    wake(model)
    calibrate(model, shape)
    return model.eval(), torch.randn(1, *shape).clamp(-2, 2)


def _create(spec: str, size: int | None) -> tuple[Any, tuple[int, ...]]:
    kind, name = spec.split(":")
    if kind == "timm":
        import timm

        model: Any = None
        if size is not None:  # networks with positions of their own are told; the others take any size
            with suppress(TypeError):
                model = timm.create_model(name, img_size=size)
        model = model or timm.create_model(name)
        return model, tuple(model.pretrained_cfg["input_size"])
    import torchvision

    side = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    return torchvision.models.get_model(name), (3, side, side)


def wake(model: nn.Module) -> None:
    """Draw weights that are all but zero at random: a branch that gives zero pulls back zero, right or not."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            matrix = weight.ndim > 1
            if weight.is_floating_point() and (matrix or not name.endswith("bias")) and weight.abs().max() <= TINY:
                weight.normal_(std=0.02 if matrix else 0.2)


def calibrate(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Give the batch norms the statistics of noise: those they are made with let deep networks overflow or die out."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.reset_running_stats()
    if norms:
        with torch.no_grad():
            model.train()(torch.randn(4, *shape).clamp(-2, 2))
