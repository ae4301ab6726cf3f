"""A torch model while it runs: which modules ran, what they gave, which operators no module stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# What Captum's DeepLift has rules for, by the module it hooks; the last is all that guided backpropagation changes.
DEEP_LIFT = (nn.ReLU, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d, nn.Softmax)
GUIDED = (nn.ReLU,)
_RELUS = (aten.relu.default, aten.relu_.default)
# Operators that are no straight lines, and that a hooked method must see.
_CURVED = (
    *_RELUS,
    aten.elu.default,
    aten.elu_.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
    aten.sigmoid.default,
    aten.sigmoid_.default,
    aten.tanh.default,
    aten.softplus.default,
    aten.max_pool2d_with_indices.default,
    aten._softmax.default,
    aten.gelu.default,
    aten.silu.default,
    aten.silu_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.hardsigmoid.default,
    aten.native_layer_norm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_flash_attention.default,
)


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # of torch
        self.seen: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[func] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def watching(model: nn.Module, note: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Tell `note` of every module that runs, with its name and what it gave."""

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, inputs, output: note(name, module, output)

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def unseen(model: nn.Module, x: Tensor, *, guided: bool) -> str | None:
    """Why a method that hooks modules would be wrong on a model, without saying so; None where it sees everything.

    Args:
        model: The model, in eval mode.
        x: A batch for it.
        guided: For guided backpropagation, which changes ReLU alone; else for DeepLift.
    """
    ran: Counter[str] = Counter()

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(module, GUIDED if guided else DEEP_LIFT):
            ran[name] += 1

    operators = _Operators()
    with torch.no_grad(), watching(model, note), operators:
        model(x)
    twice = [name for name, count in ran.items() if count > 1]
    if twice:
        return f"Captum hooks modules, and {twice[0]} runs {ran[twice[0]]} times"
    curved = sum(operators.seen[operator] for operator in (_RELUS if guided else _CURVED))
    if curved > sum(ran.values()):
        what = "ReLU" if guided else "nonlinear operators"
        return f"Captum hooks modules, and of {curved} {what} {curved - sum(ran.values())} are no modules it knows"
    if guided and not ran:
        return "there is no ReLU, so guided backpropagation would be the gradient"
    return None


def layers_run(model: nn.Module, x: Tensor) -> list[tuple[str, nn.Module, Tensor]]:
    """Modules in the order they ended, each with its tensor."""
    found: list[tuple[str, nn.Module, Tensor]] = []

    def note(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor) and name:
            found.append((name, module, output))

    with torch.no_grad(), watching(model, note):
        model(x)
    return found


def map_layer(model: nn.Module, x: Tensor) -> str | None:
    """The last module that gives a map [batch, channels, height, width] of more than one place; None without one."""
    maps = [name for name, _, y in layers_run(model, x) if y.dim() == 4 and min(y.shape[2:]) > 1 and len(y) == len(x)]
    return maps[-1] if maps else None
