"""A copy of the caller's model that torch.export takes: nothing that is done to it is seen by the caller."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def own_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode.

    Weights that old hooks (`torch.nn.utils.weight_norm`, `spectral_norm`) compute anew at every call are computed once.
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
    return copied


def _settle_weights(module: nn.Module) -> None:
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, WeightNorm | SpectralNorm):
            hook.remove(module)
            del module._forward_pre_hooks[key]


def _leave_inference(module: nn.Module) -> None:
    for name, parameter in list(module._parameters.items()):
        if parameter is not None and parameter.is_inference():
            module._parameters[name] = nn.Parameter(parameter.clone(), parameter.requires_grad)
    for name, buffer in list(module._buffers.items()):
        if buffer is not None and buffer.is_inference():
            module._buffers[name] = buffer.clone()
