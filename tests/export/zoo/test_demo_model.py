"""The network of the demo and the pictures it was trained on."""

from __future__ import annotations

from importlib import resources

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fxpullback.export.zoo.demo_model import CLASSES, Attention, DemoNet, SqueezeExcite, demo_model, draw


def test_same_seed_same_pictures() -> None:
    first, again, other = draw(7, 5), draw(7, 5), draw(8, 5)
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    assert not torch.equal(first[0], other[0])


def test_pictures_are_what_the_network_takes() -> None:
    x, y, masks = draw(3, 40)
    assert (x.shape, x.dtype) == ((40, 3, 64, 64), torch.float32)
    assert (y.shape, y.dtype) == ((40,), torch.int64)
    assert (masks.shape, masks.dtype) == ((40, 64, 64), torch.bool)
    assert -1 <= float(x.min()) < -0.9
    assert 0.9 < float(x.max()) <= 1
    assert set(y.tolist()) == set(range(len(CLASSES)))


def test_object_covers_a_small_part_and_keeps_off_the_border() -> None:
    _, _, masks = draw(4, 60)
    area = masks.float().mean((1, 2))
    assert float(area.min()) > 0.03
    assert float(area.max()) < 0.25
    border = F.pad(torch.zeros(62, 62, dtype=torch.bool), (1, 1, 1, 1), value=True)
    assert not (masks & border).any()


def test_mask_is_where_the_object_is() -> None:
    """Pixels well inside a disc's mask vary less than the same shape elsewhere: an object has one colour, and noise."""
    x, y, masks = draw(5, 120)
    discs = y == CLASSES.index("disc")
    inside = F.max_pool2d((~masks[discs]).float()[:, None], 9, 1, 4)[:, 0] == 0  # four pixels in from the edge
    moved = inside.roll((32, 32), (1, 2))

    def spread(where: Tensor) -> float:
        pairs = zip(x[discs], where, strict=True)
        return float(torch.stack([pixels[:, mask].std(1).mean() for pixels, mask in pairs]).mean())

    assert spread(inside) < 0.1
    assert spread(moved) > 0.15


def test_shipped_weights_are_small() -> None:
    asset = resources.files("fxpullback.export") / "assets" / "demo.safetensors"
    assert len(asset.read_bytes()) < 1_000_000


def test_network_is_right_on_pictures_it_was_not_trained_on() -> None:
    model = demo_model()
    assert not model.training
    x, y, _ = draw(1234, 200)
    with torch.no_grad():
        right = (model(x).argmax(1) == y).float().mean()
    assert float(right) > 0.9


@pytest.mark.parametrize(
    "kind",
    [
        nn.Conv2d,
        nn.BatchNorm2d,
        nn.ReLU,
        nn.MaxPool2d,
        nn.SiLU,
        SqueezeExcite,
        Attention,
        nn.LayerNorm,
        nn.GELU,
        nn.Linear,
    ],
)
def test_every_kind_of_layer_is_in_it_and_is_used(kind: type[nn.Module]) -> None:
    model, used = DemoNet().eval(), []

    def note(module: nn.Module, _inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        used.append(module)

    layers = [m for m in model.modules() if isinstance(m, kind)]
    for layer in layers:
        layer.register_forward_hook(note)
    model(draw(0, 2)[0])
    assert layers
    assert set(used) == set(layers)
