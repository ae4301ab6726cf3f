"""The captured graph against the model it was captured of: its logits, and the gradient that torch itself gives.

What torch.export does not see it drops without a word: a backward that the model's author wrote, a hook, a value that a
forward takes from somewhere else. So `compile` runs the model once, as it is, beside the graph.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import TreeSpec, tree_leaves, tree_unflatten

from fxpullback.capture.copied import own_copy
from fxpullback.capture.gradients import explained_through, watched_hooks
from fxpullback.capture.program import Model, as_program
from fxpullback.capture.quiet import no_fast_path, quiet
from fxpullback.capture.substituted import passed_by
from fxpullback.certify.fresh import ExtraSpread, Looks, Spread, inside
from fxpullback.contract.errors import CaptureError
from fxpullback.graph.entry import Entry
from fxpullback.graph.float64 import in_float64
from fxpullback.graph.inputs import Inputs, extra_of
from fxpullback.graph.ir import calls, extra_inputs

BATCH = 2  # at a batch of one, models that squeeze drop the batch, and torch's adjoint of batch norm is wrong
BOUNDS = {torch.float64: 1e-9}
BOUND = 1e-5  # in float32: the same operators in the same order, but for what is written out
MOST = 0.1  # however much a network magnifies rounding: beyond that nothing is told apart
SCALES = (1.0, 1e-3, 1e3)  # of the cotangent, where a backward is not torch's own: it may clip

Run = Callable[[Inputs], Tensor]


@dataclass(frozen=True)
class _Ran:
    """One run of the model or its graph.

    Attributes:
        leaf: the input.
        logits: the logits, with what autograd keeps of them.
        turned_off: the lines that would have turned gradients off.
    """

    leaf: Tensor
    logits: Tensor
    turned_off: tuple[str, ...] = ()

    def gradient(self, scale: float) -> Tensor:
        """The gradient of a random cotangent times a scale, divided by it."""
        if not self.logits.requires_grad:
            return torch.zeros_like(self.leaf)
        drawn = torch.randn(self.logits.shape, generator=torch.Generator().manual_seed(1))
        u = drawn.to(self.logits) * scale
        with torch.inference_mode(False), torch.enable_grad():
            (found,) = torch.autograd.grad(self.logits, self.leaf, u, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.leaf) if found is None else found.detach() / scale

    def gaps(self, wanted: _Ran, scales: Sequence[float] = SCALES[:1]) -> tuple[float, float]:
        """How far logits and gradient are off, relative to the largest entry wanted.

        Of an operator that torch has no derivative of, the logits alone: a later stage has a rule for it, or refuses.
        So of a model that writes over what its own gradient needs, which torch then cannot give.
        """
        try:
            gradients = max(gap(self.gradient(s), wanted.gradient(s)) for s in scales)
        except RuntimeError as error:
            known = ("is not implemented", *(("modified by an inplace operation",) if len(scales) == 1 else ()))
            if not isinstance(error, NotImplementedError) and not any(sign in str(error) for sign in known):
                raise
            gradients = 0.0
        return gap(self.logits, wanted.logits), gradients


def check_original(
    model: Model, captured: fx.GraphModule, examples: Sequence[Tensor], names: Sequence[str], entry: Entry | None = None
) -> list[str]:
    """Refuse a captured graph whose logits or exact gradient are not the model's own.

    The model runs once, on two samples it has not seen, in its own type; in float64 besides where that differs by more
    than rounding should. `no_grad` inside its forward is passed over, as it is explained through.

    Args:
        model: what was captured: a module, an exported program, or the path of one.
        captured: the graph.
        examples: the examples of the model's inputs.
        names: what the forward calls them, where they are passed by name.
        entry: what stands in front of the graph, where its explained input is no input of the model.

    Returns:
        What the ledger is to say of regions without gradients.

    Raises:
        CaptureError: says what differs, by how much, and what of the model's own may be why.
    """
    model = as_program(model)
    own = _module(model)
    spec = model.call_spec.in_spec if isinstance(model, ExportedProgram) else None
    example, *extras = examples if entry is None else (entry.value(examples), *examples)
    given = [extra_of(node, extra) for node, extra in zip(extra_inputs(captured), extras, strict=True)]
    looks = Looks(Spread.of(example), tuple(ExtraSpread.of(extra) for extra in given), entry)
    compared = _Compared(own, captured, names, spec, inside(looks, looks.draw(BATCH, 0, example)), entry)
    narrow = compared.gaps(wide=False)
    if max(narrow) <= BOUNDS.get(example.dtype, BOUND):
        return compared.notes()
    bound, gaps = compared.judged(narrow)
    if not max(gaps) <= bound:
        raise CaptureError(_differs(type(own).__name__, gaps, bound, compared.hooks))
    return compared.notes()


class _Compared:
    """A model beside its graph.

    Attributes:
        hooks: the hooks on gradients that the model's forward met.
        turned_off: the lines of its forward that turn gradients off.
    """

    def __init__(
        self,
        own: nn.Module,
        captured: fx.GraphModule,
        names: Sequence[str],
        spec: TreeSpec | None,
        inputs: Inputs,
        entry: Entry | None,
    ) -> None:
        self.own, self.captured, self.names, self.spec = own, captured, names, spec
        self.inputs, self.entry = inputs, entry
        self.hooks: list[str] = []
        self.turned_off: tuple[str, ...] = ()

    def gaps(self, *, wide: bool) -> tuple[float, float]:
        """How far the graph's logits and gradient are off, in the model's own type or in float64."""
        inputs = self.inputs.double() if wide else self.inputs
        graph = in_float64(self.captured) if wide else self.captured
        found = _run(lambda given: graph(*given)[0], inputs)
        wanted = self._of_model(copy.deepcopy(self.own).double() if wide else self.own, inputs, found.logits)
        if not all(map(_is_differentiable, calls(self.captured.graph))):
            return gap(found.logits, wanted.logits), 0.0  # a rule of the user's own says what its derivative is
        return found.gaps(wanted, SCALES if self.hooks else SCALES[:1])

    def _of_model(self, model: nn.Module, inputs: Inputs, like: Tensor) -> _Ran:
        with watched_hooks(model) as hooks:
            found = _run(lambda given: self._logits(model, given, like), inputs)
            hooks.at_functions(found.logits)
        self.hooks, self.turned_off = list(dict.fromkeys(hooks.found)), found.turned_off
        return found

    def _logits(self, model: nn.Module, given: Inputs, like: Tensor) -> Tensor:
        """The logits of the model itself; what its ids are looked up as is the explained input."""
        passed: tuple[Tensor, ...] = tuple(given)
        lookups: AbstractContextManager[Any] = nullcontext()
        if self.entry is not None:
            passed, lookups = passed_by(self.entry, given)
        args, kwargs = self._arguments(passed)
        with lookups:
            return logits_of(model(*args, **kwargs), like)

    def _arguments(self, given: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        """How the forward takes its inputs: by place or by name; a program says that itself."""
        if self.spec is not None:
            args, kwargs = tree_unflatten(list(given), self.spec)
            return args, kwargs
        return ((), dict(zip(self.names, given, strict=True))) if self.names else (given, {})

    def notes(self) -> list[str]:
        """What is said of regions without gradients, where they make a difference."""
        if not self.turned_off:
            return []
        through = self._of_model(self.own, self.inputs, torch.empty_like(self._graph_logits()))
        with torch.inference_mode(False), torch.enable_grad(), quiet(), no_fast_path():
            leaf = self.inputs.x.detach().clone().requires_grad_(True)
            plain = _Ran(leaf, self._logits(self.own, self.inputs.at(leaf.clone()), through.logits))
        try:
            if gap(plain.gradient(1.0), through.gradient(1.0)) <= BOUND:
                return []
        except RuntimeError:  # torch has none of a model that writes over what its gradient needs
            pass
        lines = ", ".join(dict.fromkeys(self.turned_off))
        return [f"gradients are turned off at {lines}: what is computed there is explained through all the same"]

    def _graph_logits(self) -> Tensor:
        with torch.no_grad():
            logits: Tensor = self.captured(*self.inputs)[0]
        return logits

    def judged(self, narrow: tuple[float, float]) -> tuple[float, tuple[float, float]]:
        """What the gaps may be, and the gaps: in float64 where the model runs in it, else in its own type.

        There, and where the model itself names float32, ten times what the graph's own rounding makes of it.
        """
        try:
            with quiet():
                gaps = self.gaps(wide=True)
        except Exception:
            gaps = narrow
        if max(gaps) <= BOUND:
            return BOUND, gaps
        wide = in_float64(self.captured)
        one = _run(lambda given: self.captured(*given)[0], self.inputs)
        exact = _run(lambda given: wide(*given)[0], self.inputs.double())
        return min(max(BOUND, 10 * max(one.gaps(exact))), MOST), gaps


def _is_differentiable(node: fx.Node) -> bool:
    """Whether autograd knows an operator: one of another library may have no derivative at all."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace in ("aten", "fxpullback"):
        return True
    keys = ("Autograd", "AutogradCPU", "AutogradCUDA", "CompositeImplicitAutograd")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(node.target.name(), key) for key in keys)


