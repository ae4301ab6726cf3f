"""What is true of each operator: one row for one operator, added to what torch itself says (`operators.said_by_torch`).

An operator has a row where more is true of it than torch says, and where some stage can put it into a graph: the tests
find an operator without a row, and a row that nothing makes.
"""

from __future__ import annotations

from typing import Any

from fxpullback.graph.fake_quantized import FAKE_QUANTIZE, FAKE_QUANTIZE_MASK
from fxpullback.graph.ir import AUTHORED, GETITEM, INJECT, STOP_GRADIENT, aten
from fxpullback.graph.traits import Trait as T
from fxpullback.graph.traits import Traits, row


def _each(names: str, kind: str = "default") -> list[Any]:
    """Overloads of one kind by the names of their operators, one a word."""
    return [getattr(getattr(aten, name), kind) for name in names.split()]


_NEAREST_EXACT = "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"
_MOVES = (
    *row(T.LAYOUT, T.SAME_IF_SHAPED, of=_each("reshape expand squeeze repeat")),
    *row(T.LAYOUT, T.SAME_IF_SHAPED, of=[aten.squeeze.dim, aten.squeeze.dims]),
    *row(T.LAYOUT, T.SAME_IF_SHAPED, of=[aten.repeat_interleave.self_int]),
    *row(T.LAYOUT, of=[*_each("unsqueeze permute flip"), aten.transpose.int]),
    *row(T.LAYOUT, T.NO_BFLOAT16, of=_each("roll pixel_shuffle pixel_unshuffle channel_shuffle")),
    *row(T.MOVES, T.PART, T.SAME_IF_SHAPED, of=[aten.slice.Tensor]),
    *row(T.MOVES, T.PART, of=[GETITEM, aten.select.int, aten.unbind.int]),
    *row(T.MOVES, T.PART, of=[aten.split.Tensor, aten.split_with_sizes.default]),
    *row(T.MOVES, of=_each("cat stack index_select embedding")),
    *row(T.MOVES, linear=(0, 1), of=_each("slice_scatter")),
    # Looking things up one by one, windows and triangles: their ONNX operators were not looked up for bfloat16.
    *row(T.MOVES, T.NO_BFLOAT16, of=[aten.index.Tensor, *_each("gather unfold im2col tril triu")]),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each("reflection_pad1d reflection_pad2d reflection_pad3d")),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each("replication_pad1d replication_pad2d replication_pad3d")),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each("upsample_nearest1d upsample_nearest2d upsample_nearest3d", "vec")),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each("upsample_nearest1d upsample_nearest2d upsample_nearest3d")),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each(_NEAREST_EXACT, "vec")),
    *row(T.MOVES, T.NO_BFLOAT16, of=_each(_NEAREST_EXACT)),
    *row(T.MOVES, T.FILLS, T.AFFINE, T.NO_BFLOAT16, of=_each("constant_pad_nd pad")),
)

_ARITHMETIC = (
    *row(T.SHIFTING, T.ONE_ROUNDING, linear=(0, 1), of=_each("add sub rsub", "Tensor")),
    *row(T.SHIFTING, T.ONE_ROUNDING, T.AFFINE, linear=(0,), of=[aten.rsub.Scalar]),
    *row(T.SCALING, T.ONE_ROUNDING, factors=(0, 1), of=[aten.mul.Tensor]),
    *row(T.SCALING, T.ONE_ROUNDING, factors=(0,), divisor=1, of=[aten.div.Tensor]),
    *row(T.SCALING, T.ONE_ROUNDING, linear=(0,), of=_each("neg")),
    *row(factors=(1, 2), of=_each("addcmul")),
    *row(T.ONE_ROUNDING, homogeneous=(0,), of=_each("abs relu")),
    *row(T.ONE_ROUNDING, homogeneous=(0, 1), of=_each("maximum minimum")),
    *row(T.ONE_ROUNDING, T.NO_BFLOAT16, of=_each("clamp")),
    *row(T.CHOICE, T.POINTWISE, T.ONE_ROUNDING, linear=(1, 2), of=[aten.where.self]),
    *row(T.CHOICE, T.POINTWISE, T.ONE_ROUNDING, T.FILLS, T.AFFINE, linear=(1,), of=[aten.where.ScalarOther]),
    *row(T.CHOICE, T.POINTWISE, T.ONE_ROUNDING, T.FILLS, T.AFFINE, linear=(2,), of=[aten.where.ScalarSelf]),
    *row(T.CHOICE, T.POINTWISE, T.ONE_ROUNDING, T.FILLS, T.CONSTANT, of=[aten.where.Scalar]),
    *row(T.CHOICE, T.ONE_ROUNDING, T.FILLS, T.AFFINE, linear=(0,), of=[aten.masked_fill.Scalar]),
    *row(T.CHOICE, T.POINTWISE, T.ONE_ROUNDING, linear=(0, 2), of=[aten.masked_fill.Tensor]),
)

