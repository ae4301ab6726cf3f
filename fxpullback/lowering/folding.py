"""Stage 3: fold constants and batch norms into the rewritten graph, before it is differentiated.

Folding here serves both directions: the adjoint of a convolution whose weights hold the batch norm holds it too.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from fxpullback.graph.compilation import Compilation
from fxpullback.graph.float64 import widened
from fxpullback.graph.ir import (
    GETITEM,
    HOLDS,
    aten,
    input_nodes,
    is_call,
    is_size,
    node_argument,
    schema_arguments,
)
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import Trait
from fxpullback.graph.rebuild import Site, rebuild
from fxpullback.graph.value import Value

BATCH_NORM = aten._native_batch_norm_legit_no_training.default

_SMALL = 4096  # layouts of a larger constant stay nodes: folding them would store the constant twice
_TINY = 64  # so does all that is made of one, where a file holds the constant already


def fold(rewritten: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, dict[str, str]]:
    """Fold what depends on no input, then batch norms into the product in front of them.

    Args:
        rewritten: graph in injected form.
        compilation: what the stages of one compilation share.

    Returns:
        The folded graph, and which batch norm (by captured name) went into which operator.
    """
    named = nest_concatenations(rewritten, compilation)
    return fold_batch_norms(fold_constants(named, compilation), compilation)


def nest_concatenations(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """`cat([a, b, c])` behind `cat([a, b])` joins c to what is joined already.

    Densely connected networks join everything before anew at every layer: their adjoint would cut every cotangent in as
    many parts as there are layers before. Nested, each is cut in two.
    """
    seen: dict[tuple[Any, ...], Value] = {}

    def nest(site: Site) -> Any:
        made = _nested(site, seen)
        _holds_itself(site.node, made)
        return made

    return rebuild(gm, nest, compilation)


def _holds_itself(node: fx.Node, made: Any) -> None:
    """From here on nodes say whose value they hold; this one holds that of the operator it was copied from."""
    if node.op == "call_function" and isinstance(made, Value):
        made.node.meta[HOLDS] = {node.name: 1.0}


def _nested(site: Site, seen: dict[tuple[Any, ...], Value]) -> Any:
    if site.node.target is not aten.cat.default:
        return site.copy()
    tensors, dim = schema_arguments(site.node)
    dim %= site.node.meta["val"].ndim
    known = [(n, seen[dim, *tensors[:n]]) for n in range(len(tensors) - 1, 1, -1) if (dim, *tensors[:n]) in seen]
    if known:
        count, joined = known[0]
        parts = [joined, *(site.env[t] for t in tensors[count:])]
        made = site.builder.call(aten.cat.default, (parts, dim), {})
    else:
        made = site.copy()
    seen[dim, *tensors] = made
    return made


def fold_constants(gm: fx.GraphModule, compilation: Compilation | None = None) -> Graph:
    """Compute what depends on constants alone, except layouts of large ones."""
    known: dict[fx.Node, Tensor] = {}
    unrounded: dict[fx.Node, Tensor] = {}
    layouts: set[fx.Node] = set()
    of_rules: set[fx.Node] = set()

    def compute(site: Site) -> Any:
        node = site.node
        if node.op == "get_attr":
            known[node] = getattr(gm, str(node.target))
            if str(node.target) in site.builder.exact:
                unrounded[node] = site.builder.exact[str(node.target)]
                if str(node.target) not in site.builder.scaled:
                    of_rules.add(node)
            layouts.add(node)
        elif _foldable(node, known):
            known[node] = _run(node, known)
            wide = _unrounded(site, known, unrounded)
            of_rule = Trait.LAYOUT in site.traits and all(n in of_rules for n in input_nodes(node))
            if wide is not None:
                unrounded[node] = wide
            if of_rule:
                of_rules.add(node)
            if not _stays(site, layouts, known[node]):
                return _constant(site, known[node], wide, of_rule)
            layouts.add(node)
        return NotImplemented

    return rebuild(gm, compute, compilation)


def _foldable(node: fx.Node, known: dict[fx.Node, Tensor]) -> bool:
    if is_size(node) or not isinstance(node.meta["val"], Tensor) or _symbolic(node.meta["val"]):
        return False
    return all(n in known for n in input_nodes(node))


def _symbolic(value: Tensor) -> bool:
    return any(isinstance(n, torch.SymInt) for n in value.shape)


def _run(node: fx.Node, known: dict[fx.Node, Tensor]) -> Tensor:
    args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: known[n])
    with torch.no_grad():
        result: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return result.detach().clone()


def _constant(site: Site, value: Tensor, wide: Tensor | None, of_rule: bool) -> Value:
    """A folded constant; the graph's float64 copy has it as float64 computes it.

    Args:
        site: the node that is folded.
        value: what it computes.
        wide: the same in float64, where that is something else.
        of_rule: whether it is a constant that a rule computed, laid out anew.
    """
    made = site.builder.constant(f"folded_{site.node.name}", value)
    if wide is not None:
        site.builder.exact[str(made.node.target)] = wide
        if not of_rule:
            site.builder.scaled.add(str(made.node.target))
    return made


def _unrounded(site: Site, known: dict[fx.Node, Tensor], unrounded: dict[fx.Node, Tensor]) -> Tensor | None:
    """The value of a node computed in float64; None where that is what it is anyway."""
    node, sources = site.node, input_nodes(site.node)
    value, moved = known[node], Trait.MOVES in site.traits and not any(n in unrounded for n in sources)
    if value.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not sources or moved:
        return None
    wide = {n: unrounded.get(n, known[n].double() if known[n].is_floating_point() else known[n]) for n in sources}
    args, kwargs = fx.map_arg((widened(node.args), widened(node.kwargs)), lambda n: wide[n])
    with torch.no_grad():
        result: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    if result.dtype is not torch.float64 or torch.equal(result, value.double()):
        return None
    return result.detach().clone()


def _stays(site: Site, layouts: set[fx.Node], value: Tensor) -> bool:
    sources, layout = input_nodes(site.node), Trait.LAYOUT in site.traits
    if site.builder.compilation.beside and value.numel() > _TINY:
        return True
    return layout and value.numel() > _SMALL and len(sources) == 1 and sources[0] in layouts


def fold_batch_norms(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, dict[str, str]]:
    """Fold each batch norm into the convolution or linear map in front of it; else it becomes scale and shift."""
    plans = {node: _producer(node) for node in gm.graph.nodes if is_call(node, BATCH_NORM)}
    folded = {producer: norm for norm, producer in plans.items() if producer is not None}

    def into_product(site: Site) -> Any:
        node = site.node
        if node in folded:
            return _scaled_product(site, gm, folded[node])
        if node in plans:
            x = site.env[node_argument(node, 0)]
            return (x if plans[node] is not None else _scale_and_shift(site, gm, x),)
        if is_call(node, GETITEM) and node.args[0] in plans:
            return site.env[node_argument(node, 0)][0]
        return NotImplemented

    between = {node_argument(norm, 0) for norm in folded.values()}  # a reshape, where it is not the product itself
    merged = {norm.name: producer.name for producer, norm in folded.items()}
    return rebuild(gm, into_product, compilation, {*folded, *between}), merged


def _producer(norm: fx.Node) -> fx.Node | None:
    """The convolution or linear map whose output is the batch norm's input alone, if there is one."""
    source = node_argument(norm, 0)
    if is_call(source, aten.reshape.default) and len(source.users) == 1:
        inner = node_argument(source, 0)
        same = source.meta["val"].ndim == 2 and inner.meta["val"].shape[-1] == source.meta["val"].shape[-1]
        source = inner if same and is_call(inner, aten.linear.default) else source
    if not is_call(source, aten.convolution.default, aten.linear.default) or len(source.users) != 1:
        return None
    if source.target is aten.linear.default and norm.meta["val"][0].ndim != 2:
        return None
    arguments = schema_arguments(source)
    constants = all(a is None or (isinstance(a, fx.Node) and a.op == "get_attr") for a in arguments[1:3])
    return source if constants and not (source.target is aten.convolution.default and arguments[6]) else None


