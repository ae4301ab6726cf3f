"""Half precision: casts put into the lowered graph of one pullback, as a stage of its own that a person can read.

Weights and activations become float16 or bfloat16; inputs, outputs, and the program around a pullback (steps, norms,
clipping) stay float32, and so do the operators that `islands` names. Every value has at most one copy in each type.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, fx

from fxpullback.contract.errors import InvariantError, ProgramError
from fxpullback.graph.builder import Builder
from fxpullback.graph.cut import in_front
from fxpullback.graph.invariants import check_lowered
from fxpullback.graph.ir import (
    GETITEM,
    ORIGIN,
    arg,
    attribute,
    calls,
    input_nodes,
    is_float_tensor,
    is_size,
    operator_name,
    outputs,
)
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.graph.rebuild import Site, append, tidy
from fxpullback.graph.value import Value
from fxpullback.half.islands import CAST, float32_nodes
from fxpullback.half.scale import measured_scale, scale_cotangent
from fxpullback.lower import simplify
from fxpullback.unroll import unroll

if TYPE_CHECKING:
    from fxpullback.compiled import Compiled

Precision = Literal["fp32", "fp16", "bf16"]
TYPES: dict[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}
_KEPT = (ORIGIN, "nn_module_stack", "stack_trace")


@dataclass(frozen=True, eq=False)
class HalfPrecision:
    """A compiled pullback in half precision.

    Attributes:
        graph: the graph that runs, with the inputs and outputs of `Pullback.graph`, all of them float32.
        precision: `fp16` or `bf16`.
        cotangent_scale: power of two that every cotangent is multiplied by on its way in; the pullback is divided by
            it on its way out.
        islands: how many operators of one pullback stay in float32, by name.
        operators: how many operators of one pullback compute floats.
        casts: how many casts one pullback holds.
    """

    graph: Graph
    precision: Precision
    cotangent_scale: float
    islands: dict[str, int]
    operators: int
    casts: int

    def describe(self) -> dict[str, Any]:
        """Plain values, as a file carries them."""
        return {
            "name": self.precision,
            "cotangent_scale": self.cotangent_scale,
            "float32": self.islands,
            "operators": self.operators,
            "casts": self.casts,
        }

    def __str__(self) -> str:
        kept = sum(self.islands.values())
        return (
            f"{self.precision}: {kept} of {self.operators} operators in float32, {self.casts} casts, "
            f"cotangents scaled by {self.cotangent_scale:g}"
        )


def check_precision(precision: str) -> Precision:
    """Return `precision` if it is `fp32`, `fp16` or `bf16`."""
    if precision not in ("fp32", *TYPES):
        raise ProgramError(f"no precision called {precision!r}; there are fp32, fp16, bf16.")
    return cast(Precision, precision)


def in_half_precision(pb: Compiled, precision: str, cotangent_scale: float | None = None) -> HalfPrecision:
    """A compiled pullback in half precision.

    Args:
        pb: what was compiled, in float32.
        precision: `fp16` or `bf16`.
        cotangent_scale: what cotangents are scaled by; measured if None. bfloat16 has the range of float32 and needs
            none.

    Returns:
        The program in half precision, with the scale that was used.

    Raises:
        ProgramError: a precision that there is not.
        InvariantError: the pass made a graph that breaks its own rules.
    """
    dtype = TYPES.get(check_precision(precision))
    if dtype is None:
        raise ProgramError("fp32 is what was compiled: there is nothing to cast.")
    if cotangent_scale is None:
        cotangent_scale = measured_scale(pb) if dtype is torch.float16 else 1.0
    step = autocast(pb.step, dtype, pb.extensions.operators())
    check_autocast(step, dtype)
    scaled = scale_cotangent(step, cotangent_scale, any_size=pb.target == "cotangent")
    graph = simplify(unroll(scaled, pb.program, pb.target, taps=pb.taps))
    check_lowered(graph)
    check_autocast(graph, dtype)
    graph = graph if pb.entry is None else in_front(pb.entry, graph, dtype)
    wide, total, casts = _count(step)
    return HalfPrecision(graph, check_precision(precision), cotangent_scale, wide, total, casts)


def autocast(step: fx.GraphModule, dtype: torch.dtype, operators: OperatorTable = OPERATORS) -> Graph:
    """Put casts into a lowered graph so that it computes in half precision.

    Args:
        step: graph (input, extras, cotangent) -> (logits, pullback) in float32, left as it is.
        dtype: float16 or bfloat16.
        operators: what is true of every operator.

    Returns:
        The graph with the same inputs and outputs, in float32, and its constants in `dtype` where nothing in float32
        reads them.
    """
    return _Autocast(step, dtype, operators).run()


class _Autocast:
    """One walk through a graph; remembers the copy of every value in the other type."""

    def __init__(self, gm: fx.GraphModule, dtype: torch.dtype, operators: OperatorTable) -> None:
        self.gm, self.dtype, self.builder = gm, dtype, Builder(gm)
        self.wide = float32_nodes(gm, dtype, operators)
        self.env: dict[fx.Node, Any] = {}
        self.copies: dict[tuple[fx.Node, torch.dtype], Value] = {}
        self.constants: dict[Any, Tensor] = {}

    def run(self) -> Graph:
        """The graph with its casts."""
        append(self.builder, self.gm, self.env, self.call, moved=None)
        results = tuple(self.fetch(n, torch.float32) for n in outputs(self.gm.graph))
        self.builder.exact.clear()  # half precision is compared with the graph it computes, constants rounded
        return tidy(self.builder.finish(results))

    def call(self, site: Site) -> Any:
        """A copy of a node in its type, its floating-point arguments cast to that type."""
        node = site.node
        if node.op == "get_attr":
            return None  # a constant is fetched in the type that each reader wants
        made = self.copied(site)
        self.env[node] = made
        if node in outputs(self.gm.graph):  # here, not at the end: what follows the logits may be made of them
            self.fetch(node, torch.float32)
        return made

    def copied(self, site: Site) -> Any:
        """The node again, in its type."""
        node = site.node
        if is_size(node):
            return site.copy()
        dtype = torch.float32 if node in self.wide else self.dtype
        values = {n: self.env[n] if is_size(n) else self.fetch(n, dtype) for n in input_nodes(node)}
        made = site.copy(values)
        if node not in self.wide and node.target is not GETITEM:
            self.retype(made)
        return made

    def retype(self, made: Any) -> None:
        """Give a node that was copied from float32 its own type."""
        values = made if isinstance(made, tuple) else (made,)
        for value in values:
            value.node.meta["val"] = self._as_half(value.node.meta["val"])
        source = values[0].node if made is values[0] else arg(values[0].node, 0)
        source.meta["val"] = fx.node.map_aggregate(source.meta["val"], self._as_half)
        if source.target is CAST and source.kwargs.get("dtype") is torch.float32:
            source.kwargs = {**source.kwargs, "dtype": self.dtype}

    def _as_half(self, val: Any) -> Any:
        if not isinstance(val, Tensor) or val.dtype is not torch.float32:
            return val
        with self.builder.fake_mode:
            return val.to(self.dtype)

    def fetch(self, node: fx.Node, dtype: torch.dtype) -> Any:
        """What stands for a node, as float32 or in half precision; integers, booleans and tuples as they are."""
        if node.op == "get_attr":
            return self.constant(node, dtype)
        value = self.env[node]
        if not isinstance(value, Value) or not value.dtype.is_floating_point or value.dtype is dtype:
            return value
        key = (value.node, dtype)
        if key not in self.copies:
            kept = {k: value.node.meta[k] for k in _KEPT if k in value.node.meta}
            with self.builder.provenance(f"{value.node.name}_{_NAMES[dtype]}", **kept):
                self.copies[key] = self.builder.call(CAST, (value,), {"dtype": dtype})
        return self.copies[key]

    def constant(self, node: fx.Node, dtype: torch.dtype) -> Value:
        """A constant in a type; half precision under its own name, float32 under another where both are read."""
        name, tensor = str(node.target), attribute(self.gm, str(node.target))
        if not tensor.is_floating_point():
            return self.builder.attribute(name)
        if dtype is torch.float32:
            alone = all(user in self.wide or is_size(user) for user in node.users)
            if alone:
                return self.builder.attribute(name)
            key = (node, dtype)
            if key not in self.copies:
                self.copies[key] = self.builder.constant(f"{name}_float32", tensor)
            return self.copies[key]
        if name not in self.builder.constants:
            self.builder.constants[name] = self._half_copy(tensor)
        return self.builder.attribute(name)

    def _half_copy(self, tensor: Tensor) -> Tensor:
        key = (tensor.data_ptr(), tuple(tensor.shape), tuple(tensor.stride())) if tensor.numel() else object()
        if key not in self.constants:
            self.constants[key] = tensor.detach().to(self.dtype)
        return self.constants[key]


_NAMES = {torch.float32: "float32", torch.float16: "fp16", torch.bfloat16: "bf16"}


def check_autocast(gm: fx.GraphModule, dtype: torch.dtype) -> None:
    """Inputs and outputs in float32, one type within every operator, and no cast of a cast.

    Raises:
        InvariantError: names the node that breaks it.
    """
    for node in calls(gm.graph):
        if is_size(node):
            continue
        kinds = {val.dtype for n in input_nodes(node) for val in _tensors(n) if val.is_floating_point()}
        if node.target is not CAST and node.target is not GETITEM:
            kinds |= {val.dtype for val in _tensors(node) if val.is_floating_point()}
        if len(kinds) > 1 or not kinds <= {torch.float32, dtype}:
            raise InvariantError(f"{node.name} mixes {', '.join(sorted(map(str, kinds)))}.")
        source = node.args[0] if node.args else None
        if (
            node.target is CAST
            and isinstance(source, fx.Node)
            and source.target is CAST
            and is_float_tensor(source.args[0])
        ):
            raise InvariantError(f"{node.name} casts what {source.name} has just cast.")
    for node in outputs(gm.graph):
        if node.meta["val"].dtype is not torch.float32:
            raise InvariantError(f"the output {node.name} is {node.meta['val'].dtype}, not float32.")


def _tensors(node: fx.Node) -> list[Tensor]:
    val = node.meta.get("val")
    return [v for v in (val if isinstance(val, tuple | list) else (val,)) if isinstance(v, Tensor)]


def _count(step: fx.GraphModule) -> tuple[dict[str, int], int, int]:
    """Operators that compute in float32, by name and most frequent first; all that compute floats; and casts."""
    floats: list[fx.Node] = [n for n in calls(step.graph) if is_float_tensor(n) and n.target is not GETITEM]
    is_cast: Callable[[fx.Node], bool] = lambda n: n.target is CAST and is_float_tensor(arg(n, 0))  # noqa: E731
    casts = [n for n in floats if is_cast(n)]
    others = [n for n in floats if not is_cast(n)]
    wide = Counter(operator_name(n.target) for n in others if _tensors(n)[0].dtype is torch.float32)
    return dict(wide.most_common()), len(others), len(casts)
