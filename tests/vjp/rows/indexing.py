"""Rows of lookups by index and of sliding windows."""

from __future__ import annotations

import torch

from fxpullback.graph.ir import aten
from tests.vjp.rows.row import Row, on

_ROWS, _COLUMNS = torch.tensor([0, 2, 2, -1]), torch.tensor([1, 1, 0, -2])
_COLUMN, _ROW = torch.tensor([[0], [2]]), torch.tensor([1, 2, 1])
INDEXING = [
    Row(aten.index_select.default, lambda x: x.index_select(2, torch.tensor([3, 0, 3])), (3, 5)),
    Row(aten.index_select.default, lambda x: x.index_select(-2, torch.tensor(1)), (3, 5), note="one"),
    Row(aten.index.Tensor, lambda x: x[:, _ROWS], (3, 5)),
    Row(aten.index.Tensor, lambda x: x[:, _ROWS, _COLUMNS], (3, 5), note="pairs"),
    Row(aten.index.Tensor, lambda x: x[:, :, _COLUMNS.reshape(2, 2)], (3, 5), note="grid"),
    Row(aten.index.Tensor, lambda x: x[:, _COLUMN, _ROW], (3, 5), note="broadcast"),
    Row(aten.index.Tensor, lambda x: x[:, _ROW, _COLUMN, _ROW[:, None, None] - 1], (3, 3, 3, 2), note="three"),
    Row(aten.index.Tensor, lambda x: x[:, (x[0, :, :1] > 0).long(), _ROW[None]], (3, 5), note="computed"),
    Row(aten.index.Tensor, lambda x: x[:, torch.tensor(1), _ROW], (3, 5), note="number"),
    Row(aten.gather.default, lambda x: x.gather(2, (x > 0).long()), (3, 5)),
    Row(aten.gather.default, lambda x: x.gather(1, x.argsort(1)[:, :2]), (3, 5), note="order"),
    Row(aten.gather.default, lambda x: x.gather(1, x.argsort(1)[:, :, :1]), (3, 5), note="one-column"),
    Row(aten.gather.default, lambda x: x.gather(-1, (x > 0).long()[:, :2]), (3, 5), note="two-rows"),
    Row(aten.gather.default, lambda x: x.gather(2, x.argsort(2)[:, :2, :3, :1]), (3, 5, 4), note="corner"),
    Row(aten.gather.default, lambda x: x.gather(2, _ROW[None, None] % 2) * x[:, :1, :3], (2, 5), note="first-sample"),
    on(aten.unfold.default, (3, 9), 2, 3, 2),
    on(aten.unfold.default, (3, 9), 2, 2, 3, note="gaps"),
    on(aten.unfold.default, (9, 3), 1, 3, 1, note="overlapping"),
    on(aten.im2col.default, (3, 7, 8), [3, 2], [1, 2], [1, 0], [2, 1]),
    on(aten.im2col.default, (2, 6, 4), [2, 2], [1, 1], [0, 0], [2, 2], note="tiles"),
    on(aten.col2im.default, (18, 36), [7, 9], [3, 2], [1, 2], [1, 1], [2, 1]),
    on(aten.col2im.default, (8, 6), [6, 4], [2, 2], [1, 1], [0, 0], [2, 2], note="tiles"),
]
