"""Rows of layers and reductions: products, convolutions, pools, norms, resizing, sums."""

from __future__ import annotations

import math

import torch

from tests.export.onnx.one_node import B, Input, aten, bools, constant, each, fixed, integers, positive, ranged, row, x

INF = math.inf


LINEAR = [
    row(aten.linear.default, x(4), constant(5, 4), constant(5)),
    row(aten.linear.default, x(4), constant(5, 4)),
    row(aten.linear.default, x(3, 4), constant(5, 4), constant(5)),
    row(aten.matmul.default, x(3, 4), x(4, 5)),
    row(aten.matmul.default, x(2, 3, 4), constant(4, 5)),
    row(aten.matmul.default, x(3, 4), constant(4)),
    row(aten.matmul.default, x(4), constant(4, 5)),
    row(aten.vdot.default, fixed(4), constant(4)),
    row(aten.addmm.default, constant(5), x(4), constant(4, 5), beta=0.5, alpha=2.0),
    row(aten.baddbmm.default, x(3, 5), x(3, 4), x(4, 5), beta=0.5, alpha=2.0),
    row(aten.baddbmm.default, x(3, 5), x(3, 4), x(4, 5), beta=0),
]

CONVOLUTION = [
    row(aten.convolution.default, x(4, 9), constant(6, 2, 3), constant(6), [2], [1], [2], False, [0], 2),
    row(aten.convolution.default, x(4, 9, 8), constant(6, 4, 3, 3), None, [2, 1], [1, 0], [1, 1], False, [0, 0], 1),
    row(
        aten.convolution.default,
        x(2, 5, 6, 7),
        constant(3, 2, 3, 2, 1),
        None,
        [1] * 3,
        [1, 0, 0],
        [1] * 3,
        False,
        [0] * 3,
        1,
    ),
    row(aten.convolution.default, x(4, 9), constant(4, 3, 3), constant(6), [2], [1], [1], True, [1], 2),
    row(aten.convolution.default, x(4, 5, 6), constant(4, 3, 3, 3), None, [2, 3], [1, 0], [1, 2], True, [1, 2], 1),
    row(
        aten.convolution.default,
        x(2, 3, 4, 3),
        constant(2, 3, 2, 2, 2),
        None,
        [2] * 3,
        [0] * 3,
        [1] * 3,
        True,
        [1] * 3,
        1,
    ),
    row(
        aten.convolution.default,
        x(4, 9, 9),
        constant(4, 1, 3, 3),
        constant(4),
        [2, 2],
        [1, 1],
        [1, 1],
        False,
        [0, 0],
        4,
    ),
]

POOLING = [
    row(aten.max_pool1d.default, x(3, 9), [3], [2], [1], [1], True),
    row(aten.max_pool2d.default, x(3, 9, 10), [3, 3], [2, 2], [1, 1]),
    row(aten.max_pool2d.default, x(3, 8, 8), [3, 3], [2, 2], [0, 0], [1, 1], True),
    row(aten.max_pool2d.default, x(3, 8, 7), [2, 3], [3, 3], [1, 1], [1, 2], True),
    row(aten.max_pool2d.default, x(3, 8, 8), [2, 2]),
    row(aten.max_pool2d_with_indices.default, fixed(3, 8, 8), [2, 2]),
    row(aten._adaptive_avg_pool2d.default, fixed(3, 8, 8), [2, 2]),
    row(aten.max_pool3d.default, x(3, 6, 7, 8), [2], [2], [1], [1], True),
    row(aten.max_pool2d_with_indices.default, x(3, 9, 9), [3, 3], [2, 2], [1, 1]),
    row(aten.max_pool2d_with_indices.default, x(3, 9, 9), [3, 3], [2, 2], [1, 1], outputs=(0,)),
    row(aten.max_pool3d_with_indices.default, x(3, 5, 5, 5), [2]),
    row(aten.avg_pool1d.default, x(3, 9), [3], [2], [1], True),
    *(
        row(aten.avg_pool2d.default, x(3, 9, 8), [3, 2], [2, 3], [1, 1], ceil, include, divisor)
        for ceil in (False, True)
        for include in (False, True)
        for divisor in (None, 5)
    ),
    row(aten.avg_pool2d.default, x(3, 8, 8), [2, 2]),
    row(aten.avg_pool3d.default, x(3, 6, 7, 8), [2], [2], [1], True, False),
    row(aten.adaptive_avg_pool1d.default, x(3, 9), [4]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [1, 1]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [3, 4]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [9, 8]),
    row(aten.adaptive_avg_pool2d.default, x(3, 9, 8), [7, 5]),
    row(aten._adaptive_avg_pool2d.default, x(3, 3, 3), [7, 7]),
    row(aten.adaptive_avg_pool3d.default, x(3, 5, 6, 7), [2, 3, 4]),
    row(aten._adaptive_avg_pool3d.default, x(3, 5, 6, 7), [2, 3, 4]),
    row(aten.adaptive_max_pool1d.default, x(3, 9), [4], outputs=(0,)),
    row(aten.adaptive_max_pool2d.default, x(3, 9, 8), [3, 4], outputs=(0,)),
    row(aten.adaptive_max_pool2d.default, x(3, 9, 8), [7, 5], outputs=(0,)),
    row(aten.adaptive_max_pool3d.default, x(3, 5, 6, 7), [2, 3, 4], outputs=(0,)),
]

