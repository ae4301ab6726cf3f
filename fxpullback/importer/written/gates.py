"""Gates of torch that have no operator of ONNX in the file's version, as its exporters write them."""

from __future__ import annotations

from onnx import NodeProto

from fxpullback.importer.written.graph import OURS, Graph, in_module, replaced, said, spelled


def silu(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`x * sigmoid(x)` as `Swish`."""
    found = _product(graph, last, "Sigmoid")
    if found is None or found[1].input[0] != found[0] or not spelled(last, "aten.silu"):
        return None
    return replaced(last, "Swish", [found[0]], last)


def hard_swish(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`x * hardsigmoid(x)`, its slope a sixth, as `HardSwish`."""
    found = _product(graph, last, "HardSigmoid")
    if found is None or found[1].input[0] != found[0] or not spelled(last, "aten.hardswish"):
        return None
    slope, at_zero = said(found[1], "alpha", 0.2), said(found[1], "beta", 0.5)
    return replaced(last, "HardSwish", [found[0]], last) if abs(slope - 1 / 6) < 1e-6 and at_zero == 0.5 else None


def mish(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`x * tanh(softplus(x))` as `Mish`."""
    found = _product(graph, last, "Tanh")
    inner = None if found is None else graph.inner(found[1].input[0], "Softplus")
    if found is None or inner is None or inner.input[0] != found[0] or not spelled(last, "aten.mish"):
        return None
    return replaced(last, "Mish", [found[0]], last)


def _product(graph: Graph, last: NodeProto, kind: str) -> tuple[str, NodeProto] | None:
    """The factor of a product whose other factor is of a kind, and that one."""
    for x, gate in (last.input, last.input[::-1]) if last.op_type == "Mul" else ():
        maker = graph.inner(gate, kind)
        if maker is not None:
            return str(x), maker
    return None


def log_sigmoid(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`log(sigmoid(x))` as one node: its derivative is no quotient of two small numbers."""
    inner = graph.inner(last.input[0], "Sigmoid") if last.op_type == "Log" else None
    if inner is None or not spelled(last, "aten.log_sigmoid"):
        return None
    return replaced(last, "LogSigmoid", [inner.input[0]], last, OURS)


def softplus(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`where(b x > t, x, softplus(b x) / b)` as one node."""
    if last.op_type != "Where" or not spelled(last, "aten.softplus"):
        return None
    test, x, smooth = last.input
    beta = 1.0
    scaled = graph.inner(smooth, "Div")
    if scaled is not None:
        beta, smooth = graph.numbers.get(scaled.input[1], 0.0), scaled.input[0]
    inner, above = graph.inner(smooth, "Softplus"), graph.inner(test, "Greater")
    if inner is None or above is None or inner.input[0] != above.input[0] or beta <= 0:
        return None
    threshold = graph.numbers.get(above.input[1])
    if threshold is None or (inner.input[0] != x if beta == 1.0 else graph.times(inner.input[0], beta) != x):
        return None
    return replaced(last, "Softplus", [x], last, OURS, beta=beta, threshold=threshold)


def threshold(graph: Graph, last: NodeProto) -> NodeProto | None:
    """`where(x <= t, v, x)`, v a number, as one node where it is `torch.nn.Threshold`."""
    if last.op_type != "Where" or not in_module(last, "torch.nn.Threshold"):
        return None
    test = graph.inner(last.input[0], "LessOrEqual")
    if test is None or test.input[0] != last.input[2]:
        return None
    limit, value = graph.numbers.get(test.input[1]), graph.numbers.get(last.input[1])
    if limit is None or value is None:
        return None
    return replaced(last, "Threshold", [last.input[2]], last, OURS, threshold=limit, value=value)


def clamped(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The larger of a value and a number, or the smaller, as `Clip` where it is `torch.clamp`."""
    if last.op_type not in ("Max", "Min") or len(last.input) != 2:
        return None
    found = graph.with_number(last)
    if found is None or not spelled(last, "aten.clamp", "aten.clamp_min", "aten.clamp_max", silent=False):
        return None
    limit = {"min" if last.op_type == "Max" else "max": found[1]}
    return replaced(last, "Clamp", [found[0]], last, OURS, **limit)


def largest(graph: Graph, last: NodeProto) -> NodeProto | None:
    """The largest entry along an axis where torch was asked for its place too: `torch.max(x, axis)`."""
    kinds = {"ReduceMax": "aten.max", "ReduceMin": "aten.min"}
    if last.op_type not in kinds or len(last.input) != 2 or not spelled(last, kinds[last.op_type], silent=False):
        return None
    axes = graph.constants.get(last.input[1])
    if axes is None or axes.size != 1:
        return None
    axis, smallest = int(axes.reshape(-1)[0]), int(last.op_type == "ReduceMin")
    keep = said(last, "keepdims", 1)
    return replaced(last, "Largest", [last.input[0]], last, OURS, axis=axis, keepdims=keep, smallest=smallest)


def hard_shrink(graph: Graph, last: NodeProto) -> NodeProto | None:
    """x outside of a band around zero, zero inside, as `Shrink`."""
    if last.op_type != "Where":
        return None
    test, a, b = last.input
    inside = graph.inner(test, "LessOrEqual")
    if inside is not None and graph.numbers.get(a) == 0.0:
        size = graph.inner(inside.input[0], "Abs")
        width = graph.numbers.get(inside.input[1])
        if size is not None and size.input[0] == b and width is not None:
            return replaced(last, "Shrink", [b], last, lambd=width, bias=0.0)
    outside = graph.inner(test, "Or")
    if outside is None or graph.numbers.get(b) != 0.0:
        return None
    above, below = (_compared(graph, name) for name in outside.input)
    if above is None or below is None or {above[0], below[0]} != {a} or (above[1], below[1]) != ("Greater", "Less"):
        return None
    return replaced(last, "Shrink", [a], last, lambd=above[2], bias=0.0) if above[2] == -below[2] else None


def _compared(graph: Graph, name: str) -> tuple[str, str, float] | None:
    """What a comparison with a number compares, how, and the number; the cast of a truth value is none."""
    cast = graph.inner(name, "Cast")
    made = graph.inner(cast.input[0] if cast is not None else name, "Greater", "Less")
    if made is None or made.input[1] not in graph.numbers:
        return None
    return str(made.input[0]), str(made.op_type), graph.numbers[made.input[1]]


def soft_shrink(graph: Graph, last: NodeProto) -> NodeProto | None:
    """x moved towards zero by a width, zero inside of it, as `Shrink`: a sum of two choices."""
    halves = [graph.inner(name, "Where") for name in last.input] if last.op_type == "Add" else []
    if len(halves) != 2 or any(half is None or graph.numbers.get(half.input[2]) != 0.0 for half in halves):
        return None
    found = []
    for half, kind, move in zip(halves, ("Greater", "Less"), ("Sub", "Add"), strict=True):
        compared = _compared(graph, half.input[0]) if half is not None else None
        moved = graph.inner(half.input[1], move) if half is not None else None
        if compared is None or moved is None or compared[1] != kind or moved.input[0] != compared[0]:
            return None
        found.append((compared[0], abs(compared[2]), graph.numbers.get(moved.input[1])))
    x, width, moved_by = found[0]
    if found[1] != found[0] or moved_by != width:
        return None
    return replaced(last, "Shrink", [x], last, lambd=width, bias=width)
