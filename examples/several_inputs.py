"""A model of a series and a mask, as a graph and as a file. The series is explained, the mask is passed through."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fxpullback
from fxpullback.export import Session, to_onnx


class Classifier(nn.Module):
    """Attention over the steps of a series that are there."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(4, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 3))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(x)
        h = h + self.attention(h, h, h, key_padding_mask=~mask, need_weights=False)[0]
        mean = (h * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
        logits: Tensor = self.head(mean)
        return logits


torch.manual_seed(0)
model = Classifier().eval()
x, target = torch.randn(2, 10, 4), torch.tensor([2, 0])
mask = torch.arange(10) < torch.tensor([[7], [10]])  # the first series has seven steps

pb = fxpullback.compile(model, (x, mask))  # the first input is explained
logits, pullback = pb(x, target, mask=mask)
print(pb.ledger)
assert torch.allclose(logits, model(x, mask), atol=1e-5)
assert not pullback[0, 7:].any(), "steps that are not there explain nothing"

path = to_onnx(pb, "masked.onnx")
session = Session(path, providers=["cpu"])
print(*session.inputs.values(), sep="\n")
result = session(x.numpy(), target.numpy(), mask=mask.numpy())
assert abs(result.pullback - pullback.numpy()).max() < 1e-4
