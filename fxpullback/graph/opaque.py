"""Recurrent layers as one operator each: what `fxpullback.capture` keeps whole while a model is exported.

They have shapes and no values; `fxpullback.capture.recurrent` writes them out, and no graph holds them after that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fxpullback.graph.ir import LIBRARY

_OPTIONS = "Tensor[] params, bool biases, int layers, float dropout, bool train, bool both, bool batch_first"
LIBRARY.define(f"lstm(Tensor x, Tensor[] states, {_OPTIONS}) -> (Tensor, Tensor, Tensor)")
_OF_ONE_STATE = ("gru", "rnn_tanh", "rnn_relu")
for _name in _OF_ONE_STATE:
    LIBRARY.define(f"{_name}(Tensor x, Tensor state, {_OPTIONS}) -> (Tensor, Tensor)")


def _fake_lstm(x: Tensor, states: list[Tensor], *options: Any) -> tuple[Tensor, Tensor, Tensor]:
    hidden, cell = states
    return _fake_output(x, hidden, options[-2]), torch.empty_like(hidden), torch.empty_like(cell)


def _fake_of_one_state(x: Tensor, state: Tensor, *options: Any) -> tuple[Tensor, Tensor]:
    return _fake_output(x, state, options[-2]), torch.empty_like(state)


def _fake_output(x: Tensor, hidden: Tensor, both: bool) -> Tensor:
    return x.new_empty([*x.shape[:-1], hidden.shape[-1] * (2 if both else 1)])


torch.library.register_fake("fxpullback::lstm", _fake_lstm, lib=LIBRARY)
for _name in _OF_ONE_STATE:
    torch.library.register_fake(f"fxpullback::{_name}", _fake_of_one_state, lib=LIBRARY)

LSTM = torch.ops.fxpullback.lstm.default
GRU = torch.ops.fxpullback.gru.default
RNN_TANH = torch.ops.fxpullback.rnn_tanh.default
RNN_RELU = torch.ops.fxpullback.rnn_relu.default
