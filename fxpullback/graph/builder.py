"""Write graph nodes by running torch code: rules are torch functions, this turns a call of one into nodes.

A `Builder` appends nodes to a new graph. Every call on its `Value`s is run once on fake tensors, which gives shape and
type. Sizes are plain (symbolic) integers; they become nodes only where an operator takes them as an argument.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses import FakeTensor

from fxpullback.contract.signature import Signature
from fxpullback.graph.alone import LOCK
from fxpullback.graph.compilation import Compilation
from fxpullback.graph.expressions import computed
from fxpullback.graph.ir import (
    GETITEM,
    ORIGIN,
    WHOLE,
    arg,
    aten,
    fake_mode_of,
    is_size,
)
from fxpullback.graph.module import Graph, signature_of
from fxpullback.graph.shapes import is_free, stated_shape
from fxpullback.graph.spellings import respell
from fxpullback.graph.value import Value, map_tree


def _signature(tree: Any) -> Any:
    """What the shape of a result depends on, as a key."""
    if isinstance(tree, tuple | list):
        return tuple(_signature(t) for t in tree)
    if isinstance(tree, dict):
        return tuple((k, _signature(v)) for k, v in sorted(tree.items()))
    if isinstance(tree, Tensor):
        return tree.dtype, tree.device, _signature(tuple(tree.shape)), _signature(tree.stride())
    return tree.node.expr if isinstance(tree, torch.SymInt) else (type(tree), tree)


class Builder:
    """Appends nodes to a graph of its own; one per compiler stage.

    Args:
        source: graph module whose constants and fake tensors the new graph shares.
        compilation: what the stages of one compilation share; a new one where a stage runs by itself.

    Attributes:
        exact: constants in float64, by name, as in `Graph.exact`.
        scaled: names of those that are made of constants of the model.
    """

    def __init__(self, source: fx.GraphModule, compilation: Compilation | None = None) -> None:
        self.source = source
        self.graph = fx.Graph()
        self.fake_mode = fake_mode_of(source)
        self.constants: dict[str, Tensor] = {}
        self.meta: dict[str, Any] = {}
        self.prefix: str | None = None
        self._sizes: dict[Any, fx.Node] = {}
        self._attributes: dict[str, Value] = {}
        self._inputs: list[fx.Node] = []
        self._lifted: dict[Any, Value] = {}
        self.compilation = compilation or Compilation()
        self.exact: dict[str, Tensor] = dict(source.exact) if isinstance(source, Graph) else {}
        self.scaled: set[str] = set(source.scaled) if isinstance(source, Graph) else set()

    @contextmanager
    def provenance(self, prefix: str | None = None, **meta: Any) -> Iterator[None]:
        """Nodes made inside are named after `prefix` and carry `meta`, but for whose whole value a node is."""
        before = self.prefix, self.meta
        kept = {key: value for key, value in meta.items() if key not in WHOLE}
        self.prefix, self.meta = prefix or self.prefix, {**self.meta, **kept}
        try:
            yield
        finally:
            self.prefix, self.meta = before

    def placeholder(self, name: str, val: Any) -> Value:
        """Add an input holding the fake value `val`."""
        with self.graph.inserting_after(self._inputs[-1]) if self._inputs else nullcontext():
            node = self.graph.placeholder(name)
        node.meta["val"] = val
        self._inputs.append(node)
        return Value(self, node)

    def attribute(self, name: str, val: Any = None) -> Value:
        """The constant called `name`, read by one `get_attr` node however often it is asked for."""
        if name not in self._attributes:
            node = self.graph.get_attr(name)
            tensor = self.constants[name] if name in self.constants else getattr(self.source, name)
            node.meta["val"] = val if val is not None else self.fake_mode.from_tensor(tensor, static_shapes=True)
            self._attributes[name] = Value(self, node)
        return self._attributes[name]

    def constant(self, name: str, tensor: Tensor) -> Value:
        """Add a constant of the graph under a name that begins with `name` and that no stage has used before."""
        count = self.compilation.counts.get(name, 0)
        free = f"{name}_{count}" if count else name
        while free in self.compilation.names or free in self.exact or hasattr(self.source, free):
            count += 1
            free = f"{name}_{count}"
        self.compilation.names.add(free)
        self.compilation.counts[name] = count
        self.constants[free] = tensor
        return self.attribute(free)

    def call_named(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `aten.<name>`, in the overload that torch would choose for these arguments."""
        if name == "to" or name == "reshape" or name == "flatten":
            name, args, kwargs = _canonical(name, args, kwargs)
        packet = getattr(aten, name)
        hints = map_tree((args, kwargs), _hint)
        overload = torch._C._jit_resolve_packet(packet._qualified_op_name, *hints[0], **hints[1])
        return self.call(getattr(packet, overload or "default"), args, kwargs)

    def call(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Append the call of `target` in canonical spelling; returns its Value, or one for each of several outputs."""
        args, kwargs = map_tree((tuple(args), dict(kwargs)), self._lift)
        made = respell(self, target, args, kwargs)
        if made is not NotImplemented:
            return made
        val = self._shape_of(target, args, kwargs)
        if isinstance(val, torch.SymInt | int | bool):
            return val
        return self._append(target, args, kwargs, val)

    def _shape_of(self, target: Any, args: Any, kwargs: Any) -> Any:
        """The fake value of a call; calls of one operator on the same shapes are run once a compilation."""
        fakes = map_tree((args, kwargs), lambda v: v.node.meta["val"] if isinstance(v, Value) else v)
        key = (target, _signature(fakes))
        shapes = self.compilation.shapes
        if key not in shapes:
            shapes[key] = self._run(target, *fakes)
        return shapes[key]

    def _run(self, target: Any, args: Any, kwargs: Any) -> Any:
        if self.compilation.watch is not None:
            stated = stated_shape(target, args)
            if stated is not None:
                return stated
        with LOCK, self.fake_mode, enable_python_dispatcher(), torch.no_grad():
            return target(*args, **kwargs)

    def _append(self, target: Any, args: Any, kwargs: Any, val: Any) -> Any:
        if self.compilation.watch is not None:
            self.compilation.watch.check(str(self.meta.get(ORIGIN) or self.prefix))
        node_args, node_kwargs = map_tree((_settle_sizes(target, args), kwargs), self._argument)
        return self._add(target, node_args, node_kwargs, val, self.prefix, self.meta)

    def _add(self, target: Any, args: Any, kwargs: Any, val: Any, prefix: str | None, meta: dict[str, Any]) -> Any:
        """Append one node as it stands; returns what `call` does."""
        node = self.graph.create_node("call_function", target, (), {}, prefix)
        node.args = args  # set afterwards: given to `create_node`, torch walks through them in search of bare sizes
        if kwargs:
            node.kwargs = kwargs
        node.meta = {**meta, "val": val}
        if isinstance(val, tuple | list):
            return tuple(self._item(node, i, v, meta) for i, v in enumerate(val))
        return Value(self, node)

    def _lift(self, value: Any) -> Any:
        """A tensor that a rule made becomes a constant of the graph; the same tensor twice is one constant."""
        if not isinstance(value, Tensor) or isinstance(value, FakeTensor):
            return value
        array = value.detach().cpu().contiguous()
        key = (str(array.dtype), tuple(array.shape), array.reshape(-1).view(torch.uint8).numpy().tobytes())
        if key not in self._lifted:
            self._lifted[key] = self.constant("constant", value.detach())
        return self._lifted[key]

    def exact_constant(self, exact: Tensor, dtype: torch.dtype, device: torch.device) -> Value:
        """A float64 tensor as a constant in another type; the graph's float64 copy has it unrounded."""
        lifted: Value = self._lift(exact.to(device=device, dtype=dtype))
        self.exact[str(lifted.node.target)] = exact
        return lifted

    def _item(self, node: fx.Node, index: int, val: Any, meta: dict[str, Any]) -> Value:
        item = self.graph.create_node("call_function", GETITEM, (node, index), {}, f"{node.name}_{index}")
        item.meta = {**meta, "val": val}
        return Value(self, item)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, Value):
            return value.node
        if isinstance(value, torch.SymInt):
            return self.size(value)
        return value

    def size(self, value: torch.SymInt) -> Any:
        """Node (or plain integer) that computes a symbolic size from the sizes of the graph's inputs."""
        return computed(value.node.expr, self._sizes, self._combine)

    def _symbol(self, symbol: Any) -> fx.Node:
        for source in self._inputs:
            for dim, size in enumerate(source.meta["val"].shape):
                if not is_free(size) or symbol not in size.node.expr.free_symbols:
                    continue
                node = self._size_node(aten.sym_size.int, (source, dim), size)
                multiple = size.node.expr / symbol
                return node if multiple == 1 else self._size_node(operator.floordiv, (node, int(multiple)), None)
        raise AssertionError(f"size {symbol} is not the size of any input")

    def _combine(self, expr: Any, parts: list[Any]) -> fx.Node:
        node = self._symbol(expr) if expr.is_Symbol else self._operation(expr, parts)
        self._sizes[expr] = node
        return node

    def _operation(self, expr: Any, parts: list[Any]) -> fx.Node:
        function = _SIZE_FUNCTIONS.get(type(expr).__name__)
        if function is None:
            raise AssertionError(f"no size operator for {type(expr).__name__} in {expr}")
        if len(parts) == 1:
            return self._size_node(function, (parts[0],), None)
        total = parts[0]
        for part in parts[1:]:
            total = self._size_node(function, (total, part), None)
        return cast(fx.Node, total)

    def _size_node(self, target: Any, args: tuple[Any, ...], val: Any) -> fx.Node:
        node = self.graph.create_node("call_function", target, args, {}, "batch" if val is not None else "size")
        vals = [a.meta["val"] if isinstance(a, fx.Node) else a for a in args]
        node.meta["val"] = val if val is not None else target(*vals)
        return node

    def copy(self, node: fx.Node, env: Mapping[fx.Node, Any], name: str | None = None, **meta: Any) -> Any:
        """Append a copy of another graph's node, its arguments looked up in `env`; returns what `call` does.

        The arguments in `env` must have the shapes and types of the originals: the fake value is taken over.
        """
        if is_size(node):
            return node.meta["val"]
        if node.op == "get_attr":
            return self.attribute(str(node.target), node.meta["val"])
        own = {k: v for k, v in node.meta.items() if k not in _NOT_COPIED}
        if node.target is GETITEM:
            item = env[arg(node, 0)][arg(node, 1)]
            if item.node.target is GETITEM:
                item.node.meta.update({ORIGIN: node.name, **own, **meta})
            return item
        kept = {ORIGIN: node.name, **own, **{k: v for k, v in meta.items() if k not in WHOLE}}
        if self.compilation.watch is None and all(isinstance(env[n], Value) for n in node.all_input_nodes):
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n].node)
            return self._add(node.target, args, kwargs, node.meta["val"], name or node.name, {**self.meta, **kept})
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
        with self.provenance(name or node.name, **kept):
            return self._append(node.target, args, kwargs, node.meta["val"])

    def finish(self, results: tuple[Value, ...], signature: Signature | None = None) -> Graph:
        """Close the graph with its outputs and make it a module holding just the constants it reads.

        Args:
            results: the outputs.
            signature: what the graph takes and returns; by default what its source does.
        """
        self.graph.output(tuple(r.node for r in results))
        root = torch.nn.Module()
        for node in self.graph.nodes:
            if node.op != "get_attr":
                continue
            name = str(node.target)
            tensor = self.constants[name] if name in self.constants else getattr(self.source, name)
            if isinstance(tensor, torch.nn.Parameter):
                root.register_parameter(name, tensor)
            else:
                root.register_buffer(name, tensor)
        return Graph(root, self.graph, signature or signature_of(self.source), self.exact, self.scaled)


