"""VJP rules derived from torch's autograd, for operators that have none of their own.

Only asked for operators whose exact derivative is kept; what comes out must be forward operators.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload
from torch.export import default_decompositions
from torch.fx.experimental.proxy_tensor import make_fx

from fxpullback.contract.errors import DifferentiateError
from fxpullback.graph.alone import alone
from fxpullback.graph.builder import Builder
from fxpullback.graph.canonical import takes_gradient
from fxpullback.graph.ir import GETITEM, aten, is_size, schema_arguments, where
from fxpullback.graph.value import Value, leaves, map_tree
from fxpullback.vjp.rule import ABSENT, ZERO


def derive_vjp(builder: Builder, node: fx.Node, ct: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Cotangents of a node's tensor arguments, traced from autograd's own formula for that one operator.

    Args:
        builder: where the nodes are appended.
        node: the operator instance.
        ct: cotangent of its output, a Value; for several outputs a tuple, `ABSENT` where none arrived.
        arguments: its arguments in schema order, Values and plain values.

    Returns:
        One cotangent for each tensor argument, a list for an argument that is a list of tensors, `ZERO` for what holds
        no floating point.

    Raises:
        DifferentiateError: autograd has no formula for the operator, or the formula is no forward operator.
    """
    operands = [a for a in leaves(arguments) if isinstance(a, Value)]
    cts = [c for c in leaves(ct) if c is not ABSENT]
    arriving = [i for i, c in enumerate(ct) if c is not ABSENT] if isinstance(ct, tuple) else None
    floats = [v.dtype.is_floating_point for v in operands]

    def adjoint(cotangents: list[Tensor], tensors: list[Tensor]) -> Any:
        def call(*primals: Tensor) -> Any:
            moved = iter(primals)
            given = iter([next(moved) if moves else t for t, moves in zip(tensors, floats, strict=True)])
            filled = map_tree(list(arguments), lambda a: next(given) if isinstance(a, Value) else a)
            result = call_in_schema_order(node.target, filled)
            return (result,) if arriving is None else tuple(result[i] for i in arriving)

        moving = [t for t, moves in zip(tensors, floats, strict=True) if moves]
        return torch.func.vjp(call, *moving)[1](tuple(cotangents))

    try:
        with alone(), builder.fake_mode:
            # Copies, as values of one shape share their fake value, and a trace tells its inputs apart by identity.
            fakes = [[v.fake.clone() for v in values] for values in (cts, operands)]
            traced = make_fx(torch.func.functionalize(adjoint), decomposition_table=_forward_forms())(*fakes)
    except Exception as error:
        raise DifferentiateError(
            f"no VJP rule for {where(node)}, and none can be derived from autograd: {error}. "
            "Add a VJP rule: docs/adding-a-rule.md."
        ) from error
    found = iter(_inline(builder, node, traced, [*cts, *operands]))

    def cotangent(argument: Any) -> Any:
        return next(found) if isinstance(argument, Value) and argument.dtype.is_floating_point else ZERO

    return [map_tree(argument, cotangent) for argument in tensors_of(node.target, arguments)]


def is_derivable(node: fx.Node) -> bool:
    """Whether `derive_vjp` makes a rule for an operator of a graph, the cotangents of all its outputs arriving."""
    assert node.graph.owning_module is not None
    builder = Builder(node.graph.owning_module)
    given: dict[fx.Node, Any] = {n: builder.placeholder(n.name, n.meta["val"]) for n in node.all_input_nodes}
    arguments = fx.map_arg(schema_arguments(node), lambda n: given[n])
    made = node.meta["val"]
    cotangents = tuple(
        builder.placeholder("cotangent", val) if val.dtype.is_floating_point else ABSENT for val in leaves(made)
    )
    try:
        derive_vjp(builder, node, cotangents if isinstance(made, tuple | list) else cotangents[0], arguments)
    except DifferentiateError:
        return False
    return True


@functools.cache
def _forward_forms() -> dict[Any, Any]:
    """Derivatives of autograd's own that torch can write in forward operators."""
    return {op: form for op, form in default_decompositions().items() if takes_gradient(op)}


def tensors_of(target: Any, arguments: Sequence[Any]) -> list[Any]:
    """Of a call's arguments in schema order those that are tensors, None in place of one, or lists of tensors."""
    types = [str(argument.type) for argument in target._schema.arguments]
    pairs = zip(types, arguments, strict=True)
    return [value for kind, value in pairs if "Tensor" in kind and not isinstance(value, int | float)]


def call_in_schema_order(target: Any, arguments: Sequence[Any]) -> Any:
    """Call an operator with all arguments of its schema, those behind the star by name."""
    named = [argument.name if argument.kwarg_only else None for argument in target._schema.arguments]
    pairs = list(zip(named, arguments, strict=True))
    keywords = {name: value for name, value in pairs if name is not None}
    return target(*[value for name, value in pairs if name is None], **keywords)


_CONSTANT_HERE = {aten.detach.default, aten.alias.default}
"""What autograd puts around values it keeps: no derivative is taken of an adjoint, so there is nothing to stop."""


def _inline(builder: Builder, origin: fx.Node, traced: fx.GraphModule, values: list[Value]) -> list[Any]:
    """Append the traced graph in canonical spelling; returns what stands for its outputs."""
    env: dict[fx.Node, Any] = {}
    inputs = iter(values)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            env[node] = next(inputs)
        elif node.op == "output":
            return [env[n] for n in node.args[0]]
        elif node.op == "get_attr":
            env[node] = builder.constant("derived", getattr(traced, str(node.target)))
        elif node.target is GETITEM:
            env[node] = env[node.args[0]][node.args[1]]
        elif node.target in _CONSTANT_HERE:
            env[node] = env[node.args[0]]
        else:
            if not isinstance(node.target, OpOverload) and not is_size(node):
                raise DifferentiateError(
                    f"no VJP rule for {where(origin)}, and autograd's own computes with the size of the batch. Add a "
                    "VJP rule: docs/adding-a-rule.md."
                )
            if isinstance(node.target, OpOverload) and takes_gradient(node.target):
                raise DifferentiateError(
                    f"no VJP rule for {where(origin)}, and autograd's own ends in {node.target}, which is no forward "
                    "operator. Add a VJP rule: docs/adding-a-rule.md."
                )
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
            env[node] = builder.call(node.target, args, kwargs)
    raise AssertionError("a traced graph ends in an output")
