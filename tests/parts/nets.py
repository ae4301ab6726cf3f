"""Small networks whose parts can be worked out by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Numbers(nn.Module):
    """y = w2 relu(w1 x + b1) + b2, of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
        self.first.weight.data = torch.tensor([[1.0, 2.0], [-1.0, 1.0], [3.0, 0.5]])
        self.first.bias.data = torch.tensor([0.5, -10.0, 1.0])
        self.second.weight.data = torch.tensor([[2.0, 1.0, -1.0], [0.0, 1.0, 1.0]])
        self.second.bias.data = torch.tensor([0.25, -0.5])

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(F.relu(self.first(x)))
        return result


class Normed(nn.Module):
    """A linear map of a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 4)
        self.norm.weight.data.normal_()
        self.norm.bias.data.normal_()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.norm(x))
        return result


class Token(nn.Module):
    """A class token in front of what is given, a position embedding on all of it, and a sum over places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.token, self.place = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(1, 4, 4))
        self.mix, self.head = nn.Parameter(torch.randn(4)), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.place
        result: Tensor = self.head((tokens * self.mix[:, None]).sum(1))
        return result


class Attending(nn.Module):
    """Attention over tokens, one head, written out by fused attention, and a linear map of the first token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.q, self.k, self.v, self.head = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(F.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))[:, 0])
        return result


def plain() -> nn.Module:
    """Convolutions with biases, ReLU, a max-pool: linear in pieces, and no norm."""
    torch.manual_seed(4)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, 2),
        nn.LeakyReLU(0.1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()


def normed() -> nn.Module:
    """The same with a batch norm that is folded and one that is not."""
    torch.manual_seed(5)
    norms = [nn.BatchNorm2d(6), nn.BatchNorm2d(6)]
    for norm in norms:
        assert norm.running_mean is not None
        norm.running_mean.normal_()
        norm.bias.data.normal_()
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 1, 1, bias=False),
        norms[0],
        nn.ReLU(),
        norms[1],
        nn.Conv2d(6, 6, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).eval()
