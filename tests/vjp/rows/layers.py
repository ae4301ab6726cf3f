"""Rows of attention, convolutions, matrix products and normalizations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fxpullback.graph.ir import aten
from tests.helpers import draw
from tests.vjp.rows.row import Make, Row, on, weighted


def _attention(**options: Any) -> Make:
    def function(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[:, 0], x[:, 1], x[:, 2], **options)

    return function


def _grouped(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[:, :4], x[:, 4:6], x[:, 6:8], enable_gqa=True)


SDPA = aten.scaled_dot_product_attention.default
ATTENTION = [
    on(aten.softmax.int, (3, 5), -1),
    on(aten.softmax.int, (3, 5), 1, note="inner"),
    on(aten.log_softmax.int, (3, 5), 2),
    Row(SDPA, _attention(), (3, 2, 4, 5)),
    Row(SDPA, _attention(scale=0.3), (3, 2, 4, 5), note="scale"),
    Row(SDPA, _attention(is_causal=True), (3, 2, 4, 5), note="causal"),
    Row(SDPA, _attention(attn_mask=draw(4, 4)), (3, 2, 4, 5), note="mask"),
    Row(SDPA, _attention(attn_mask=torch.ones(4, 4, dtype=torch.bool).tril()), (3, 2, 4, 5), note="boolean-mask"),
    Row(SDPA, _attention(), (3, 4, 5), note="one-head"),
    Row(SDPA, _grouped, (8, 3, 5), note="grouped"),
    Row(
        SDPA,
        weighted(
            lambda x, a: F.scaled_dot_product_attention(x[:, 0], x[:, 1], x[:, 2], attn_mask=x[:, 3] @ a), draw(5, 4)
        ),
        (4, 2, 4, 5),
        note="computed-mask",
    ),
]


def _conv(function: Any, weight: tuple[int, ...], bias: int = 0, **options: Any) -> Make:
    w, b = draw(*weight, seed=1), draw(bias, seed=2) if bias else None
    return lambda x: function(x, w, b, **options)


CONV = aten.convolution.default
CONVOLUTION = [
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 3), 4), (3, 7, 8)),
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 2), 4, stride=(2, 3), padding=(1, 0)), (3, 7, 9), note="stride"),
    Row(CONV, _conv(F.conv2d, (4, 3, 4, 4), stride=4), (3, 11, 10), note="patches-left-over"),
    Row(CONV, _conv(F.conv2d, (4, 3, 3, 3), dilation=2, padding=2), (3, 7, 8), note="dilation"),
    Row(CONV, _conv(F.conv2d, (4, 2, 3, 3), groups=2, padding=1), (4, 7, 8), note="groups"),
    Row(CONV, _conv(F.conv2d, (4, 1, 3, 3), groups=4, stride=2, padding=1), (4, 8, 8), note="depthwise"),
    Row(CONV, _conv(F.conv2d, (8, 1, 3, 3), groups=4), (4, 6, 6), note="depthwise-multiplied"),
    Row(CONV, _conv(F.conv2d, (4, 3, 1, 1), padding=2), (3, 4, 5), note="padding-beyond-kernel"),
    Row(CONV, _conv(F.conv2d, (4, 3, 2, 2), padding="same"), (3, 5, 5), note="same"),
    Row(CONV, _conv(F.conv1d, (4, 3, 3), 4, stride=2), (3, 9), note="1d"),
    Row(CONV, _conv(F.conv3d, (4, 3, 2, 2, 2), stride=2), (3, 4, 5, 4), note="3d"),
    Row(CONV, _conv(F.conv_transpose2d, (3, 4, 3, 3), 4, stride=2, padding=1, output_padding=1), (3, 4, 5), note="up"),
    Row(CONV, _conv(F.conv_transpose2d, (4, 2, 3, 3), groups=2, dilation=2), (4, 4, 5), note="up-groups"),
    Row(CONV, _conv(F.conv_transpose1d, (3, 4, 4), stride=2), (3, 5), note="up-1d"),
    Row(CONV, _conv(F.conv_transpose3d, (3, 2, 2, 2, 2), stride=2), (3, 2, 3, 2), note="up-3d"),
]

MATRICES = [
    Row(aten.linear.default, weighted(lambda x, a, b: F.linear(x, a, b), draw(4, 5), draw(4)), (5,)),
    Row(aten.linear.default, weighted(lambda x, a: F.linear(x, a), draw(4, 5)), (2, 3, 5), note="tokens"),
    Row(aten.linear.default, weighted(lambda x, a, b: F.linear(x, a, b[0]), draw(5), draw(1)), (3, 5), note="vector"),
    Row(aten.linear.default, weighted(lambda x, a: F.linear(x, a), draw(5)), (5, 5), note="vector-square"),
    Row(aten.matmul.default, lambda x: x[:, 0] @ x[:, 1].transpose(-2, -1), (2, 3, 4)),
    Row(aten.matmul.default, lambda x: x @ x, (3, 3), note="same"),
    Row(aten.matmul.default, weighted(lambda x, a: x @ a, draw(4, 6)), (2, 3, 4), note="right"),
    Row(aten.matmul.default, weighted(lambda x, a: a @ x, draw(6, 3)), (2, 3, 4), note="left"),
    Row(aten.matmul.default, lambda x: x[:, :1] @ x[:, 1:].transpose(-2, -1), (4, 3, 5), note="broadcast"),
    Row(aten.matmul.default, weighted(lambda x, a: x @ a, draw(4)), (2, 3, 4), note="vector"),
    Row(aten.matmul.default, weighted(lambda x, a: a @ x, draw(3)), (2, 3, 4), note="vector-left"),
    Row(aten.matmul.default, lambda x: x * (x[:, 0] @ x[:, 1]), (4,), note="vectors"),
    Row(aten.matmul.default, weighted(lambda x, a: (x @ a)[:, None], draw(4)), (4,), note="matrix-vector"),
    Row(aten.matmul.default, lambda x: x * (x[:, 0] @ x), (4,), note="vector-matrix"),
    Row(aten.matmul.default, weighted(lambda x, a: a @ x, draw(3)), (3, 4), note="vector-batch"),
    Row(
        aten.addmm.default, weighted(lambda x, a, b: torch.addmm(a, x, b, beta=0.5, alpha=2), draw(6), draw(5, 6)), (5,)
    ),
    Row(aten.addmm.default, weighted(lambda x, a: torch.addmm(x, x, a), draw(5, 5)), (5,), note="sum"),
    Row(
        aten.baddbmm.default,
        lambda x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2], beta=0.5, alpha=2),
        (3, 4, 4),
    ),
]

NORMALIZATION = [
    Row(aten.native_layer_norm.default, weighted(lambda x, a: F.layer_norm(x, [6], a, a), draw(6)), (4, 6)),
    Row(aten.native_layer_norm.default, lambda x: F.layer_norm(x, [4, 6], eps=0.1), (4, 6), note="two-axes"),
    Row(aten.group_norm.default, weighted(lambda x, a: F.group_norm(x, 2, a, a), draw(6)), (6, 3, 4)),
    Row(aten.group_norm.default, lambda x: F.group_norm(x, 3), (6, 4), note="plain"),
    Row(
        aten.group_norm.default,
        weighted(lambda x, a: F.instance_norm(x, weight=a, bias=a), draw(6)),
        (6, 3, 4),
        note="instance",
    ),
    Row(aten.rms_norm.default, weighted(lambda x, a: F.rms_norm(x, [6], a, 0.1), draw(6)), (4, 6)),
    Row(aten.rms_norm.default, lambda x: F.rms_norm(x, [4, 6]), (4, 6), note="plain"),
    Row(
        aten._native_batch_norm_legit_no_training.default,
        weighted(lambda x, a, b, c: F.batch_norm(x, a, a.abs(), b, c), draw(6), draw(6, seed=1), draw(6, seed=2)),
        (6, 3, 4),
    ),
    Row(
        aten._native_batch_norm_legit_no_training.default,
        weighted(lambda x, a: F.batch_norm(x, a, a.abs()), draw(6)),
        (6,),
        note="plain",
    ),
]
