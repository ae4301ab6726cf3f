"""Numbers that values are multiplied by, carried along to where they cost nothing.

A temperature, the half of Phi and the scale of an attention are each a pass over a whole feature map. A convolution or
a linear map takes such a number into its weight, and between two of them most operators let it through: `relu(a x)` is
`a relu(x)`, a sum of two values with one factor has that factor. So every value of the graph is held without its
factor; what needs the value itself gets it multiplied out. And a gate that wants `z / (T sqrt 2)` says so beforehand:
the weights in front of `z` are scaled to make just that.

Weights are scaled by an expression of the model's own, which a runtime computes when it loads the file; the file holds
them once and as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from fxpullback.graph.compilation import Compilation
from fxpullback.graph.ir import arg, aten, depends_on, input_nodes, is_float_tensor, is_size, placeholders
from fxpullback.graph.module import Graph
from fxpullback.graph.operators import OPERATORS, OperatorTable
from fxpullback.graph.rebuild import Carried, Site, rebuild, same
from fxpullback.lowering.carried import SMALL, Call, Carrier, extent, number_of

MOST_PENDING = 16.0  # a factor larger than this, or smaller than its inverse, is taken in by the next weight
MOST_HELD = 1e6  # a factor larger than this, or smaller than its inverse, is multiplied out: products of such overflow
FARTHEST = 1e4  # a gate that wants a factor larger than this, or smaller than its inverse, gets a product of its own
FEWER = 16  # a value so many times smaller than what it makes is multiplied out


def carry_factors(gm: fx.GraphModule, compilation: Compilation | None = None) -> tuple[Graph, int]:
    """Take the factors of values into weights, as far as they can be carried to one.

    Before: y = convolution(relu(x / 0.6), w)
    After:  y = convolution(relu(x), w * (1 / 0.6))

    Args:
        gm: plain forward operators.
        compilation: what the stages of one compilation share.

    Returns:
        The equivalent graph, and how many weights took a factor in.
    """
    operators = OPERATORS if compilation is None else compilation.operators
    carrier = Carrier(gm, _wishes(gm, operators))

    def carry(site: Site) -> Any:
        handler = _handler(site.node, operators)
        if handler is None or site.node not in carrier.variable or not is_float_tensor(site.node):
            return NotImplemented
        made = handler(Call(carrier, site))
        plain = isinstance(made, Carried) and (site.node in carrier.results or not _is_moderate(made.factor))
        return made.whole(site.made) if plain else made

    return rebuild(gm, carry, compilation), carrier.taken


def _is_moderate(factor: float) -> bool:
    """Whether a value without its factor is about as large as with it: what is carried further only grows."""
    return 1 / MOST_HELD <= abs(factor) <= MOST_HELD


def _scaled(call: Call) -> Any:
    """A product with a number is that number carried; a product or quotient of tensors has that of its factors."""
    number = number_of(call.node)
    operands: Any = call.node.args[:2]
    a = operands[0]
    if number is not None:
        if not call.varies(a):
            return NotImplemented
        held = call.held(a)
        return Carried(held.value, held.factor * number)
    if len(operands) < 2 or call.node.kwargs or not all(isinstance(n, fx.Node) for n in operands):
        return NotImplemented
    factor, values = 1.0, {}
    for n, power in zip(operands, (1, 1 if call.node.target is aten.mul.Tensor else -1), strict=True):
        if call.varies(n) and extent(n) * FEWER > extent(call.node):
            held = call.held(n)
            factor, values[n] = factor * held.factor**power, held.value
        else:
            values[n] = call.plain(n)
    return Carried(call.again(values), factor)


def _sum(call: Call) -> Any:
    """A sum of values with one factor has that factor; a number or a constant beside them is divided by it."""
    a, b, *rest = call.arguments()
    if any(r != 1 for r in rest) or not call.varies(a) or isinstance(b, bool):
        return NotImplemented
    if isinstance(b, int | float):
        held = call.held(a)
        return Carried(call.builder.call(call.node.target, (held.value, b / held.factor), {}), held.factor)
    if not isinstance(b, fx.Node) or is_size(b) or not is_float_tensor(b):
        return NotImplemented
    if not call.varies(b):
        held = call.held(a)
        if extent(b) > SMALL:
            return NotImplemented
        return Carried(call.again({a: held.value, b: call.constant(b, 1 / held.factor)}), held.factor)
    first, second = call.held(a), call.held(b)
    if same(first.factor, -second.factor):
        opposite = aten.sub.Tensor if call.node.target is aten.add.Tensor else aten.add.Tensor
        return Carried(call.builder.call(opposite, (first.value, second.value), {}), first.factor)
    factor = _common(call, [a, b])
    return Carried(call.again({n: call.plain(n, factor) for n in (a, b)}), factor)


def _common(call: Call, operands: list[fx.Node]) -> float:
    """The factor that costs least to give to all operands: the wished one, else that of the largest."""
    factors = [call.held(n).factor for n in operands]
    if all(same(f, factors[0]) for f in factors):
        return factors[0]
    wish = call.carrier.wishes.get(call.node)
    if wish is not None and any(same(f, wish) for f in factors):
        return wish
    largest = max(map(extent, operands))
    kept = [f for f, n in zip(factors, operands, strict=True) if extent(n) == largest]
    return 1.0 if any(same(f, 1.0) for f in kept) else kept[0]


def _joined(call: Call) -> Any:
    tensors = call.arguments()[0]
    if not all(call.varies(t) for t in tensors):
        return NotImplemented
    factor = _common(call, list(tensors))
    return Carried(call.again({t: call.plain(t, factor) for t in tensors}), factor)


def _through(call: Call) -> Any:
    """Linear and positively homogeneous operators of one argument; one that enlarges it gets it multiplied out."""
    x: Any = call.node.args[0]
    if not call.varies(x) or any(call.varies(n) for n in call.node.args[1:]):
        return NotImplemented
    held = call.held(x)
    if held.factor < 0 and not call.site.traits.linear:
        return NotImplemented
    if extent(x) < extent(call.node):
        if not same(abs(_suiting(call) or 0.0), abs(held.factor)):
            return NotImplemented
        held = Carried(call.plain(x, abs(held.factor)), abs(held.factor))  # its sign, where it costs less
    return Carried(call.again({x: held.value}), held.factor)


def _padded(call: Call) -> Any:
    x, sides, fill = call.arguments()
    if not call.varies(x):
        return NotImplemented
    held = call.held(x)
    sides = fx.map_arg(sides, lambda n: call.env[n])
    return Carried(aten.constant_pad_nd.default(held.value, sides, (fill or 0.0) / held.factor), held.factor)


def _product(call: Call) -> Any:
    """A convolution or linear map takes a factor into its weight, and makes the one that is wished behind it."""
    x, weight, bias = call.arguments()[:3]
    constants = [n for n in (weight, bias) if n is not None]
    if not call.varies(x) or any(not isinstance(n, fx.Node) or n in call.carrier.variable for n in constants):
        return NotImplemented
    held = call.held(x)
    factor = _wanted(call, held.factor)
    values = {x: held.value, weight: call.weight(weight, held.factor / factor)}
    if bias is not None:
        values[bias] = call.constant(bias, 1 / factor)
    return Carried(call.again(values), factor)


def _matmul(call: Call) -> Any:
    """A product with a constant matrix; one of two values gets them as they are."""
    a, b = call.arguments()
    if call.varies(a) == call.varies(b):
        return NotImplemented
    x, weight = (a, b) if call.varies(a) else (b, a)
    held = call.held(x)
    factor = _wanted(call, held.factor)
    return Carried(call.again({x: held.value, weight: call.weight(weight, held.factor / factor)}), factor)


def _wanted(call: Call, natural: float) -> float:
    """The factor to be left behind a product: the wished one, one that suits what reads it, or what came in."""
    wish = call.carrier.wishes.get(call.node)
    if wish is None:
        wish = _suiting(call)
    if wish is None:
        wish = natural if 1 / MOST_PENDING <= abs(natural) <= MOST_PENDING else 1.0
    return wish


def _suiting(call: Call) -> float | None:
    """The factor of what a value is added to or joined with; one, if it is read by what wants it as it is."""
    node = call.node
    while True:
        if node in call.carrier.results:
            return 1.0
        for user in node.users:
            if user.target in (aten.add.Tensor, aten.sub.Tensor, aten.cat.default):
                others = [n for n in input_nodes(user) if n is not node and n in call.env and call.varies(n)]
                if others:
                    return call.held(max(others, key=extent)).factor
            elif _handler(user, call.site.operators) is None:
                return 1.0
        users = list(node.users)
        if len(users) != 1 or _handler(users[0], call.site.operators) not in (_through, _padded):
            return None
        node = users[0]


def _normal_cdf(call: Call) -> Any:
    """Phi(z) = (1 + erf(z / sqrt 2)) / 2, the half carried."""
    x = arg(call.node, 0)
    return Carried(_one_plus_erf(call, x), 0.5) if call.varies(x) else NotImplemented


def _one_plus_erf(call: Call, x: Any) -> Any:
    return torch.erf(call.plain(x, math.sqrt(2))) + 1


def _silu(call: Call) -> Any:
    """z sigma(z), z = a v, is a v sigma(a v)."""
    x = arg(call.node, 0)
    if not call.varies(x) or same(call.held(x).factor, 1.0):
        return NotImplemented
    held = call.held(x)
    return Carried(held.value * torch.sigmoid(held.value * held.factor), held.factor)


def _gelu(call: Call) -> Any:
    """z Phi(z), where the gate needs that Phi too; else the operator as it is."""
    x, approximate = call.arguments()
    if not call.varies(x) or approximate != "none" or not _read_by_phi(x):
        return NotImplemented
    held = call.held(x)
    return Carried(held.value * _one_plus_erf(call, x), held.factor * 0.5)


def _read_by_phi(x: fx.Node) -> bool:
    for user in x.users:
        if user.target is aten.special_ndtr.default or (number_of(user) == 1 and _read_by_phi(user)):
            return True
    return False


def _clipped(call: Call) -> Any:
    """min(max(z, 0), c) is c times z / c clipped to [0, 1]."""
    x, low, high = call.arguments()
    if not call.varies(x) or low != 0 or high <= 0 or call.held(x).factor < 0:
        return NotImplemented
    held = call.held(x)
    inside = held.value if same(held.factor, high) else held.value * (held.factor / high)
    return Carried(call.builder.call(aten.hardtanh.default, (inside, 0.0, 1.0), {}), high)


def _hard_sigmoid(call: Call) -> Any:
    """Its factor stays in front of it: the operator of the exported file has a slope of its own."""
    x = arg(call.node, 0)
    if not call.varies(x) or same(call.held(x).factor, 1.0):
        return NotImplemented
    held = call.held(x)
    return call.builder.call(call.node.target, (held.value * held.factor,), {})


HANDLERS: dict[Any, Callable[[Call], Any]] = {
    **dict.fromkeys([aten.mul.Tensor, aten.div.Tensor, aten.neg.default], _scaled),
    **dict.fromkeys([aten.add.Tensor, aten.sub.Tensor], _sum),
    **dict.fromkeys([aten.convolution.default, aten.linear.default], _product),
    **dict.fromkeys([aten.matmul.default, aten.mm.default], _matmul),
    aten.cat.default: _joined,
    aten.constant_pad_nd.default: _padded,
    aten.special_ndtr.default: _normal_cdf,
    aten.silu.default: _silu,
    aten.gelu.default: _gelu,
    aten.hardtanh.default: _clipped,
    aten.hardsigmoid.default: _hard_sigmoid,
}
"""What lets factors through in a way of its own, by operator."""


def _handler(node: fx.Node, operators: OperatorTable) -> Callable[[Call], Any] | None:
    """What lets factors through a node; what has none gets its arguments multiplied out."""
    own = HANDLERS.get(node.target)
    return own or (_through if operators.at(node).lets_factors_through else None)


_WANTED = {aten.special_ndtr.default: math.sqrt(2), aten.sigmoid.default: 1.0, aten.tanh.default: 1.0}


def _wishes(gm: fx.GraphModule, operators: OperatorTable) -> dict[fx.Node, float]:
    """The factor each value had best have: the one its gate divides by, and what leads there."""
    wishes: dict[fx.Node, float] = {}
    variable = depends_on(gm.graph, placeholders(gm.graph))
    for node in gm.graph.nodes:
        if node.target in _WANTED:
            wish, inner = _WANTED[node.target], arg(node, 0)
            while (number := number_of(inner)) is not None and isinstance(inner.args[0], fx.Node):
                wish, inner = wish / number, inner.args[0]
            if 1 / FARTHEST <= wish <= FARTHEST:
                wishes.setdefault(inner, wish)
    for node in reversed(list(gm.graph.nodes)):
        if node not in wishes or node.op != "call_function":
            continue
        number = number_of(node)
        if number is not None:
            leading, wish = [arg(node, 0)], wishes[node] / number
        elif _handler(node, operators) in (_through, _sum, _joined, _padded):
            leading, wish = input_nodes(node), wishes[node]
        else:
            continue
        for n in leading:
            if n in variable and is_float_tensor(n) and wish > 0:
                wishes.setdefault(n, wish)
    return wishes