_NOT_COPIED = frozenset({"val", *WHOLE})

_SIZE_FUNCTIONS: dict[str, Any] = {
    "Add": operator.add,
    "Mul": operator.mul,
    "FloorDiv": operator.floordiv,
    "CleanDiv": operator.floordiv,
    "Mod": operator.mod,
    "PythonMod": operator.mod,
    "Pow": operator.pow,
    "Max": torch.sym_max,
    "Min": torch.sym_min,
    "IntTrueDiv": operator.truediv,
    "FloatTrueDiv": operator.truediv,
    "ToFloat": torch.sym_float,
    "TruncToInt": math.trunc,
    "FloorToInt": math.floor,
    "CeilToInt": math.ceil,
}


def _hint(value: Any) -> Any:
    """What overload resolution needs to see: tensors as they are, symbolic sizes as integers."""
    if isinstance(value, Value):
        return value.node.meta["val"]
    return 2 if isinstance(value, torch.SymInt) else value


def _canonical(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    """Spellings the IR does not keep: `to(dtype)`, `reshape`, `flatten`."""
    if name == "to":
        target = args[1]
        return "_to_copy", args[:1], {"dtype": target.dtype if isinstance(target, Value | Tensor) else target}
    x = args[0]
    if name == "flatten":
        start, end = [*args[1:], 0, -1][:2] if len(args) < 3 else args[1:]
        start, end = start % x.ndim, end % x.ndim
        middle: Any = 1
        for size in x.shape[start : end + 1]:
            middle = middle * size
        return "reshape", (x, [*x.shape[:start], middle, *x.shape[end + 1 :]]), {}
    whole = len(args) == 2 and not isinstance(args[1], int | torch.SymInt)
    return "reshape", (x, list(args[1]) if whole else list(args[1:])), {}


_VIEWS = {aten.view.default, aten.reshape.default, aten._unsafe_view.default}


def _settle_sizes(target: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A view with just one size that is not a constant says -1 there, so that no size need be computed."""
    if target is aten.expand.default:
        return (args[0], _kept_sizes(args[0], args[1]), *args[2:])
    if target not in _VIEWS:
        return args
    sizes = list(args[1])
    symbolic = [i for i, size in enumerate(sizes) if isinstance(size, torch.SymInt)]
    if len(symbolic) == 1 and -1 not in sizes and not any(s == 0 for s in sizes if isinstance(s, int)):
        sizes[symbolic[0]] = -1
    return (args[0], sizes)


def _kept_sizes(x: Value, sizes: Any) -> list[Any]:
    """Sizes for `expand`, -1 where the tensor has that symbolic size already."""
    own: list[Any] = [None] * (len(sizes) - x.ndim) + list(x.shape)
    same = [
        isinstance(a, torch.SymInt) and isinstance(b, torch.SymInt) and a.node.expr == b.node.expr
        for a, b in zip(own, sizes, strict=True)
    ]
    return [-1 if keep else size for keep, size in zip(same, sizes, strict=True)]