def _statistics(gm: fx.GraphModule, norm: fx.Node) -> tuple[Tensor, Tensor]:
    """(scale, shift) of a batch norm, computed in float64."""
    _, weight, bias, mean, variance, _, eps = schema_arguments(norm)

    def read(node: Any, default: float) -> Tensor:
        if node is None:
            return torch.full_like(read(mean, 0.0), default)
        tensor: Tensor = getattr(gm, str(node.target))
        return tensor.detach().double()

    scale = read(weight, 1.0) * torch.rsqrt(read(variance, 1.0) + eps)
    return scale, read(bias, 0.0) - read(mean, 0.0) * scale


def _scaled_product(site: Site, gm: fx.GraphModule, norm: fx.Node) -> Any:
    scale, shift = _statistics(gm, norm)
    x, weight, bias, *rest = schema_arguments(site.node)
    old: Tensor = getattr(gm, str(weight.target))
    held = torch.zeros_like(shift) if bias is None else getattr(gm, str(bias.target)).detach().double()
    new_weight = (old.detach().double() * scale.reshape([-1] + [1] * (old.ndim - 1))).to(old.dtype)
    new_bias = (held * scale + shift).to(old.dtype)
    if site.builder.compilation.beside:  # the weight stays the file's own, and its scale is folded in when it is loaded
        factor = site.builder.constant(
            f"{weight.target}_scale", scale.to(old.dtype).reshape([-1] + [1] * (old.ndim - 1))
        )
        shifted = site.builder.constant(f"{weight.target}_folded_bias", new_bias)
        return site.builder.call(site.node.target, (site.env[x], site.env[weight] * factor, shifted, *rest), {})
    constants = (
        site.builder.constant(f"{weight.target}_folded", new_weight),
        site.builder.constant(f"{weight.target}_folded_bias", new_bias),
    )
    return site.builder.call(site.node.target, (site.env[x], *constants, *rest), {})


def _scale_and_shift(site: Site, gm: fx.GraphModule, x: Any) -> Any:
    """Of pictures a convolution of one weight a channel, which runtimes do in the layout of its neighbours."""
    builder, name = site.builder, site.node.name
    scale, shift = _statistics(gm, site.node)
    picture = x.ndim == 4
    shape = [-1] + [1] * (x.ndim - 1 if picture else x.ndim - 2)
    factor = builder.constant(f"{name}_scale", scale.to(x.dtype).reshape(shape))
    if picture:
        offset = builder.constant(f"{name}_shift", shift.to(x.dtype))
        one, none, groups = [1, 1], [0, 0], len(scale)
        return aten.convolution.default(x, factor, offset, one, none, one, False, none, groups)
    offset = builder.constant(f"{name}_shift", shift.to(x.dtype).reshape(shape))
    return x * factor + offset
