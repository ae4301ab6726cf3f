"""Baselines of torch models: by hand, against Captum, and where hooks would miss something."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.errors import EvaluateError
from fxpullback.export import to_onnx
from fxpullback.export.evaluate import Settings, evaluate, torch_baselines
from fxpullback.export.evaluate.attention import grid_of, rollout
from fxpullback.export.evaluate.hooked import map_layer, unseen
from fxpullback.export.evaluate.torch_methods import cam, randomised
from tests.export.evaluate import nets

needs_captum = pytest.mark.skipif(find_spec("captum") is None, reason="Captum is not installed: the extra `evaluate`")
QUICK = Settings(grid=4, steps=4, runs=4, samples=2)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 5, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    ).eval()


class Functional(nn.Module):
    """A functional ReLU, which no hook on a module sees."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.out = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.relu(self.act(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


class Twice(Functional):
    """One ReLU module, used twice."""

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.act(self.act(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Two attention layers over 4 x 4 patches, with a class token or without; fused or written out."""

    def __init__(self, *, token: bool, fused: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(3, 8, 2, 2), nn.Linear(8, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8)) if token else None
        self.qkv = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.fused = fused

    def forward(self, x: Tensor) -> Tensor:
        y = self.patches(x).flatten(2).transpose(1, 2)
        if self.token is not None:
            y = torch.cat([self.token.expand(y.shape[0], -1, -1), y], 1)
        for layer in self.qkv:
            q, k, v = layer(y).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
            if self.fused:
                mixed = F.scaled_dot_product_attention(q, k, v)
            else:
                mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
            y = y + mixed.transpose(1, 2).flatten(2)
        return self.head(y[:, 0] if self.token is not None else y.mean(1))  # type: ignore[no-any-return]


def pictures(count: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 3, 8, 8) * 2 - 1, torch.arange(count) % 4


def test_grad_cam_of_a_mean_is_activation_times_weight() -> None:
    model, (x, y) = small(), pictures()
    held = model[:5](x)
    weight = model.get_parameter("7.weight")[y] / (held.shape[2] * held.shape[3])
    wanted = (weight[:, :, None, None] * held).sum(1).relu()
    assert map_layer(model, x) == "4"
    torch.testing.assert_close(cam(model, "4", x, y, layerwise=False), wanted)
    torch.testing.assert_close(cam(model, "4", x, y, layerwise=True), (weight.relu()[:, :, None, None] * held).sum(1))


@needs_captum
@pytest.mark.parametrize("layer", ["0", "3"])
def test_grad_cam_is_captums(layer: str) -> None:
    from captum.attr import LayerGradCam

    model, (x, y) = small(), pictures()
    plain = small()
    plain[4] = nn.ReLU()
    wanted = LayerGradCam(plain, plain.get_submodule(layer)).attribute(x, y, relu_attributions=True)[:, 0]
    torch.testing.assert_close(cam(model, layer, x, y, layerwise=False), wanted)


def test_rollout_by_hand() -> None:
    model, (x, y) = Transformer(token=True, fused=True).eval(), pictures()
    assert grid_of(model, x) == (1, 4)
    kept: list[Tensor] = []
    tokens = torch.cat([model.token.expand(3, -1, -1), model.patches(x).flatten(2).transpose(1, 2)], 1)  # type: ignore[union-attr]
    for layer in model.qkv:
        q, k, v = layer(tokens).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
        kept.append(weights.mean(1))
        tokens = tokens + (weights @ v).transpose(1, 2).flatten(2)
    one = torch.eye(17)
    wanted = ((kept[1] + one) / 2) @ ((kept[0] + one) / 2)
    torch.testing.assert_close(rollout(model, x, y, weighted=False), wanted[:, 0, 1:].reshape(3, 4, 4))


@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_rollout_reads_fused_and_written_attention_alike(token: bool, weighted: bool) -> None:
    x, y = pictures()
    fused, written = (Transformer(token=token, fused=how).eval() for how in (True, False))
    one, other = (rollout(model, x.clone(), y, weighted=weighted) for model in (fused, written))
    torch.testing.assert_close(one, other)
    changed = rollout(fused, x.clone(), (y + 1) % 4, weighted=weighted)
    assert torch.equal(one, changed) != weighted


def test_what_hooks_would_miss_is_said() -> None:
    x, _ = pictures()
    assert unseen(small(), x, guided=True) is None
    assert unseen(small(), x, guided=False) is None
    for guided in (True, False):
        assert "are no modules it knows" in str(unseen(Functional().eval(), x, guided=guided))
        assert "act runs 2 times" in str(unseen(Twice().eval(), x, guided=guided))
    assert "no ReLU" in str(unseen(Transformer(token=True, fused=True).eval(), x, guided=True))
    assert "no modules it knows" in str(unseen(Transformer(token=True, fused=True).eval(), x, guided=False))


def test_randomised_from_the_top_down() -> None:
    model = small()
    top, whole = (randomised(model, (3, 8, 8), share, QUICK) for share in (0.0, 1.0))
    changed = [
        [bool((a != b).any()) for a, b in zip(model.parameters(), made.parameters(), strict=True)]
        for made in (top, whole)
    ]
    assert changed == [[False] * 4 + [True, False], [True, False] * 3]


def test_an_evaluation_with_a_torch_model(tmp_path: Path) -> None:
    model, (x, _) = small(), pictures()
    file = tmp_path / "small.onnx"
    to_onnx(fxpullback.compile(model, (x,), taps="auto"), file, certify=False)
    folder = nets.folder(tmp_path / "pictures")
    metrics = ["occlusion", "mosaic", "random-logit", "randomisation"]
    report = evaluate(file, folder, sources=[torch_baselines(model)], settings=QUICK, metrics=metrics)
    names = [name for name, _ in report.methods]
    assert {"pullback", "contribution", "focus", "Grad-CAM", "LayerCAM"} <= set(names)
    reasons = {skipped.method: skipped.reason for skipped in report.skipped}
    assert "no attention" in reasons["rollout"]
    for name in ("guided Grad-CAM", "DeepLift"):
        assert name in names if find_spec("captum") else "pip install" in reasons[name]
    for column in report.columns:
        assert np.isfinite(report.mean(column, "Grad-CAM").mean)
    assert report.mean(report.columns[-1], "contribution").mean < 0.9
    assert model[4].inplace
    assert model[0].weight.requires_grad


def test_rollout_stays_where_the_class_changes(tmp_path: Path) -> None:
    model, (x, _) = Transformer(token=True, fused=True).eval(), pictures()
    file = tmp_path / "former.onnx"
    to_onnx(fxpullback.compile(model, (x,)), file, certify=False)
    report = evaluate(
        file,
        nets.folder(tmp_path / "pictures"),
        sources=[torch_baselines(model)],
        settings=QUICK,
        metrics=["random-logit"],
    )
    (column,) = report.columns
    assert report.mean(column, "rollout").mean == 1
    assert report.mean(column, "weighted rollout").mean < 1


def test_other_models_and_layers_are_refused(tmp_path: Path) -> None:
    model, (x, _) = small(), pictures()
    file = tmp_path / "small.onnx"
    to_onnx(fxpullback.compile(model, (x,)), file, certify=False)
    folder = nets.folder(tmp_path / "pictures")
    other = randomised(model, (3, 8, 8), 1.0, QUICK)
    with pytest.raises(EvaluateError, match="another network, or other weights"):
        evaluate(file, folder, sources=[torch_baselines(other)], settings=QUICK)
    with pytest.raises(EvaluateError, match=r"layer 99: the model has no such module"):
        evaluate(file, folder, sources=[torch_baselines(model, layer="99")], settings=QUICK)
    with pytest.raises(EvaluateError, match="no attention over one square"):
        evaluate(file, folder, sources=[torch_baselines(model)], methods=["rollout"], settings=QUICK)


@needs_captum
def test_deep_lift_of_a_network_of_relus_sums_to_the_logit() -> None:
    from fxpullback.export.evaluate.torch_methods import _deep_lift, _guided

    model, (x, y) = small(), pictures()
    lifted = _deep_lift(model, x, y)
    with torch.no_grad():
        gap = (model(x) - model(0 * x)).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(lifted.sum((1, 2, 3)), gap, atol=1e-4, rtol=1e-3)
    assert _guided(model, "4", x, y).shape == x.shape
