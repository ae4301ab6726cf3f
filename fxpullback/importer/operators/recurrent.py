"""Recurrent layers. Those that torch has are torch's, so that their gates are found; others are written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fxpullback.contract.errors import CaptureError
from fxpullback.importer.freed import states
from fxpullback.importer.site import Node, tensor, text_of

Run = Callable[..., tuple[Tensor, ...]]


def _order(matrix: Tensor, places: list[int]) -> Tensor:
    """Rows of gates in another order."""
    blocks = matrix.chunk(len(places), 0)
    return torch.cat([blocks[i] for i in places], 0)


def _weights(w: Tensor, r: Tensor, b: Tensor | None, places: list[int]) -> list[list[Tensor]]:
    """For each direction what torch's layers take: two matrices and two biases."""
    found = []
    for d in range(w.shape[0]):
        size = w.shape[1]
        bias = torch.zeros(2 * size, dtype=w.dtype) if b is None else b[d]
        own = [w[d], r[d], bias[:size], bias[size:]]
        found.append([_order(value, places) for value in own])
    return found


def _common(node: Node, kinds: list[str], lengths: Any) -> tuple[str, bool]:
    direction = node.text("direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    given = [text_of(name) for name in node.get("activations") or kinds * count]
    if [name.lower() for name in given] != [name.lower() for name in kinds * count]:
        raise CaptureError(f"its activations {', '.join(given)} are not those that torch has")
    if node.get("clip"):
        raise CaptureError("its attribute clip is not supported")
    if lengths is not None:
        raise CaptureError("lengths of sequences are not supported")
    return direction, bool(node.get("layout", 0))


def _directions(run: Callable[[int, bool], tuple[Tensor, ...]], direction: str) -> list[tuple[Tensor, ...]]:
    if direction == "bidirectional":
        return [run(0, False), run(1, True)]
    return [run(0, direction == "reverse")]


def _layer(
    node: Node, kind: Callable[..., tuple[Tensor, ...]], x: Tensor, weights: list[list[Tensor]], direction: str,
    starts: list[Tensor],
) -> tuple[Tensor, ...]:  # fmt: skip
    """Outputs `[time, directions, batch, width]` and last states `[directions, batch, width]`."""

    def run(d: int, backwards: bool) -> tuple[Tensor, ...]:
        given = x.flip(0) if backwards else x
        first = [start[d : d + 1] for start in starts]
        state: Any = tuple(first) if len(first) > 1 else first[0]
        out, *last = kind(given, state, weights[d], True, 1, 0.0, False, False, False)
        return (out.flip(0) if backwards else out, *last)

    made = _directions(run, direction)
    lasts = [torch.cat([part[i] for part in made], 0) for i in range(1, len(made[0]))]
    return (torch.stack([part[0] for part in made], 1), *lasts)


def _along(x: Tensor, layout: bool) -> Tensor:
    """x with its steps first."""
    x = x.transpose(0, 1) if layout else x
    if isinstance(x.shape[1], int) and not isinstance(x.shape[0], int):
        raise CaptureError(
            "its steps go along the first axis of what the file takes, which is the batch: what is made of a sample "
            "depends on the others. Export the model with a batch of its own"
        )
    return x


def _starts(given: list[Any], x: Tensor, directions: int, width: int, layout: bool) -> list[Tensor]:
    found = []
    for value in given:
        state = tensor(value)
        if state is None:
            state = x.new_zeros([directions, x.shape[1], width])
        elif layout:
            state = state.transpose(0, 1)
        found.append(states(state, x.shape[1]))
    return found  # type: ignore[return-value]


def _results(node: Node, made: tuple[Tensor, ...], layout: bool) -> tuple[Tensor, ...]:
    out, *lasts = made
    if layout:
        return (out.permute(2, 0, 1, 3), *(last.transpose(0, 1) for last in lasts))
    return made


def lstm(
    node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None, c: Any = None, p: Any = None
) -> Any:
    """Long short-term memory; gates i, o, f, c in the file."""
    direction, layout = _common(node, ["Sigmoid", "Tanh", "Tanh"], lengths)
    if p is not None or node.get("input_forget", 0):
        raise CaptureError("peepholes, or input and forget gates that are one, are not supported")
    x = _along(x, layout)
    weights = _weights(tensor(w), tensor(r), tensor(b), [0, 2, 3, 1])
    starts = _starts([h, c], x, len(weights), node.get("hidden_size"), layout)
    return _results(node, _layer(node, torch.lstm, x, weights, direction, starts), layout)


def rnn(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None) -> Any:
    """A plain recurrence by tanh or ReLU."""
    kind = text_of((node.get("activations") or ["Tanh"])[0])
    direction, layout = _common(node, [kind], lengths)
    layers: dict[str, Any] = {"tanh": torch.rnn_tanh, "relu": torch.rnn_relu}
    if kind.lower() not in layers:
        raise CaptureError(f"its activation {kind} is not one that torch has")
    x = _along(x, layout)
    weights = _weights(tensor(w), tensor(r), tensor(b), [0])
    starts = _starts([h], x, len(weights), node.get("hidden_size"), layout)
    return _results(node, _layer(node, layers[kind.lower()], x, weights, direction, starts), layout)


def gru(node: Node, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None) -> Any:
    """Gated recurrent units; gates z, r, h in the file."""
    direction, layout = _common(node, ["Sigmoid", "Tanh"], lengths)
    x = _along(x, layout)
    weights = _weights(tensor(w), tensor(r), tensor(b), [1, 0, 2])
    starts = _starts([h], x, len(weights), node.get("hidden_size"), layout)
    if node.get("linear_before_reset", 0):
        return _results(node, _layer(node, torch.gru, x, weights, direction, starts), layout)

    def run(d: int, backwards: bool) -> tuple[Tensor, ...]:
        return _gru_steps(x.flip(0) if backwards else x, weights[d], starts[0][d], backwards)

    made = _directions(run, direction)
    last = torch.stack([part[1] for part in made], 0)
    return _results(node, (torch.stack([part[0] for part in made], 1), last), layout)


def _gru_steps(x: Tensor, weights: list[Tensor], state: Tensor, backwards: bool) -> tuple[Tensor, Tensor]:
    """The reset gate in front of the product with the recurrent matrix, which torch has behind it."""
    w, r, wb, rb = weights
    size = state.shape[-1]
    given, outputs = torch.nn.functional.linear(x, w, wb + rb), []
    for t in range(x.shape[0]):
        gates = given[t][:, : 2 * size] + state @ r[: 2 * size].t()
        reset, update = torch.sigmoid(gates).chunk(2, -1)
        new = torch.tanh(given[t][:, 2 * size :] + (reset * state) @ r[2 * size :].t())
        state = (1 - update) * new + update * state
        outputs.append(state)
    made = torch.stack(outputs, 0)
    return (made.flip(0) if backwards else made), state


OPERATORS: dict[str, Callable[..., Any]] = {"LSTM": lstm, "RNN": rnn, "GRU": gru}