def _module(model: nn.Module | ExportedProgram) -> nn.Module:
    """A copy of the model in evaluation mode, its weights held."""
    if isinstance(model, ExportedProgram):
        with quiet():
            return model.module()
    return own_copy(model).requires_grad_(False)


def _run(model: Run, inputs: Inputs) -> _Ran:
    """One run, where `no_grad` is passed over."""
    with ExitStack() as stack:
        for context in (quiet(), no_fast_path(), sdpa_kernel(SDPBackend.MATH)):
            stack.enter_context(context)
        turned_off = stack.enter_context(explained_through())
        leaf = inputs.x.detach().clone().requires_grad_(True)
        logits = model(inputs.at(leaf.clone()))  # a copy, as a forward may write into what it is given
        return _Ran(leaf, logits, tuple(turned_off))


def logits_of(returned: Any, like: Tensor) -> Tensor:
    """Of what a model returns the tensor that was captured as logits: of their size, and of several the nearest.

    Raises:
        CaptureError: there is none.
    """
    tensors = [t for t in tree_leaves(returned) if isinstance(t, Tensor) and t.is_floating_point()]
    fitting = [t.reshape(like.shape) for t in tensors if t.numel() == like.numel()]
    if not fitting:
        shapes = ", ".join(str(list(t.shape)) for t in tensors) or "no tensor"
        raise CaptureError(
            f"the model returned {shapes} where its graph returns {list(like.shape)}: its shapes depend on something "
            "that torch.export does not see. Check what model(x) returns for a batch of two."
        )
    return min(fitting, key=lambda t: gap(like, t.detach()))


