"""Small networks as files, of every kind of gate that an exporter writes out."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """Convolutions, batch norms in front of a gate and behind a convolution, pooling, a layer norm and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1, bias=False)
        self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.norm, self.wide, self.head = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 5)
        for norm in (self.one, self.two):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.relu(self.one(self.first(x))), 2)
        y = self.two(self.second(x))
        y = self.norm((F.silu(y) + y).mean((2, 3)))
        return self.head(F.gelu(self.wide(y)))  # type: ignore[no-any-return]


class Words(nn.Module):
    """A transformer of ids and a mask, whose logits stand at the first token or at every one."""

    def __init__(self, everywhere: bool) -> None:
        super().__init__()
        self.table, self.head, self.everywhere = nn.Embedding(50, 16), nn.Linear(16, 4), everywhere
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        x = self.layer(self.table(ids), src_key_padding_mask=mask == 0)
        return self.head(x if self.everywhere else x[:, 0])  # type: ignore[no-any-return]


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(5, 8), nn.Linear(3, 8), nn.Linear(8, 4)

    def forward(self, u: Tensor, v: Tensor) -> Tensor:
        return self.c(torch.relu(self.a(u) + self.b(v)))  # type: ignore[no-any-return]


def written(
    model: nn.Module,
    given: tuple[Tensor, ...],
    path: Path,
    *,
    opset: int = 17,
    fixed: bool = False,
    norms: bool = False,
    names: tuple[str, ...] = ("image",),
    returned: str = "scores",
) -> Path:
    """A network with random weights as a file.

    Args:
        model: the network; its weights are drawn.
        given: an example of each input.
        path: the file.
        opset: of the file.
        fixed: whether its batch is that of one sample.
        norms: whether batch norms stay nodes of their own.
        names: of its inputs.
        returned: name of its output.
    """
    more: dict[str, Any] = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if norms else {}
    free = None if fixed else {name: {0: "n"} for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            tuple(t[:1] for t in given) if fixed else given,
            str(path),
            dynamo=False,
            input_names=list(names),
            output_names=[returned],
            dynamic_axes=free,
            opset_version=opset,
            **more,
        )
    return path


def net(path: Path, **how: Any) -> Path:
    """`Net` as a file."""
    torch.manual_seed(0)
    return written(Net(), (torch.randn(2, 3, 16, 16),), path, **how)


def words(path: Path, everywhere: bool) -> tuple[Path, tuple[Tensor, Tensor]]:
    """`Words` as a file, and examples."""
    torch.manual_seed(0)
    ids, mask = torch.randint(0, 50, (2, 7)), torch.ones(2, 7, dtype=torch.int64)
    mask[1, 5:] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        n = torch.export.Dim("n")
        torch.onnx.export(
            Words(everywhere).eval(),
            (ids, mask),
            str(path),
            dynamo=True,
            dynamic_shapes=({0: n}, {0: n}),
            verbose=False,
            external_data=False,
        )
    return path, (ids, mask)
