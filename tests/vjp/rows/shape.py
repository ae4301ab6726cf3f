"""Rows of operators that move, copy or pad values."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fxpullback.graph.ir import aten
from tests.helpers import draw
from tests.vjp.rows.row import Row, on, weighted

SHAPE = [
    Row(aten.reshape.default, weighted(lambda x, a: x.reshape(x.shape[0], 4, 3) * a, draw(4, 3)), (3, 4)),
    Row(aten.squeeze.default, lambda x: aten.squeeze.default(x), (1, 4), captured=False),
    on(aten.squeeze.dim, (1, 4), 1),
    on(aten.squeeze.dims, (1, 4, 1), [1, 3]),
    on(aten.unsqueeze.default, (3, 4), -1),
    on(aten.permute.default, (3, 4, 5), [0, 3, 1, 2]),
    on(aten.transpose.int, (3, 4, 5), -1, 1),
    Row(aten.expand.default, weighted(lambda x, a: x.expand(-1, 3, 4) * a, draw(3, 4)), (1, 4)),
    Row(
        aten.expand.default,
        weighted(lambda x, a: a * x[:, None, None].expand(-1, 2, 3, 4), draw(3, 1)),
        (4,),
        note="new-axes",
    ),
    Row(aten.cat.default, lambda x: torch.cat([x[:, :1], x, x[:, 2:] * 2], 1), (3, 4)),
    Row(
        aten.cat.default,
        weighted(lambda x, a: torch.cat([a.expand(x.shape[0], 1, 4), x], -2), draw(1, 1, 4)),
        (3, 4),
        note="token",
    ),
    Row(aten.stack.default, weighted(lambda x, a: torch.stack([x, x * 2, a.expand_as(x)], -1), draw(1, 3, 4)), (3, 4)),
    Row(aten.split.Tensor, lambda x: x.split(2, 1)[0] * x.split(2, 1)[2], (6, 4)),
    Row(aten.split.Tensor, lambda x: x.split(4, -1)[1], (3, 6), note="rest"),
    Row(aten.split_with_sizes.default, lambda x: x.split([1, 3, 2], -1)[1], (3, 6)),
    Row(aten.split_with_sizes.default, lambda x: torch.cat(x.split([1, 3, 2], 1)[::-1], 1), (6, 3), note="all"),
    Row(aten.unbind.int, lambda x: x.unbind(1)[0] * x.unbind(1)[2], (4, 5)),
    on(aten.select.int, (4, 5), 1, 2),
    on(aten.select.int, (4, 5), -1, -1, note="last"),
    Row(aten.slice.Tensor, lambda x: x[:, 1:3], (5, 4)),
    Row(aten.slice.Tensor, lambda x: x[:, :, ::2], (5, 7), note="step"),
    Row(aten.slice.Tensor, lambda x: x[:, -3:-1], (5, 4), note="negative"),
    Row(aten.slice.Tensor, lambda x: x[:, 1::3], (9, 4), note="step-left-over"),
    Row(aten.constant_pad_nd.default, lambda x: F.pad(x, [1, 2, 0, 3], value=5.0), (3, 4)),
    Row(aten.constant_pad_nd.default, lambda x: F.pad(x, [-1, 2, 1, -1]), (3, 4), note="cut"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="reflect"), (2, 4, 5), note="reflect"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="replicate"), (2, 4, 5), note="replicate"),
    Row(aten.pad.default, lambda x: F.pad(x, [1, 2, 3, 0], mode="circular"), (2, 4, 5), note="circular"),
    on(aten.pad.default, (2, 5), [1, 2], captured=False),
    on(aten.reflection_pad1d.default, (2, 5), [1, 4]),
    on(aten.reflection_pad2d.default, (2, 4, 5), [0, 2, 3, 0]),
    on(aten.reflection_pad3d.default, (2, 4, 3, 2), [1, 0, 2, 2, 0, 3]),
    on(aten.replication_pad1d.default, (2, 5), [1, 4]),
    on(aten.replication_pad2d.default, (2, 4, 5), [0, 2, 3, 0]),
    on(aten.replication_pad3d.default, (2, 4, 3, 2), [1, 0, 2, 2, 0, 3]),
    on(aten.flip.default, (3, 4), [1, 2]),
    Row(aten.slice_scatter.default, lambda x: torch.slice_scatter(x, x[:, 2:4] * 2, 1, 1, 3), (5, 4)),
    Row(
        aten.slice_scatter.default, lambda x: torch.slice_scatter(x, x[:, :2] * 2, 1, -4, 5, 2), (5, 4), note="strided"
    ),
    on(aten.roll.default, (3, 4), [1, -2], [1, 2]),
    on(aten.repeat.default, (3, 4), [1, 2, 3]),
    on(aten.repeat_interleave.self_int, (3, 4), 2, 1),
    on(aten.pixel_shuffle.default, (8, 3, 2), 2),
    on(aten.pixel_unshuffle.default, (2, 6, 4), 2),
    on(aten.channel_shuffle.default, (6, 3, 2), 3),
    on(aten.tril.default, (4, 4), -1),
    on(aten.triu.default, (4, 4), 1),
]
