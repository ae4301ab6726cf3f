"""Rows of resampling."""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from fxpullback.graph.ir import aten
from tests.vjp.rows.row import Make, Row, on


def _resize(**options: Any) -> Make:
    return lambda x: F.interpolate(x, **options)


RESIZE = [
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=2), (2, 3, 4)),
    Row(aten.upsample_nearest2d.vec, _resize(size=(5, 7)), (2, 3, 4), note="uneven"),
    Row(aten.upsample_nearest2d.vec, _resize(size=(2, 3)), (2, 5, 7), note="down"),
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=1.6), (2, 5, 7), note="fraction"),
    # Sizes with a whole ratio, and a scale that is none: 3.1 and 2.9 read other values than 3 does.
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=3.1), (2, 4, 5), note="nearly-three"),
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=(2.0, 3.1)), (2, 4, 4), note="one-axis"),
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=0.34), (2, 9, 9), note="down-fraction"),
    Row(aten.upsample_nearest2d.vec, _resize(scale_factor=3.1, recompute_scale_factor=True), (2, 4, 5), note="sizes"),
    Row(aten.upsample_nearest1d.vec, _resize(scale_factor=3), (2, 4)),
    Row(aten.upsample_nearest1d.vec, _resize(scale_factor=3.1), (2, 4), note="nearly-three"),
    Row(aten.upsample_nearest1d.vec, _resize(scale_factor=41), (2, 3), note="rounded"),  # 41 * float32(1 / 41) < 1
    Row(aten.upsample_nearest3d.vec, _resize(scale_factor=(3.1, 2.0, 1.0)), (2, 4, 2, 3), note="nearly-three"),
    Row(aten.upsample_nearest3d.vec, _resize(size=(4, 6, 3)), (2, 2, 3, 2)),
    Row(aten.upsample_linear1d.vec, _resize(size=7, mode="linear"), (2, 4)),
    Row(aten.upsample_bilinear2d.vec, _resize(size=(5, 7), mode="bilinear"), (2, 3, 4)),
    Row(
        aten.upsample_bilinear2d.vec,
        _resize(size=(5, 7), mode="bilinear", align_corners=True),
        (2, 3, 4),
        note="corners",
    ),
    Row(aten.upsample_bilinear2d.vec, _resize(scale_factor=1.6, mode="bilinear"), (2, 5, 7), note="fraction"),
    Row(aten.upsample_bilinear2d.vec, _resize(scale_factor=3.1, mode="bilinear"), (2, 4, 5), note="nearly-three"),
    Row(aten.upsample_linear1d.vec, _resize(scale_factor=0.34, mode="linear"), (2, 9), note="down"),
    Row(aten.upsample_bicubic2d.vec, _resize(scale_factor=(3.1, 0.4), mode="bicubic"), (2, 4, 5), note="fraction"),
    Row(aten.upsample_trilinear3d.vec, _resize(scale_factor=2.1, mode="trilinear"), (2, 2, 3, 2), note="fraction"),
    Row(aten.upsample_bicubic2d.vec, _resize(size=(5, 7), mode="bicubic"), (2, 3, 4)),
    Row(
        aten.upsample_bicubic2d.vec, _resize(size=(5, 7), mode="bicubic", align_corners=True), (2, 3, 4), note="corners"
    ),
    Row(aten.upsample_trilinear3d.vec, _resize(scale_factor=2, mode="trilinear"), (2, 2, 3, 2)),
    Row(aten.upsample_trilinear3d.vec, _resize(size=(3, 5, 2), mode="trilinear"), (2, 2, 3, 4), note="uneven"),
    Row(aten._upsample_nearest_exact1d.vec, _resize(size=7, mode="nearest-exact"), (2, 5)),
    Row(aten._upsample_nearest_exact2d.vec, _resize(size=(3, 8), mode="nearest-exact"), (2, 4, 5)),
    Row(aten._upsample_nearest_exact2d.vec, _resize(scale_factor=3.1, mode="nearest-exact"), (2, 4, 5), note="scale"),
    Row(aten._upsample_nearest_exact3d.vec, _resize(scale_factor=2, mode="nearest-exact"), (2, 2, 3, 2)),
    on(aten._upsample_nearest_exact1d.default, (2, 5), [7]),
    on(aten._upsample_nearest_exact2d.default, (2, 4, 5), [9, 12], None, 2.5),
    on(aten._upsample_nearest_exact3d.default, (2, 2, 3, 2), [4, 5, 3], 2.3, 1.7, 1.5),
    on(aten.upsample_linear1d.default, (2, 4), [7], False, captured=False),
    on(aten.upsample_trilinear3d.default, (2, 2, 3, 2), [4, 5, 3], True, captured=False),
    on(aten.upsample_nearest1d.default, (2, 4), [6]),
    on(aten.upsample_nearest2d.default, (2, 3, 4), [6, 5]),
    on(aten.upsample_nearest2d.default, (2, 5, 5), [8, 8], 1.6, 1.6, note="scales"),
    on(aten.upsample_nearest2d.default, (2, 4, 5), [12, 10], 3.1, None, note="one-scale"),
    on(aten.upsample_nearest2d.default, (2, 4, 5), [9, 13], 1.6, 1.9, note="other-size"),
    on(aten.upsample_nearest3d.default, (2, 2, 3, 2), [4, 6, 3]),
    on(aten.upsample_bilinear2d.default, (2, 3, 4), [5, 7], False, captured=False),
    on(aten.upsample_bilinear2d.default, (2, 5, 5), [8, 8], False, 1.6, 1.6, note="scales", captured=False),
    on(aten.upsample_bilinear2d.default, (2, 4, 5), [9, 9], False, None, 1.6, note="one-scale", captured=False),
    on(aten.upsample_bicubic2d.default, (2, 3, 4), [5, 7], False, captured=False),
    on(aten.upsample_bicubic2d.default, (2, 3, 4), [5, 7], False, 1.6, None, note="one-scale", captured=False),
]
