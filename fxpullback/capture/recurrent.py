"""Recurrent layers written out step by step, both directions of a layer at once.

The number of steps is fixed, and what does not depend on the step before is one product for all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.alone import alone
from fxpullback.graph.ir import aten
from fxpullback.graph.opaque import GRU, LSTM, RNN_RELU, RNN_TANH

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Any, Any, Any], State]
WrittenOut = Callable[..., State]


_KEPT_WHOLE = {"lstm": LSTM, "gru": GRU, "rnn_tanh": RNN_TANH, "rnn_relu": RNN_RELU}


@contextmanager
def opaque() -> Iterator[None]:
    """Keep recurrent layers whole while a model is exported; torch would trace every step of theirs several times.

    The functions that `nn.LSTM` and its kin call are replaced for the thread that exports; any other gets torch's own.
    """
    patched = vars(torch._VF)
    with alone() as mine:
        before = {name: patched[name] for name in _KEPT_WHOLE if name in patched}
        try:
            patched.update({name: _whole(getattr(torch._VF, name), ours, mine) for name, ours in _KEPT_WHOLE.items()})
            yield
        finally:
            for name in _KEPT_WHOLE:
                patched.pop(name, None)
            patched.update(before)


def _whole(inner: Callable[..., Any], ours: Callable[..., Any], mine: Callable[[], bool]) -> Callable[..., Any]:
    """What stands in for `inner`: the overload for padded sequences is `ours`; packed ones go to torch's own."""

    def call(*args: Any) -> Any:
        padded = len(args) == 9 and not isinstance(args[3], list | tuple)
        return ours(*args) if padded and mine() else inner(*args)

    return call


def lstm(
    x: Tensor, states: Sequence[Tensor], params: list[Any], biases: bool, layers: int, dropout: float, train: bool,
    both: bool, batch_first: bool,
) -> State:  # fmt: skip
    """`aten.lstm.input`: the outputs, the last hidden states and the last cell states."""
    found, last = _layers(x, tuple(states), params, biases, layers, both, batch_first, _lstm_step)
    return found, *last


def gru() -> WrittenOut:
    """`aten.gru.input`: the outputs and the last hidden states."""
    return _of_one_state(_gru_step)


def rnn(gate: Callable[[Tensor], Tensor]) -> WrittenOut:
    """`aten.rnn_tanh.input` and `aten.rnn_relu.input`: the outputs and the last hidden states."""

    def step(given: Tensor, states: State, weight: Any, bias: Any, projection: Any) -> State:
        return (gate(given + states[0] @ weight),)

    return _of_one_state(step)


def _of_one_state(step: Step) -> WrittenOut:
    def written_out(
        x: Tensor, state: Tensor, params: list[Any], biases: bool, layers: int, dropout: float, train: bool,
        both: bool, batch_first: bool,
    ) -> State:  # fmt: skip
        found, last = _layers(x, (state,), params, biases, layers, both, batch_first, step)
        return found, *last

    return written_out


def _lstm_step(given: Tensor, states: State, weight: Any, bias: Any, projection: Any) -> State:
    hidden, cell = states
    let_in, forget, new, let_out = torch.split(given + hidden @ weight, cell.shape[-1], -1)
    cell = cell * torch.sigmoid(forget) + torch.sigmoid(let_in) * torch.tanh(new)
    hidden = torch.sigmoid(let_out) * torch.tanh(cell)
    return hidden if projection is None else hidden @ projection, cell


def _gru_step(given: Tensor, states: State, weight: Any, bias: Any, projection: Any) -> State:
    (hidden,) = states
    size = hidden.shape[-1]
    reset, update, new = torch.split(given, size, -1)
    own = hidden @ weight
    own_reset, own_update, own_new = torch.split(own if bias is None else own + bias, size, -1)
    keep = torch.sigmoid(update + own_update)
    fresh = torch.tanh(new + torch.sigmoid(reset + own_reset) * own_new)
    return (fresh + keep * (hidden - fresh),)


def _layers(
    x: Tensor, states: State, params: list[Any], biases: bool, layers: int, both: bool, batch_first: bool, step: Step
) -> tuple[Tensor, list[Tensor]]:
    """All layers: outputs `[steps, batch, features]` (batch first if asked), and the last states of every layer."""
    if x.ndim == 2:  # one sequence, no batch
        wide = tuple(state.unsqueeze(1) for state in states)
        found, ends = _layers(x.unsqueeze(1), wide, params, biases, layers, both, False, step)
        return found.squeeze(1), [end.squeeze(1) for end in ends]
    x = x.transpose(0, 1) if batch_first else x
    ways = 2 if both else 1
    each = len(params) // (layers * ways)
    last: list[list[Tensor]] = [[] for _ in states]
    for layer in range(layers):
        sets = [params[(layer * ways + way) * each :][:each] for way in range(ways)]
        begin = tuple(aten.slice.Tensor(s, 0, layer * ways, (layer + 1) * ways, 1) for s in states)
        x, final = _layer(x, begin, sets, biases, step)
        for kept, end in zip(last, final, strict=True):
            kept.append(end)
    joined = [parts[0] if layers == 1 else torch.cat(parts, 0) for parts in last]
    return x.transpose(0, 1) if batch_first else x, joined


def _layer(x: Tensor, states: State, sets: list[list[Any]], biases: bool, step: Step) -> tuple[Tensor, State]:
    """One layer, its directions side by side: states `[directions, batch, features]`."""
    inputs = [x if way == 0 else torch.flip(x, [0]) for way in range(len(sets))]
    given = [z @ p[0].transpose(0, 1) for z, p in zip(inputs, sets, strict=True)]
    if biases:
        given = [z + p[2] for z, p in zip(given, sets, strict=True)]
    weight = torch.stack([p[1].transpose(0, 1) for p in sets], 0)
    bias = torch.stack([p[3] for p in sets], 0).unsqueeze(1) if biases else None
    if step is not _gru_step and biases:  # GRU alone puts a gate between the two biases
        given, bias = [z + p[3] for z, p in zip(given, sets, strict=True)], None
    plain = 4 if biases else 2
    projected = len(sets[0]) > plain
    projection = torch.stack([p[plain].transpose(0, 1) for p in sets], 0) if projected else None
    outputs = []
    for now in torch.unbind(torch.stack(given, 1), 0):
        states = step(now, states, weight, bias, projection)
        outputs.append(states[0])
    whole = torch.stack(outputs, 0)
    if len(sets) == 1:
        return whole.squeeze(1), states
    return torch.cat([whole.select(1, 0), torch.flip(whole.select(1, 1), [0])], -1), states


RECURRENT: dict[Any, WrittenOut] = {
    LSTM: lstm,
    GRU: gru(),
    RNN_TANH: rnn(torch.tanh),
    RNN_RELU: rnn(torch.relu),
    aten.lstm.input: lstm,
    aten.gru.input: gru(),
    aten.rnn_tanh.input: rnn(torch.tanh),
    aten.rnn_relu.input: rnn(torch.relu),
}
"""The layers that are written out, of both names: kept whole by `opaque`, and as a program has them that was exported
elsewhere. One that drops out values between its layers stays."""
