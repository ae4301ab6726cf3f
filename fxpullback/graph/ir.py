"""The intermediate representation: an fx graph of functional ATen operators and two more primitives.

`stop_gradient(x)` is the identity with no cotangent; `inject(primal, soft)` has the value of `primal` and the
cotangent of `soft` (Forward Gradient Injection, arXiv 2406.00177). Both are ordinary torch operators, so a graph that
holds them runs and differentiates under autograd; both stay opaque until `lower` removes them, because decomposing
them deletes the detach (and with it the soft adjoint) without changing a single forward value.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from fxpullback.graph.module import signature_of

aten = torch.ops.aten

LIBRARY = torch.library.Library("fxpullback", "DEF")
LIBRARY.define("stop_gradient(Tensor x) -> Tensor")
LIBRARY.define("inject(Tensor primal, Tensor soft) -> Tensor")
LIBRARY.define("authored(Tensor primal, Tensor soft, str author) -> Tensor")


def _stop_gradient(x: Tensor) -> Tensor:
    return x.detach()


def _inject(primal: Tensor, soft: Tensor) -> Tensor:
    return primal.detach() + (soft - soft.detach())


LIBRARY.impl("stop_gradient", _stop_gradient, "CompositeImplicitAutograd")
LIBRARY.impl("inject", _inject, "CompositeImplicitAutograd")
LIBRARY.impl("authored", lambda primal, soft, author: _inject(primal, soft), "CompositeImplicitAutograd")

STOP_GRADIENT = torch.ops.fxpullback.stop_gradient.default
INJECT = torch.ops.fxpullback.inject.default
AUTHORED = torch.ops.fxpullback.authored.default  # a backward that the model's author wrote; `rewrite` injects it


def stop_gradient(x: Tensor) -> Tensor:
    """Identity whose adjoint is absent: nothing flows back through it."""
    result: Tensor = STOP_GRADIENT(x)
    return result


def inject(primal: Tensor, soft: Tensor) -> Tensor:
    """Value of `primal`, cotangent of `soft`.

    Args:
        primal: what the unmodified model computes, any shape.
        soft: an expression of the same shape whose adjoint is the soft adjoint.

    Returns:
        `primal.detach() + (soft - soft.detach())`: equal to `primal` bit for bit on ordinary numbers.
    """
    result: Tensor = INJECT(primal, soft)
    return result


def constant_like(exact: Tensor, x: Tensor) -> Tensor:
    """A constant that a rule computed in float64, in the type and on the device of `x`.

    In a graph the float64 value is remembered, so that the graph's float64 copy is not held to a rounded constant.
    """
    lifted = getattr(x, "exact_constant", None)
    result: Tensor = exact.to(device=x.device, dtype=x.dtype) if lifted is None else lifted(exact)
    return result


# Meta keys that fxpullback writes on nodes.
ORIGIN = "fxpullback_origin"  # name of the captured operator a node came of
RULE = "fxpullback_rule"  # name of the rule that emitted it
TRANSPOSES = "fxpullback_transposes"  # name of the node whose cotangent it is
HOLDS = "fxpullback_holds"  # {name of a captured operator: f}: f times the node is that operator's value
COTANGENT_OF = "fxpullback_cotangent_of"  # {name of an operator: f}: f times the node is that operator's cotangent
VALUE_OF = "fxpullback_value_of"  # {name of a captured operator: f}: the same, for values that may be tapped
FILE_VALUE = "fxpullback_file_value"  # {name of a value of an imported file: f}: f times the node is that value
WHOLE = (HOLDS, COTANGENT_OF, VALUE_OF, FILE_VALUE)
"""True of one node alone, so `walk` hands them on and no copy takes them along."""
PART = "fxpullback_part"  # on the value of one of several explained inputs: the name of that input
LAID_OUT = "fxpullback_laid_out"  # on a value that is explained: "embedded", places before features; or "input"
STEP = "fxpullback_step"  # which copy of an unrolled program it belongs to, from 1


def input_nodes(node: fx.Node) -> list[fx.Node]:
    """The nodes among a node's arguments, with repeats, in order."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def arg(node: fx.Node, index: int) -> Any:
    """One argument of a node: a node, a plain value, or a list of them."""
    return node.args[index]


def node_argument(node: fx.Node, index: int) -> fx.Node:
    """One argument of a node, where it is known to be a node."""
    found = node.args[index]
    assert isinstance(found, fx.Node)
    return found


def schema_arguments(node: fx.Node) -> tuple[Any, ...]:
    """All arguments of an ATen call in schema order, defaults filled in."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return tuple(node.args)
    values: list[Any] = list(node.args)
    for argument in node.target._schema.arguments[len(node.args) :]:
        values.append(node.kwargs.get(argument.name, argument.default_value))
    return tuple(values)


def each_axis(value: Any, n: int) -> list[int]:
    """One number for each of `n` axes, where torch lets a single one stand for all of them."""
    values = [value] if isinstance(value, int) else list(value)
    return values * n if len(values) == 1 else values


def placeholders(graph: fx.Graph) -> list[fx.Node]:
    """The graph's inputs, in order."""
    return [node for node in graph.nodes if node.op == "placeholder"]


