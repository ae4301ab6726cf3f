"""VJP rules derived from torch's autograd, for operators that have none of their own.

Only asked for operators whose exact derivative is kept; what comes out must be forward operators.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from fxpullback.contract.errors import DifferentiateError
from fxpullback.graph.builder import Builder
from fxpullback.graph.ir import GETITEM, where
from fxpullback.graph.value import Value


def derive_vjp(builder: Builder, node: fx.Node, ct: Any, arguments: tuple[Any, ...]) -> list[Any]:
    """Cotangents of a node's tensor arguments, traced from autograd's own formula for that one operator.

    Args:
        builder: where the nodes are appended.
        node: the operator instance.
        ct: cotangent of its one output, a Value.
        arguments: its arguments in schema order, Values and plain values.

    Returns:
        One cotangent for each tensor argument.

    Raises:
        DifferentiateError: the operator has several outputs, or autograd's formula is no forward operator.
    """
    if isinstance(ct, tuple):
        raise DifferentiateError(
            f"no VJP rule for {where(node)}, and none can be derived for several outputs. "
            "Add a VJP rule: docs/adding-a-rule.md."
        )
    positions = [i for i, a in enumerate(arguments) if isinstance(a, Value)]
    operands = [arguments[i] for i in positions]

    def adjoint(cotangent: Tensor, *tensors: Tensor) -> Any:
        def call(*primals: Tensor) -> Tensor:
            filled = list(arguments)
            for i, primal in zip(positions, primals, strict=True):
                filled[i] = primal
            return call_in_schema_order(node.target, filled)

        return torch.func.vjp(call, *tensors)[1](cotangent)

    fakes = [v.node.meta["val"] for v in (ct, *operands)]
    try:
        with builder.fake_mode:
            traced = make_fx(adjoint)(*fakes)
    except Exception as error:
        raise DifferentiateError(
            f"no VJP rule for {where(node)}, and none can be derived from autograd: {error}. "
            "Add a VJP rule: docs/adding-a-rule.md."
        ) from error
    return _inline(builder, node, traced, [ct, *operands])


def call_in_schema_order(target: Any, arguments: list[Any]) -> Tensor:
    """Call an operator with all arguments of its schema, those behind the star by name."""
    named = [argument.name if argument.kwarg_only else None for argument in target._schema.arguments]
    pairs = list(zip(named, arguments, strict=True))
    keywords = {name: value for name, value in pairs if name is not None}
    result: Tensor = target(*[value for name, value in pairs if name is None], **keywords)
    return result


def _inline(builder: Builder, origin: fx.Node, traced: fx.GraphModule, values: list[Value]) -> list[Any]:
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
        else:
            if "backward" in str(node.target):
                raise DifferentiateError(
                    f"no VJP rule for {where(origin)}, and autograd's own ends in {node.target}, which is no forward "
                    "operator. Add a VJP rule: docs/adding-a-rule.md."
                )
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: env[n])
            env[node] = args[0] if "detach" in str(node.target) else builder.call(node.target, args, kwargs)
    raise AssertionError("a traced graph ends in an output")