REDUCTION = [
    *(row(getattr(aten, name).default, x(4, 5)) for name in each("sum mean max min")),
    row(aten.prod.default, fixed(2, 3)),
    row(aten.prod.dim_int, x(4, 5), 1, True),
    row(aten.sum.dim_IntList, x(4, 5), [1, -1]),
    row(aten.sum.dim_IntList, x(4, 5), None, True),
    row(aten.sum.dim_IntList, x(4, 5), [0]),
    row(aten.sum.dim_IntList, bools(4), [1]),
    row(aten.mean.dim, x(4, 5), [1], True),
    row(aten.mean.dim, bools(4), [1], dtype=torch.float32),
    row(aten.amax.default, x(4, 5), [1, 2], True),
    row(aten.amin.default, x(4, 5), [-1]),
    row(aten.amax.default, x(4, 5)),
    row(aten.max.dim, x(4, 5), 1),
    row(aten.min.dim, x(4, 5), -1, True),
    row(aten.max.dim, integers(3, 9), 1),
    row(aten.argmax.default, x(4, 5), 1),
    row(aten.argmax.default, x(4, 5)),
    row(aten.argmin.default, x(4, 5), -1, True),
    row(aten.argmax.default, fixed(4), None, True),
    row(aten.logsumexp.default, x(4, 5), [1, 2]),
    row(aten.logsumexp.default, ranged(200, 300, 5), [1], True),
    row(aten.any.default, bools(4)),
    row(aten.any.dim, bools(4, 2), 1),
    row(aten.any.dims, x(4, 2), [1, 2], True),
    row(aten.all.default, bools(4)),
    row(aten.all.dim, bools(4, 2), 1),
    row(aten.all.dims, bools(1, 2), [1, 2]),
    row(aten.var.correction, x(4, 5), [1, 2], correction=1),
    row(aten.var.correction, x(4, 5), [-1], correction=0, keepdim=True),
    row(aten.var.correction, x(4, 5), [1]),
    row(aten.std.correction, x(4, 5), [1]),
    row(aten.std.correction, x(4, 5), [1], correction=0),
    row(aten.var_mean.correction, x(4, 5), [1, 2], correction=0, keepdim=True),
    row(aten.var_mean.correction, x(4, 5), [1]),
    row(aten.std_mean.correction, x(4, 5), [1, 2], correction=1),
    *(row(aten.linalg_vector_norm.default, x(4, 5), p, [1]) for p in (2, 1, 3, INF, -INF, 0)),
    row(aten.linalg_vector_norm.default, x(4, 5)),
    row(aten.cumsum.default, x(4, 5), -1),
    row(aten.cumsum.default, bools(4), 1),
    row(aten.count_nonzero.default, x(4)),
    row(aten.count_nonzero.dim_IntList, x(4, 2), [1]),
]

_STATISTICS = (constant(4), constant(4), constant(4), positive(4))