def explained(graph: fx.Graph) -> fx.Node:
    """The input that is explained: the first. Cotangents reach it alone; all others are constants to every rule."""
    return placeholders(graph)[0]


def extra_inputs(gm: fx.GraphModule) -> list[fx.Node]:
    """The inputs that are passed through, in order."""
    return placeholders(gm.graph)[1 : 1 + len(signature_of(gm).extras)]


def given_inputs(gm: fx.GraphModule) -> list[fx.Node]:
    """What follows the extras: the cotangent, the target, or nothing."""
    return placeholders(gm.graph)[1 + len(signature_of(gm).extras) :]


def outputs(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The graph's outputs, in order."""
    result = arg(graph.output_node(), 0)
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def value(node: fx.Node) -> Any:
    """The fake value of a node: FakeTensor, SymInt, or a tuple of them."""
    return node.meta["val"]


def is_call(node: Any, *targets: Callable[..., Any]) -> TypeGuard[fx.Node]:
    """Whether `node` calls one of `targets` (operator objects, never names)."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def is_float_tensor(node: Any) -> bool:
    """Whether a node holds a floating-point tensor (or a tuple with one in it)."""
    if not isinstance(node, fx.Node):
        return False
    val = node.meta.get("val")
    if isinstance(val, tuple | list):
        return any(isinstance(v, Tensor) and v.is_floating_point() for v in val)
    return isinstance(val, Tensor) and val.is_floating_point()


def calls(graph: fx.Graph) -> Iterator[fx.Node]:
    """The operator instances of a graph, in order."""
    return (node for node in graph.nodes if node.op == "call_function")


def depends_on(graph: fx.Graph, sources: list[fx.Node]) -> set[fx.Node]:
    """Nodes that any of `sources` reaches, the sources included; sizes carry no dependence."""
    reached = set(sources)
    for node in graph.nodes:
        if node.op == "call_function" and any(i in reached for i in input_nodes(node)):
            val = node.meta.get("val")
            if isinstance(val, torch.SymInt | int | bool):
                continue
            reached.add(node)
    return reached


def needed_for(results: Iterable[fx.Node], known: Container[fx.Node] = ()) -> set[fx.Node]:
    """Nodes that `results` are computed of, themselves included; what is known is not, nor what that is computed of."""
    found, waiting = set[fx.Node](), list(results)
    while waiting:
        node = waiting.pop()
        if node not in found and node not in known:
            found.add(node)
            waiting += input_nodes(node)
    return found


def mark_values(graph: fx.Graph) -> None:
    """Have the value of every operator known wherever a later stage puts it."""
    for node in calls(graph):
        node.meta[VALUE_OF] = {node.name: 1.0}


def module_path(node: fx.Node) -> str:
    """Path of the module whose forward made a node, e.g. `blocks.0.mlp.act`; empty for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [entry[0] for entry in stack.values() if isinstance(entry, tuple)]
    path = str(paths[-1]) if paths else ""
    for prefix in ("L['self'].", "L['self']", "_empty_nn_module_stack_from_metadata_hook"):
        path = path.removeprefix(prefix)
    return path.replace("getattr_L__self___", "").strip(".")


def source_line(node: fx.Node) -> str:
    """`file.py:line` of the model's own code that made a node; empty when it is not known."""
    trace = node.meta.get("stack_trace") or ""
    lines = [line.strip() for line in trace.splitlines() if line.strip().startswith('File "')]
    lines = [line for line in lines if "torch/nn/" not in line and "torch/fx/" not in line] or lines
    if not lines:
        return ""
    parts = lines[-1].split(", ")
    return f"{parts[0][6:-1].split('/')[-1]}:{parts[1].removeprefix('line ')}"


def operator_name(target: Any) -> str:
    """A readable name: `aten.relu`, `aten.add.Tensor`, `getitem`."""
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removesuffix(".default")
    return getattr(target, "__name__", str(target))


def place(node: fx.Node) -> str:
    """Where in the model a node comes from: `stages.0.act (model.py:88)`; its own name where no module is known."""
    path, line = module_path(node), source_line(node)
    return (path or f"node {node.name}") + (f" ({line})" if line else "")


def where(node: fx.Node) -> str:
    """`aten.relu at stages.0.act (model.py:88)`, for error messages."""
    return f"{operator_name(node.target) if node.op == 'call_function' else node.name} at {place(node)}"


def attribute(gm: fx.GraphModule, name: str) -> Tensor:
    """The constant a `get_attr` node names."""
    tensor = getattr(gm, name)
    assert isinstance(tensor, Tensor)
    return tensor


def fake_mode_of(gm: fx.GraphModule) -> Any:
    """The FakeTensorMode that the graph's values live in."""
    for node in gm.graph.nodes:
        val = node.meta.get("val")
        if isinstance(val, torch._subclasses.FakeTensor):
            return val.fake_mode
    raise AssertionError("a captured graph holds at least one tensor")


def is_size(node: Any) -> bool:
    """Whether a node computes a size (an integer, symbolic or not) and no tensor."""
    return isinstance(node, fx.Node) and isinstance(node.meta.get("val"), torch.SymInt | int)


GETITEM = operator.getitem
