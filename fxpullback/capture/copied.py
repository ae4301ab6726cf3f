"""A copy of the caller's model that torch.export takes: nothing that is done to it is seen by the caller."""

from __future__ import annotations

import copy
import types
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.quantization import FakeQuantizeBase, ObserverBase
from torch.ao.quantization._learnable_fake_quantize import _LearnableFakeQuantize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from fxpullback.capture.reasons import SWITCH_OFF
from fxpullback.contract.errors import CaptureError


def own_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode.

    Weights that old hooks (`torch.nn.utils.weight_norm`, `spectral_norm`) compute anew at every call are computed once,
    and so are the scales that torch's learnable fake quantisation sets at every call.
    Observers of quantisation that hand on what they watch do that alone.
    Tensors that autograd made, or that were made in inference mode, are copied as plain ones.
    """
    with torch.inference_mode(False), torch.no_grad():
        memo: dict[int, Any] = {}
        for module in model.modules():
            for held in vars(module).values():
                if isinstance(held, Tensor) and not held.is_leaf:
                    memo[id(held)] = held.detach().clone()
        copied = copy.deepcopy(model, memo).eval()
        for module in copied.modules():
            _settle_weights(module)
            _leave_inference(module)
        _settle_observers(copied)
    return copied


def _settle_weights(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            hook.remove(module)
            del module._forward_pre_hooks[key]


def _settle_observers(model: nn.Module) -> None:
    """Have observers, which hand on what they watch, hand it on alone, and fake quantisation that is off.

    Raises:
        CaptureError: an observer is on that sets the range of fake quantisation by every input.
    """
    for path, module in _of_torch(model, FakeQuantizeBase):
        if not bool(module.fake_quant_enabled[0]):
            module.forward = types.MethodType(_handed_on, module)
        elif isinstance(module, _LearnableFakeQuantize):
            _settle_scales(path, module)
        elif bool(module.observer_enabled[0]):
            raise CaptureError(f"{path}: {SWITCH_OFF}")
    own = {part for _, module in _of_torch(model, FakeQuantizeBase) for part in module.modules()}
    for _, module in _of_torch(model, ObserverBase):
        if module not in own:
            module.forward = types.MethodType(_handed_on, module)


def _of_torch(model: nn.Module, kind: type[nn.Module]) -> list[tuple[str, Any]]:
    """The modules of a kind that are torch's own classes."""
    named = [(path, module) for path, module in model.named_modules() if isinstance(module, kind)]
    return [(path, module) for path, module in named if type(module).__module__.partition(".")[0] == "torch"]


def _handed_on(self: Any, x: Tensor) -> Tensor:
    return x


def _settle_scales(path: str, module: Any) -> None:
    """Set once what the forward of learnable fake quantisation sets, and leave it a forward that sets nothing."""
    if module.static_enabled[0] == 1:
        raise CaptureError(
            f"{path}: an observer of _LearnableFakeQuantize is on, and sets the scale by every input. Switch it off, "
            "module.toggle_observer_update(False) for each of them, and compile again."
        )
    by_channel = module.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine)
    module.scale.data.clamp_(min=module.eps.item())
    if module.qscheme in (torch.per_channel_symmetric, torch.per_tensor_symmetric):
        module.zero_point.data.zero_()
    levels = (*((module.ch_axis,) if by_channel else ()), module.quant_min, module.quant_max)
    operator = (
        torch._fake_quantize_learnable_per_channel_affine
        if by_channel
        else torch._fake_quantize_learnable_per_tensor_affine
    )

    def forward(self: Any, x: Tensor) -> Tensor:
        return operator(x, self.scale, self.zero_point, *levels)

    module.forward = types.MethodType(forward, module)


def _leave_inference(module: nn.Module) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is not None and parameter.is_inference():
            module._parameters[name] = nn.Parameter(parameter.clone(), parameter.requires_grad)
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.is_inference():
            module._buffers[name] = buffer.clone()