_BOOLEANS = (T.CONSTANT, T.ONE_ROUNDING)
_COMPARED = (T.COMPARISON, *_BOOLEANS, T.NO_BFLOAT16)
_CONSTANT = (
    *(r for kind in ("Scalar", "Tensor") for r in row(*_COMPARED, T.ABOVE, of=_each("gt ge", kind))),
    *(r for kind in ("Scalar", "Tensor") for r in row(*_COMPARED, T.BELOW, of=_each("lt le", kind))),
    *(r for kind in ("Scalar", "Tensor") for r in row(*_COMPARED, of=_each("eq ne", kind))),
    *row(*_BOOLEANS, of=_each("bitwise_and bitwise_or bitwise_xor", "Tensor")),
    *row(*_BOOLEANS, of=_each("bitwise_not logical_and logical_or logical_not")),
    *row(*_BOOLEANS, of=[aten.any.dim, aten.all.dim]),
    *row(T.CONSTANT, T.ONE_ROUNDING, T.NO_BFLOAT16, T.BOUNDED, of=_each("sign")),
    *row(T.CONSTANT, T.ONE_ROUNDING, T.NO_BFLOAT16, of=_each("floor ceil round trunc")),
    *row(T.CONSTANT, of=[aten.div.Tensor_mode, aten.div.Scalar_mode]),
    *row(T.CONSTANT, T.ZEROS, of=_each("zeros zeros_like")),
    *row(T.CONSTANT, of=_each("ones_like full_like argmax argmin")),
    *row(T.CONSTANT, of=[STOP_GRADIENT]),
)

_POINTWISE = (
    *row(T.BOUNDED, T.GATE, T.SELECTOR, T.HALF_SAFE, of=_each("sigmoid hardsigmoid tanh")),
    *row(T.BOUNDED, T.SELECTOR, T.HALF_SAFE, T.NO_BFLOAT16, of=_each("hardtanh")),
    *row(T.BOUNDED, T.SELECTOR, T.POINTWISE, of=_each("erf special_ndtr")),
    *row(T.BOUNDED, of=_each("sin cos")),
    *row(T.HALF_SAFE, T.POINTWISE, of=_each("silu hardswish")),
    *row(T.HALF_SAFE, T.NO_BFLOAT16, homogeneous=(0,), of=_each("leaky_relu")),
    *row(T.POINTWISE, homogeneous=(0,), of=_each("prelu")),
    *row(T.POINTWISE, of=_each("log_sigmoid")),
    *row(T.WIDE, of=_each("exp expm1 log log1p log2 reciprocal square")),
    *row(T.WIDE, of=[aten.pow.Tensor_Scalar, aten.pow.Tensor_Tensor, aten.pow.Scalar]),
    *row(T.WIDE, T.ROOT, of=_each("sqrt rsqrt")),
)

_SUMS = (
    *row(T.CONTRACTION, factors=(0, 1), of=_each("convolution linear matmul")),
    *row(T.CONTRACTION, factors=(1, 2), of=_each("addmm baddbmm")),
    *row(T.WIDE, linear=(0,), of=[*_each("sum mean cumsum"), aten.sum.dim_IntList, aten.mean.dim]),
    *row(T.WIDE, of=[aten.prod.dim_int, aten.logsumexp.default]),
    *row(T.STATISTIC, T.WIDE, of=[aten.var.correction, aten.var_mean.correction]),
    *row(T.STATISTIC, T.ROOT, T.WIDE, homogeneous=(0,), of=[aten.std.correction]),
    *row(T.STATISTIC, T.ROOT, T.WIDE, of=_each("linalg_vector_norm")),
    *row(T.ONE_ROUNDING, T.NO_BFLOAT16, homogeneous=(0,), of=_each("amax amin")),
    *row(homogeneous=(0,), of=[aten.max.dim, aten.min.dim, aten.topk.default, aten.sort.default, aten.sort.stable]),
    *row(T.BOUNDED, T.GATE, of=[aten.softmax.int]),
    *row(of=[aten.log_softmax.int, aten.scaled_dot_product_attention.default]),
    *row(T.WIDE, of=_each("native_layer_norm")),
    *row(of=_each("group_norm rms_norm")),
    *row(T.AFFINE, linear=(0,), of=_each("_native_batch_norm_legit_no_training")),
)

_WINDOWS = (
    *row(T.HALF_SAFE, T.NO_BFLOAT16, homogeneous=(0,), of=_each("max_pool1d max_pool2d max_pool3d")),
    *row(T.HALF_SAFE, T.NO_BFLOAT16, homogeneous=(0,), of=_each("max_pool2d_with_indices")),
    *row(homogeneous=(0,), of=_each("adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d")),
    *row(linear=(0,), of=_each("avg_pool1d avg_pool2d avg_pool3d")),
    *row(linear=(0,), of=_each("adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d")),
    *row(T.HALF_SAFE, T.NO_BFLOAT16, linear=(0,), of=_each("col2im")),
    *row(linear=(0,), of=_each("upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d")),
    *row(linear=(0,), of=_each("upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d", "vec")),
)

_OTHERS = (
    *row(T.CAST, of=_each("_to_copy")),
    *row(linear=(0, 1), of=[AUTHORED, INJECT]),
    *row(of=[FAKE_QUANTIZE]),
    *row(T.CONSTANT, of=[FAKE_QUANTIZE_MASK]),
    *row(T.SIZE, of=[aten.sym_size.int]),
)

ROWS: tuple[Traits, ...] = (*_MOVES, *_ARITHMETIC, *_CONSTANT, *_POINTWISE, *_SUMS, *_WINDOWS, *_OTHERS)
