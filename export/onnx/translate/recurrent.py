"""Recurrent layers, one ONNX node for each layer with both its directions."""

from __future__ import annotations

import torch
from torch._ops import OpOverload

from fxpullback.export.onnx.translate.builder import Builder
from fxpullback.export.onnx.translate.engine import Translator
from fxpullback.export.onnx.translate.values import Value, sizes

aten = torch.ops.aten

_LSTM_ORDER = (0, 3, 1, 2)
_GRU_ORDER = (1, 0, 2)


def _reordered(b: Builder, weight: Value, hidden: int, order: tuple[int, ...]) -> Value:
    """Gates in ONNX's order; torch has input, forget, cell, output, and reset, update, new."""
    gates = b.ops("Split", weight, b.const([hidden] * len(order)), dtypes=[None] * len(order), axis=0)
    return b.concat([gates[i] for i in order], 0)


def _layer(
    b: Builder, op_type: str, x: Value, states: list[Value], params: list[list[Value]], hidden: int, **more: int
) -> tuple[Value, ...]:
    """One layer: sequence first in and out, directions side by side in the features."""
    order = _LSTM_ORDER if op_type == "LSTM" else _GRU_ORDER
    stacked = [
        b.concat([b.unsqueeze(_reordered(b, part, hidden, order), 0) for part in parts], 0)
        for parts in zip(*params, strict=True)
    ]
    inputs, recurrent, *biases = stacked
    bias = b.concat(biases, 1) if biases else None
    outputs = b.ops(
        op_type,
        x,
        inputs,
        recurrent,
        bias,
        None,
        *states,
        dtypes=[None] * (1 + len(states)),
        hidden_size=hidden,
        direction="bidirectional" if len(params) == 2 else "forward",
        **more,
    )
    sequence = b.op("Transpose", outputs[0], perm=[0, 2, 1, 3])
    return b.op("Reshape", sequence, b.const([0, 0, len(params) * hidden])), *outputs[1:]


def _stack(
    b: Builder,
    op_type: str,
    x: Value,
    states: list[Value],
    params: list[Value],
    biased: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    directions = 2 if bidirectional else 1
    each = 4 if biased else 2
    hidden = b.fixed(sizes(states[0])[-1], "a recurrent layer")
    more = {"linear_before_reset": 1} if op_type == "GRU" else {}
    x = b.transpose(x, (1, 0, 2)) if batch_first else x
    last: list[tuple[Value, ...]] = []
    for layer in range(layers):
        first = layer * directions
        own = [params[(first + i) * each : (first + i + 1) * each] for i in range(directions)]
        begin = [b.slice(state, 0, first, first + directions) for state in states]
        x, *final = _layer(b, op_type, x, begin, own, hidden, **more)
        last.append(tuple(final))
    x = b.op("Transpose", x, perm=[1, 0, 2]) if batch_first else x
    return x, *(b.concat(list(parts), 0) for parts in zip(*last, strict=True))


def lstm(
    b: Builder,
    x: Value,
    states: list[Value],
    params: list[Value],
    biased: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """Long short-term memory."""
    if dropout and train:
        raise b.error("dropout in training mode", "Put the model in eval mode before compiling it.")
    if len(params) != layers * (2 if bidirectional else 1) * (4 if biased else 2):
        raise b.error("an LSTM with projections", "ONNX has none; leave proj_size at 0.")
    return _stack(b, "LSTM", x, states, params, biased, layers, bidirectional, batch_first)


def gru(
    b: Builder,
    x: Value,
    state: Value,
    params: list[Value],
    biased: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """Gated recurrent units."""
    if dropout and train:
        raise b.error("dropout in training mode", "Put the model in eval mode before compiling it.")
    return _stack(b, "GRU", x, [state], params, biased, layers, bidirectional, batch_first)


TABLE: dict[OpOverload, Translator] = {aten.lstm.input: lstm, aten.gru.input: gru}
