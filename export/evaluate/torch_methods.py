"""Baselines that need the torch model: Grad-CAM, LayerCAM, rollout; through Captum guided Grad-CAM and DeepLift."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fxpullback.contract.errors import EvaluateError
from fxpullback.export.evaluate.attention import grid_of, rollout
from fxpullback.export.evaluate.hooked import layers_run, map_layer, unseen
from fxpullback.export.evaluate.methods import Explain, Indices, Method
from fxpullback.export.evaluate.patches import Array, batches
from fxpullback.export.evaluate.served import Served, check_same
from fxpullback.export.evaluate.settings import Settings, short
from fxpullback.export.evaluate.sources import Source
from fxpullback.export.pictures.smooth import enlarged

EXTRA = "It needs Captum: pip install 'fxpullback[evaluate]'."
TOKENS = "it computes tokens and no map; name a layer that gives one: torch_baselines(model, layer=...)."
TorchExplain = Callable[[Tensor, Tensor], Tensor]


def torch_baselines(model: nn.Module, *, layer: str | None = None) -> Callable[[Served, Settings], Source]:
    """Baselines through a torch model, for `evaluate(sources=)`.

    Args:
        model: The model the file was compiled from; it takes what the file takes, pixels in [-1, 1].
        layer: The module whose map Grad-CAM and LayerCAM read; None for the last one that gives a map.

    Raises:
        EvaluateError: It is no module, gives other logits than the file, or has no such layer.
    """
    if not isinstance(model, nn.Module):
        raise EvaluateError("baselines in torch need an nn.Module, which a .pt2 file is not. Name the model itself.")

    def make(served: Served, settings: Settings) -> Source:
        own = copy.deepcopy(model).eval().requires_grad_(False)
        check_same(served, lambda x: own(torch.from_numpy(x)).numpy(), "the torch model")
        chosen, absent = _methods(own, served.batch, served.shape, layer)
        weights = [value for value in own.state_dict().values() if value.is_floating_point()]
        sums = " ".join(f"{float(value.double().sum()):.17g}" for value in weights)

        @cache
        def again(share: float) -> list[Method]:
            return _methods(randomised(own, served.shape, share, settings), served.batch, served.shape, layer)[0]

        return Source(chosen, short(f"{layer} {sums}"), again, absent)

    return make


def _methods(
    model: nn.Module, batch: int, shape: tuple[int, int, int], layer: str | None
) -> tuple[list[Method], dict[str, str]]:
    """The methods a model allows, and why others are absent."""
    x = torch.zeros(2, *shape)
    names = [name for name, _ in model.named_modules()]
    if layer is not None and layer not in names:
        raise EvaluateError(f"layer {layer}: the model has no such module. There are {', '.join(names[-8:])}, ...")
    at, tokens = layer or map_layer(model, x), grid_of(model, x)
    found: list[Method] = []
    absent: dict[str, str] = {}

    def add(name: str, run: TorchExplain, text: str, reason: str | None = None, **how: Any) -> None:
        if reason is None:
            found.append(Method(name, _numpy(run, batch), text, **how))
        else:
            absent[name] = reason

    no_map = None if at is not None else "no module of the model gives a map [batch, channels, height, width]."
    no_cam = no_map if tokens is None or layer is not None else TOKENS
    add("Grad-CAM", lambda x, y: cam(model, at or "", x, y, layerwise=False), f"at {at}, rectified", no_cam)
    add("LayerCAM", lambda x, y: cam(model, at or "", x, y, layerwise=True), f"at {at}", no_cam)
    captum = None if find_spec("captum") else EXTRA
    guided = no_map or captum or unseen(model, x, guided=True)
    add("guided Grad-CAM", lambda x, y: _guided(model, at or "", x, y), f"Captum, at {at}", guided)
    add("DeepLift", lambda x, y: _deep_lift(model, x, y), "Captum, from grey", captum or unseen(model, x, guided=False))
    square = None if tokens else "the model has no attention over one square of tokens."
    add("rollout", lambda x, y: rollout(model, x, y, weighted=False), "attention rollout, whatever the class", square)
    add("weighted rollout", lambda x, y: rollout(model, x, y, weighted=True), "attention times its gradient", square)
    return found, absent


def _numpy(run: TorchExplain, batch: int) -> Explain:
    """A function of tensors as one of arrays; coarse maps are enlarged to the picture."""

    def explain(x: Array, classes: Indices) -> Array:
        parts = []
        for some in batches(len(x), batch):
            maps = run(torch.from_numpy(np.ascontiguousarray(x[some])), torch.from_numpy(classes[some]))
            held = maps.detach().numpy()
            parts.append(held if held.ndim == 4 else enlarged(held, *x.shape[-2:]).astype(np.float32))
        return np.concatenate(parts).astype(np.float32)

    return explain


def cam(model: nn.Module, layer: str, x: Tensor, classes: Tensor, *, layerwise: bool) -> Tensor:
    """Grad-CAM of a layer, or LayerCAM: [batch, height, width], rectified.

    Selvaraju et al., Grad-CAM, 2017: channels weighted by their mean gradient. Jiang et al., LayerCAM, 2021: each place
    by its own gradient where positive.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.requires_grad_() if output.is_leaf else output)
        return kept[-1]

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with _plain(model):
            picked = model(x.requires_grad_()).gather(1, classes[:, None]).sum()
            (slope,) = torch.autograd.grad(picked, [kept[-1]])
    finally:
        handle.remove()
    weight = slope.relu() if layerwise else slope.mean((2, 3), keepdim=True)
    return (weight * kept[-1].detach()).sum(1).relu()


def _guided(model: nn.Module, layer: str, x: Tensor, classes: Tensor) -> Tensor:
    from captum.attr import GuidedGradCam

    with _plain(model):
        return GuidedGradCam(model, model.get_submodule(layer)).attribute(x.requires_grad_(), classes)  # type: ignore[no-any-return]


def _deep_lift(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    from captum.attr import DeepLift

    with _plain(model):
        return DeepLift(model).attribute(x.requires_grad_(), torch.zeros_like(x), classes)  # type: ignore[no-any-return]


@contextmanager
def _plain(model: nn.Module) -> Iterator[None]:
    """No module writes over its input, which hooks cannot see through; and Captum does not warn of its hooks."""
    changed: list[Any] = [module for module in model.modules() if getattr(module, "inplace", False)]
    try:
        for module in changed:
            module.inplace = False
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        for module in changed:
            module.inplace = True


def _spread(weight: Tensor) -> tuple[float, float]:
    held = weight.detach().double()
    return float(held.mean()), float(held.std())


def randomised(model: nn.Module, shape: tuple[int, int, int], share: float, settings: Settings) -> nn.Module:
    """A copy of a model whose weights are drawn anew, from the last layer up to a share of them."""
    made = copy.deepcopy(model)
    order: dict[str, nn.Module] = {}
    for name, module, _ in layers_run(made, torch.zeros(2, *shape)):
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() > 1:
            order.setdefault(name, module)
    layers = list(order.items())[::-1]
    for name, module in layers[: max(1, round(share * len(layers)))]:
        weight = module.weight
        assert isinstance(weight, Tensor)
        fresh = settings.rng("weights", name).normal(*_spread(weight), tuple(weight.shape))
        weight.data = torch.from_numpy(fresh).to(weight.dtype)
    return made