NORMALIZATION = [
    row(aten._native_batch_norm_legit_no_training.default, x(4, 3, 3), *_STATISTICS, 0.1, 1e-5, outputs=(0,)),
    row(
        aten._native_batch_norm_legit_no_training.default,
        x(4),
        None,
        None,
        constant(4),
        positive(4),
        0.1,
        1e-3,
        outputs=(0,),
    ),
    row(aten._native_batch_norm_legit_no_training.default, x(4, 3), *_STATISTICS, 0.1, 1e-5, outputs=(0,)),
    row(aten._native_batch_norm_legit.no_stats, x(4, 3), constant(4), constant(4), True, 0.1, 1e-5),
    row(aten._native_batch_norm_legit.no_stats, x(4), constant(4), None, True, 0.1, 1e-3),
    row(aten.native_layer_norm.default, x(3, 4), [4], constant(4), constant(4), 1e-5),
    row(aten.native_layer_norm.default, x(3, 4), [3, 4], None, None, 1e-3),
    row(aten.native_layer_norm.default, x(3, 4), [4], constant(4), None, 1e-5),
    row(
        aten.native_layer_norm.default,
        Input((3, 4), lambda size: torch.randn(size).double()),
        [4],
        None,
        None,
        1e-5,
        tol=1e-12,
    ),
    row(aten.group_norm.default, x(6, 3, 4), 2, constant(6), constant(6)),
    row(aten.group_norm.default, x(6, 3), 3),
    row(aten.native_group_norm.default, x(6, 3, 4), constant(6), constant(6), B, 6, 12, 2, 1e-5),
    row(aten.group_norm.default, x(4, 3, 3), 4, constant(4), constant(4)),
    row(aten.rms_norm.default, x(3, 4), [4], constant(4)),
    row(aten.rms_norm.default, x(3, 4), [3, 4], None, 1e-3),
    row(aten._fused_rms_norm.default, x(3, 4), [4], constant(4), 1e-5),
]

_PLANE = x(3, 5, 4)

RESIZE = [
    row(aten.upsample_nearest1d.default, x(3, 5), [7]),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [2.0]),
    row(aten.upsample_nearest2d.default, _PLANE, [10, 8]),
    row(aten.upsample_nearest2d.vec, _PLANE, [7, 3], None),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [1.7, 2.3]),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [3.1, 2.9]),
    row(aten.upsample_nearest2d.vec, _PLANE, None, [2.05, 1.05]),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [3.1]),
    # Places that float32 rounds in another way than float64 does, or than whole blocks are.
    row(aten.upsample_nearest1d.vec, x(3, 26), [22], None),
    row(aten.upsample_nearest1d.vec, x(3, 5), None, [41.0]),
    row(aten._upsample_nearest_exact1d.vec, x(3, 16), None, [2.3]),
    row(aten.upsample_nearest3d.default, x(3, 5, 4, 3), [10, 4, 6]),
    row(aten.upsample_nearest3d.vec, x(3, 5, 4, 3), None, [2.0, 1.5, 1.0]),
    row(aten._upsample_nearest_exact1d.default, x(3, 5), [7]),
    row(aten._upsample_nearest_exact1d.vec, x(3, 5), [8], None),
    row(aten._upsample_nearest_exact2d.default, _PLANE, [10, 8]),
    row(aten._upsample_nearest_exact2d.vec, _PLANE, [7, 3], None),
    row(aten._upsample_nearest_exact3d.default, x(3, 5, 4, 3), [10, 3, 4]),
    row(aten._upsample_nearest_exact3d.vec, x(3, 5, 4, 3), [7, 4, 2], None),
    row(aten.upsample_linear1d.default, x(3, 5), [7], False),
    row(aten.upsample_linear1d.vec, x(3, 5), [7], True, None),
    row(aten.upsample_trilinear3d.default, x(3, 5, 4, 3), [7, 8, 2], False),
    row(aten.upsample_trilinear3d.vec, x(3, 5, 4, 3), [7, 8, 2], True, None),
    row(aten.upsample_bilinear2d.vec, _PLANE, [7, 9], True, None),
    row(aten.upsample_bilinear2d.vec, _PLANE, None, False, [1.7, 2.3]),
    row(aten.upsample_bicubic2d.vec, _PLANE, [7, 9], False, None),
    row(aten.upsample_bicubic2d.vec, _PLANE, None, False, [1.7, 2.3]),
    row(aten._upsample_bilinear2d_aa.default, _PLANE, [3, 9], False),
    row(aten._upsample_bilinear2d_aa.vec, _PLANE, [3, 2], True, None),
    row(aten._upsample_bicubic2d_aa.default, _PLANE, [3, 9], False),
    row(aten._upsample_bicubic2d_aa.vec, _PLANE, [3, 2], False, None),
]