def gap(found: Tensor, wanted: Tensor) -> float:
    """Largest difference relative to the largest entry wanted; infinite where one is not finite and the other is."""
    found, wanted = found.detach().double(), wanted.detach().double()
    both = torch.isfinite(found) & torch.isfinite(wanted)
    if not torch.equal(torch.isfinite(found), torch.isfinite(wanted)):
        return float("inf")
    if not bool(both.any()):
        return 0.0
    scale = float(wanted[both].abs().max())
    worst = float((found - wanted)[both].abs().max())
    return worst / scale if scale > 0 else worst


def _differs(name: str, gaps: tuple[float, float], bound: float, hooks: Sequence[str]) -> str:
    logits, gradient = gaps
    if logits > bound:
        return (
            f"the captured graph is not {name}: on fresh inputs its logits are off by {logits:.1e} of the largest, and "
            f"{bound:.1e} is allowed. torch.export burnt in something that the forward takes from elsewhere: a value "
            "read off a tensor, a global, a counter. Compute it of the input, or hold it as a buffer."
        )
    if hooks:
        why = (
            f"The likely cause is {' and '.join(hooks)}: torch.export drops it. Remove it before compiling; a gradient "
            "that is to be multiplied by a factor, or passed straight through, is written as an autograd.Function."
        )
    else:
        why = "Something in its forward gives autograd a derivative that its operators do not have."
    return (
        f"the captured graph has the logits of {name}, but not its gradient: off by {gradient:.1e} of the largest "
        f"entry, and {bound:.1e} is allowed. {why}"
    )
