"""Convolutions of volumes in a float64 copy: the same sums by the cheaper of two ways."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fxpullback.graph.float64 import convolution, in_float64
from fxpullback.graph.ir import aten
from tests.helpers import assert_near, draw, graph_of, pulled_back


@pytest.mark.parametrize("channels", [(6, 2), (2, 6), (4, 4)])
@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
def test_volumes_are_convolved_as_torch_does(
    channels: tuple[int, int], padding: int, stride: int, dilation: int, groups: int
) -> None:
    before, after = channels
    x, weight, bias = draw(2, before, 7, 8, 9), draw(after, before // groups, 2, 3, 3, seed=1), draw(after, seed=2)
    rest = ([stride] * 3, [padding] * 3, [dilation] * 3, False, [0] * 3, groups)
    wanted = aten.convolution.default(x, weight, bias, *rest)
    assert_near(convolution(x, weight, bias, *rest), wanted)
    ct = draw(*wanted.shape, seed=3)
    found = pulled_back(lambda v: convolution(v, weight, None, *rest), x, ct)
    assert_near(found, pulled_back(lambda v: aten.convolution.default(v, weight, None, *rest), x, ct))


def test_a_copy_in_float64_gives_the_float64_values() -> None:
    layers = nn.Sequential(nn.Conv3d(1, 5, 3, padding=1), nn.ReLU(), nn.Conv3d(5, 2, 3, 2)).eval()
    graph = in_float64(graph_of(layers, 1, 6, 6, 6, dtype=torch.float32))
    x = draw(2, 1, 6, 6, 6)
    assert_near(graph(x)[0].detach(), layers.double()(x).flatten(1).detach())


def test_a_graph_read_from_text_is_copied_too() -> None:
    layers = nn.Sequential(nn.Conv3d(1, 3, 3), nn.Flatten(), nn.Linear(24, 2)).double().eval()
    graph = graph_of(layers, 1, 4, 4, 4)
    for node in graph.graph.nodes:
        node.meta.clear()  # a file carries operators and no shapes
    x = draw(2, 1, 4, 4, 4)
    assert_near(in_float64(graph)(x)[0].detach(), layers(x).detach())
