"""Where nearest neighbours are whole blocks: what two values tell against what torch reads of many."""

from __future__ import annotations

import pytest
import torch

from fxpullback.graph.ir import aten
from fxpullback.graph.resampling import in_blocks


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_in_blocks_is_what_torch_reads(size: int) -> None:
    ramp = torch.arange(size, dtype=torch.float32).reshape(1, 1, 1, size)
    for factor in range(1, 129):
        blocks = ramp.repeat_interleave(factor, 3)
        for scale in (None, float(factor)):
            read = aten.upsample_nearest2d.default(ramp, [1, size * factor], None, scale)
            assert in_blocks(size, factor, scale) == torch.equal(read, blocks), (factor, scale)


def test_factors_and_scales_that_repeat_nothing_whole() -> None:
    assert in_blocks(4, 3, None)
    assert not in_blocks(4, 3, 3.1)
    assert not in_blocks(4, 0, 1.5)
    assert not in_blocks(2, 41, None)
    assert in_blocks(1, 41, None)
