"""What a model's forward says about gradients: regions without them, and hooks that may change them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fxpullback.graph.alone import alone


@contextmanager
def explained_through() -> Iterator[list[str]]:
    """Gradients stay on: `no_grad` and `inference_mode` inside a forward do nothing in the thread that enters this.

    What a model computes without gradients is explained as if it had them; see `Ledger.notes`. Gives the lines that
    would have turned them off.
    """
    lines: list[str] = []
    with alone() as mine, torch.inference_mode(False), torch.enable_grad():
        switch, enter, leave = torch._C._set_grad_enabled, torch.inference_mode.__enter__, torch.inference_mode.__exit__

        def switched(mode: bool) -> None:
            if mode or not mine():
                switch(mode)
            else:
                lines.append(own_line())

        def entered(self: Any) -> None:
            if not mine():
                enter(self)
            elif self.mode:
                lines.append(own_line())

        def left(self: Any, *raised: Any) -> None:
            if not mine():
                leave(self, *raised)

        patches = (
            (torch._C, "_set_grad_enabled", switched, switch),
            (torch.inference_mode, "__enter__", entered, enter),
            (torch.inference_mode, "__exit__", left, leave),
        )
        with _patched(patches):
            yield lines


@dataclass
class Hooks:
    """What of the author's own may change gradients: hooks, and the backwards of Functions.

    Attributes:
        found: where each stands, in words.
    """

    found: list[str] = field(default_factory=list)

    def at_modules(self, model: nn.Module) -> None:
        """Take note of the hooks that stand on modules."""
        for path, module in model.named_modules():
            if module._backward_hooks or module._backward_pre_hooks:
                self.found.append(f"the backward hook of {path or 'the model'} ({type(module).__name__})")

    def at_functions(self, made: Tensor) -> None:
        """Take note of the authors' Functions that a result was made by."""
        seen, waiting = set[Any](), [made.grad_fn]
        while waiting:
            node = waiting.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
            function = getattr(node, "_forward_cls", None)
            if function is not None and function.__module__.partition(".")[0] != "torch":
                self.found.append(f"{function.__name__}.backward")


@contextmanager
def watched_hooks(model: nn.Module) -> Iterator[Hooks]:
    """Take note of the hooks on gradients while `model` runs."""
    hooks = Hooks()
    hooks.at_modules(model)
    with alone() as mine:
        register = Tensor.register_hook

        def registered(self: Tensor, hook: Any) -> Any:
            if mine():
                hooks.found.append(f"the hook on a tensor's gradient that {own_line()} registers")
            return register(self, hook)  # type: ignore[no-untyped-call]

        with _patched(((Tensor, "register_hook", registered, register),)):
            yield hooks


def own_line() -> str:
    """`file.py:line` of the innermost frame that is neither torch's nor this package's."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_back is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] not in ("torch", "fxpullback", "contextlib"):
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename.split('/')[-1]}:{frame.f_lineno}"


@contextmanager
def _patched(patches: tuple[tuple[Any, str, Callable[..., Any], Any], ...]) -> Iterator[None]:
    """Other functions in place of some, until everything is as it was."""
    try:
        for owner, name, ours, _ in patches:
            setattr(owner, name, ours)
        yield
    finally:
        for owner, name, _, before in patches:
            setattr(owner, name, before)
