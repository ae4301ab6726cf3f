"""Inputs other than RGB pictures: series, volumes, sequences of features, spectrograms, many channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import fxpullback
from fxpullback.export import Session, to_onnx
from fxpullback.pipeline import Pullback
from tests.helpers import assert_near, draw
from tests.networks import Residual

BATCH = 5  # neither capture nor certificate sees it
CLASSES = 4


class Gated(nn.Module):
    """A WaveNet block: causal padding, two dilated convolutions, tanh times sigmoid."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.value = nn.Conv1d(channels, channels, 2, dilation=dilation)
        self.gate = nn.Conv1d(channels, channels, 2, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        past = F.pad(x, (self.dilation, 0))
        result: Tensor = x + torch.tanh(self.value(past)) * torch.sigmoid(self.gate(past))
        return result


class Chomp(nn.Module):
    """The end of a series cut off, as temporal convolutional networks make a padded convolution causal."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.count].contiguous()


class Hourglass(nn.Module):
    """Down, up again in two ways, and joined."""

    def __init__(self, down: nn.Module, up: nn.Module, wide: int, mode: str) -> None:
        super().__init__()
        self.down, self.up, self.head, self.mode = down, up, nn.Linear(wide, CLASSES), mode

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(x)
        options = {} if self.mode.startswith("nearest") else {"align_corners": False}
        high = F.interpolate(low, size=x.shape[2:], mode=self.mode, **options)
        joined = torch.cat([self.up(low), high], 1)
        result: Tensor = self.head(joined.square().flatten(2).mean(-1))
        return result


class Recurrent(nn.Module):
    """A convolution over time, then LSTM and GRU in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(2, 3, 3, stride=2, padding=1)
        self.lstm = nn.LSTM(3, 3, batch_first=True, bidirectional=True)
        self.gru, self.rnn = nn.GRU(6, 3, batch_first=True), nn.RNN(3, 3, batch_first=True)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        first = self.lstm(F.relu(self.stem(x)).transpose(1, 2))[0]
        second, last = self.gru(first)
        third = self.rnn(second)[0]
        result: Tensor = self.head(torch.cat([third.amax(1), last[0]], 1))
        return result


class Encoder(nn.Module):
    """`nn.TransformerEncoder` over tokens of features, the second layer causal."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(5, 8), nn.Parameter(torch.randn(1, 6, 8))
        self.first = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, activation="gelu", norm_first=True)
        self.second = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.embed(x) + self.place)
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1]).to(x.dtype)
        result: Tensor = self.head(self.second(x, src_mask=mask, is_causal=True)[:, -1])
        return result


class Pooled(nn.Module):
    """`F.max_pool1d` of `[batch, features]`, which torch takes for channels without a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.norm, self.head = nn.Linear(7, 12), nn.BatchNorm1d(12), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(F.max_pool1d(F.relu(self.norm(self.wide(x))), 3))
        return result


def head(channels: int, pool: nn.Module) -> tuple[nn.Module, ...]:
    return pool, nn.Flatten(), nn.Linear(channels, CLASSES)


def resnet1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 6, 7, 2, 3, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(3, 2, 1, ceil_mode=True),
        Residual(nn.Conv1d(6, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 6, 3, padding=1, groups=6)),
        nn.AvgPool1d(3, 2, 1, count_include_pad=False), nn.Conv1d(6, 8, 3, 2, 1, groups=2), nn.ELU(),
        *head(8, nn.AdaptiveAvgPool1d(1)),
    )  # fmt: skip


def temporal() -> nn.Module:
    causal = nn.utils.parametrizations.weight_norm(nn.Conv1d(2, 5, 3, padding=2))
    return nn.Sequential(
        causal, Chomp(2), nn.ReLU(), Residual(nn.Conv1d(5, 5, 3, padding=4, dilation=2), Chomp(4), nn.ReLU()),
        nn.InstanceNorm1d(5, affine=True), *head(15, nn.AdaptiveMaxPool1d(3)),
    )  # fmt: skip


def wavenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 4, 1), *[Gated(4, d) for d in (1, 2, 4)], nn.GroupNorm(2, 4), nn.PReLU(4),
        *head(4, nn.AdaptiveMaxPool1d(1)),
    )  # fmt: skip


def hourglass1d() -> nn.Module:
    down = nn.Sequential(nn.Conv1d(2, 4, 3, stride=2, padding=1), nn.ReLU())
    return Hourglass(down, nn.ConvTranspose1d(4, 3, 4, 2, 1), 7, "linear")


def video() -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(3, 6, (1, 3, 3), (1, 2, 2), (0, 1, 1), bias=False), nn.BatchNorm3d(6), nn.ReLU(),
        nn.Conv3d(6, 4, (3, 1, 1), padding=(1, 0, 0)), nn.MaxPool3d((1, 2, 2), padding=(0, 1, 1)), nn.SiLU(),
        nn.AvgPool3d(2, 2, 1, ceil_mode=True), nn.Conv3d(4, 4, 2, groups=2), nn.GroupNorm(2, 4), nn.GELU(),
        *head(4, nn.AdaptiveAvgPool3d(1)),
    )  # fmt: skip


def hourglass3d() -> nn.Module:
    down = nn.Sequential(nn.Conv3d(1, 3, 3, 2, 1), nn.ReLU(), nn.AdaptiveMaxPool3d((1, 2, 2)))
    up = nn.Sequential(nn.Upsample(scale_factor=(4, 3, 2)), nn.ConvTranspose3d(3, 2, 3, padding=1))
    return Hourglass(down, up, 5, "trilinear")


def spectrogram() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, (5, 3), (2, 1), (2, 1), padding_mode="reflect"), nn.ReLU(), nn.MaxPool2d((2, 4)),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.ELU(), *head(12, nn.AdaptiveAvgPool2d((2, 1))),
    )  # fmt: skip


def satellite() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(12, 6, 3, 2, 1, padding_mode="replicate"), nn.BatchNorm2d(6), nn.ReLU(),
        *head(6, nn.AdaptiveAvgPool2d(1)),
    )  # fmt: skip


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "resnet1d": (resnet1d, (2, 45)),
    "temporal": (temporal, (2, 17)),
    "wavenet": (wavenet, (1, 11)),
    "hourglass1d": (hourglass1d, (2, 10)),
    "recurrent": (Recurrent, (2, 5)),
    "encoder": (Encoder, (6, 5)),
    "features": (Pooled, (7,)),
    "video": (video, (3, 4, 12, 14)),
    "hourglass3d": (hourglass3d, (1, 4, 6, 4)),
    "spectrogram": (spectrogram, (1, 12, 9)),
    "satellite": (satellite, (12, 7, 8)),
}


def network(name: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = NETWORKS[name][0]()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                    nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


def by_autograd(pb: Pullback, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    leaf = x.clone().requires_grad_(True)
    logits = pb.rewritten(leaf)[0]
    (pullback,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), leaf)
    return logits.detach(), pullback


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_against_autograd(name: str) -> None:
    sizes = NETWORKS[name][1]
    model = network(name).double()
    pb = fxpullback.compile(model, (draw(1, *sizes),))
    x, target = draw(BATCH, *sizes, seed=1), torch.arange(BATCH) % CLASSES
    logits, pullback = pb(x, target)
    wanted, oracle = by_autograd(pb, x, target)
    assert_near(logits, model(x).detach())
    assert_near(wanted, model(x).detach())
    assert_near(pullback, oracle)


@pytest.mark.parametrize("name", NETWORKS)
def test_file_in_onnx_runtime(name: str, tmp_path: Path) -> None:
    sizes = NETWORKS[name][1]
    pb = fxpullback.compile(network(name), (draw(1, *sizes).float(),))
    session = Session(to_onnx(pb, tmp_path / "model.onnx"), providers=["cpu"])  # with its certificate
    assert session.input_shape == ("batch", *sizes)
    x, target = draw(BATCH, *sizes, seed=1).float(), torch.arange(BATCH) % CLASSES
    result = session(x.numpy(), target.numpy())
    wanted, oracle = by_autograd(pb, x, target)
    assert_near(torch.from_numpy(result.logits), wanted, 1e-4)
    assert_near(torch.from_numpy(result.pullback), oracle, 1e-4)
